/** A device in a worker, for tests. */
import { ConfigSpace, HOLD, QueueDevice } from "@virtio/device";
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

/** Throws where nobody catches it, with a chain in its hands: at every so many, or at one that no worker survives. */
class DyingDevice extends QueueDevice {
  readonly #diesAt: number;
  readonly #poison: number;
  #handled = 0;

  constructor(diesAt: number, poison: number) {
    super({ type: 42, queueSizes: [64, 64, 64, 64], config: new ConfigSpace(4, () => true) });
    this.#diesAt = diesAt;
    this.#poison = poison;
  }

  protected override handle(chain: Chain): void | false {
    const bytes = new Uint8Array(chain.readable);
    chain.reader.read(bytes);
    if (++this.#handled === this.#diesAt || bytes[0] === this.#poison) {
      queueMicrotask(() => {
        throw new Error("It broke");
      });
      return HOLD;
    }
    chain.writer.write(bytes.map((byte) => byte + 1));
  }
}

/** What the worker is to be. */
export interface EchoWorkerData {
  /** Which device. */
  readonly device: "echo" | "lazy" | "dying" | "none";
  /** Whether its event loop turns. */
  readonly events: boolean;
  /** One that dies: with which chain of its life; none unless given. */
  readonly diesAt?: number;
  /** One that dies: with which first byte of a chain, whatever its life. */
  readonly poison?: number;
}

const events = !self.name.includes("blocking");
serveVhostUser(({ device, diesAt, poison }: EchoWorkerData) => {
  if (device === "none") throw new Error("There is no such disk");
  if (device === "dying") return new DyingDevice(diesAt ?? 0, poison ?? -1);
  return device === "lazy" ? new LazyDevice() : new EchoDevice(4);
}, { events });
