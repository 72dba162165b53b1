/** Packed: a list whose first descriptor is available before the rest is (2.8.15, 2.8.17). */
import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import {
  openQueue,
  type Queue,
  VIRTIO_F_RING_PACKED,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_NEXT,
  VirtqueueError,
} from "./mod.ts";
import { placeQueue } from "./testing/raw_driver.ts";

interface Bench {
  memory: GuestMemory;
  queue: Queue;
  /** Writes the descriptor in a slot. */
  write(slot: number, length: number, flags: number): void;
}

function bench(): Bench {
  const memory = GuestMemory.allocate(0x8000);
  const config = placeQueue(4, 0, "packed");
  return {
    memory,
    queue: openQueue(memory, config, VIRTIO_F_RING_PACKED),
    write(slot, length, flags) {
      memory.writeU64(16 * slot, 0x4000);
      memory.writeU32(16 * slot + 8, length);
      memory.writeU32(16 * slot + 12, 9 | flags << 16);
    },
  };
}

/** Runs `pop`, and `meanwhile` before the second time that it looks how far the driver is. */
function popWhile(queue: Queue, meanwhile: () => void): ReturnType<Queue["pop"]> {
  const atomics = Atomics as { load: unknown };
  const { load } = Atomics;
  let loads = 0;
  atomics.load = (array: Int32Array, index: number): number => {
    if (++loads === 2) meanwhile();
    return load(array, index);
  };
  try {
    return queue.pop();
  } finally {
    atomics.load = load;
  }
}

// An empty buffer makes a list one for the long way.
for (const [name, first] of [["plain", 1], ["unusual", 0]] as const) {
  Deno.test(`packed: of a list, ${name}, nothing is used before all of it is available`, () => {
    const { queue, write } = bench();
    write(1, 2, 0);
    write(0, first, VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_NEXT);
    assertThrows(() => queue.pop(), VirtqueueError, "before the rest");
  });

  Deno.test(`packed: of a list, ${name}, what was read too early is read again`, () => {
    const { queue, write } = bench();
    write(1, 3, 0);
    write(0, first, VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_NEXT);
    const chain = popWhile(queue, () => write(1, 2, VIRTQ_DESC_F_AVAIL))!;
    assertEquals([chain.readable, chain.slots, chain.id, queue.pop()], [first + 2, 2, 9, null]);
  });

  Deno.test(`packed: of a list, ${name}, that is longer when it is read again, nothing is used`, () => {
    const { queue, write } = bench();
    write(1, 3, 0);
    write(0, first, VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_NEXT);
    const longer = () => write(1, 2, VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_NEXT);
    assertThrows(() => popWhile(queue, longer), VirtqueueError, "before the rest");
  });
}
