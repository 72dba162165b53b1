import { AddressError } from "./errors.ts";
import { makeMemory, register } from "./copy.ts";
import { MemoryRegion, type RegionSource } from "./region.ts";

/** Length of the table that remembers where addresses were found; a power of two. */
const TABLE_LENGTH = 4096;

/** Told of every range that a device writes: dirty logging, or the code cache of an emulator. */
export interface WriteTracker {
  /** `length` bytes from guest-physical `address` on were, or may have been, written. */
  mark(address: number, length: number): void;
}

/** A region as it crosses to another thread: plain data for `postMessage`. */
export interface SharedRegion {
  /** Guest-physical address of the first byte. */
  readonly base: number;
  /** Length in bytes. */
  readonly size: number;
  /** Offset in `buffer`. */
  readonly byteOffset: number;
  /** The shared buffer, or null where `address` tells the other thread where to look. */
  readonly buffer: SharedArrayBuffer | null;
  /** Address in this process, or null. */
  readonly address: bigint | null;
  /** The memory of WebAssembly that the shared buffer is of, where there is one: copies are fastest so. */
  readonly memory?: WebAssembly.Memory;
}

/** What `GuestMemory.share()` gives and `GuestMemory.from()` takes. */
export interface SharedMemory {
  /** The regions in the order of their bases. */
  readonly regions: readonly SharedRegion[];
}

/**
 * The guest-physical address space: a sorted, immutable list of regions. Adding or removing memory makes a new
 * `GuestMemory`, so nobody who holds one sees it change.
 *
 * Addresses are numbers. One at or above 2^53 loses low bits when a ring field is turned into a number, but is then
 * still far outside of every region and refused.
 *
 * @example Memory of one's own
 * ```ts
 * import { GuestMemory } from "@virtio/memory";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const memory = new GuestMemory([
 *   { base: 0, buffer: new SharedArrayBuffer(0x1000) },
 *   { base: 0x1_0000_0000, buffer: new ArrayBuffer(0x1000) },
 * ]);
 * memory.write(0x1_0000_0010, new Uint8Array([1, 2, 3]));
 * assertEquals(memory.readU8(0x1_0000_0012), 3);
 * assertThrows(() => memory.readU32(0xffe), RangeError);
 * ```
 */
export class GuestMemory {
  /** Sorted by base, without overlap. */
  readonly regions: readonly MemoryRegion[];
  /** Told of device writes; null (the default) costs one comparison per chain. */
  tracker: WriteTracker | null = null;
  /** Whether no region's buffer can be replaced. */
  readonly stable: boolean;
  /**
   * Where each piece of the address space was found last, by the piece's number modulo the table's length: a region, or the
   * window of a large one.
   */
  readonly #found: MemoryRegion[] = [];
  #mask = 0;
  /** Bits of an address within its piece. */
  #shift = 12;
  /** Address times this: the number of its piece. A power of two, so exact. */
  #scale = 1 / 4096;

  /**
   * @param sources The regions in any order; at least one.
   * @throws {RangeError} If there is none, if two overlap, or if one is not valid (see `MemoryRegion`).
   */
  constructor(sources: readonly RegionSource[]) {
    if (sources.length === 0) {
      throw new RangeError("Guest memory needs at least one region");
    }
    const regions = sources.map((source) => new MemoryRegion(source));
    regions.sort((a, b) => a.base - b.base);
    for (let i = 1; i < regions.length; i++) {
      const before = regions[i - 1]!;
      const region = regions[i]!;
      if (before.base + before.size > region.base) {
        throw new RangeError(
          `Regions overlap at 0x${region.base.toString(16)}: the one before ends at 0x${
            (before.base + before.size).toString(16)
          }`,
        );
      }
    }
    this.regions = regions;
    this.stable = regions.every((region) => region.stable);
    const last = regions[regions.length - 1]!;
    this.#layTable(last.base + last.size);
  }

  /**
   * Memory of one region over a new SharedArrayBuffer, that of a `WebAssembly.Memory` if there are any, since from and to
   * that copies are fastest.
   *
   * @param size Bytes; a multiple of 8.
   * @param base Guest-physical address of the first byte.
   */
  static allocate(size: number, base = 0): GuestMemory {
    const shared = typeof SharedArrayBuffer !== "undefined";
    const buffer = makeMemory(size, shared)?.buffer ??
      (shared ? new SharedArrayBuffer(size) : new ArrayBuffer(size));
    return new GuestMemory([{ base, buffer, size }]);
  }

