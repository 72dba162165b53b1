import { ahead } from "./sequence.ts";

/**
 * Ranges of sequence numbers, sorted, apart from each other, at most so many: what came out of order, and what the other side
 * said that came there. Nothing is allocated after it was made.
 */
export class Ranges {
  /** How many there are. */
  count = 0;
  /** Bytes in all of them. */
  total = 0;
  readonly #max: number;
  /** Start and end of each. */
  readonly #edges: Int32Array;

  /** @param max The most ranges. */
  constructor(max: number) {
    this.#max = max;
    this.#edges = new Int32Array(2 * max);
  }

  /** First number of a range. */
  start(index: number): number {
    return this.#edges[2 * index]!;
  }

  /** Behind the last number of a range. */
  end(index: number): number {
    return this.#edges[2 * index + 1]!;
  }

  /** Forgets all. */
  clear(): void {
    this.count = 0;
    this.total = 0;
  }

  /**
   * Adds a range, joined with those that it touches.
   *
   * @returns The index of the range that it is in now; -1 if there is no room for one more.
   */
  add(start: number, end: number): number {
    const edges = this.#edges;
    let first = 0;
    while (first < this.count && ahead(start, edges[2 * first + 1]!) > 0) first++;
    let last = first;
    while (last < this.count && ahead(end, edges[2 * last]!) >= 0) last++;
    if (first === last) {
      if (this.count === this.#max) return -1;
      edges.copyWithin(2 * first + 2, 2 * first, 2 * this.count);
      edges[2 * first] = start;
      edges[2 * first + 1] = end;
      this.count++;
      this.total += ahead(end, start);
      return first;
    }
    const from = ahead(start, edges[2 * first]!) < 0 ? start : edges[2 * first]!;
    const lastEnd = edges[2 * last - 1]!;
    const to = ahead(end, lastEnd) > 0 ? end : lastEnd;
    for (let i = first; i < last; i++) this.total -= ahead(edges[2 * i + 1]!, edges[2 * i]!);
    this.total += ahead(to, from);
    edges[2 * first] = from;
    edges[2 * first + 1] = to;
    if (last - first > 1) {
      edges.copyWithin(2 * first + 2, 2 * last, 2 * this.count);
      this.count -= last - first - 1;
    }
    return first;
  }

  /** Forgets everything before `sequence`. */
  dropBefore(sequence: number): void {
    const edges = this.#edges;
    let gone = 0;
    while (gone < this.count && ahead(edges[2 * gone + 1]!, sequence) <= 0) {
      this.total -= ahead(edges[2 * gone + 1]!, edges[2 * gone]!);
      gone++;
    }
    if (gone > 0) {
      edges.copyWithin(0, 2 * gone, 2 * this.count);
      this.count -= gone;
    }
    if (this.count > 0) {
      const cut = ahead(sequence, edges[0]!);
      if (cut > 0) {
        edges[0] = sequence;
        this.total -= cut;
      }
    }
  }
}
