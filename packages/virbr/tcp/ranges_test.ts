import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Ranges } from "./ranges.ts";

Deno.test("ranges hold what a set of numbers would, wherever the numbers wrap around", () => {
  const step = fc.record({
    add: fc.boolean(),
    at: fc.nat(60),
    length: fc.integer({ min: 1, max: 12 }),
  });
  fc.assert(
    fc.property(
      fc.constantFrom(0, 1000, -20, 0x7fff_ffff - 20, -0x8000_0000),
      fc.array(step, { maxLength: 40 }),
      (base, steps) => {
        const ranges = new Ranges(6);
        let model = new Set<number>();
        for (const { add, at, length } of steps) {
          if (add) {
            const index = ranges.add((base + at) | 0, (base + at + length) | 0);
            if (index >= 0) { for (let i = at; i < at + length; i++) model.add(i); }
          } else {
            ranges.dropBefore((base + at) | 0);
            model = new Set([...model].filter((each) => each >= at));
          }
          const held: number[] = [];
          for (let i = 0; i < ranges.count; i++) {
            const from = (ranges.start(i) - base) | 0;
            const to = (ranges.end(i) - base) | 0;
            assert(from < to && (i === 0 || from > ((ranges.end(i - 1) - base) | 0)));
            for (let each = from; each < to; each++) held.push(each);
          }
          assertEquals(held, [...model].sort((a, b) => a - b));
          assertEquals(ranges.total, model.size);
        }
      },
    ),
  );
});

Deno.test("there are no more ranges than may be", () => {
  const ranges = new Ranges(2);
  assertEquals([ranges.add(0, 1), ranges.add(10, 11), ranges.add(20, 21)], [0, 1, -1]);
  assertEquals([ranges.count, ranges.total], [2, 2]);
  assertEquals(ranges.add(0, 11), 0);
  assertEquals([ranges.count, ranges.total], [1, 11]);
});
