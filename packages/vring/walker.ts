/**
 * The one walk of a descriptor chain, for both formats and for indirect tables: reads each descriptor once, checks it, and
 * lists its segments in a `Chain`.
 *
 * Hot path, and the hottest: what is counted stays in locals, and what is out of the ordinary (another region, an empty
 * buffer, one across regions, more segments than ever) leaves it. `| 0` tells the compiler that a number is a small integer,
 * so that it neither looks at every use nor checks every sum. bench/vring_bench.ts guards it.
 */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import type { Chain } from "./chain.ts";
import { VirtqueueError } from "./errors.ts";
import {
  DESCRIPTOR_SIZE,
  type RingFormat,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "./layout.ts";
import type { ResolvedArea } from "./open_queue.ts";
import { addBuffer, checkTotal, INDIRECT_LIMIT } from "./segments.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const F_NEXT = VIRTQ_DESC_F_NEXT;
const F_WRITE = VIRTQ_DESC_F_WRITE;
const F_INDIRECT = VIRTQ_DESC_F_INDIRECT;

/**
 * Walks the chains of one queue.
 */
export class ChainWalker {
  readonly #memory: GuestMemory;
  readonly #size: number = 0;
  /** The ring, and the index of its first word in the region's i32. */
  readonly #ring: MemoryRegion;
  readonly #start: number = 0;
  /**
   * Where the flags are in the last word of a descriptor: 0 in the split format, where `next` follows (2.7.5), 16 in the
   * packed one, where the id comes first (2.8.2).
   */
  readonly #shift: number = 0;
  /** Whether VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly #indirect: boolean = false;
  /** The region of the last segment: the next one most likely lies there too. */
  #region: MemoryRegion;
  /** Of the walk in progress: descriptors visited beyond one for each segment, and segments before the indirect table. */
  #extra = 0;
  #before = 0;
  /** The indirect table that `#openTable` found. */
  #tableWords: Int32Array;
  #tableStart = 0;

  constructor(
    memory: GuestMemory,
    size: number,
    ring: ResolvedArea,
    format: RingFormat,
    indirect: boolean,
  ) {
    this.#memory = memory;
    this.#size = size;
    this.#ring = ring.region;
    this.#start = ring.offset / 4;
    this.#shift = format === "packed" ? 16 : 0;
    this.#indirect = indirect;
    this.#region = memory.regions[0]!;
    this.#tableWords = this.#ring.i32;
  }

  /**
   * Fills an empty chain.
   *
   * @param first Index of the chain's first descriptor; may be driver-controlled.
   * @throws {VirtqueueError} If the driver broke a rule.
   */
  walk(chain: Chain, first: number): void {
    const shift = this.#shift | 0;
    let words = this.#ring.i32;
    let table = this.#start | 0;
    let entries = this.#size | 0;
    let index = first | 0;
    let inTable = 0;
    let ringWord = 0;

    let region = this.#region;
    let regionId = region.id | 0;
    let baseLow = region.baseLow | 0;
    let baseHigh = region.baseHigh | 0;
    let size = region.size | 0;

    const { regions, offsets, lengths } = chain;
    const capacity = chain.capacity | 0;
    let uniform = chain.mixed === 0 ? chain.region.id | 0 : -1;
    let count = 0;
    let readableCount = 0;
    let readable = 0;
    let writable = 0;
    this.#extra = 0;
    this.#before = 0;

    for (;;) {
      if (index >= entries) throw this.#beyond(index, entries, inTable, count);
      const at = (table + (index << 2)) | 0;
      const low = words[at]!;
      const high = words[(at + 1) | 0]!;
      const length = words[(at + 2) | 0]!;
      const word = words[(at + 3) | 0]!;
      let offset = (low - baseLow) | 0;

      if (((word >>> shift) & F_INDIRECT) !== 0) {
        this.#checkIndirect(inTable, word >>> shift, count);
        if (high === baseHigh && isTable(offset, length, size)) {
          words = region.i32;
          table = offset >> 2;
        } else {
          this.#openTable(low >>> 0, high >>> 0, length >>> 0);
          words = this.#tableWords;
          table = this.#tableStart | 0;
        }
        entries = length >>> 4;
        index = 0;
        inTable = 1;
        ringWord = word;
        this.#before = count + this.#extra;
        continue;
      }

      if (
        high !== baseHigh || offset < 0 || length <= 0 || length > ((size - offset) | 0) ||
        count === capacity
      ) {
        const found = length > 0 && count !== capacity
          ? this.#memory.lookupSegment((low >>> 0) + (high >>> 0) * 0x1_0000_0000, length)
          : null;
        if (found !== null) {
          region = found;
          regionId = region.id | 0;
          baseLow = region.baseLow | 0;
          baseHigh = region.baseHigh | 0;
          size = region.size | 0;
          offset = (low - baseLow) | 0;
        } else {
          this.#checkLength(entries, inTable, count);
          chain.finish(count, 0, readableCount, readable, writable);
          addBuffer(
            chain,
            this.#memory,
            low >>> 0,
            high >>> 0,
            length >>> 0,
            ((word >>> shift) & F_WRITE) !== 0,
          );
          // More segments than ever: from the start again, now that there is room.
          if (chain.lengths !== lengths) return this.walk(chain, first);
          this.#extra += 1 + count - chain.count;
          count = chain.count | 0;
          readableCount = chain.readableCount | 0;
          readable = chain.readable;
          writable = chain.writable;
          uniform = chain.mixed === 0 ? chain.region.id | 0 : -1;
          offset = -1;
        }
      }

      if (offset >= 0) {
        if (((word >>> shift) & F_WRITE) !== 0) {
          writable += length;
        } else {
          if (readableCount !== count) throw wrongOrder();
          readable += length;
          readableCount = (count + 1) | 0;
        }
        if (regionId !== uniform) {
          chain.mixed = 1;
          uniform = -1;
          regions[count] = region;
        }
        offsets[count] = offset;
        lengths[count] = length;
        count = (count + 1) | 0;
      }

      if (shift === 0) {
        if ((word & F_NEXT) === 0) break;
        index = word >>> 16;
      } else {
        // The entries of an indirect table follow each other, whatever their flags say (2.8.7).
        if (inTable === 0 && ((word >>> 16) & F_NEXT) === 0) {
          ringWord = word;
          break;
        }
        index = (index + 1) | 0;
        if (index === entries) {
          if (inTable !== 0) break;
          index = 0;
        }
      }
    }

    const descriptors = (count + this.#extra) | 0;
    if (((descriptors - this.#before) | 0) > entries) this.#checkLength(entries, inTable, count);
    this.#region = region;
    if (shift === 0) {
      chain.id = first;
    } else {
      // The last descriptor of a list, and the one of an indirect table, carry the buffer id (2.8.6, 2.8.7).
      chain.id = ringWord & 0xffff;
      chain.slots = inTable === 0 ? descriptors : 1;
    }
    chain.finish(count, descriptors, readableCount, readable, writable);
    if (readable + writable > 0x7fff_ffff) checkTotal(chain);
  }

  /**
   * For the short way of `pop`: where a buffer lies that is not in the region at hand.
   *
   * @returns Null if it takes the long way.
   */
  locate(low: number, high: number, length: number): MemoryRegion | null {
    if (length <= 0) return null;
    return this.#memory.lookupSegment((low >>> 0) + (high >>> 0) * 0x1_0000_0000, length);
  }

  /** The checks of a descriptor with the flag INDIRECT; VIRTQ_DESC_F_WRITE is ignored there (2.7.5.3.2). */
  #checkIndirect(inTable: number, flags: number, count: number): void {
    if (inTable === 0 && this.#indirect === true && (flags & F_NEXT) === 0) {
      if (this.#shift === 0 || count + this.#extra === 0) return;
    }
    const packed = this.#shift !== 0;
    const clause = packed ? "2.8.19" : "2.7.5.3.1";
    if (inTable !== 0) {
      throw new VirtqueueError(clause, "An indirect descriptor inside an indirect table");
    }
    if (!this.#indirect) {
      throw new VirtqueueError(
        clause,
        "An indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated",
      );
    }
    throw new VirtqueueError(
      clause,
      packed
        ? "An indirect descriptor in a list of several"
        : "A descriptor is both INDIRECT and NEXT",
    );
  }

  /** Finds an indirect table that is not in the region of the last segment, or not as it should be. */
  #openTable(low: number, high: number, length: number): void {
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) {
      throw new VirtqueueError(
        "2.7.5.3",
        `An indirect table has ${length} bytes, which is no multiple of 16 above 0`,
      );
    }
    const limit = this.#size > INDIRECT_LIMIT ? this.#size : INDIRECT_LIMIT;
    if (length / DESCRIPTOR_SIZE > limit) {
      throw new VirtqueueError(
        "2.7.5.3.1",
        `An indirect table has ${length / DESCRIPTOR_SIZE} entries; at most ${limit} are taken`,
      );
    }
    const address = low + high * 0x1_0000_0000;
    const region = this.#memory.lookupSegment(address, length);
    if (region !== null && (low & 3) === 0) {
      this.#tableWords = region.i32;
      this.#tableStart = (address - region.base) / 4;
      return;
    }
    // Across regions, or not aligned: a copy.
    const copy = new Uint8Array(length);
    try {
      this.#memory.read(address, copy);
    } catch {
      throw new VirtqueueError(
        "2.7.5.3",
        `An indirect table lies at 0x${address.toString(16)}, where no guest memory is`,
      );
    }
    this.#tableWords = new Int32Array(copy.buffer);
    this.#tableStart = 0;
  }

  /** No descriptor is visited twice: as many as there are is the most, or they go round in a circle. */
  #checkLength(entries: number, inTable: number, count: number): void {
    if (count + this.#extra - this.#before < entries) return;
    throw this.#shift !== 0 && inTable === 0
      ? new VirtqueueError("2.8.17", "A descriptor list is longer than the queue")
      : new VirtqueueError("2.7.5.2", "A descriptor chain loops");
  }

  #beyond(index: number, entries: number, inTable: number, count: number): VirtqueueError {
    return new VirtqueueError(
      inTable !== 0 ? "2.7.5.3.1" : count + this.#extra === 0 ? "2.7.6" : "2.7.5",
      `Descriptor ${index} is beyond the table of ${entries}`,
    );
  }
}

/** Whether an indirect table can be used in place: plain words of a region of this size, and no longer than ever allowed. */
export function isTable(offset: number, length: number, size: number): boolean {
  return offset >= 0 && length > 0 && length <= ((size - offset) | 0) && (length & 15) === 0 &&
    (offset & 3) === 0 && length <= DESCRIPTOR_SIZE * INDIRECT_LIMIT;
}

function wrongOrder(): VirtqueueError {
  return new VirtqueueError(
    "2.7.4.2",
    "A device-readable descriptor comes after a device-writable one",
  );
}
