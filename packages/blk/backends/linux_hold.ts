/** Milliseconds that a completion is held at most. */
const LONGEST = 0.03;
/** Operations under way from which on it may pay. */
const DEPTH = 16;
/** Completions that are worth waiting for at most. */
const MOST = 32;
/** How many more have to be expected. */
const LEAST = 4;
/** How much the last look counts. */
const WEIGHT = 1 / 8;

/**
 * Whether completions wait for more of them: each interrupt costs both sides as much as several requests. Where many operations
 * are under way and complete fast, a few microseconds bring several; where they do not, waiting would only be late, and nothing
 * is held.
 *
 * Times are milliseconds.
 */
export class CompletionHold {
  /** Between completions, on average. */
  #interval = Infinity;
  /** When completions were taken last, while others were under way; 0: none were. */
  #taken = 0;
  /** When those that wait were seen first; 0: none wait. */
  #since = 0;

  /**
   * @param ready Completions that are there, at least one.
   * @param inFlight Operations that have not been told of, those included.
   * @returns Whether to leave them for now.
   */
  holds(ready: number, inFlight: number, now: number): boolean {
    if (inFlight < DEPTH || ready >= Math.min(inFlight >> 2, MOST)) return false;
    if (LONGEST < LEAST * this.#interval) return false;
    if (this.#since === 0) this.#since = now;
    return now - this.#since < LONGEST;
  }

  /** Completions were told of. @param inFlight What is under way now. */
  took(count: number, inFlight: number, now: number): void {
    this.#since = 0;
    // Time in which nothing was under way says nothing.
    if (this.#taken > 0) {
      const interval = (now - this.#taken) / count;
      this.#interval = this.#interval === Infinity
        ? interval
        : this.#interval + (interval - this.#interval) * WEIGHT;
    }
    this.#taken = inFlight > 0 ? now : 0;
  }
}
