import { allocateBytes } from "@virtio/memory";
import {
  AllocateMode,
  allocateRange,
  closeDescriptor,
  discardBlocks,
  Errno,
  IOV_MAX,
  IoVectors,
  readVectors,
  syncData,
  SystemError,
  transferError,
  TransferFlag,
  writeVectors,
} from "@virtio/linux";
import type { MemoryPieces } from "../engine.ts";
import { ImageError } from "./file_error.ts";
import { PieceList, ZeroPieces } from "./linux_pieces.ts";

/** Bytes that go through a buffer at once where memory or position is not aligned. */
const BOUNCE = 1 << 20;
const ZEROES = 1 << 18;

/** What is known about an open image. */
export interface ImageFacts {
  /** Where it is, for messages. */
  readonly path: string;
  /** Whether it is a block device. */
  readonly block: boolean;
  /** Whether it is accessed directly. */
  readonly direct: boolean;
  /** Alignment of memory; 1 unless it is accessed directly. */
  readonly memoryAlignment: number;
  /** Alignment of positions and lengths, likewise. */
  readonly positionAlignment: number;
  /** Whether holes are wanted. */
  readonly holes: boolean;
}

/**
 * An open image and what can be done to it at once, by a system call for a whole request. What direct access cannot do, since
 * it is not aligned, goes through a buffer.
 *
 * Writes that are not aligned read the blocks around them first: no other write must be under way then.
 */
export class ImageFile {
  /** Its descriptor; -1 once it is closed, since the number may be another file's then. */
  descriptor: number;
  /** What is known about it. */
  readonly facts: ImageFacts;
  /** Whether holes can be made, as far as known. */
  holes: boolean;
  /** Told when holes turned out to be impossible. */
  onHoles: (() => void) | null = null;
  readonly #vectors: IoVectors = new IoVectors(IOV_MAX);
  readonly #list: PieceList;
  readonly #positionMask: number;
  #zeroRange = true;
  #bounce: Uint8Array | null = null;
  #zeroes: ZeroPieces | null = null;
  readonly #bounceVectors: IoVectors = new IoVectors(1);
  #bounceList: PieceList | null = null;

  /** Takes the descriptor over. */
  constructor(descriptor: number, facts: ImageFacts) {
    this.descriptor = descriptor;
    this.facts = facts;
    this.holes = facts.holes;
    this.#list = this.pieces();
    this.#positionMask = facts.positionAlignment - 1;
  }

  /** A list that checks as this file wants it. */
  pieces(): PieceList {
    return new PieceList(this.facts.memoryAlignment, this.facts.positionAlignment);
  }

