/** Virtio 1.4, 2.10: shared memory regions. */
import { assert, assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { PciTransport } from "@virtio/transport/pci";
import { LIVE } from "../../packages/device/testing.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";

for (const [name, format] of FORMATS) {
  everywhere(
    `2.10.2-D1 what is written into a shared memory region controls nothing and reaches no queue (${name})`,
    async (place) => {
      const bytes = new Uint8Array(new SharedArrayBuffer(0x1000));
      const sharedMemory = [{ id: 1, bytes, address: 0x1000_0000 }];
      const rig = await PlacedRig.open(place, { sharedMemory });
      const queue = rig.start(format);
      const config = (): number[] => [0, 4, 8, 12].map((at) => rig.state.readConfig(at, 4));
      const before = config();
      for (const value of [0, 0xff, 0x55]) {
        bytes.fill(value);
        assertEquals([rig.status, config(), rig.interrupts], [LIVE, before, []]);
        rig.send(queue, value & 7);
        assertEquals(rig.handled.length, rig.take(queue).length);
        rig.state.notify(0);
        assertEquals(rig.take(queue), [value & 7]);
        rig.interrupts.length = 0;
        rig.run(({ device }) => void (device.handled.length = 0));
      }
      // Nor does the device bring queues or configuration in there.
      assert(bytes.every((byte) => byte === 0x55));
    },
  );
}

everywhere(
  "2.10.2-D1 a transport shows the regions of its device and no others; block devices have none",
  async (place) => {
    const memory = GuestMemory.allocate(0x1000);
    const host = { setInterruptLine: () => {} };
    const disk = { bytes: new SharedArrayBuffer(0x1000), later: false, options: {} };
    const { device: blk } = await place.open("blk", disk);
    const none = connectMmio(() => new MmioTransport(blk, { memory, host }));
    const bytes = new Uint8Array(new SharedArrayBuffer(0x1000));
    const sharedMemory = [{ id: 3, bytes, address: 0x1000_0000 }];
    const { device } = await place.open("test", { sharedMemory });
    const some = connectMmio(() => new MmioTransport(device, { memory, host }));
    for (let id = 0; id < 256; id++) {
      assertEquals(none.driver.sharedMemory(id), null);
      assertEquals(
        some.driver.sharedMemory(id),
        id === 3 ? { address: 0x1000_0000, length: 0x1000 } : null,
      );
    }
    const pci = new PciTransport(blk, {
      memory,
      host: { ...host, sendMessage: () => {} },
    });
    // VIRTIO_PCI_CAP_SHARED_MEMORY_CFG is 8.
    for (let at = pci.configRead(0x34, 1); at !== 0; at = pci.configRead(at + 1, 1)) {
      if (pci.configRead(at, 1) === 9) assert(pci.configRead(at + 3, 1) !== 8);
    }
  },
);
