/**
 * Limits how often something may happen: `rate` times a second on average, `burst` times at once.
 *
 * It is asked with the time, and has no timer. Nothing is allocated.
 */
export class TokenBucket {
  readonly #perMillisecond: number;
  readonly #burst: number;
  /** Tokens, and when they were counted: in an array, so that no number is ever boxed. */
  readonly #state: Float64Array;

  /**
   * Makes a full one.
   *
   * @param rate Tokens a second; Infinity for no limit.
   * @param burst The most tokens that gather.
   * @throws {RangeError} If `rate` is not above 0, or `burst` less than 1.
   */
  constructor(rate: number, burst: number) {
    if (!(rate > 0)) throw new RangeError(`A rate must be above 0 a second: it is ${rate}`);
    if (!(burst >= 1)) throw new RangeError(`A burst must be at least 1: it is ${burst}`);
    this.#perMillisecond = rate / 1000;
    this.#burst = burst;
    this.#state = new Float64Array([burst, -Infinity]);
  }

  /**
   * Takes tokens, all of them or none.
   *
   * @param now Milliseconds.
   * @param amount How many; 1 unless given. More than `burst` are never there.
   * @returns Whether there were so many.
   */
  take(now: number, amount = 1): boolean {
    if (this.#perMillisecond === Infinity) return true;
    const state = this.#state;
    const elapsed = now - state[1]!;
    if (elapsed > 0) {
      const tokens = state[0]! + elapsed * this.#perMillisecond;
      state[0] = tokens < this.#burst ? tokens : this.#burst;
      state[1] = now;
    }
    if (!(state[0]! >= amount)) return false;
    state[0] = state[0]! - amount;
    return true;
  }
}
