import type { GuestMemory } from "@virtio/memory";
import { VirtqueueError } from "../errors.ts";
import { VIRTQ_DESC_F_NEXT } from "../layout.ts";
import type { BufferList } from "./buffer_list.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const F_NEXT = VIRTQ_DESC_F_NEXT;
const HIGH = 0x1_0000_0000;
/** Compared with this, a small integer is not made a floating-point number first. */
const SMALL = 0x4000_0000;
/** The longest buffer (2.7.5.2). */
const MAX_BYTES = 0x1_0000_0000;

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
    words[(at + 1) | 0] = last;
    words[(at + 2) | 0] = writable < SMALL ? writable : longest(writable);
    words[(at + 3) | 0] = this.#batch;
    if (this.#order !== null) this.#enqueue(this.#order, id);
    this.count = (this.count + 1) | 0;
  }

  #enqueue(order: Uint16Array, id: number): void {
    order[(this.#oldest + this.count) % order.length] = id;
  }

  /** What was started so far is made available. */
  publish(): void {
    this.#batch = (this.#batch + 1) | 0;
  }

  /** Descriptors or slots of a buffer that is in flight. */
  units(id: number): number {
    return this.#words[id << 2]!;
  }

  /** Last descriptor of a buffer. */
  last(id: number): number {
    return this.#words[((id << 2) + 1) | 0]!;
  }

  /** Device-writable bytes of a buffer. */
  writable(id: number): number {
    return this.#words[((id << 2) + 2) | 0]! >>> 0;
  }

  /**
   * Whether a buffer is in flight and has room for what the device says it wrote.
   *
   * @returns Its descriptors or slots; 0 if not.
   */
  accepts(id: number, length: number): number {
    if (id >>> 0 >= this.#size) return 0;
    const words = this.#words;
    const at = id << 2;
    if (
      words[(at + 3) | 0] === this.#batch || (length >>> 0) > (words[(at + 2) | 0]! >>> 0)
    ) {
      return 0;
    }
    return words[at]!;
  }

  /** Why it does not. */
  error(id: number, length: number): VirtqueueError {
    const at = 4 * id;
    let what = `says it wrote ${length} bytes into buffer ${id}, which has room for ${
      id < this.#size ? this.writable(id) : 0
    }`;
    if (!(id < this.#size) || this.#words[at] === 0) {
      what = `used buffer ${id}, which is not in flight`;
    } else if (this.#words[at + 3] === this.#batch) {
      what = `used buffer ${id}, which was not made available yet`;
    }
    return new VirtqueueError(this.#clause, `The device ${what}`);
  }

  /** The buffer is back. @returns Its token. */
  end(id: number): number {
    this.#words[id << 2] = 0;
    this.count = (this.count - 1) | 0;
    if (this.#order !== null) this.#dequeue(this.#order);
    return this.#tokens[id]!;
  }

  #dequeue(order: Uint16Array): void {
    this.#oldest = (this.#oldest + 1) % order.length;
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
      if (this.#words[4 * id] !== 0) tokens.push(this.#tokens[id]!);
    }
    this.#words.fill(0);
    this.count = 0;
    this.#oldest = 0;
    return tokens;
  }
}

/** No used length can say 2^32. */
function longest(writable: number): number {
  return Math.min(writable, 0xffff_ffff) | 0;
}

/** Whether `checkBuffers` must look closely: where a buffer is not short, or has no elements, or more than `room`. */
export function mustCheck(buffers: BufferList, room: number): boolean {
  return (buffers.count - 1) >>> 0 >= room || buffers.bytes > SMALL;
}

/** What `add` refuses, in either format. */
export function checkBuffers(
  { count, bytes }: BufferList,
  size: number,
  table: number | undefined,
  indirect: boolean,
): void {
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
  if (bytes > MAX_BYTES) {
    throw new RangeError(`A buffer of ${bytes} bytes is longer than 2^32`);
  }
}

/** The upper half of a 64-bit address. */
export function upperHalf(address: number): number {
  return address < SMALL ? 0 : Math.floor(address / HIGH) | 0;
}

/**
 * Writes an indirect table: linked entries in the split format (2.7.5.3), entries in order in the packed one (2.8.7).
 *
 * @param high Upper half of the table's address.
 * @throws {AddressError} If it is not in one region.
 */
export function writeTable(
  memory: GuestMemory,
  table: number,
  high: number,
  buffers: BufferList,
  packed: boolean,
): void {
  const { count } = buffers;
  const low = table | 0;
  const region = memory.locate(low, high, count << 4);
  if (region === null || ((low - region.baseLow) & 3) !== 0) {
    writeTableAnywhere(memory, table, buffers, packed);
  } else {
    writeEntries(region.i32, ((low - region.baseLow) | 0) >>> 2, buffers, packed);
  }
}

function writeEntries(words: Int32Array, at: number, buffers: BufferList, packed: boolean): void {
  const from = buffers.words;
  const end = buffers.count << 2;
  for (let k = 0; k < end; k = (k + 4) | 0) {
    const flags = from[(k + 3) | 0]!;
    words[at] = from[k]!;
    words[(at + 1) | 0] = from[(k + 1) | 0]!;
    words[(at + 2) | 0] = from[(k + 2) | 0]!;
    // In the split format each entry but the last names the next one: with k / 4 + 1 in the upper half.
    words[(at + 3) | 0] = packed
      ? flags << 16
      : ((k + 4) | 0) < end
      ? flags | F_NEXT | ((k + 4) << 14)
      : flags;
    at = (at + 4) | 0;
  }
}

/** Not aligned to words, or at a seam of a large region. */
function writeTableAnywhere(
  memory: GuestMemory,
  table: number,
  buffers: BufferList,
  packed: boolean,
): void {
  memory.find(table, 16 * buffers.count);
  const words = new Int32Array(4 * buffers.count);
  writeEntries(words, 0, buffers, packed);
  memory.write(table, new Uint8Array(words.buffer));
}
