/** A driver in one worker, a device in others, as bench:workers has them: no request is lost, and the main thread does nothing. */
import type { Measured, Order, Setup } from "../../tools/bench_workers/driver_worker.ts";
import { assert, assertEquals } from "@std/assert";

const SETUPS: readonly (readonly [name: string, setup: Setup])[] = [
  ["one request at a time, both sides sleeping", { depth: 1, spin: 0, queues: 1, workers: 1 }],
  ["64 in flight", { depth: 64, spin: 50, queues: 1, workers: 1 }],
  ["4 queues, a worker each", { depth: 16, spin: 50, queues: 4, workers: 4 }],
];

Deno.test("bench:workers: a guest of our own in a worker has its device in others", async (t) => {
  const driver = new Worker(
    new URL("../../tools/bench_workers/driver_worker.ts", import.meta.url),
    {
      type: "module",
    },
  );
  let turns = 0;
  const order = (what: Order): Promise<Measured | null> =>
    new Promise((resolve, reject) => {
      driver.onmessage = ({ data }) => {
        turns++;
        "error" in data ? reject(new Error(data.error)) : resolve(data.measured);
      };
      driver.postMessage(what);
    });
  try {
    for (const [name, setup] of SETUPS) {
      await t.step(name, async () => {
        await order({ open: name, setup });
        const before = turns;
        const measured = await order({ run: name, requests: 1200 });
        // Nothing of what went between the two went through here.
        assertEquals(turns, before + 1);
        assert(measured!.nanoseconds > 0 && measured!.notifications <= 2 * 1200 + 10);
        await order({ close: true });
      });
    }
  } finally {
    driver.terminate();
  }
});
