import { assertEquals } from "@std/assert";
import { CompletionHold } from "./linux_hold.ts";

/** Completes operations at a rate, and looks all the time. Returns how many were told of at a time, on average, and the latest. */
function run(depth: number, interval: number): { batch: number; latest: number } {
  const hold = new CompletionHold();
  const arrived: number[] = [];
  let batches = 0;
  let told = 0;
  let latest = 0;
  let next = interval;
  for (let now = 0.0001; told < 2000; now += 0.0005) {
    for (; next <= now && arrived.length < depth; next += interval) arrived.push(next);
    if (arrived.length === 0 || hold.holds(arrived.length, depth, now)) continue;
    for (const time of arrived) latest = Math.max(latest, now - time);
    told += arrived.length;
    batches++;
    // Whoever is told begins as many again.
    hold.took(arrived.length, depth - arrived.length, now);
    arrived.length = 0;
  }
  return { batch: told / batches, latest };
}

Deno.test("hold: fast completions of a deep queue come together, and none waits for long", () => {
  const { batch, latest } = run(128, 0.001);
  assertEquals(batch > 10, true, `${batch} at a time`);
  assertEquals(latest < 0.04, true, `${latest} ms`);
});

Deno.test("hold: slow completions, and those of a shallow queue, are told of at once", () => {
  for (const [depth, interval] of [[128, 0.02], [32, 0.02], [8, 0.001], [1, 0.001]] as const) {
    const { batch, latest } = run(depth, interval);
    assertEquals(batch < 1.1, true, `${batch} at a time, depth ${depth}`);
    assertEquals(latest < 0.002, true, `${latest} ms, depth ${depth}`);
  }
});

Deno.test("hold: when completions cease, those that wait are told of", () => {
  const hold = new CompletionHold();
  for (let now = 1; now < 2; now += 0.001) hold.took(1, 100, now);
  assertEquals(hold.holds(1, 100, 2), true);
  assertEquals(hold.holds(1, 100, 2.02), true);
  assertEquals(hold.holds(1, 100, 2.031), false);
  hold.took(1, 99, 2.031);
  assertEquals(hold.holds(30, 99, 2.04), false);
});
