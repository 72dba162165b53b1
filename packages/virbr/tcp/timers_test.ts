import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { Timer, Timers } from "./timers.ts";
import { TestTiming } from "./timing_testing.ts";

Deno.test("timers go off in the order of their times, each once, however they are set and moved", () => {
  const step = fc.record({ which: fc.nat(9), at: fc.option(fc.nat(100)) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const timing = new TestTiming();
      const timers = new Timers(timing);
      const gone: number[] = [];
      const all = Array.from({ length: 10 }, (_, i) => new Timer(() => gone.push(i)));
      const model = new Map<number, number>();
      for (const { which, at } of steps) {
        if (at === null) {
          timers.clear(all[which]!);
          model.delete(which);
        } else {
          timers.set(all[which]!, at);
          model.set(which, at);
        }
      }
      assertEquals(timers.size, model.size);
      const times: number[] = [];
      while (timers.size > 0) {
        const before = gone.length;
        timing.pass(1);
        for (const which of gone.slice(before)) times.push(model.get(which)!);
      }
      assertEquals(times, [...times].sort((a, b) => a - b));
      assertEquals([...gone].sort(), [...model.keys()].sort());
      // The host's timer for what was cleared goes off in vain.
      timing.pass(101);
      assertEquals(timing.pending, 0);
    }),
  );
});

Deno.test("a clock that jumps back stops no timer, and one that jumps ahead runs each once", () => {
  const timing = new TestTiming();
  const timers = new Timers(timing);
  const gone: number[] = [];
  const timer = new Timer((now) => {
    gone.push(now);
    timers.set(timer, now + 10);
  });
  timers.set(timer, 10);
  timing.pass(10);
  timing.jump(-1_000_000);
  // What passed before the jump was seen does not count.
  timing.pass(20);
  assertEquals(gone.length, 2);
  timing.jump(1_000_000);
  timing.pass(10);
  assertEquals(gone.length, 3);
  timers.close();
  assertEquals(timing.pending, 0);
});