  /** Whether a position and pieces can be accessed as they are. */
  fits(position: number, list: PieceList): boolean {
    // The remainder of a number above 2^31 is slow, and of an alignment only the low bits count.
    return list.aligned && ((position % 0x1_0000_0000) & this.#positionMask) === 0;
  }

  /**
   * Reads, as much as one call takes.
   *
   * @returns How many bytes.
   * @throws {SystemError | ImageError} If that failed, or the file has become shorter.
   */
  read(position: number, length: number, into: MemoryPieces): number {
    const list = this.#list;
    list.collect(into, length, this.#vectors, 0, IOV_MAX);
    if (!this.fits(position, list)) return this.readBounced(position, list);
    this.#readNow(this.#vectors, list.count, position, list.bytes);
    return list.bytes;
  }

  /** Writes, as `read` reads. @throws {SystemError} If that failed. */
  write(position: number, length: number, from: MemoryPieces, durable: boolean): number {
    const list = this.#list;
    list.collect(from, length, this.#vectors, 0, IOV_MAX);
    if (!this.fits(position, list)) return this.writeBounced(position, list, durable);
    this.#writeNow(this.#vectors, list.count, position, list.bytes, durable);
    return list.bytes;
  }

  /** Has the disk take what was written. @throws {SystemError} If it did not. */
  flush(): void {
    syncData(this.descriptor);
  }

  /** Tells that a range is not needed. @throws {SystemError} If that failed for another reason than that it is not possible. */
  discard(position: number, length: number): void {
    if (!this.holes || length === 0) return;
    this.discarded(
      this.facts.block
        ? discardBlocks(this.descriptor, position, length)
        : allocateRange(this.descriptor, AllocateMode.hole, position, length),
    );
  }

  /** What a discard came to: 0 or an `Errno`. @throws {SystemError} As `discard`. */
  discarded(code: number): void {
    if (code === 0) return;
    // A discard that does nothing is a discard (5.2.6.2: MAY deallocate).
    if (!impossible(code)) throw new SystemError("fallocate", code, this.facts.path);
    this.noHoles();
  }

  /** Makes a range read as zeroes. @throws {SystemError} If that failed. */
  zero(position: number, length: number, unmap: boolean): void {
    if (length === 0) return;
    for (let mode = this.zeroMode(unmap); mode !== 0; mode = this.zeroMode(unmap)) {
      if (this.zeroed(mode, allocateRange(this.descriptor, mode, position, length))) return;
    }
    this.#zeroes ??= new ZeroPieces(allocateBytes(ZEROES));
    for (let done = 0; done < length;) {
      done += this.write(position + done, length - done, this.#zeroes, false);
    }
  }

  /** How the system is to make zeroes, of `AllocateMode`; 0: they have to be written. */
  zeroMode(unmap: boolean): number {
    if (unmap && this.holes) return AllocateMode.hole;
    return this.#zeroRange ? AllocateMode.zero : 0;
  }

  /** What making zeroes came to: 0 or an `Errno`. @returns Whether it worked. @throws {SystemError} If it failed. */
  zeroed(mode: number, code: number): boolean {
    if (code === 0) return true;
    if (!impossible(code)) throw new SystemError("fallocate", code, this.facts.path);
    if (mode === AllocateMode.hole) this.noHoles();
    else this.#zeroRange = false;
    return false;
  }

  /** Holes cannot be made after all. */
  noHoles(): void {
    if (!this.holes) return;
    this.holes = false;
    this.onHoles?.();
  }

  /** The file has become shorter. */
  truncated(): ImageError {
    return new ImageError("truncated", `${this.facts.path} has become shorter than it was`);
  }

  /** Closes the descriptor. */
  close(): void {
    closeDescriptor(this.descriptor);
    this.descriptor = -1;
  }

  /** Reads what is not aligned, or the beginning of it. @returns How many bytes. */
  readBounced(position: number, list: PieceList): number {
    const { before, bytes, length } = this.#window(position, list);
    this.#bounced(position - before, length, before + bytes);
    list.scatter(this.#bounce!.subarray(before, before + bytes));
    return bytes;
  }

  /** Writes what is not aligned, or the beginning of it. @returns How many bytes. */
  writeBounced(position: number, list: PieceList, durable: boolean): number {
    const { before, bytes, length } = this.#window(position, list);
    const start = position - before;
    // The rest of the blocks at both ends.
    if (before > 0 || length > before + bytes) this.#bounced(start, length, length);
    list.gather(this.#bounce!.subarray(before, before + bytes));
    const vectors = this.#bounceVector(0, length);
    this.#writeNow(vectors, 1, start, length, durable);
    return bytes;
  }

  /** The blocks that the pieces begin in, as many as the buffer holds. */
  #window(position: number, list: PieceList): { before: number; bytes: number; length: number } {
    const alignment = this.facts.positionAlignment;
    const before = position % alignment;
    const bytes = Math.min(list.bytes, BOUNCE - before);
    this.#bounce ??= allocateBytes(BOUNCE);
    return { before, bytes, length: Math.ceil((before + bytes) / alignment) * alignment };
  }

  /** Reads blocks into the buffer, `needed` bytes at least. */
  #bounced(position: number, length: number, needed: number): void {
    const vectors = this.#bounceVector(0, length);
    const done = readVectors(this.descriptor, vectors, 1, position);
    if (done < 0) throw transferError("preadv", done, this.facts.path);
    if (done < needed) throw this.truncated();
  }

  #bounceVector(offset: number, length: number): IoVectors {
    this.#bounceList ??= new PieceList(1, 1);
    const piece = new ZeroPieces(this.#bounce!.subarray(offset, offset + length));
    this.#bounceList.collect(piece, length, this.#bounceVectors, 0, 1);
    return this.#bounceVectors;
  }

  #readNow(vectors: IoVectors, count: number, position: number, bytes: number): void {
    let left = count;
    for (let done = 0; done < bytes;) {
      const result = readVectors(this.descriptor, vectors, left, position + done);
      if (result < 0) throw transferError("preadv", result, this.facts.path);
      if (result === 0) throw this.truncated();
      done += result;
      if (done < bytes) left = vectors.drop(result, left);
    }
  }

  #writeNow(
    vectors: IoVectors,
    count: number,
    position: number,
    bytes: number,
    durable: boolean,
  ): void {
    const flags = durable ? TransferFlag.durable : 0;
    let left = count;
    for (let done = 0; done < bytes;) {
      const result = writeVectors(this.descriptor, vectors, left, position + done, flags);
      if (result < 0) throw transferError("pwritev", result, this.facts.path);
      if (result === 0) throw new Error(`${this.facts.path} takes no more bytes`);
      done += result;
      if (done < bytes) left = vectors.drop(result, left);
    }
  }
}

/** Whether an error says that the system cannot do it at all, rather than that it failed. */
function impossible(code: number): boolean {
  return code === Errno.EOPNOTSUPP || code === Errno.ENOSYS || code === Errno.EINVAL ||
    code === Errno.ENODEV;
}
