/**
 * A disk in memory: sparse, or over bytes that somebody else holds.
 *
 * This module is browser compatible.
 *
 * @module
 */
import { MemoryRegion } from "@virtio/memory";
import { type BlkBackend, checkCapacity, checkRange } from "../backend.ts";

/** Memory is allocated in chunks of this size, when they are first written. */
const CHUNK_SIZE = 65536;
/** Reads of a whole page go through a view that is made once, since a fresh view costs as much as copying a page. */
const PAGE_SIZE = 4096;
const PAGES_PER_CHUNK = CHUNK_SIZE / PAGE_SIZE;

/** Options of a `MemoryBackend`. */
export interface MemoryBackendOptions {
  /** Whether writes are refused; no unless given. */
  readonly readonly?: boolean;
}

/**
 * A disk in memory. Nothing of it survives the process: `flush` has nothing to do.
 *
 * Given a size, it takes memory in chunks of 64 KiB as they are written, and gives them back when they are discarded. Given
 * bytes, it works on these; those of `allocateBytes` of `@virtio/memory` are copied to and from guest memory fastest.
 *
 * ```ts
 * import { MemoryBackend } from "@virtio/blk/memory";
 * import { assertEquals } from "@std/assert";
 *
 * const disk = new MemoryBackend(1024 * 1024);
 * disk.write(512, new Uint8Array([1, 2, 3]), 0, 3);
 * const back = new Uint8Array(4);
 * disk.read(511, back, 0, 4);
 * assertEquals(back, new Uint8Array([0, 1, 2, 3]));
 * assertEquals(disk.allocated, 65536);
 * ```
 */
export class MemoryBackend implements BlkBackend {
  /** Answers at once. */
  readonly asynchronous = false;
  /** Whether writes are refused. */
  readonly readonly: boolean;
  /** Told when the capacity changed. */
  onChange: (() => void) | null = null;
  readonly #flat: Uint8Array | null;
  /** The given bytes, if they are in a memory of WebAssembly. */
  readonly #region: MemoryRegion | null;
  /** The last view that `#region` copies fast to and from. */
  #fast: Uint8Array | null = null;
  readonly #chunks: (Uint8Array | undefined)[] = [];
  readonly #pages: (Uint8Array | undefined)[] = [];
  #capacity: number;
  #allocated = 0;

  /**
   * Makes a disk.
   *
   * @param disk Size in bytes, or the bytes; a multiple of 512.
   * @throws {RangeError} If it is not.
   */
  constructor(disk: number | Uint8Array, options: MemoryBackendOptions = {}) {
    const capacity = typeof disk === "number" ? disk : disk.length;
    checkCapacity(capacity);
    this.#capacity = capacity;
    this.#flat = typeof disk === "number" ? null : disk;
    this.#region = this.#flat === null ? null : regionOf(this.#flat);
    this.readonly = options.readonly ?? false;
  }

  /** Size in bytes. */
  get capacity(): number {
    return this.#capacity;
  }

  /** Bytes of memory taken; for a sparse disk less than its capacity. */
  get allocated(): number {
    return this.#flat === null ? this.#allocated : this.#capacity;
  }

  /** Sparse memory gives chunks back; bytes of somebody else stay. */
  get writeZeroesMayUnmap(): boolean {
    return this.#flat === null;
  }

