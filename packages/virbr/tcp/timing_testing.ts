import type { Timing } from "./timing.ts";

/** Time that passes when a test says so. */
export class TestTiming implements Timing {
  #now = 0;
  /** What the clock shows is so much more. */
  #skew = 0;
  readonly #pending = new Map<number, { at: number; run: () => void }>();
  #deferred: (() => void)[] = [];
  #next = 1;

  now(): number {
    return this.#now + this.#skew;
  }

  after(milliseconds: number, run: () => void): unknown {
    this.#pending.set(this.#next, { at: this.#now + milliseconds, run });
    return this.#next++;
  }

  cancel(handle: unknown): void {
    this.#pending.delete(handle as number);
  }

  defer(run: () => void): void {
    this.#deferred.push(run);
  }

  /** Timers of the host's that are set. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Runs what was put off. @returns Whether there was anything. */
  settle(): boolean {
    const any = this.#deferred.length > 0;
    while (this.#deferred.length > 0) {
      const deferred = this.#deferred;
      this.#deferred = [];
      for (const run of deferred) run();
    }
    return any;
  }

  /** Lets time pass. */
  pass(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (let steps = 0;; steps++) {
      if (steps > 1_000_000) throw new Error("this never ends");
      this.settle();
      let next: [number, { at: number; run: () => void }] | null = null;
      for (const entry of this.#pending) {
        if (entry[1].at <= end && (next === null || entry[1].at < next[1].at)) next = entry;
      }
      if (next === null) break;
      this.#pending.delete(next[0]);
      this.#now = Math.max(this.#now, next[1].at);
      next[1].run();
    }
    this.#now = end;
    this.settle();
  }

  /** Sets the clock: what is shown jumps, no timer of the host's moves. */
  jump(milliseconds: number): void {
    this.#skew += milliseconds;
  }
}
