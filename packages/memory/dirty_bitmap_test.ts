/** Dirty pages: every page that was written is given once, and no other. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DIRTY_PAGE_SIZE, DirtyBitmap } from "./mod.ts";

const PAGES = 200;
const SIZE = PAGES * DIRTY_PAGE_SIZE;

Deno.test("dirty bitmap: what was marked comes out as runs, once", () => {
  const range = fc.tuple(fc.nat(SIZE + 5000), fc.nat(5 * DIRTY_PAGE_SIZE));
  fc.assert(fc.property(fc.array(range), (ranges) => {
    const marked = new DirtyBitmap(SIZE);
    const expected = new Set<number>();
    for (const [address, length] of ranges) {
      marked.mark(address, length);
      for (let at = 0; at < length; at++) {
        const page = Math.floor((address + at) / DIRTY_PAGE_SIZE);
        if (page < 224) expected.add(page);
        at += Math.min(DIRTY_PAGE_SIZE - 1 - (address + at) % DIRTY_PAGE_SIZE, length - at - 1);
      }
    }
    // The other thread's view of the same bits.
    const seen = new DirtyBitmap(marked.buffer);
    const pages: number[] = [];
    let before = -1;
    const any = seen.drain((address, length) => {
      assertEquals([address % DIRTY_PAGE_SIZE, length % DIRTY_PAGE_SIZE], [0, 0]);
      // Runs that touch would be one.
      assertEquals(address > before, true);
      before = address + length;
      for (let at = 0; at < length; at += DIRTY_PAGE_SIZE) {
        pages.push((address + at) / DIRTY_PAGE_SIZE);
      }
    });
    assertEquals(pages, [...expected].sort((a, b) => a - b));
    assertEquals(any, pages.length > 0);
    assertEquals(seen.drain(() => {}), false);
  }));
});

Deno.test("dirty bitmap: sizes that make no sense are refused", () => {
  for (const size of [0, -1, 1.5, NaN, 2 ** 43 + 1]) {
    assertThrows(() => new DirtyBitmap(size), RangeError, "dirty bitmap");
  }
});
