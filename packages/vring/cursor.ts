import type { MemoryRegion } from "@virtio/memory";
import type { Chain } from "./chain.ts";

/** Longest structure that `struct` hands out: device headers are shorter than this. */
const SCRATCH_SIZE = 256;

/**
 * What both cursors share: a place in a part of a chain. It does not know the direction; the two classes below do, and a
 * device cannot write through a reader or read through a writer.
 */
abstract class Cursor {
  declare protected readonly chain: Chain;
  protected segment = 0;
  protected within = 0;
  /** Bytes left. */
  protected left = 0;
  /** Region of the piece that `next` gave. */
  region: MemoryRegion | null = null;
  /** Offset in `region` of the piece that `next` gave. */
  offset = 0;
  /** Bytes of the piece that `next` gave. */
  length = 0;

  constructor(chain: Chain) {
    this.chain = chain;
  }

  /** Bytes not yet passed. */
  get remaining(): number {
    return this.left;
  }

  /**
   * Passes the next piece that lies in one place, and shows it as `region`, `offset` and `length`.
   *
   * @param max Bytes at most.
   * @returns Whether there was one; false at the end, or if `max` is 0.
   */
  next(max: number): boolean {
    const limit = max < this.left ? max : this.left;
    if (limit <= 0) return false;
    const chain = this.chain;
    const here = chain.lengths[this.segment]! - this.within;
    const length = here < limit ? here : limit;
    this.region = chain.regions[this.segment]!;
    this.offset = chain.offsets[this.segment]! + this.within;
    this.length = length;
    this.left -= length;
    if (length === here) {
      this.segment++;
      this.within = 0;
    } else {
      this.within += length;
    }
    return true;
  }

  /**
   * Passes `length` bytes without touching them.
   *
   * @throws {RangeError} If fewer remain.
   */
  skip(length: number): void {
    this.require(length);
    let left = length;
    while (this.next(left)) left -= this.length;
  }

  /**
   * The next `length` bytes as views of guest memory, one for each piece, without passing them. Allocates: for back ends
   * that take buffers.
   *
   * @throws {RangeError} If fewer remain.
   */
  views(length: number): Uint8Array[] {
    this.require(length);
    const views: Uint8Array[] = [];
    const { segment, within, left } = this;
    let rest = length;
    while (this.next(rest)) {
      views.push(this.region!.bytes.subarray(this.offset, this.offset + this.length));
      rest -= this.length;
    }
    this.segment = segment;
    this.within = within;
    this.left = left;
    return views;
  }

  protected require(length: number): void {
    if (!(length >= 0 && length <= this.left)) {
      throw new RangeError(`Cannot pass ${length} bytes of a chain: ${this.left} remain`);
    }
  }
}

/** Cursor over the device-readable bytes of a chain. Make no second pass: what was read once may have changed since. */
export class ChainReader extends Cursor {
  readonly #scratch: Uint8Array = new Uint8Array(SCRATCH_SIZE);
  readonly #scratchView: DataView = new DataView(this.#scratch.buffer);
  /** Where the structure that `struct` found lies. */
  view: DataView = this.#scratchView;

  /** Starts at the first device-readable byte. */
  begin(): void {
    this.start(this.chain.readable);
  }

  /** As `begin`, for the queue that has the chain's numbers at hand. */
  start(readable: number): void {
    this.segment = 0;
    this.within = 0;
    this.left = readable;
  }

