/**
 * Devices of one's own: a class with one method, served to virtual machines of other programs. README walks through it.
 *
 *     deno run -A examples/my_device.ts entropy|upper /tmp/device.sock
 */
import { ConfigSpace, DeviceId, QueueDevice } from "@virtio/device";
import { VhostUserServer } from "@virtio/vhost-user";
import type { Chain } from "@virtio/vring";

/** An entropy device (virtio 1.4, 5.4): every buffer is filled with random bytes. */
export class EntropyDevice extends QueueDevice {
  /** Bytes that it gave. */
  bytes = 0;

  constructor() {
    super({ type: DeviceId.entropy, queueSizes: [64] });
  }

  protected override handle(chain: Chain): void {
    const bytes = crypto.getRandomValues(new Uint8Array(Math.min(chain.writable, 4096)));
    chain.writer.write(bytes);
    this.bytes += bytes.length;
  }
}

/** An ID that the standard gives to nobody: a driver for it is yours to write too. */
export const UPPER_ID = 1000;

/** A device that no standard knows: it answers text in capital letters. Its configuration space counts how often. */
export class UpperDevice extends QueueDevice {
  constructor() {
    super({ type: UPPER_ID, queueSizes: [64], config: new ConfigSpace(4) });
  }

  protected override handle(chain: Chain): void {
    const bytes = new Uint8Array(Math.min(chain.readable, chain.writable, 4096));
    chain.reader.read(bytes);
    chain.writer.write(bytes.map((byte) => byte >= 97 && byte <= 122 ? byte - 32 : byte));
    this.config.update((view) => view.setUint32(0, view.getUint32(0, true) + 1, true));
  }
}

if (import.meta.main) {
  const [name = "entropy", socket = `/tmp/${name}.sock`] = Deno.args;
  if (name !== "entropy" && name !== "upper") {
    console.log("my_device.ts entropy|upper [socket]: serves one of the two by vhost-user");
    Deno.exit(name === "--help" ? 0 : 2);
  }
  const device = name === "entropy" ? new EntropyDevice() : new UpperDevice();
  const server = new VhostUserServer({ socket, device });
  console.log(`serving a device with ID ${device.type} at ${socket}`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => server.close().then(() => Deno.exit(0)));
  }
}
