import type { MacAddress } from "./mac_address.ts";

const EMPTY = -1;

/** What `learn` did. */
export const Learned = {
  /** The address was there, at this port. */
  known: 0,
  /** The address is new. */
  added: 1,
  /** The address was at another port, and is at this one now. */
  moved: 2,
  /** There is no room for it, in the table or for this port. */
  refused: 3,
} as const;

/**
 * Which station is behind which port: a hash table of MAC address and VLAN with a bound, in which entries age.
 *
 * Open addressing with linear probing over typed arrays: no strings, no BigInt, nothing allocated. The hash is seeded, so
 * that nobody outside can choose addresses that collide. It is never more than half full.
 */
export class MacTable {
  /** The most entries. */
  readonly capacity: number;
  readonly #mask: number;
  readonly #seed: number;
  /** 24 bits of the address, and 8 of the VLAN above them. */
  readonly #high: Int32Array;
  /** 24 bits of the address, and 4 of the VLAN above them. */
  readonly #low: Int32Array;
  /** Port, or EMPTY. */
  readonly #port: Int32Array;
  /** When the station was last heard, in milliseconds. */
  readonly #heard: Float64Array;
  readonly #age: number;
  /** Entries of each port. */
  readonly #counts: Int32Array;
  #size = 0;
  /** Where the search for old entries goes on. */
  #sweep = 0;
  /** When everything was searched for them the last time. */
  #searched = -Infinity;

  /**
   * Makes an empty table.
   *
   * @param capacity The most entries.
   * @param ports Ports are numbered below this.
   * @param age Milliseconds after which a station that was not heard is forgotten.
   * @param seed Of the hash; random unless given.
   */
  constructor(
    capacity: number,
    ports: number,
    age: number,
    seed: number = Math.floor(Math.random() * 0x1_0000_0000),
  ) {
    let slots = 16;
    while (slots < 2 * capacity) slots *= 2;
    this.capacity = capacity;
    this.#mask = slots - 1;
    this.#seed = seed | 0;
    this.#high = new Int32Array(slots);
    this.#low = new Int32Array(slots);
    this.#port = new Int32Array(slots).fill(EMPTY);
    this.#heard = new Float64Array(slots);
    this.#age = age;
    this.#counts = new Int32Array(ports);
  }

  /** Entries, old ones that were not yet noticed included. */
  get size(): number {
    return this.#size;
  }

  /** Entries of a port, old ones that were not yet noticed included. */
  sizeOf(port: number): number {
    return this.#counts[port]!;
  }

  /** The port behind which a station is; -1 if that is not known, or was too long ago. */
  find(high: number, low: number, vlan: number, now: number): number {
    const slot = this.#slotOf(high | vlan << 24, low | vlan >>> 8 << 24);
    const port = this.#port[slot]!;
    return port !== EMPTY && now - this.#heard[slot]! > this.#age ? -1 : port;
  }

  /**
   * Notes that a station was heard at a port.
   *
   * @param limit The most entries of the port.
   * @returns One of `Learned`.
   */
  learn(
    high: number,
    low: number,
    vlan: number,
    port: number,
    limit: number,
    now: number,
  ): number {
    const a = high | vlan << 24;
    const b = low | vlan >>> 8 << 24;
    let slot = this.#slotOf(a, b);
    const before = this.#port[slot]!;
    if (before === port) {
      this.#heard[slot] = now;
      return Learned.known;
    }
    this.#forgetSome(now);
    if (this.#counts[port]! >= limit) this.#forgetOld(now);
    if (this.#counts[port]! >= limit) return Learned.refused;
    slot = this.#slotOf(a, b);
    if (this.#port[slot] !== EMPTY) {
      this.#counts[this.#port[slot]!]!--;
      this.#port[slot] = port;
      this.#counts[port]!++;
      this.#heard[slot] = now;
      return Learned.moved;
    }
    if (this.#size >= this.capacity) {
      this.#forgetOld(now);
      if (this.#size >= this.capacity) return Learned.refused;
      slot = this.#slotOf(a, b);
    }
    this.#high[slot] = a;
    this.#low[slot] = b;
    this.#port[slot] = port;
    this.#heard[slot] = now;
    this.#counts[port]!++;
    this.#size++;
    return Learned.added;
  }

  /** Forgets what was learned at a port. */
  forgetPort(port: number): void {
    if (this.#counts[port] === 0) return;
    this.#forgetWhere(port, Infinity);
  }

  /** All entries that are not old, for people to look at. */
  *entries(now: number): Generator<MacAddress & { readonly vlan: number; readonly port: number }> {
    for (let slot = 0; slot <= this.#mask; slot++) {
      const port = this.#port[slot]!;
      if (port === EMPTY || now - this.#heard[slot]! > this.#age) continue;
      const a = this.#high[slot]!;
      const b = this.#low[slot]!;
      yield {
        high: a & 0xff_ffff,
        low: b & 0xff_ffff,
        vlan: a >>> 24 | b >>> 24 << 8,
        port,
      };
    }
  }

  /** Forgets all old entries. At most once in a sixteenth of the age: a full table must not cost its length a frame. */
  #forgetOld(now: number): void {
    if (now - this.#searched < this.#age / 16) return;
    this.#searched = now;
    this.#forgetWhere(EMPTY, now);
  }

  /** @param port Whose entries; EMPTY for everybody's that are old at `now`. */
  #forgetWhere(port: number, now: number): void {
    const ports = this.#port;
    for (let slot = 0; slot <= this.#mask; slot++) {
      // Removing may move another entry here: look again. What moves across the end is found there.
      while (
        ports[slot] !== EMPTY &&
        (port === EMPTY ? now - this.#heard[slot]! > this.#age : ports[slot] === port)
      ) this.#remove(slot);
    }
  }

  /** Looks at a few entries, so that old ones go although nobody asks for them. */
  #forgetSome(now: number): void {
    for (let i = 0; i < 4; i++) {
      const slot = this.#sweep;
      this.#sweep = (slot + 1) & this.#mask;
      if (this.#port[slot] !== EMPTY && now - this.#heard[slot]! > this.#age) this.#remove(slot);
    }
  }

  #hash(a: number, b: number): number {
    let h = Math.imul(a ^ this.#seed, 0x9e3779b1);
    h = Math.imul(h ^ h >>> 15 ^ b, 0x85ebca6b);
    h = Math.imul(h ^ h >>> 13 ^ this.#seed, 0xc2b2ae35);
    return (h ^ h >>> 16) & this.#mask;
  }

  /** Where the key is, or the empty slot where it would go. */
  #slotOf(a: number, b: number): number {
    let slot = this.#hash(a, b);
    while (
      this.#port[slot] !== EMPTY && (this.#high[slot] !== a || this.#low[slot] !== b)
    ) slot = (slot + 1) & this.#mask;
    return slot;
  }

  /** Takes an entry out, and closes the gap, so that no search ends too early. */
  #remove(slot: number): void {
    const mask = this.#mask;
    this.#counts[this.#port[slot]!]!--;
    this.#size--;
    let gap = slot;
    for (let next = (slot + 1) & mask; this.#port[next] !== EMPTY; next = (next + 1) & mask) {
      const home = this.#hash(this.#high[next]!, this.#low[next]!);
      // It may stay if its home lies behind the gap.
      if (((next - home) & mask) < ((next - gap) & mask)) continue;
      this.#high[gap] = this.#high[next]!;
      this.#low[gap] = this.#low[next]!;
      this.#port[gap] = this.#port[next]!;
      this.#heard[gap] = this.#heard[next]!;
      gap = next;
    }
    this.#port[gap] = EMPTY;
  }
}
