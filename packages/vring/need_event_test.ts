/** The one notification decision against plain definitions, by brute force, for both formats. */
import { assertEquals } from "@std/assert";
import { needEvent } from "./need_event.ts";

// Every way of writing the two rules below out is a loop over the entries that were added: no arithmetic to get wrong.

/** Split (2.7.7, 2.7.10): some entry that was added has the index that the other side asked for. */
function splitWants(event: number, old: number, added: number): boolean {
  for (let i = 0; i < added; i++) if (((old + i) & 0xffff) === event) return true;
  return false;
}

/** Packed (2.8.10): some slot that was added has the offset and the wrap counter that the other side asked for. */
function packedWants(
  event: number,
  eventWrap: number,
  old: number,
  oldWrap: number,
  added: number,
  size: number,
): boolean {
  let slot = old;
  let wrap = oldWrap;
  for (let i = 0; i < added; i++) {
    if (slot === event && wrap === eventWrap) return true;
    if (++slot === size) {
      slot = 0;
      wrap ^= 1;
    }
  }
  return false;
}

Deno.test("split: needEvent is true exactly when the index that was asked for was passed, around every wrap", () => {
  let cases = 0;
  for (const old of [0, 1, 100, 0x7fff, 0x8000, 0xfff0, 0xfffe, 0xffff]) {
    for (let added = 1; added <= 40; added++) {
      for (let delta = -50; delta <= 90; delta++) {
        const event = (old + delta) & 0xffff;
        const now = (old + added) & 0xffff;
        assertEquals(needEvent(event, now, added), splitWants(event, old, added));
        cases++;
      }
    }
  }
  for (const added of [256, 32767, 32768]) {
    for (let event = 0; event < 0x10000; event += 7) {
      const old = 0xf123;
      assertEquals(
        needEvent(event, (old + added) & 0xffff, added),
        ((event - old) & 0xffff) < added,
      );
      cases++;
    }
  }
  assertEquals(cases > 60_000, true);
});

Deno.test("packed: needEvent is true exactly when the slot that was asked for was passed, for every event a driver may write", () => {
  let cases = 0;
  for (const size of [1, 2, 3, 4, 5, 7, 8, 13, 16]) {
    for (let old = 0; old < size; old++) {
      for (const oldWrap of [0, 1]) {
        // A batch may fill the ring, and then `now` is where `old` was.
        for (let added = 1; added <= size; added++) {
          const end = old + added;
          const now = end >= size ? end - size : end;
          const wrap = end >= size ? oldWrap ^ 1 : oldWrap;
          for (let event = 0; event < size; event++) {
            for (const eventWrap of [0, 1]) {
              // As the queues do it.
              const corrected = eventWrap !== wrap ? event - size : event;
              const got = needEvent(corrected, now, added);
              const wants = packedWants(event, eventWrap, old, oldWrap, added, size);
              assertEquals(
                got,
                wants,
                JSON.stringify({ size, old, oldWrap, added, event, eventWrap }),
              );
              cases++;
            }
          }
        }
      }
    }
  }
  assertEquals(cases > 25_000, true);
});
