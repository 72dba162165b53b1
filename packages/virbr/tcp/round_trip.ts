/** Milliseconds. RFC 6298 has 1 s as the least; every system in use takes less, and the way here is a cable of memory. */
const LEAST = 200;
const MOST = 30_000;
const FIRST = 1000;

/** How long an answer takes, and so how long to wait for one (RFC 6298). */
export class RoundTrip {
  /** Smoothed time, its variation, and the timeout: in an array, so that no number is boxed. */
  readonly #state = new Float64Array([-1, 0, FIRST]);

  /** Milliseconds to wait before sending again. */
  get timeout(): number {
    return this.#state[2]!;
  }

  /** An answer took so long. */
  sample(milliseconds: number): void {
    const state = this.#state;
    if (state[0]! < 0) {
      state[0] = milliseconds;
      state[1] = milliseconds / 2;
    } else {
      state[1] = 0.75 * state[1]! + 0.25 * Math.abs(state[0]! - milliseconds);
      state[0] = 0.875 * state[0]! + 0.125 * milliseconds;
    }
    this.settle();
  }

  /** What was sent again was answered: the timeout is what was measured. */
  settle(): void {
    const state = this.#state;
    if (state[0]! < 0) state[2] = FIRST;
    else state[2] = Math.min(MOST, Math.max(LEAST, state[0]! + Math.max(1, 4 * state[1]!)));
  }

  /** Nothing came: wait twice as long. */
  backOff(): void {
    this.#state[2] = Math.min(MOST, 2 * this.#state[2]!);
  }
}
