import type { Ring, RingPool } from "./ring.ts";

/** The buffers of one connection. */
export interface RingPair {
  /** Who took them; a guest may be behind another port by the time they are given back. */
  readonly holder: string;
  /** What goes out. */
  readonly send: Ring;
  /** What comes in. */
  readonly receive: Ring;
}

/**
 * Gives out the rings of a pool so that nobody can take those of all: who holds as many as are left for everybody else gets no
 * more. One alone gets half, two a third each, and there is always something left for who comes next. Nothing is set aside
 * for those who hold nothing.
 */
export class RingShares {
  readonly #pool: RingPool;
  /** Rings of each holder that has any. */
  readonly #held: Map<string, number> = new Map();

  /** Shares out a pool; nobody else takes from it. */
  constructor(pool: RingPool) {
    this.#pool = pool;
  }

  /** Bytes of each ring. */
  get ringSize(): number {
    return this.#pool.ringSize;
  }

  /** Bytes of all rings that are out. */
  get bytes(): number {
    return this.#pool.taken * this.#pool.ringSize;
  }

  /** Takes two empty rings; null if the holder has its share, or there is no memory. Give them back. */
  take(holder: string): RingPair | null {
    const pool = this.#pool;
    const held = this.#held.get(holder) ?? 0;
    if (held >= pool.left) return null;
    const send = pool.take();
    const receive = pool.take();
    if (send !== null && receive !== null) {
      this.#held.set(holder, held + 2);
      return { holder, send, receive };
    }
    if (send !== null) pool.give(send);
    return null;
  }

  /** Takes two rings back. */
  give({ holder, send, receive }: RingPair): void {
    this.#pool.give(send);
    this.#pool.give(receive);
    const held = this.#held.get(holder)! - 2;
    if (held > 0) this.#held.set(holder, held);
    else this.#held.delete(holder);
  }
}
