/**
 * The long way through a descriptor chain, for both formats: whatever `pop` does not meet in a plain chain. An indirect table
 * that is not at hand, an empty buffer, one that crosses regions, more segments than ever; and whatever is wrong.
 *
 * `pop` hands over at a descriptor that it has read, so that nothing is read twice.
 */
import type { GuestMemory } from "@virtio/memory";
import type { Chain } from "./chain.ts";
import { VirtqueueError } from "./errors.ts";
import {
  DESCRIPTOR_SIZE,
  type RingFormat,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "./layout.ts";
import { addBuffer, checkTotal } from "./segments.ts";

/**
 * Longest chain taken through an indirect table where the queue is shorter. The standard forbids more than the queue size
 * (2.7.5.3.1), but drivers of small queues do it, and a device may choose its limit (2.7.4.1).
 */
const INDIRECT_LIMIT = 1024;
const TABLE_BYTES = DESCRIPTOR_SIZE * INDIRECT_LIMIT;

/**
 * Whether a table at this offset of a region of this size can be used in place: all of it is there, and aligned, and it is
 * no longer than ever allowed.
 */
export function isPlainTable(offset: number, length: number, size: number): boolean {
  return offset >= 0 && length > 0 && length <= ((size - offset) | 0) && (length & 15) === 0 &&
    (offset & 3) === 0 && length <= TABLE_BYTES;
}

/** Walks the unusual chains of one queue. */
export class ChainWalker {
  readonly #memory: GuestMemory;
  readonly #size: number;
  readonly #packed: boolean;
  /** Whether VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly #indirect: boolean;
  /** What the walk is in: a ring or an indirect table, as words, the index of the first one, and descriptors. */
  #words: Int32Array = new Int32Array(0);
  #start = 0;
  #entries = 0;

  constructor(memory: GuestMemory, size: number, format: RingFormat, indirect: boolean) {
    this.#memory = memory;
    this.#size = size;
    this.#packed = format === "packed";
    this.#indirect = indirect;
  }

  /** Starts a walk at the ring, or at a table. */
  enter(words: Int32Array, start: number, entries: number): void {
    this.#words = words;
    this.#start = start;
    this.#entries = entries;
  }

  /**
   * Goes on with a chain of which each descriptor so far made one segment.
   *
   * @param inTable Whether the walk is in an indirect table; it is then the only one of the chain.
   * @param index Of the descriptor that was read.
   * @param low First word of the descriptor; `high`, `length` and `word` are the others.
   * @throws {VirtqueueError} If the driver broke a rule.
   */
  walk(
    chain: Chain,
    inTable: boolean,
    index: number,
    low: number,
    high: number,
    length: number,
    word: number,
  ): void {
    const packed = this.#packed;
    let descriptors = chain.count;
    /** Descriptors before the table, and slots of the ring. */
    let before = 0;
    let slots = inTable ? 1 : descriptors;
    for (;;) {
      const flags = packed ? word >>> 16 : word;
      // In a table of the packed format all flags but WRITE are ignored (2.8.7).
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0 && !(packed && inTable)) {
        this.#checkIndirect(inTable, flags, descriptors);
        this.#openTable(low >>> 0, high >>> 0, length >>> 0);
        if (packed) chain.id = word & 0xffff;
        slots++;
        before = descriptors;
        inTable = true;
        index = 0;
      } else {
        if (descriptors - before >= this.#entries) throw this.#tooLong(inTable);
        descriptors++;
        const writable = (flags & VIRTQ_DESC_F_WRITE) !== 0;
        addBuffer(chain, this.#memory, low >>> 0, high >>> 0, length >>> 0, writable);
        if (!inTable) slots++;
        if (packed) {
          // The entries of an indirect table follow each other, whatever their flags say (2.8.7).
          if (inTable ? index + 1 === this.#entries : (flags & VIRTQ_DESC_F_NEXT) === 0) break;
          index = index + 1 === this.#entries ? 0 : index + 1;
        } else {
          if ((flags & VIRTQ_DESC_F_NEXT) === 0) break;
          index = word >>> 16;
        }
      }
      if (index >= this.#entries) throw beyond(index, this.#entries, inTable, descriptors);
      const at = this.#start + 4 * index;
      low = this.#words[at]!;
      high = this.#words[at + 1]!;
      length = this.#words[at + 2]!;
      word = this.#words[at + 3]!;
    }
    if (packed) {
      // The last descriptor of a list, and the one of an indirect table, carry the buffer id (2.8.6, 2.8.7).
      if (!inTable) chain.id = word & 0xffff;
      chain.slots = slots;
    }
    const { count, readableCount, readable, writable } = chain;
    chain.finish(count, descriptors, readableCount, readable, writable);
    checkTotal(chain);
  }

  /** The checks of a descriptor with the flag INDIRECT; VIRTQ_DESC_F_WRITE is ignored there (2.7.5.3.2). */
  #checkIndirect(inTable: boolean, flags: number, before: number): void {
    const clause = this.#packed ? "2.8.19" : "2.7.5.3.1";
    if (inTable) {
      throw new VirtqueueError(clause, "An indirect descriptor inside an indirect table");
    }
    if (!this.#indirect) {
      throw new VirtqueueError(
        clause,
        "An indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated",
      );
    }
    const next = (flags & VIRTQ_DESC_F_NEXT) !== 0;
    if (this.#packed && (next || before > 0)) {
      throw new VirtqueueError(clause, "An indirect descriptor in a list of several");
    }
    if (next) throw new VirtqueueError(clause, "A descriptor is both INDIRECT and NEXT");
  }

  /** Finds an indirect table: all checks before its first entry is read. */
  #openTable(low: number, high: number, length: number): void {
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) {
      throw new VirtqueueError(
        "2.7.5.3",
        `An indirect table has ${length} bytes, which is no multiple of 16 above 0`,
      );
    }
    const entries = length / DESCRIPTOR_SIZE;
    const limit = Math.max(this.#size, INDIRECT_LIMIT);
    if (entries > limit) {
      throw new VirtqueueError(
        "2.7.5.3.1",
        `An indirect table has ${entries} entries; at most ${limit} are taken`,
      );
    }
    const address = low + high * 0x1_0000_0000;
    const region = this.#memory.lookupSegment(address, length);
    if (region !== null && (low & 3) === 0) {
      this.enter(region.i32, (address - region.base) / 4, entries);
      return;
    }
    // Across regions, or not aligned to words: a copy.
    const copy = new Uint8Array(length);
    try {
      this.#memory.read(address, copy);
    } catch {
      throw new VirtqueueError(
        "2.7.5.3",
        `An indirect table lies at 0x${address.toString(16)}, where no guest memory is`,
      );
    }
    this.enter(new Int32Array(copy.buffer), 0, entries);
  }

  /** No descriptor is visited twice, so more than there are go round in a circle. */
  #tooLong(inTable: boolean): VirtqueueError {
    return this.#packed && !inTable
      ? new VirtqueueError("2.8.17", "A descriptor list is longer than the queue")
      : new VirtqueueError("2.7.5.2", "A descriptor chain loops");
  }
}

/** Split: the index of the first descriptor, or of a next one, is no index. */
export function beyond(
  index: number,
  entries: number,
  inTable: boolean,
  before: number,
): VirtqueueError {
  return new VirtqueueError(
    inTable ? "2.7.5.3.1" : before === 0 ? "2.7.6" : "2.7.5",
    `Descriptor ${index} is beyond the table of ${entries}`,
  );
}
