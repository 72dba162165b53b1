/** A device in a worker, for tests. */
import { HOLD, QueueDevice } from "@virtio/device";
import type { Chain } from "@virtio/vring";
import { EchoDevice } from "../front_testing.ts";
import { serveVhostUser } from "../../worker.ts";

/** Takes a chain of its only queue every few milliseconds, whatever the driver kicks. */
class LazyDevice extends QueueDevice {
  constructor() {
    super({ type: 42, queueSizes: [64], lazyQueues: [0] });
    setInterval(() => {
      const chain = this.take(0);
      if (chain === null) return;
      const bytes = new Uint8Array(chain.readable);
      chain.reader.read(bytes);
      chain.writer.write(bytes.map((byte) => byte + 1));
      this.complete(0, chain);
    }, 3);
  }

  protected override handle(_chain: Chain): void {
    throw new Error("It takes what it wants");
  }
}

/** Throws where nobody catches it, at the first chain. */
class DyingDevice extends QueueDevice {
  constructor() {
    super({ type: 42, queueSizes: [64] });
  }

  protected override handle(_chain: Chain): false {
    setTimeout(() => {
      throw new Error("It broke");
    }, 0);
    return HOLD;
  }
}

/** What the worker is to be. */
export interface EchoWorkerData {
  /** Which device. */
  readonly device: "echo" | "lazy" | "dying" | "none";
  /** Whether its event loop turns. */
  readonly events: boolean;
}

const events = !self.name.includes("blocking");
serveVhostUser(({ device }: EchoWorkerData) => {
  if (device === "none") throw new Error("There is no such disk");
  if (device === "dying") return new DyingDevice();
  return device === "lazy" ? new LazyDevice() : new EchoDevice(4);
}, { events });
