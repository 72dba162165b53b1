/** In which order a driver's buffers become visible: by atomic stores, before each of which all that it tells of is written. */
import { assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { VIRTIO_F_RING_PACKED, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_NEXT } from "../mod.ts";
import { BufferList, openDriverQueue } from "../driver.ts";
import { placeQueue } from "../testing/raw_driver.ts";

/** The bytes where something was stored atomically meanwhile, and what `look` saw right before. */
function atomicStores<T>(run: () => void, look: () => T): { byte: number; seen: T }[] {
  const stores: { byte: number; seen: T }[] = [];
  const atomics = Atomics as { store: unknown };
  const { store } = Atomics;
  atomics.store = (array: Uint16Array, index: number, value: number): number => {
    stores.push({ byte: index * array.BYTES_PER_ELEMENT, seen: look() });
    return store(array, index, value);
  };
  try {
    run();
  } finally {
    atomics.store = store;
  }
  return stores;
}

Deno.test("packed: the last descriptor of a batch is stored atomically, then the first, when all else is written", () => {
  const memory = GuestMemory.allocate(0x8000);
  const queue = openDriverQueue(memory, placeQueue(8, 0, "packed"), VIRTIO_F_RING_PACKED);
  const list = new BufferList().readable(0x4000, 1).readable(0x4001, 2);
  const lengths = () => [0, 1, 2, 3].map((slot) => memory.readU32(16 * slot + 8));
  const stores = atomicStores(() => {
    queue.add(list, 70);
    queue.add(list, 71);
    queue.publish();
  }, () => ({ lengths: lengths(), head: memory.readU16(14) }));
  const seen = { lengths: [1, 2, 1, 2], head: 0 };
  // A device that scans ahead looks at the last one, one that does not, at the first.
  assertEquals(stores, [{ byte: 3 * 16 + 14, seen }, { byte: 14, seen }]);
  assertEquals(memory.readU16(14), VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_NEXT);
});

Deno.test("packed: a batch of one descriptor is stored atomically once", () => {
  const memory = GuestMemory.allocate(0x8000);
  const queue = openDriverQueue(memory, placeQueue(8, 0, "packed"), VIRTIO_F_RING_PACKED);
  const stores = atomicStores(() => {
    queue.add(new BufferList().readable(0x4000, 7), 70);
    queue.publish();
  }, () => memory.readU32(8));
  assertEquals(stores, [{ byte: 14, seen: 7 }]);
});
