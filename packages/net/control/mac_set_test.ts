/** A bounded set of MAC addresses, against a set of strings. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { MacSet } from "./mac_set.ts";

Deno.test("addresses that begin or end alike are different ones", () => {
  for (const capacity of [1, 3, 64, 256]) {
    const ends = new MacSet(capacity);
    const begins = new MacSet(capacity);
    for (let i = 0; i < capacity; i++) {
      assertEquals(ends.add(0x200 + i, 5), true);
      assertEquals(begins.add(0x200, 5 + i), true);
    }
    assertEquals([ends.size, begins.size], [capacity, capacity]);
    for (let i = 0; i < 2 * capacity; i++) {
      assertEquals(ends.has(0x200 + i, 5), i < capacity);
      assertEquals(begins.has(0x200, 5 + i), i < capacity);
    }
    assertEquals([ends.add(0x1ff, 5), begins.add(0x201, 5)], [false, false]);
  }
});

Deno.test("any addresses: what was added is there, nothing else, until it is emptied", () => {
  const address = fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 5 }));
  fc.assert(fc.property(fc.array(address, { maxLength: 40 }), (addresses) => {
    const set = new MacSet(8);
    const model = new Set<string>();
    for (const [high, low] of addresses) {
      const fits = model.has(`${high} ${low}`) || model.size < 8;
      assertEquals(set.add(high, low), fits);
      if (fits) model.add(`${high} ${low}`);
    }
    assertEquals(set.size, model.size);
    for (let high = 0; high < 4; high++) {
      for (let low = 0; low < 6; low++) {
        assertEquals(set.has(high, low), model.has(`${high} ${low}`));
      }
    }
    const entries = [...set.entries()].map(([, high, , , , low]) => `${high} ${low}`);
    assertEquals(entries.sort(), [...model].sort());
    set.clear();
    assertEquals([set.size, set.has(0, 0), [...set.entries()].length], [0, false, 0]);
  }));
});