  /** Reads. @throws {BackendRangeError} If the range is not within the disk. */
  read(position: number, bytes: Uint8Array, offset: number, length: number): void {
    checkRange(position, length, this.#capacity);
    const region = this.#region;
    if (region !== null && (bytes === this.#fast || this.#isFast(region, bytes))) {
      region.copyTo(position, bytes, offset, length);
      return;
    }
    // Not by the remainder: of numbers above 2^31 that is taken by a slow instruction.
    const index = position / PAGE_SIZE;
    if (length === PAGE_SIZE && Math.floor(index) === index) {
      const page = this.#page(index);
      if (page !== null && page.length === PAGE_SIZE) {
        bytes.set(page, offset);
        return;
      }
    }
    let done = 0;
    while (done < length) {
      const at = position + done;
      const within = at % CHUNK_SIZE;
      const count = Math.min(length - done, CHUNK_SIZE - within);
      const chunk = this.#chunk((at - within) / CHUNK_SIZE);
      const to = offset + done;
      if (chunk === null) bytes.fill(0, to, to + count);
      else bytes.set(chunk.subarray(within, within + count), to);
      done += count;
    }
  }

  /**
   * Writes.
   *
   * @throws {BackendRangeError} If the range is not within the disk.
   * @throws {TypeError} If the disk is read-only.
   */
  write(position: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#checkWrite(position, length);
    const region = this.#region;
    if (region !== null && (bytes === this.#fast || this.#isFast(region, bytes))) {
      region.copyFrom(position, bytes, offset, length);
      return;
    }
    let done = 0;
    while (done < length) {
      const at = position + done;
      const within = at % CHUNK_SIZE;
      const count = Math.min(length - done, CHUNK_SIZE - within);
      const chunk = this.#ownChunk((at - within) / CHUNK_SIZE);
      const from = offset + done;
      chunk.set(bytes.subarray(from, from + count), within);
      done += count;
    }
  }

  /** Nothing to do. */
  flush(): void {}

  /** Gives back the chunks that lie in the range. @throws As `write`. */
  discard(position: number, length: number): void {
    this.#checkWrite(position, length);
    // What reads back is ours to choose, and old data is the one choice that surprises.
    this.#clear(position, length);
  }

  /** Zeroes the range. Chunks that lie in it are given back, which costs less than keeping them. @throws As `write`. */
  writeZeroes(position: number, length: number, _unmap = false): void {
    this.#checkWrite(position, length);
    this.#clear(position, length);
  }

  /** Overwrites the range, then gives its chunks back. @throws As `write`. */
  secureErase(position: number, length: number): void {
    this.#checkWrite(position, length);
    this.#overwrite(position, length);
    this.#clear(position, length);
  }

  /**
   * Changes the size. What is cut off is lost; what is added reads as zeroes.
   *
   * @throws {TypeError} If the disk works on bytes of somebody else.
   * @throws {RangeError} If the capacity is no multiple of 512.
   */
  resize(capacity: number): void {
    checkCapacity(capacity);
    if (this.#flat !== null) {
      throw new TypeError("A disk over given bytes cannot be resized: make one with a size");
    }
    if (capacity < this.#capacity) this.#clear(capacity, this.#capacity - capacity);
    this.#capacity = capacity;
    this.onChange?.();
  }

  #isFast(region: MemoryRegion, bytes: Uint8Array): boolean {
    if (!region.copiesFast(bytes)) return false;
    this.#fast = bytes;
    return true;
  }

  #checkWrite(position: number, length: number): void {
    if (this.readonly) throw new TypeError("The disk is read-only");
    checkRange(position, length, this.#capacity);
  }

  #page(index: number): Uint8Array | null {
    const known = this.#pages[index];
    if (known !== undefined) return known;
    const chunk = this.#chunk(Math.floor(index / PAGES_PER_CHUNK));
    if (chunk === null) return null;
    const at = (index % PAGES_PER_CHUNK) * PAGE_SIZE;
    const page = chunk.subarray(at, at + PAGE_SIZE);
    this.#pages[index] = page;
    return page;
  }

  #chunk(index: number): Uint8Array | null {
    const known = this.#chunks[index];
    if (known !== undefined) return known;
    if (this.#flat === null) return null;
    const at = index * CHUNK_SIZE;
    const chunk = this.#flat.subarray(at, at + CHUNK_SIZE);
    this.#chunks[index] = chunk;
    return chunk;
  }

  #ownChunk(index: number): Uint8Array {
    const known = this.#chunk(index);
    if (known !== null) return known;
    const chunk = new Uint8Array(CHUNK_SIZE);
    this.#chunks[index] = chunk;
    this.#allocated += CHUNK_SIZE;
    return chunk;
  }

  #overwrite(position: number, length: number): void {
    this.#eachChunk(position, length, (chunk, _index, start, end) => chunk.fill(0, start, end));
  }

  #clear(position: number, length: number): void {
    this.#eachChunk(position, length, (chunk, index, start, end) => {
      if (this.#flat === null && start === 0 && end === CHUNK_SIZE) this.#release(index);
      else chunk.fill(0, start, end);
    });
  }

  #eachChunk(
    position: number,
    length: number,
    action: (chunk: Uint8Array, index: number, start: number, end: number) => void,
  ): void {
    let at = position;
    const stop = position + length;
    while (at < stop) {
      const start = at % CHUNK_SIZE;
      const index = (at - start) / CHUNK_SIZE;
      const end = Math.min(CHUNK_SIZE, start + stop - at);
      const chunk = this.#chunk(index);
      if (chunk !== null) action(chunk, index, start, end);
      at += end - start;
    }
  }

  #release(index: number): void {
    this.#chunks[index] = undefined;
    this.#allocated -= CHUNK_SIZE;
    for (let i = 0; i < PAGES_PER_CHUNK; i++) {
      const page = index * PAGES_PER_CHUNK + i;
      if (this.#pages[page] !== undefined) this.#pages[page] = undefined;
    }
  }
}

function regionOf(disk: Uint8Array): MemoryRegion | null {
  const { buffer, byteOffset, length } = disk;
  if (length === 0 || byteOffset % 8 !== 0 || length % 8 !== 0 || isResizable(buffer)) return null;
  const region = new MemoryRegion({ base: 0, buffer, byteOffset, size: length });
  return region.memory === null ? null : region;
}

function isResizable(buffer: ArrayBufferLike): boolean {
  const { growable, resizable } = buffer as { growable?: boolean; resizable?: boolean };
  return growable === true || resizable === true;
}
