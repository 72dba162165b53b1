/** The thread in which cases run, so that one that hangs can be ended. */
import fc from "fast-check";
import type { FuzzJob, FuzzReport } from "./fuzz.ts";
import { PLANTS } from "./plants.ts";
import { TARGETS } from "./targets.ts";

const ROUND = 200;
const encoder = new TextEncoder();
let escaped: unknown = null;

function caught(event: Event, reason: unknown): void {
  event.preventDefault();
  escaped ??= reason;
}
self.addEventListener("unhandledrejection", (event) => caught(event, event.reason));
self.addEventListener("error", (event) => caught(event, event.error ?? event.message));

self.onmessage = async ({ data }: MessageEvent<FuzzJob>) => {
  const target = TARGETS.find(({ name }) => name === data.target)!;
  if (data.plant !== null) PLANTS[data.plant]!();
  const counter = new Int32Array(data.shared, 0, 2);
  const text = new Uint8Array(data.shared, 8);
  let cases = 0;
  const runCase = async (test: unknown): Promise<void> => {
    const bytes = encoder.encode(JSON.stringify(test));
    text.set(bytes.subarray(0, text.length));
    Atomics.store(counter, 1, bytes.length);
    Atomics.add(counter, 0, 1);
    cases++;
    escaped = null;
    await target.run(test);
    // What nobody caught is told of in a later turn.
    if (cases % 16 === 0 || data.replay !== null) {
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    if (escaped !== null) throw escaped;
  };
  const report = (failure: FuzzReport["failure"]): void => {
    self.postMessage({ cases, failure } satisfies FuzzReport);
  };
  if (data.replay !== null) {
    try {
      await runCase(data.replay);
      report(null);
    } catch (error) {
      report({ case: data.replay, reason: explain(error) });
    }
    return;
  }
  const end = performance.now() + 1000 * data.seconds;
  for (let round = 0; performance.now() < end; round++) {
    const details = await fc.check(fc.asyncProperty(target.cases, runCase), {
      seed: (data.seed + round) | 0,
      numRuns: ROUND,
      // Shrinking ends too.
      interruptAfterTimeLimit: 1000 * Math.max(data.seconds, 60),
    });
    if (details.failed && details.counterexample !== null) {
      report({ case: details.counterexample[0], reason: explain(details.errorInstance) });
      return;
    }
  }
  report(null);
};

function explain(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : String(error);
}
