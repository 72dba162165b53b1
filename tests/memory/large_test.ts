/** Rings, buffers and indirect tables anywhere in one region of 5 GiB, across the multiples of 2 and 4 GiB too. */
import { assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";

const GIB = 2 ** 30;
const INDIRECT_DESC = 1n << 28n;
const RING_PACKED = 1n << 34n;
// Reserved, but never touched beyond a few pages.
const buffer = new SharedArrayBuffer(5 * GIB);

for (const [format, features] of [["split", 0n], ["packed", RING_PACKED]] as const) {
  Deno.test(`${format} queues work anywhere in a region of 5 GiB`, () => {
    const memory = new GuestMemory([{ base: 0, buffer }]);
    for (const ring of [0x1000, 3 * GIB, 4.5 * GIB]) {
      const config = {
        size: 8,
        descriptorArea: ring,
        driverArea: ring + 0x1000,
        deviceArea: ring + 0x2000,
      };
      for (const data of [0x10000, 2 * GIB - 2, 2.5 * GIB, 4 * GIB - 2, 4.25 * GIB]) {
        for (const table of [undefined, 0x20000, 3.5 * GIB, 4.75 * GIB]) {
          const driver = openDriverQueue(memory, config, features | INDIRECT_DESC);
          const device = openQueue(memory, config, features | INDIRECT_DESC);
          for (let round = 0; round < 20; round++) {
            memory.writeU32(data, round);
            const list = new BufferList().readable(data, 4).writable(data + 0x100, 4);
            assertEquals(driver.add(list, round, table), true);
            driver.publish();
            const chain = device.pop()!;
            chain.writer.u32(chain.reader.u32() * 3);
            device.push(chain);
            device.flush();
            assertEquals(driver.take(), round);
            assertEquals(memory.readU32(data + 0x100), round * 3);
          }
        }
      }
    }
  });
}
