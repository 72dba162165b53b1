/**
 * Where the gateway's time comes from, and what it does later. Replaced in tests.
 *
 * @example Time that passes when a test wants it
 * ```ts
 * import type { Timing } from "./timing.ts";
 * import { assertEquals } from "@std/assert";
 *
 * let now = 0;
 * const timing: Timing = { now: () => now, after: () => 0, cancel: () => {}, defer: () => {} };
 * now = 5;
 * assertEquals(timing.now(), 5);
 * ```
 */
export interface Timing {
  /** Milliseconds from any beginning. A clock that jumps is borne: forwards, what is due is done once; backwards, no time passed. */
  now(): number;
  /** Runs something after some milliseconds. @returns What `cancel` takes. */
  after(milliseconds: number, run: () => void): unknown;
  /** Takes `after` back. */
  cancel(handle: unknown): void;
  /** Runs something when whoever runs now is done, before anything else comes in. */
  defer(run: () => void): void;
}

/** Time as it is. */
export const systemTiming: Timing = {
  now: () => performance.now(),
  after: (milliseconds, run) => setTimeout(run, milliseconds),
  cancel: (handle) => clearTimeout(handle as ReturnType<typeof setTimeout>),
  defer: (run) => queueMicrotask(run),
};

/** Makes a clock one that never goes backwards: where it would, it stands still, and goes on from there. */
export function steady(now: () => number): () => number {
  const state = new Float64Array(2); // what was said last; what is added
  state[0] = -Infinity;
  return () => {
    let time = now() + state[1]!;
    if (time < state[0]!) {
      state[1] = state[1]! + (state[0]! - time);
      time = state[0]!;
    }
    state[0] = time;
    return time;
  };
}