  /**
   * Passes a structure of `length` bytes and makes it readable in one place: where it lies, if the driver left it in one
   * piece, else in a copy. Read each field once.
   *
   * ```text
   * const at = reader.struct(16);
   * const type = reader.view.getUint32(at, true);
   * ```
   *
   * @param length 1 to 256.
   * @returns The offset of the structure in `view`.
   * @throws {RangeError} If fewer bytes remain, or it is longer than 256.
   */
  struct(length: number): number {
    const chain = this.chain;
    const segment = this.segment;
    const within = this.within;
    const here = chain.lengths[segment]! - within;
    // Longer ones are refused here too, so that it is not the driver's cut that decides whether a device works.
    if (length <= here && length <= this.left && (length - 1) >>> 0 < SCRATCH_SIZE) {
      const region = chain.mixed === 0 ? chain.region : chain.regions[segment]!;
      this.view = region.view;
      const at = (chain.offsets[segment]! + within) | 0;
      this.left -= length;
      if (length === here) {
        this.segment = (segment + 1) | 0;
        this.within = 0;
      } else {
        this.within = (within + length) | 0;
      }
      return at;
    }
    return this.#structSlow(length);
  }

  #structSlow(length: number): number {
    this.require(length);
    if (!(length >= 1 && length <= SCRATCH_SIZE)) {
      throw new RangeError(
        `A structure may have 1 to ${SCRATCH_SIZE} bytes: ${length} were asked for`,
      );
    }
    let done = 0;
    while (this.next(length - done)) {
      this.region!.copyTo(this.offset, this.#scratch, done, this.length);
      done += this.length;
    }
    this.view = this.#scratchView;
    return 0;
  }

  /** Reads a byte. @throws {RangeError} If none remains. */
  u8(): number {
    const at = this.struct(1);
    return this.view.getUint8(at);
  }

  /** Reads a little-endian u16. @throws {RangeError} If fewer bytes remain. */
  u16(): number {
    const at = this.struct(2);
    return this.view.getUint16(at, true);
  }

  /** Reads a little-endian u32. @throws {RangeError} If fewer bytes remain. */
  u32(): number {
    const at = this.struct(4);
    return this.view.getUint32(at, true);
  }

  /** Reads a little-endian u64 as a number; exact below 2^53. @throws {RangeError} If fewer bytes remain. */
  u64(): number {
    const at = this.struct(8);
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 0x1_0000_0000;
  }

  /**
   * Copies bytes out of guest memory, as many as remain at most.
   *
   * @returns How many.
   */
  read(into: Uint8Array): number {
    return this.readInto(into, 0, into.length);
  }

  /**
   * Copies bytes out of guest memory to `into[at...]`, `max` or as many as remain. As `read`, without a view.
   *
   * @returns How many.
   */
  readInto(into: Uint8Array, at: number, max: number): number {
    const length = Math.min(max, into.length - at, this.left);
    let done = 0;
    while (this.next(length - done)) {
      this.region!.copyTo(this.offset, into, at + done, this.length);
      done += this.length;
    }
    return length;
  }
}

/** Cursor over the device-writable bytes of a chain. It counts what was written, so that `push` need not be told. */
export class ChainWriter extends Cursor {
  #tail = 0;
  #tailSegment = 0;
  #tailWithin = 0;
  #tailWritten = false;

  /** Starts at the first device-writable byte. */
  begin(): void {
    this.start(this.chain.readableCount, this.chain.writable);
  }

  /** As `begin`, for the queue that has the chain's numbers at hand. */
  start(readableCount: number, writable: number): void {
    this.segment = readableCount;
    this.within = 0;
    this.left = writable;
    this.#tail = 0;
  }

  /** Bytes written without a gap from the start. See `Chain.written`. */
  get written(): number {
    if (this.left > 0) return this.chain.writable - this.#tail - this.left;
    return this.#tailWritten ? this.chain.writable : this.chain.writable - this.#tail;
  }

  /**
   * Sets the last `length` bytes of the device-writable part aside, for `writeTail`: a status that the standard puts at the
   * end, wherever the driver's descriptors end.
   *
   * @returns False if there are fewer bytes, and nothing is set aside.
   */
  reserveTail(length: number): boolean {
    if (this.left < length) return false;
    const chain = this.chain;
    let segment = chain.count - 1;
    let before = length;
    while (chain.lengths[segment]! < before) before -= chain.lengths[segment--]!;
    this.#tailSegment = segment;
    this.#tailWithin = chain.lengths[segment]! - before;
    this.#tail = length;
    this.#tailWritten = false;
    this.left -= length;
    return true;
  }

