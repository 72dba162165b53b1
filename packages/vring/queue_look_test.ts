/** Looking at a queue changes nothing, and shows what the device has. */
import { assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { openQueue, VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER } from "./mod.ts";
import { FORMATS, placeQueue, rawDriver } from "./testing/raw_driver.ts";

for (const [format, ring] of FORMATS) {
  Deno.test(`${format}: chains in flight are shown oldest first, with their sizes, until they are used`, () => {
    for (const features of [ring, ring | VIRTIO_F_IN_ORDER]) {
      const memory = GuestMemory.allocate(0x10000);
      const config = placeQueue(8, 0, format);
      const driver = rawDriver(memory, config, features);
      const queue = openQueue(memory, config, features | VIRTIO_F_EVENT_IDX);
      const ids = [1, 2, 3].map((length) =>
        driver.send([{ address: 0x8000, length }, { address: 0x9000, length: 10, write: true }])
      );
      const chains = ids.map(() => queue.pop()!);
      const bytes = memory.regions[0]!.bytes.slice();
      const look = queue.look();
      assertEquals(memory.regions[0]!.bytes, bytes);
      assertEquals(structuredClone(look), look);
      assertEquals([look.format, look.config, look.eventIdx], [format, config, true]);
      assertEquals(
        look.chains,
        ids.map((id, i) => ({
          id,
          sequence: i,
          descriptors: 2,
          readable: i + 1,
          writable: 10,
          waits: false,
        })),
      );
      queue.push(chains[1]!, 0);
      queue.flush();
      // In order: the second waits for the first.
      const waits = queue.look().chains.map(({ id, waits }) => [id, waits]);
      const ordered = features !== ring;
      assertEquals(
        waits,
        ordered
          ? [[ids[0], false], [ids[1], true], [ids[2], false]]
          : [[ids[0], false], [ids[2], false]],
      );
      queue.push(chains[0]!, 0);
      queue.push(chains[2]!, 0);
      queue.flush();
      assertEquals(queue.look().chains, []);
      assertEquals(queue.look().position, queue.snapshot().position);
    }
  });
}
