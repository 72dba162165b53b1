/** Above the slots of a set, so that a free slot looks like no address. */
const FREE = 0x1_0000;

/**
 * A bounded set of MAC addresses. An address is two numbers: its first two bytes, and its last four as a signed number, which
 * need not be made on the heap.
 *
 * Hot path: a lookup is a few loads. A driver that chose its addresses so that they collide pays with a longer one, never
 * longer than the set.
 */
export class MacSet {
  /** How many it has room for. */
  readonly capacity: number;
  /** How many there are. */
  size = 0;
  readonly #mask: number;
  readonly #high: Uint32Array;
  readonly #low: Int32Array;

  /** @param capacity 1 or more. */
  constructor(capacity: number) {
    this.capacity = capacity;
    const slots = 2 ** Math.ceil(Math.log2(capacity * 2));
    this.#mask = slots - 1;
    this.#high = new Uint32Array(slots).fill(FREE);
    this.#low = new Int32Array(slots);
  }

  /** Forgets all of them. */
  clear(): void {
    if (this.size === 0) return;
    this.size = 0;
    this.#high.fill(FREE);
  }

  /** Adds an address. @returns False if there is no room for it. */
  add(high: number, low: number): boolean {
    const slot = this.#find(high, low);
    if (this.#high[slot] !== FREE) return true;
    if (this.size === this.capacity) return false;
    this.size++;
    this.#high[slot] = high;
    this.#low[slot] = low;
    return true;
  }

  /** Whether an address is in it. */
  has(high: number, low: number): boolean {
    return this.size > 0 && this.#high[this.#find(high, low)] !== FREE;
  }

  /** All of them, six bytes each, in no particular order. */
  *entries(): Generator<number[]> {
    for (let slot = 0; slot <= this.#mask; slot++) {
      const high = this.#high[slot]!;
      if (high === FREE) continue;
      const low = this.#low[slot]!;
      yield [high >>> 8, high & 255, low >>> 24, low >>> 16 & 255, low >>> 8 & 255, low & 255];
    }
  }

  /** The slot of an address, or the free one where it would go: half of the slots are free. */
  #find(high: number, low: number): number {
    const mask = this.#mask;
    let slot = (Math.imul(low ^ Math.imul(high, 0x9e37), 0x85ebca6b) >>> 16) & mask;
    while (this.#high[slot] !== FREE && (this.#high[slot] !== high || this.#low[slot] !== low)) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }
}
