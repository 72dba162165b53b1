/**
 * A device in a worker that counts chains in its configuration, before it uses them. Bytes from 12 on may be written at any
 * time; each write of them is counted at 4. After a chain of 8 bytes it asks for a reset, a turn later. It shows a piece of
 * memory, which is shared if the test says so.
 */
import { ConfigSpace, type Handled, QueueDevice } from "@virtio/device";
import type { Chain } from "@virtio/vring";
import { serveDevice } from "@virtio/worker/serve";

const bytes = new Uint8Array(new SharedArrayBuffer(64));
const writes: [number, number[]][] = [];

class CountingDevice extends QueueDevice {
  constructor(shared: boolean) {
    const config: ConfigSpace = new ConfigSpace(16, (offset, written) => {
      writes.push([offset, [...written]]);
      if (offset >= 12) config.update((view) => view.setUint8(4, view.getUint8(4) + 1));
      return true;
    }, { offset: 12, length: 4 });
    super({
      type: 4,
      queueSizes: [8],
      config,
      sharedMemory: [
        { id: 3, bytes: shared ? bytes : bytes.slice(), address: 0x10_0000_0000 },
      ],
    });
  }

  protected override handle(chain: Chain): Handled {
    if (chain.writable === 8) setTimeout(() => this.activation?.fail(new Error("planned")), 0);
    this.config.update((view) => view.setUint32(0, view.getUint32(0, true) + 1, true));
  }
}

serveDevice((shared: boolean) => new CountingDevice(shared), {
  report: () => ({ writes, first: bytes[0] }),
});
