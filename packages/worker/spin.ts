/** Loads of the word before the first look at the clock, which costs more than many of them. */
const FIRST = 1000;
/** Loads between two looks at the clock. */
const LOADS = 256;
/** Every so many times that it looked in vain it looks as long as it may. */
const PROBE = 64;

/**
 * Looks at a word again and again for a short while before its thread goes to sleep, since to sleep and to be woken costs more.
 * How long, adapts: up to the limit while something comes within it; hardly at all where nothing does, as on a machine whose
 * other processor is busy, where looking only keeps the other thread from working.
 */
export class Spin {
  readonly #words: Int32Array;
  readonly #word: number;
  readonly #longest: number;
  #now: number;
  #vain = 0;

  /** @param microseconds At most; with 0 it does not look at all. */
  constructor(words: Int32Array, word: number, microseconds: number) {
    this.#words = words;
    this.#word = word;
    this.#longest = this.#now = microseconds / 1000;
  }

  /** Looks. @returns The word as it was seen last: another than the value as soon as it becomes one. */
  until(value: number): number {
    const words = this.#words;
    const word = this.#word;
    if (this.#longest === 0) return Atomics.load(words, word);
    for (let i = 0; i < FIRST; i++) {
      const seen = Atomics.load(words, word);
      if (seen !== value) return seen;
    }
    const end = performance.now() + this.#now;
    do {
      for (let i = 0; i < LOADS; i++) {
        const seen = Atomics.load(words, word);
        if (seen !== value) {
          this.#now = Math.min(this.#longest, this.#now * 2);
          return seen;
        }
      }
    } while (performance.now() < end);
    if (++this.#vain % PROBE === 0) this.#now = this.#longest;
    else this.#now = Math.max(this.#longest / 64, this.#now / 2);
    return value;
  }
}
