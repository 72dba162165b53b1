/** Bytes that wait, first in first out, up to a bound. Memory is taken as it is needed. */
export class ByteRing {
  /** Bytes at most. */
  readonly bound: number;
  #bytes: Uint8Array = new Uint8Array(0);
  #start = 0;
  #length = 0;

  /** @param bound Bytes at most. */
  constructor(bound: number) {
    this.bound = bound;
  }

  /** Bytes that wait. */
  get length(): number {
    return this.#length;
  }

  /** Bytes that `push` would take. */
  get room(): number {
    return this.bound - this.#length;
  }

  /** The buffer that the bytes lie in, for `start` and `piece`. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Where the first byte lies. */
  get start(): number {
    return this.#start;
  }

  /** How many bytes lie in one place from `start` on. */
  get piece(): number {
    return Math.min(this.#length, this.#bytes.length - this.#start);
  }

  /** Takes `from[at...]`, `max` bytes or as many as there is room for. @returns How many. */
  push(from: Uint8Array, at: number, max: number): number {
    const count = Math.min(max, this.room);
    if (count <= 0) return 0;
    if (this.#length + count > this.#bytes.length) this.#grow(this.#length + count);
    const size = this.#bytes.length;
    const end = (this.#start + this.#length) % size;
    const first = Math.min(count, size - end);
    this.#bytes.set(from.subarray(at, at + first), end);
    if (first < count) this.#bytes.set(from.subarray(at + first, at + count), 0);
    this.#length += count;
    return count;
  }

  /** Drops the first `count` bytes. */
  drop(count: number): void {
    const dropped = Math.min(count, this.#length);
    this.#length -= dropped;
    this.#start = this.#length === 0 ? 0 : (this.#start + dropped) % this.#bytes.length;
  }

  /** A copy of what waits. */
  copy(): Uint8Array {
    const all = new Uint8Array(this.#length);
    const { piece } = this;
    all.set(this.#bytes.subarray(this.#start, this.#start + piece));
    all.set(this.#bytes.subarray(0, this.#length - piece), piece);
    return all;
  }

  #grow(wanted: number): void {
    let size = Math.max(256, this.#bytes.length);
    while (size < wanted) size *= 2;
    const waiting = this.copy();
    this.#bytes = new Uint8Array(Math.min(size, this.bound));
    this.#bytes.set(waiting);
    this.#start = 0;
  }
}
