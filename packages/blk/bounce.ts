/** Buffers of an asynchronous request are cut to this: a larger request goes through one of them piece by piece. */
export const PIECE_SIZE = 1 << 20;

const SMALLEST_SHIFT = 12;
const CLASSES = 20 - SMALLEST_SHIFT + 1;

/** Who waits for a buffer. */
export interface BounceWaiter {
  /** Here it is. Not called inside `take`. */
  granted(buffer: Uint8Array): void;
}

/**
 * Buffers that asynchronous back ends read into and write from, since they must never hold guest memory. Bounded: who asks
 * for more waits, in order.
 */
export class BouncePool {
  readonly #budget: number;
  readonly #free: Uint8Array[][] = Array.from({ length: CLASSES }, () => []);
  readonly #waiting: { waiter: BounceWaiter; length: number }[] = [];
  #allocated = 0;
  #serving = false;

  /** @param budget Bytes at most, at least one piece. */
  constructor(budget: number) {
    this.#budget = budget;
  }

  /** Bytes of all buffers, in use or kept for the next. */
  get allocated(): number {
    return this.#allocated;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Takes a buffer of at least `length` bytes, at most a piece.
   *
   * @returns Null if `waiter` has to wait.
   */
  take(length: number, waiter: BounceWaiter): Uint8Array | null {
    // Behind those who wait already, or large requests would never get a turn.
    const buffer = this.#waiting.length === 0 ? this.#tryTake(length) : null;
    if (buffer === null) this.#waiting.push({ waiter, length });
    return buffer;
  }

  /** Gives a buffer back, and serves who waits. */
  give(buffer: Uint8Array): void {
    this.#free[classOf(buffer.length)]!.push(buffer);
    // Who is served may be done at once and give its buffer back from inside: the loop outside goes on with it.
    if (this.#serving) return;
    this.#serving = true;
    try {
      while (this.#waiting.length > 0) {
        const next = this.#tryTake(this.#waiting[0]!.length);
        if (next === null) break;
        this.#waiting.shift()!.waiter.granted(next);
      }
    } finally {
      this.#serving = false;
    }
  }

  /** Nobody waits any more: after a reset. */
  forget(): void {
    this.#waiting.length = 0;
  }

  #tryTake(length: number): Uint8Array | null {
    const index = classOf(length);
    const kept = this.#free[index]!.pop();
    if (kept !== undefined) return kept;
    const size = 1 << (index + SMALLEST_SHIFT);
    // Room is made at the cost of buffers of other sizes that nobody uses.
    for (const list of this.#free) {
      while (this.#allocated + size > this.#budget && list.length > 0) {
        this.#allocated -= list.pop()!.length;
      }
    }
    if (this.#allocated + size > this.#budget) return null;
    this.#allocated += size;
    return new Uint8Array(size);
  }
}

function classOf(length: number): number {
  const shift = 32 - Math.clz32(Math.max(1, length - 1));
  return Math.max(0, shift - SMALLEST_SHIFT);
}
