/** Chains as a driver makes them: mostly right, now and then with one rule broken. */
import fc from "fast-check";
import {
  type RawDescriptor,
  type RawDriver,
  type RawPackedDriver,
  RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";

/** One broken rule. */
export interface Wrong {
  /** Which. */
  readonly kind: typeof KINDS[number];
  /** Which descriptor, modulo their number. */
  readonly which: number;
  /** A number that the rule needs. */
  readonly value: number;
}

/** A chain to make available. */
export interface ChainCase {
  /** Lengths of the device-readable elements. */
  readonly readable: readonly number[];
  /** Lengths of the device-writable ones. */
  readonly writable: readonly number[];
  /** Whether through an indirect table. */
  readonly indirect: boolean;
  /** A broken rule, or none. */
  readonly wrong: Wrong | null;
}

const KINDS = [
  "address",
  "length",
  "next",
  "more",
  "flags",
  "order",
  "tableLength",
  "tableAddress",
  "nested",
  "indirectNext",
  "id",
  "index",
  "head",
  "poke",
] as const;

/** Where buffers begin; rings lie below. */
export const BUFFERS = 0x1000;
/** Where chains may lie: that many places of 0x300 bytes, 0x200 for elements and 0x100 for a table. */
export const PLACES = 20;
const CHAIN_BYTES = 0x300;
/** Where buffers end, and memory too. */
export const END = BUFFERS + PLACES * CHAIN_BYTES;
/** Where one region ends and the next begins, amid the buffers. */
export const SEAM = BUFFERS + 0x1c00;
/** More memory. */
export const HIGH = 0x2_0000_0000;
/** All of it: base and size of each region. */
export const REGIONS = [[0, SEAM], [SEAM, END - SEAM], [HIGH, 0x400]] as const;

/** Addresses where nothing good is, or not what the driver means. */
const ADDRESSES = [
  0,
  1,
  BUFFERS - 1,
  SEAM - 1,
  END - 1,
  END,
  0x1_0000,
  0xffff_ffff,
  0x1_0000_0000,
  HIGH,
  HIGH + 0x3ff,
  2 ** 53,
  2 ** 63,
  2 ** 64 - 2048,
];
const LENGTHS = [0, 1, 2, 15, 0x3ff, SEAM, END, END + 1, 0x1_0000, 2 ** 31, 2 ** 32 - 1];

/** A broken rule. */
export const wrong: fc.Arbitrary<Wrong> = fc.record({
  kind: fc.constantFrom(...KINDS),
  which: fc.nat(7),
  value: fc.oneof(fc.nat(20), fc.nat(0xffff), fc.constantFrom(0x7fff, 0x8000, 0xffff)),
});

/** Null, and a broken rule once in `rarity`. */
export function rarely(rarity: number): fc.Arbitrary<Wrong | null> {
  return fc.oneof(
    { withCrossShrink: true },
    { weight: rarity, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: wrong },
  );
}

const lengths = fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 4 });

/** A chain. */
export const chain: fc.Arbitrary<ChainCase> = fc.record({
  readable: lengths,
  writable: lengths,
  indirect: fc.boolean(),
  wrong: rarely(30),
});

/** What became of a chain. */
export interface SentChain {
  /** Head index or buffer id. */
  readonly id: number;
  /** Descriptors in the ring. */
  readonly slots: number;
  /** Whether every rule was kept. */
  readonly valid: boolean;
  /** Where the device may write. */
  readonly ranges: readonly (readonly [number, number])[];
  /** The bytes that it may read. */
  readonly out: Uint8Array;
  /** Which of the places its bytes are in. */
  readonly place: number;
}

/** How descriptors are sent. */
export interface SendOptions {
  /** Whether through an indirect table. */
  readonly indirect: boolean;
  /** Whether INDIRECT_DESC was negotiated. */
  readonly indirectAllowed: boolean;
  /** Where the table goes. */
  readonly table: number;
  /** A broken rule, or none. */
  readonly wrong: Wrong | null;
}

