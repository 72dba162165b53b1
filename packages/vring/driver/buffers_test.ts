/** What a driver brings along: lists of elements, and the memory that they lie in. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { GuestMemory } from "@virtio/memory";
import { BufferList, DmaPool } from "../driver.ts";

Deno.test("a buffer list counts elements and bytes, and is used again after clear", () => {
  const list = new BufferList().readable(0x1000, 16).readable(0x2000, 4).writable(0x3000, 512)
    .writable(0x4000, 1);
  assertEquals([list.count, list.readableCount, list.writableBytes], [4, 2, 513]);
  const elements = [0, 1, 2, 3].map((i) => [list.address(i), list.length(i)]);
  assertEquals(elements, [[0x1000, 16], [0x2000, 4], [0x3000, 512], [0x4000, 1]]);
  assertEquals(list.bytes, 533);
  assertEquals(list.clear(), list);
  assertEquals([list.count, list.readableCount, list.writableBytes], [0, 0, 0]);
  list.writable(0x5000, 7);
  assertEquals([list.address(0), list.length(0), list.readableCount, list.bytes], [
    0x5000,
    7,
    0,
    7,
  ]);
});

Deno.test("a buffer list of any length keeps its elements, wherever they are", () => {
  const list = new BufferList();
  const address = (i: number) => 0xffff_fff0 * i + 2 ** 50 * (i & 3);
  for (let i = 0; i < 100; i++) {
    if (i < 30) list.readable(address(i), 2 ** 32 - 1 - i);
    else list.writable(address(i), i);
  }
  assertEquals([list.count, list.readableCount, list.writableBytes], [100, 30, 70 * 64.5]);
  for (let i = 0; i < 100; i++) {
    assertEquals([list.address(i), list.length(i)], [address(i), i < 30 ? 2 ** 32 - 1 - i : i]);
  }
});

Deno.test("a readable element after a writable one is refused, and leaves the list as it was", () => {
  const list = new BufferList().writable(0x1000, 1);
  assertThrows(() => list.readable(0x2000, 1), TypeError, "before");
  assertEquals(list.count, 1);
});

const BASE = 0x9010;
const END = 0xd010;

/** Whether some place between `live` ranges holds `size` bytes; ranges are multiples of 16. */
function fits(
  live: readonly { address: number; size: number }[],
  size: number,
  align: number,
): boolean {
  const round = (n: number): number => Math.max(16, Math.ceil(n / 16) * 16);
  const step = Math.max(align, 16);
  for (let at = Math.ceil(BASE / step) * step; at + round(size) <= END; at += step) {
    const free = live.every((other) =>
      at + round(size) <= other.address || other.address + round(other.size) <= at
    );
    if (free) return true;
  }
  return false;
}

Deno.test("a pool gives ranges that are aligned, inside, and never two at a time, and all comes back", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          size: fc.integer({ min: 0, max: 700 }),
          align: fc.constantFrom(1, 16, 64, 256, 4096),
          free: fc.nat(20),
        }),
        { maxLength: 60, size: "max" },
      ),
      (steps) => {
        const memory = GuestMemory.allocate(0x10000, 0x8000);
        const pool = new DmaPool(memory, BASE, END - BASE);
        const live: { address: number; size: number }[] = [];
        for (const { size, align, free } of steps) {
          let address = -1;
          try {
            address = pool.allocate(size, align);
          } catch (error) {
            assert(error instanceof RangeError);
            assertEquals(fits(live, size, align), false, "refused only when nothing fits");
          }
          if (address >= 0) {
            assertEquals(address % align, 0);
            assert(address >= BASE && address + size <= END);
            for (const other of live) {
              assert(
                address + size <= other.address || other.address + other.size <= address,
                "ranges do not overlap",
              );
            }
            live.push({ address, size });
          }
          if (free < 10 && live.length > 0) {
            pool.free(live.splice(free % live.length, 1)[0]!.address);
          }
        }
        for (const { address } of live) pool.free(address);
        assertEquals(pool.available, 0x4000);
        pool.free(pool.allocate(0x4000));
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("a pool refuses to free what it did not give, or twice", () => {
  const pool = new DmaPool(GuestMemory.allocate(0x1000), 0, 0x1000);
  const address = pool.allocate(32);
  assertThrows(() => pool.free(address + 16), TypeError, "not allocated");
  pool.free(address);
  assertThrows(() => pool.free(address), TypeError);
});

Deno.test("a pool that is not guest memory, or in two regions, is refused", () => {
  const memory = new GuestMemory([
    { base: 0, buffer: new ArrayBuffer(0x1000) },
    { base: 0x1000, buffer: new ArrayBuffer(0x1000) },
  ]);
  assertThrows(() => new DmaPool(memory, 0x800, 0x1000), RangeError);
  assertThrows(() => new DmaPool(memory, 0x2000, 0x10), RangeError);
  new DmaPool(memory, 0x1000, 0x1000);
});
