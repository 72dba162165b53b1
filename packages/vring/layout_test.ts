/** Sizes and places of the three areas, and what `openQueue` refuses. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import {
  isQueueSize,
  MAX_QUEUE_SIZE,
  openQueue,
  type QueueConfig,
  type QueuePosition,
  ringLayout,
  VirtqueueError,
} from "./mod.ts";
import { openDriverQueue } from "./driver.ts";
import { FORMATS, placeQueue } from "./testing/raw_driver.ts";

Deno.test("split sizes are the powers of two from 1 to 32768, and no others", () => {
  const allowed = [];
  for (let size = -2; size <= 0x10001; size++) if (isQueueSize("split", size)) allowed.push(size);
  assertEquals(allowed, Array.from({ length: 16 }, (_, i) => 2 ** i));
  for (const size of [NaN, Infinity, 1.5, 2 ** 32, -(2 ** 31)]) {
    assertEquals(isQueueSize("split", size), false);
    assertEquals(isQueueSize("packed", size), false);
  }
});

Deno.test("packed sizes are 1 to 32768, every one", () => {
  for (let size = -2; size <= 0x10001; size++) {
    assertEquals(isQueueSize("packed", size), size >= 1 && size <= MAX_QUEUE_SIZE);
  }
});

Deno.test("the areas have the sizes of 2.7 and 2.8.11, event words included", () => {
  for (const size of [1, 2, 256, 32768]) {
    assertEquals(ringLayout("split", size), {
      descriptorArea: { size: 16 * size, align: 16 },
      driverArea: { size: 6 + 2 * size, align: 2 },
      deviceArea: { size: 6 + 8 * size, align: 4 },
    });
  }
  for (const size of [1, 3, 1000, 32768]) {
    assertEquals(ringLayout("packed", size), {
      descriptorArea: { size: 16 * size, align: 16 },
      driverArea: { size: 4, align: 4 },
      deviceArea: { size: 4, align: 4 },
    });
  }
  assertThrows(() => ringLayout("split", 3), RangeError, "power of two");
  assertThrows(() => ringLayout("packed", 0), RangeError);
  assertThrows(() => ringLayout("packed", 32769), RangeError);
});

for (const [format, features] of FORMATS) {
  const size = 8;
  const memory = GuestMemory.allocate(0x1000, 0x10000);
  const good = placeQueue(size, 0x10000, format);

  Deno.test(`${format}: a queue that touches the ends of memory opens`, () => {
    const layout = ringLayout(format, size);
    for (
      const [area, length, align] of [
        ["descriptorArea", layout.descriptorArea.size, 16],
        ["driverArea", layout.driverArea.size, layout.driverArea.align],
        ["deviceArea", layout.deviceArea.size, layout.deviceArea.align],
      ] as const
    ) {
      const last = 0x11000 - Math.ceil(length / align) * align;
      openQueue(memory, { ...good, [area]: 0x10000 }, features);
      openQueue(memory, { ...good, [area]: last }, features);
      assertThrows(
        () => openQueue(memory, { ...good, [area]: last + align }, features),
        VirtqueueError,
      );
      assertThrows(
        () => openQueue(memory, { ...good, [area]: 0x10000 - align }, features),
        VirtqueueError,
      );
    }
  });

  Deno.test(`${format}: misaligned, absent and absurd areas are refused with the clause, on both sides`, () => {
    const layout = ringLayout(format, size);
    const areas = [
      ["descriptorArea", layout.descriptorArea.align],
      ["driverArea", layout.driverArea.align],
      ["deviceArea", layout.deviceArea.align],
    ] as const;
    for (const [area, align] of areas) {
      for (let off = 1; off < align; off++) {
        const config = { ...good, [area]: good[area] + off };
        const error = assertThrows(() => openQueue(memory, config, features), VirtqueueError);
        assertEquals(error.clause, format === "split" ? "2.7.1" : "2.8.11");
        assertThrows(() => openDriverQueue(memory, config, features), VirtqueueError);
      }
      for (
        const address of [
          0,
          0x20000,
          2 ** 32 + 0x10000,
          2 ** 53,
          2 ** 64 - 16,
          2 ** 64,
          -16,
          NaN,
          Infinity,
        ]
      ) {
        assertThrows(
          () => openQueue(memory, { ...good, [area]: address }, features),
          VirtqueueError,
        );
      }
    }
  });

  Deno.test(`${format}: sizes that the format does not allow are refused, on both sides`, () => {
    const bad = format === "split"
      ? [0, -1, 3, 5, 6, 7, 12, 32767, 32769, 65536, 2.5, NaN]
      : [0, -1, 32769, 65536, 2.5, NaN];
    for (const size of bad) {
      assertThrows(() => openQueue(memory, { ...good, size }, features), VirtqueueError);
      assertThrows(() => openDriverQueue(memory, { ...good, size }, features), VirtqueueError);
    }
  });

  Deno.test(`${format}: a position that no queue can have is refused, one field at a time`, () => {
    const position: QueuePosition = { nextAvail: 0, nextUsed: 0, availWrap: 0, usedWrap: 0 };
    const limit = format === "split" ? 0x10000 : size;
    const wraps = format === "split" ? 1 : 2;
    const open = (change: Partial<QueuePosition>) =>
      openQueue(memory, { ...good, position: { ...position, ...change } } as QueueConfig, features);
    for (
      const [name, end] of [
        ["nextAvail", limit],
        ["nextUsed", limit],
        ["availWrap", wraps],
        ["usedWrap", wraps],
      ] as const
    ) {
      open({ [name]: 0 });
      open({ [name]: end - 1 });
      for (const value of [end, -1, 0.5, NaN, Infinity, 2 ** 32, "1", null, undefined, {}, [0]]) {
        assertThrows(() => open({ [name]: value as number }), VirtqueueError);
      }
    }
  });

  Deno.test(`${format}: a ring that crosses from one region into an adjacent one is refused`, () => {
    const parts = new GuestMemory([
      { base: 0x10000, buffer: new ArrayBuffer(0x1000) },
      { base: 0x11000, buffer: new ArrayBuffer(0x1000) },
    ]);
    const config = { ...good, descriptorArea: 0x11000 - 16 };
    const error = assertThrows(() => openQueue(parts, config, features), VirtqueueError);
    assert(error.message.includes("one region"));
    openQueue(parts, { ...good, descriptorArea: 0x11000 }, features);
  });
}
