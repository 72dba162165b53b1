import { type IoVectors, MOST_BYTES } from "@virtio/linux";
import type { MemoryPieces } from "../engine.ts";
import { Addresses } from "./linux_address.ts";

/** Pieces of memory as a call wants them, for one transfer, and as they are to be copied if they are not aligned. */
export class PieceList {
  /** How many. */
  count = 0;
  /** Bytes of all. */
  bytes = 0;
  /** Whether all can be accessed directly. */
  aligned = true;
  /** Address of the first. */
  firstLow = 0;
  firstHigh = 0;
  readonly #memoryMask: number;
  readonly #lengthMask: number;
  readonly #addresses: Addresses = new Addresses();
  readonly #views: Uint8Array[] = [];
  readonly #offsets: number[] = [];
  readonly #lengths: number[] = [];

  /**
   * @param memoryAlignment Addresses are multiples of this, a power of two.
   * @param lengthAlignment Lengths, likewise.
   */
  constructor(memoryAlignment: number, lengthAlignment: number) {
    this.#memoryMask = memoryAlignment - 1;
    this.#lengthMask = lengthAlignment - 1;
  }

  /**
   * Collects up to `length` bytes, as many as one call takes.
   *
   * @param vectors Where the pieces are put.
   * @param start First entry to use.
   * @param room Entries at most.
   */
  collect(
    pieces: MemoryPieces,
    length: number,
    vectors: IoVectors,
    start: number,
    room: number,
  ): void {
    const addresses = this.#addresses;
    const most = length < MOST_BYTES ? length : MOST_BYTES;
    const checks = (this.#memoryMask | this.#lengthMask) !== 0;
    let count = 0;
    let bytes = 0;
    let wrong = 0;
    while (count < room && bytes < most && pieces.next(most - bytes)) {
      const view = pieces.region!.bytes;
      const { offset, length } = pieces;
      addresses.find(view, offset, length);
      if (count === 0) {
        this.firstLow = addresses.low;
        this.firstHigh = addresses.high;
      }
      vectors.set(start + count, addresses.low, addresses.high, length);
      if (checks) {
        wrong |= (addresses.low & this.#memoryMask) | (length & this.#lengthMask);
        this.#views[count] = view;
        this.#offsets[count] = offset;
        this.#lengths[count] = length;
      }
      count++;
      bytes += length;
    }
    this.count = count;
    this.bytes = bytes;
    this.aligned = wrong === 0;
  }

  /** Copies to the pieces. Only where something is to be aligned. */
  scatter(from: Uint8Array): void {
    let done = 0;
    for (let i = 0; done < from.length; i++) {
      const length = Math.min(this.#lengths[i]!, from.length - done);
      this.#views[i]!.set(from.subarray(done, done + length), this.#offsets[i]!);
      done += length;
    }
  }

  /** Copies from the pieces. Only where something is to be aligned. */
  gather(into: Uint8Array): void {
    let done = 0;
    for (let i = 0; done < into.length; i++) {
      const offset = this.#offsets[i]!;
      const length = Math.min(this.#lengths[i]!, into.length - done);
      into.set(this.#views[i]!.subarray(offset, offset + length), done);
      done += length;
    }
  }
}

/** One piece, of which `next` gives part after part. */
export class SinglePiece implements MemoryPieces {
  /** See `MemoryPieces`. */
  region: { bytes: Uint8Array };
  /** See `MemoryPieces`. */
  offset = 0;
  /** See `MemoryPieces`. */
  length = 0;
  #at = 0;
  #end = 0;

  /** A piece of no bytes yet. */
  constructor() {
    this.region = { bytes: new Uint8Array(0) };
  }

  /** Begins with `bytes[offset]`. */
  set(bytes: Uint8Array, offset: number, length: number): void {
    this.region.bytes = bytes;
    this.#at = offset;
    this.#end = offset + length;
  }

  /** See `MemoryPieces`. */
  next(max: number): boolean {
    const length = Math.min(max, this.#end - this.#at);
    if (length <= 0) return false;
    this.offset = this.#at;
    this.length = length;
    this.#at += length;
    return true;
  }
}

/** Zeroes, any number of them, in pieces of one buffer. */
export class ZeroPieces implements MemoryPieces {
  /** See `MemoryPieces`. */
  readonly region: { readonly bytes: Uint8Array };
  /** See `MemoryPieces`. */
  readonly offset = 0;
  /** See `MemoryPieces`. */
  length = 0;

  /** @param bytes Zeroes. */
  constructor(bytes: Uint8Array) {
    this.region = { bytes };
  }

  /** See `MemoryPieces`. */
  next(max: number): boolean {
    this.length = Math.min(max, this.region.bytes.length);
    return this.length > 0;
  }
}