/** Makes descriptors available, with one rule broken or none. */
export function sendDescriptors(
  ring: RawSplitDriver | RawPackedDriver,
  descriptors: RawDescriptor[],
  options: SendOptions,
): { id: number; slots: number; valid: boolean; ranges: [number, number][] } {
  const { wrong: broken, table } = options;
  descriptors = descriptors.length === 0 ? [{ address: BUFFERS, length: 0 }] : [...descriptors];
  let valid = broken === null;
  const which = (broken?.which ?? 0) % descriptors.length;
  const value = broken?.value ?? 0;
  const change = (fields: Partial<RawDescriptor>): void => {
    descriptors[which] = { ...descriptors[which]!, ...fields };
  };
  let sent = { address: table, length: 16 * descriptors.length };
  let more = false;
  switch (broken?.kind) {
    case "address":
      change({ address: ADDRESSES[value % ADDRESSES.length]! });
      break;
    case "length":
      change({ length: LENGTHS[value % LENGTHS.length]! });
      break;
    case "next":
      change({ more: true, next: value & 0xffff });
      break;
    case "more":
      descriptors[descriptors.length - 1] = { ...descriptors.at(-1)!, more: true };
      break;
    case "flags":
      change({ flags: value });
      break;
    case "order":
      descriptors.reverse();
      break;
    case "tableLength":
      sent = { ...sent, length: LENGTHS[value % LENGTHS.length]! };
      break;
    case "tableAddress":
      sent = { ...sent, address: ADDRESSES[value % ADDRESSES.length]! };
      break;
    case "nested":
      change({ indirect: true });
      break;
    case "indirectNext":
      more = true;
      break;
  }
  const id = broken?.kind === "id" ? value & 0xffff : undefined;
  let head: number;
  let slots = 1;
  if (options.indirect && (options.indirectAllowed || broken?.kind === "flags")) {
    ring.table(table, descriptors);
    head = ring.send([{ ...sent, indirect: true, ...(more ? { more } : {}) }], id);
  } else {
    if (descriptors.length > ring.size) {
      // No driver can do that in the ring.
      descriptors = descriptors.slice(0, ring.size);
      valid = false;
    }
    head = ring.send(descriptors, id);
    slots = descriptors.length;
  }
  afterwards(ring, broken);
  const ranges: [number, number][] = [];
  for (const { address, length, write } of descriptors) {
    // Whatever is broken, a device may take any of them for one that it may write.
    if (length > 0 && (write || !valid)) ranges.push([address, length]);
  }
  return { id: head, slots, valid, ranges };
}

/**
 * Writes a chain into the ring and makes it available.
 *
 * @param seed Counts chains: says where its bytes lie, and fills what the device may read.
 */
export function sendChain(
  ring: RawSplitDriver | RawPackedDriver,
  test: ChainCase,
  seed: number,
  indirectAllowed: boolean,
): SentChain {
  const { memory } = ring;
  const base = BUFFERS + (seed % PLACES) * CHAIN_BYTES;
  let at = base;
  const out: number[] = [];
  const descriptors: RawDescriptor[] = [];
  for (const length of test.readable) {
    for (let i = 0; i < length; i++) {
      const value = (seed * 31 + out.length) & 0xff;
      memory.writeU8(at + i, value);
      out.push(value);
    }
    descriptors.push({ address: at, length });
    at += length + 1;
  }
  for (const length of test.writable) {
    memory.fill(at, length, 0xee);
    descriptors.push({ address: at, length, write: true });
    at += length + 1;
  }
  const sent = sendDescriptors(ring, descriptors, {
    indirect: test.indirect,
    indirectAllowed,
    table: base + 0x200,
    wrong: test.wrong,
  });
  return { ...sent, out: new Uint8Array(out), place: seed % PLACES };
}

function afterwards(ring: RawDriver, broken: Wrong | null): void {
  const value = broken?.value ?? 0;
  if (broken?.kind === "index" && ring instanceof RawSplitDriver) {
    ring.setAvailIdx(ring.availIdx + value);
  }
  if (broken?.kind === "head" && ring instanceof RawSplitDriver) ring.offer(value & 0xffff);
  if (broken?.kind === "poke") {
    // Anything, anywhere in the descriptors.
    const at = ring.config.descriptorArea + (2 * value) % (16 * ring.size);
    ring.memory.writeU16(at, (value * 40503) & 0xffff);
  }
}

/** What a driver has not got back: how it knows what is free. */
export class Flights<T> {
  readonly #packed: boolean;
  #flying: { id: number; slots: number; done: boolean; what: T }[] = [];

  constructor(packed: boolean) {
    this.#packed = packed;
  }

  /** A chain is on its way. */
  start(id: number, slots: number, what: T): void {
    this.#flying.push({ id, slots, done: false, what });
  }

  /** A chain is back. @returns What it was, or null if no such chain is on its way. */
  end(id: number): T | null {
    const chain = this.#flying.find((chain) => chain.id === id && !chain.done);
    if (chain === undefined) return null;
    chain.done = true;
    while (this.#flying[0]?.done) this.#flying.shift();
    return chain.what;
  }

  /**
   * Ring slots that are not free. A split driver here takes descriptors in a circle, so that what lies behind one that is
   * not free is not free either; in a packed ring any used buffer makes room.
   */
  get slots(): number {
    let taken = 0;
    for (const { slots, done } of this.#flying) if (!done || !this.#packed) taken += slots;
    return taken;
  }

  /** What is on its way, oldest first. */
  get all(): T[] {
    return this.#flying.filter(({ done }) => !done).map(({ what }) => what);
  }

  /** Forgets everything. */
  clear(): void {
    this.#flying = [];
  }
}