  /**
   * The region that holds `length` bytes from `address` on, or null.
   *
   * @param address Guest-physical address; driver-controlled values are fine.
   * @param length Bytes; a range may not cross a region's end.
   */
  lookup(address: number, length: number): MemoryRegion | null {
    const region = this.#found[(address * this.#scale) & this.#mask]!.whole;
    const offset = address - region.base;
    if (offset >= 0 && offset + length <= region.size) return region;
    return this.#search(address, length);
  }

  #search(address: number, length: number): MemoryRegion | null {
    const regions = this.regions;
    let low = 0;
    let high = regions.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (regions[middle]!.base <= address) low = middle;
      else high = middle - 1;
    }
    const region = regions[low]!;
    const offset = address - region.base;
    // Written so that NaN and infinities fail too.
    if (!(offset >= 0 && offset + length <= region.size)) return null;
    this.#found[(address * this.#scale) & this.#mask] = region.window(address);
    return region;
  }

  /**
   * As `lookup`, for rings and the segments of chains: of a large region the window around the address (see
   * `MemoryRegion.window`), so that offsets are small integers.
   *
   * @returns Null also where the range is in one region, but not in one window.
   */
  lookupSegment(address: number, length: number): MemoryRegion | null {
    const region = this.lookup(address, length);
    if (region === null) return null;
    const window = region.window(address);
    this.#found[(address * this.#scale) & this.#mask] = window;
    return address - window.base + length <= window.size ? window : null;
  }

  /**
   * As `lookupSegment`, for the words of a descriptor: the two halves of the address and the length as signed 32-bit
   * numbers. Hot path of chains that lie in several regions.
   *
   * @param length A negative one stands for 2^31 or more: such a range is in no window.
   */
  locate(low: number, high: number, length: number): MemoryRegion | null {
    const shift = this.#shift;
    const piece = (low >>> shift) | (high << (32 - shift));
    const window = this.#found[piece & this.#mask]!;
    const offset = (low - window.baseLow) | 0;
    if (
      high === window.baseHigh && offset >= 0 && length >= 0 &&
      length <= ((window.size - offset) | 0)
    ) {
      return window;
    }
    if (length < 0) return null;
    return this.lookupSegment((low >>> 0) + (high >>> 0) * 0x1_0000_0000, length);
  }

  /** Pieces of the table: as small as lets the table span all memory, but at most 16 MiB, where memory is sparse. */
  #layTable(end: number): void {
    const first = this.regions[0]!;
    const window = first.window(first.base);
    const length = this.regions.length === 1 && window === first ? 1 : TABLE_LENGTH;
    while (2 ** this.#shift * length < end && this.#shift < 24) this.#shift++;
    this.#scale = 1 / 2 ** this.#shift;
    this.#mask = length - 1;
    for (let i = 0; i < length; i++) this.#found.push(window);
  }

  /**
   * As `lookup`, but throws.
   *
   * @throws {AddressError} If no region holds the whole range.
   */
  find(address: number, length: number): MemoryRegion {
    const region = this.lookup(address, length);
    if (region === null) throw new AddressError(address, length);
    return region;
  }

  /**
   * Makes the views of regions over moving buffers again. Whoever enters from outside (a kick, a late completion) calls
   * this first; between two calls no buffer moves, because the one who would move it runs on the same thread.
   */
  refresh(): void {
    if (this.stable) return;
    for (const region of this.regions) region.refresh();
  }

  /**
   * Copies guest memory into `into`. The range may span adjacent regions.
   *
   * @throws {AddressError} If a part of the range is not guest memory; nothing is copied then.
   */
  read(address: number, into: Uint8Array): void {
    this.#check(address, into.length);
    let done = 0;
    while (done < into.length) {
      const region = this.find(address + done, 1);
      const offset = address + done - region.base;
      const length = Math.min(region.size - offset, into.length - done);
      region.copyTo(offset, into, done, length);
      done += length;
    }
  }

  /**
   * Copies `from` into guest memory. The range may span adjacent regions.
   *
   * @throws {AddressError} If a part of the range is not guest memory; nothing is copied then.
   */
  write(address: number, from: Uint8Array): void {
    this.#check(address, from.length);
    let done = 0;
    while (done < from.length) {
      const region = this.find(address + done, 1);
      const offset = address + done - region.base;
      const length = Math.min(region.size - offset, from.length - done);
      region.copyFrom(offset, from, done, length);
      done += length;
    }
    this.tracker?.mark(address, from.length);
  }

  /**
   * Sets `length` bytes to `value`. The range may span adjacent regions.
   *
   * @throws {AddressError} If a part of the range is not guest memory; nothing is written then.
   */
  fill(address: number, length: number, value = 0): void {
    this.#check(address, length);
    let done = 0;
    while (done < length) {
      const region = this.find(address + done, 1);
      const offset = address + done - region.base;
      const part = Math.min(region.size - offset, length - done);
      region.bytes.fill(value, offset, offset + part);
      done += part;
    }
    this.tracker?.mark(address, length);
  }

  /** Reads a byte. @throws {AddressError} */
  readU8(address: number): number {
    const region = this.find(address, 1);
    return region.view.getUint8(address - region.base);
  }

  /** Reads a little-endian u16. @throws {AddressError} */
  readU16(address: number): number {
    const region = this.find(address, 2);
    return region.view.getUint16(address - region.base, true);
  }

  /** Reads a little-endian u32. @throws {AddressError} */
  readU32(address: number): number {
    const region = this.find(address, 4);
    return region.view.getUint32(address - region.base, true);
  }

  /** Reads a little-endian u64 as a number; exact below 2^53. @throws {AddressError} */
  readU64(address: number): number {
    const region = this.find(address, 8);
    const offset = address - region.base;
    return region.view.getUint32(offset, true) +
      region.view.getUint32(offset + 4, true) * 0x1_0000_0000;
  }

  /** Writes a byte. @throws {AddressError} */
  writeU8(address: number, value: number): void {
    const region = this.find(address, 1);
    region.view.setUint8(address - region.base, value);
    this.tracker?.mark(address, 1);
  }

  /** Writes a little-endian u16. @throws {AddressError} */
  writeU16(address: number, value: number): void {
    const region = this.find(address, 2);
    region.view.setUint16(address - region.base, value, true);
    this.tracker?.mark(address, 2);
  }

  /** Writes a little-endian u32. @throws {AddressError} */
  writeU32(address: number, value: number): void {
    const region = this.find(address, 4);
    region.view.setUint32(address - region.base, value, true);
    this.tracker?.mark(address, 4);
  }

  /** Writes a little-endian u64 given as a number below 2^53. @throws {AddressError} */
  writeU64(address: number, value: number): void {
    const region = this.find(address, 8);
    const offset = address - region.base;
    region.view.setUint32(offset, value % 0x1_0000_0000, true);
    region.view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
    this.tracker?.mark(address, 8);
  }

  /**
   * What another thread needs to see the same memory: plain data for `postMessage`.
   *
   * @throws {TypeError} If a region is neither a SharedArrayBuffer nor memory at an address: it would be copied silently.
   */
  share(): SharedMemory {
    return {
      regions: this.regions.map((region) => {
        const buffer = region.bytes.buffer;
        const shared = typeof SharedArrayBuffer !== "undefined" &&
          buffer instanceof SharedArrayBuffer;
        if (!shared && region.address === null) {
          throw new TypeError(
            `Cannot share the region at 0x${
              region.base.toString(16)
            }: back it with a SharedArrayBuffer or a shared WebAssembly.Memory`,
          );
        }
        return {
          base: region.base,
          size: region.size,
          byteOffset: shared ? region.byteOffset : 0,
          buffer: shared ? buffer as SharedArrayBuffer : null,
          address: region.address,
          ...(shared && region.memory !== null ? { memory: region.memory } : {}),
        };
      }),
    };
  }

  /**
   * The memory that another thread shared.
   *
   * @param shared What `share()` gave there.
   * @param open Makes a buffer over memory at an address; needed only where a region has no shared buffer.
   * @throws {TypeError} If a region has only an address and no `open` is given.
   */
  static from(
    shared: SharedMemory,
    open?: (address: bigint, size: number) => ArrayBufferLike,
  ): GuestMemory {
    return new GuestMemory(shared.regions.map((region) => {
      const { base, size, byteOffset, buffer, address, memory } = region;
      if (buffer !== null) {
        // The same bytes: now it is known whose they are.
        if (memory !== undefined) register(memory);
        const bytes = memory === undefined ? buffer : memory.buffer;
        return { base, size, byteOffset, buffer: bytes, ...(address === null ? {} : { address }) };
      }
      if (address === null || open === undefined) {
        throw new TypeError(
          "Cannot open a region that has only an address: pass a function `open`",
        );
      }
      return { base, size, buffer: open(address, size), address };
    }));
  }

  /** Throws unless every byte of the range is guest memory. */
  #check(address: number, length: number): void {
    let done = 0;
    while (done < length) {
      const region = this.lookup(address + done, 1);
      if (region === null) throw new AddressError(address, length);
      done += region.base + region.size - (address + done);
    }
  }
}
