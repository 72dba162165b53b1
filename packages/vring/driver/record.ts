import type { GuestMemory } from "@virtio/memory";
import { VirtqueueError } from "../errors.ts";
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../layout.ts";
import type { BufferList } from "./buffer_list.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const F_NEXT = VIRTQ_DESC_F_NEXT;
const F_WRITE = VIRTQ_DESC_F_WRITE;

/**
 * The driver's own record of what is in flight, by the id under which the device will give it back (split: head index;
 * packed: buffer id). In private memory: the device can forge what it writes, but not this.
 */
export class FlightRecord {
  /** Buffers in flight. */
  count = 0;
  readonly #clause: string;
  readonly #size: number = 0;
  /** Small integers mostly, and then an array of them. */
  readonly #tokens: number[] = [];
  /**
   * Four words for each id: the descriptors or slots that it takes (0: not in flight), its last descriptor, its
   * device-writable bytes, and the batch in which it was added; the device knows of those before `#batch` only.
   */
  readonly #words: Int32Array;
  #batch = 0;
  /** In-order: ids from the oldest on, a ring. */
  readonly #order: Uint16Array | null;
  #oldest = 0;

  constructor(size: number, inOrder: boolean, clause: string) {
    this.#clause = clause;
    this.#size = size;
    while (this.#tokens.length < size) this.#tokens.push(0);
    this.#words = new Int32Array(4 * size);
    this.#order = inOrder ? new Uint16Array(size) : null;
  }

  /** The buffer with this id is on its way. */
  start(id: number, token: number, units: number, last: number, writable: number): void {
    this.#tokens[id] = token;
    const words = this.#words;
    const at = id << 2;
    words[at] = units;
    words[at + 1] = last;
    // No used length can say 2^32.
    words[at + 2] = writable === 0x1_0000_0000 ? -1 : writable;
    words[at + 3] = this.#batch;
    if (this.#order !== null) {
      this.#order[(this.#oldest + this.count) % this.#order.length] = id;
    }
    this.count = (this.count + 1) | 0;
  }

  /** What was started so far is made available. */
  publish(): void {
    this.#batch = (this.#batch + 1) | 0;
  }

  /** Descriptors or slots of a buffer; 0 if there is no such buffer in flight. */
  units(id: number): number {
    return id < this.#size ? this.#words[id << 2]! : 0;
  }

  /** Last descriptor of a buffer. */
  last(id: number): number {
    return this.#words[(id << 2) + 1]!;
  }

  /** Device-writable bytes of a buffer. */
  writable(id: number): number {
    return this.#words[(id << 2) + 2]! >>> 0;
  }

  /** Whether the buffer is in flight and has room for what the device says it wrote. */
  accepts(id: number, length: number): boolean {
    if (!(id < this.#size)) return false;
    const words = this.#words;
    const at = id << 2;
    return words[at] !== 0 && words[at + 3] !== this.#batch && length <= words[at + 2]! >>> 0;
  }

  /** Why it does not. */
  error(id: number, length: number): VirtqueueError {
    let what = `says it wrote ${length} bytes into buffer ${id}, which has room for ${
      this.writable(id)
    }`;
    if (this.units(id) === 0) {
      what = `used buffer ${id}, which is not in flight`;
    } else if (this.#words[(id << 2) + 3] === this.#batch) {
      what = `used buffer ${id}, which was not made available yet`;
    }
    return new VirtqueueError(this.#clause, `The device ${what}`);
  }

  /** The buffer is back. @returns Its token. */
  end(id: number): number {
    this.#words[id << 2] = 0;
    this.count = (this.count - 1) | 0;
    if (this.#order !== null) this.#oldest = (this.#oldest + 1) % this.#order.length;
    return this.#tokens[id]!;
  }

  /** In-order: the oldest id in flight. */
  get oldest(): number {
    return this.#order![this.#oldest]!;
  }

  /** In-order: how many buffers are used when the device names `id`: those up to it. */
  batch(id: number): number {
    const order = this.#order!;
    for (let n = 0; n < this.count; n++) {
      if (order[(this.#oldest + n) % order.length] === id) return n + 1;
    }
    return 0;
  }

  /** Empties the record. @returns The tokens that were in flight. */
  drain(): number[] {
    const tokens: number[] = [];
    for (let id = 0; id < this.#size; id++) {
      if (this.units(id) !== 0) tokens.push(this.#tokens[id]!);
    }
    this.#words.fill(0);
    this.count = 0;
    this.#oldest = 0;
    return tokens;
  }
}

/** What `add` refuses, in either format. `units`: descriptors that it would take. */
export function checkBuffers(
  buffers: BufferList,
  size: number,
  table: number | undefined,
  indirect: boolean,
): number {
  const { count } = buffers;
  if (count === 0) throw new TypeError("A buffer needs at least one element");
  if (table !== undefined && !indirect) {
    throw new TypeError(
      "Cannot use an indirect table: VIRTIO_F_INDIRECT_DESC was not negotiated",
    );
  }
  // 2.7.5.3.1 and 2.8.17: no longer than the queue, through a table or not.
  if (count > size) {
    throw new RangeError(`A buffer of ${count} elements does not fit a queue of ${size}`);
  }
  if (buffers.bytes > 0x1_0000_0000) {
    throw new RangeError(`A buffer of ${buffers.bytes} bytes is longer than 2^32`);
  }
  return table === undefined ? count : 1;
}

/** Writes a 64-bit address. */
export function putAddress(words: Int32Array, at: number, address: number): void {
  words[at] = address;
  words[(at + 1) | 0] = address < 0x1_0000_0000 ? 0 : Math.floor(address / 0x1_0000_0000);
}

/**
 * Writes an indirect table: linked entries in the split format (2.7.5.3), entries in order in the packed one (2.8.7).
 *
 * @throws {AddressError} If it is not in one region.
 */
export function writeTable(
  memory: GuestMemory,
  table: number,
  buffers: BufferList,
  packed: boolean,
): void {
  const { count, readableCount, addresses, lengths } = buffers;
  const region = memory.lookupSegment(table, 16 * count);
  if (region === null || ((table - region.base) & 3) !== 0) {
    writeTableAnywhere(memory, table, buffers, packed);
    return;
  }
  const words = region.i32;
  let at = (table - region.base) >> 2;
  for (let i = 0; i < count; i++) {
    putAddress(words, at, addresses[i]!);
    words[(at + 2) | 0] = lengths[i]!;
    words[(at + 3) | 0] = entryWord(i, count, readableCount, packed);
    at = (at + 4) | 0;
  }
}

function entryWord(i: number, count: number, readableCount: number, packed: boolean): number {
  const flags = i < readableCount ? 0 : F_WRITE;
  if (packed) return flags << 16;
  const next = (i + 1) | 0;
  return next < count ? flags | F_NEXT | (next << 16) : flags;
}

/** Not aligned to words, or at a seam of a large region. */
function writeTableAnywhere(
  memory: GuestMemory,
  table: number,
  buffers: BufferList,
  packed: boolean,
): void {
  const { count, readableCount, addresses, lengths } = buffers;
  memory.find(table, 16 * count);
  const words = new Int32Array(4 * count);
  for (let i = 0; i < count; i++) {
    putAddress(words, 4 * i, addresses[i]!);
    words[4 * i + 2] = lengths[i]!;
    words[4 * i + 3] = entryWord(i, count, readableCount, packed);
  }
  memory.write(table, new Uint8Array(words.buffer));
}
