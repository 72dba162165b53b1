import { assert, assertEquals } from "@std/assert";
import { Spin } from "./spin.ts";

const words = (): Int32Array => new Int32Array(new SharedArrayBuffer(8));

/** Loads of the word in one look in vain. */
function looks(spin: Spin, counted: { loads: number }): number {
  counted.loads = 0;
  assertEquals(spin.until(0), 0);
  return counted.loads;
}

Deno.test("spin: sees that the word is another, at once or while it looks; otherwise it ends", () => {
  const shared = words();
  const spin = new Spin(shared, 1, 1000);
  assertEquals(spin.until(0), 0);
  Atomics.store(shared, 1, 5);
  assertEquals(spin.until(0), 5);
  assertEquals(spin.until(5), 5);
  assertEquals(new Spin(shared, 1, 0).until(5), 5);
  assertEquals(new Spin(shared, 1, 0).until(0), 5);
});

Deno.test("spin: looks ever shorter in vain, and now and then as long as it may", () => {
  const counted = { loads: 0 };
  const { load } = Atomics;
  const { now } = performance;
  let time = 0;
  // A clock that goes on with the loads.
  performance.now = () => time;
  Atomics.load = ((...args: Parameters<typeof load>) => {
    counted.loads++;
    time += 0.0001;
    return load(...args);
  }) as typeof load;
  try {
    const spin = new Spin(words(), 0, 10_000);
    const first = looks(spin, counted);
    assert(first >= 100_000 && first < 105_000, `${first}`);
    const second = looks(spin, counted);
    assert(second < first * 0.6);
    for (let i = 2; i < 63; i++) looks(spin, counted);
    assert(looks(spin, counted) < first / 20, "hardly at all");
    assert(looks(spin, counted) >= 100_000, "the probe");
    assert(looks(spin, counted) < 0.6 * first, "and less again");
  } finally {
    Atomics.load = load;
    performance.now = now;
  }
});