  /** Writes the reserved tail of one byte. @throws {RangeError} If the reserved tail is not one byte. */
  writeTailU8(value: number): void {
    if (this.#tail !== 1) throw new RangeError("Reserve a tail of one byte before writing it");
    const chain = this.chain;
    const segment = this.#tailSegment;
    const region = chain.mixed === 0 ? chain.region : chain.regions[segment]!;
    region.view.setUint8((chain.offsets[segment]! + this.#tailWithin) | 0, value);
    this.#tailWritten = true;
  }

  /** Writes the reserved tail. @throws {RangeError} If `from` has another length than was reserved. */
  writeTail(from: Uint8Array): void {
    if (from.length !== this.#tail) {
      throw new RangeError(
        `The tail has ${this.#tail} bytes: ${from.length} cannot be written there`,
      );
    }
    const chain = this.chain;
    let done = 0;
    let within = this.#tailWithin;
    for (let segment = this.#tailSegment; done < from.length; segment++) {
      const length = chain.lengths[segment]! - within;
      chain.regions[segment]!.copyFrom(chain.offsets[segment]! + within, from, done, length);
      done += length;
      within = 0;
    }
    this.#tailWritten = true;
  }

  /** Writes a byte. @throws {RangeError} If none remains. */
  u8(value: number): void {
    this.require(1);
    this.next(1);
    this.region!.view.setUint8(this.offset, value);
  }

  /** Writes a little-endian u16. @throws {RangeError} If fewer bytes remain. */
  u16(value: number): void {
    this.#uint(value, 2);
  }

  /** Writes a little-endian u32. @throws {RangeError} If fewer bytes remain. */
  u32(value: number): void {
    this.#uint(value, 4);
  }

  /** Writes a little-endian u64 given as a number below 2^53. @throws {RangeError} If fewer bytes remain. */
  u64(value: number): void {
    this.require(8);
    this.#uint(value % 0x1_0000_0000, 4);
    this.#uint(Math.floor(value / 0x1_0000_0000), 4);
  }

  #uint(value: number, size: number): void {
    this.require(size);
    for (let i = 0; i < size; i++) {
      this.next(1);
      this.region!.view.setUint8(this.offset, value >>> (8 * i));
    }
  }

  /**
   * Copies bytes into guest memory, as many as fit.
   *
   * @returns How many.
   */
  write(from: Uint8Array): number {
    return this.writeFrom(from, 0, from.length);
  }

  /**
   * Copies `from[at...]` into guest memory, `max` bytes or as many as fit. As `write`, without a view.
   *
   * @returns How many.
   */
  writeFrom(from: Uint8Array, at: number, max: number): number {
    const length = Math.min(max, from.length - at, this.left);
    let done = 0;
    while (this.next(length - done)) {
      this.region!.copyFrom(this.offset, from, at + done, this.length);
      done += this.length;
    }
    return length;
  }

  /**
   * Copies from another chain, which may lie in another guest's memory: `max` bytes, as many as remain there, or as fit.
   *
   * @returns How many.
   */
  writeReader(from: ChainReader, max: number): number {
    const length = Math.min(max, from.remaining, this.left);
    let done = 0;
    while (from.next(length - done)) {
      this.writeFrom(from.region!.bytes, from.offset, from.length);
      done += from.length;
    }
    return length;
  }

  /** Sets up to `length` bytes to `value`. @returns How many there were. */
  fill(value: number, length: number): number {
    const count = Math.min(length, this.left);
    let done = 0;
    while (this.next(count - done)) {
      this.region!.bytes.fill(value, this.offset, this.offset + this.length);
      done += this.length;
    }
    return count;
  }
}
