import { allocateBytes, GuestMemory, type MemoryRegion } from "@virtio/memory";

/** Rings that share one memory, since a memory of its own for each would cost more than the ring. */
const SLAB_BYTES = 8 * 1024 * 1024;

/** Bytes on their way: a ring buffer. Made by `RingPool`. */
export class Ring {
  /** Bytes that it holds at most; a power of two. */
  readonly size: number;
  /** Bytes that it holds. */
  used = 0;
  readonly #region: MemoryRegion;
  /** Where the ring begins in the region. */
  readonly #base: number;
  readonly #mask: number;
  /** Place of the first byte. */
  #first = 0;

  /** A part of a region. */
  constructor(region: MemoryRegion, base: number, size: number) {
    this.#region = region;
    this.#base = base;
    this.size = size;
    this.#mask = size - 1;
  }

  /** Bytes that there is room for. */
  get free(): number {
    return this.size - this.used;
  }

  /** Empties it. */
  clear(): void {
    this.#first = 0;
    this.used = 0;
  }

  /**
   * Writes bytes `at` behind the first; those between what is used and there come later, as does `commit`.
   *
   * @throws {RangeError} If they do not fit.
   */
  write(at: number, from: Uint8Array, offset: number, length: number): void {
    if (!(at >= 0 && length >= 0 && at + length <= this.size)) this.#refuse(at, length);
    const start = (this.#first + at) & this.#mask;
    const part = Math.min(length, this.size - start);
    this.#region.copyFrom(this.#base + start, from, offset, part);
    if (part < length) this.#region.copyFrom(this.#base, from, offset + part, length - part);
  }

  /**
   * Copies bytes from `at` behind the first.
   *
   * @throws {RangeError} If they are not all there.
   */
  read(at: number, into: Uint8Array, offset: number, length: number): void {
    if (!(at >= 0 && length >= 0 && at + length <= this.used)) this.#refuse(at, length);
    const start = (this.#first + at) & this.#mask;
    const part = Math.min(length, this.size - start);
    this.#region.copyTo(this.#base + start, into, offset, part);
    if (part < length) this.#region.copyTo(this.#base, into, offset + part, length - part);
  }

  /** The first bytes, as many as lie side by side: a view. */
  head(): Uint8Array {
    const start = this.#base + this.#first;
    return this.#region.bytes.subarray(
      start,
      start + Math.min(this.used, this.size - this.#first),
    );
  }

  /** Room for the next bytes, as much as lies side by side: a view. */
  room(): Uint8Array {
    const at = (this.#first + this.used) & this.#mask;
    const start = this.#base + at;
    return this.#region.bytes.subarray(start, start + Math.min(this.free, this.size - at));
  }

  /** Bytes were written behind those that are used. @throws {RangeError} If there was no room for them. */
  commit(length: number): void {
    if (!(length >= 0 && length <= this.free)) this.#refuse(this.used, length);
    this.used += length;
  }

  /** Takes the first bytes away. @throws {RangeError} If there are not so many. */
  consume(length: number): void {
    if (!(length >= 0 && length <= this.used)) this.#refuse(0, length);
    this.used -= length;
    // An empty ring starts anew only by itself: what came out of order lies behind.
    this.#first = (this.#first + length) & this.#mask;
  }

  #refuse(at: number, length: number): never {
    throw new RangeError(
      `${length} bytes at ${at} of a ring of ${this.size} bytes with ${this.used} in use`,
    );
  }
}

/** Gives out rings, as many as memory may be used for. */
export class RingPool {
  /** Bytes of each ring. */
  readonly ringSize: number;
  readonly #most: number;
  readonly #free: Ring[] = [];
  #made = 0;

  /**
   * @param ringSize Bytes of each; a power of two of 4 KiB to 8 MiB.
   * @param most The most rings that are out at once.
   */
  constructor(ringSize: number, most: number) {
    if (!(ringSize >= 4096 && ringSize <= SLAB_BYTES && (ringSize & (ringSize - 1)) === 0)) {
      throw new RangeError(
        `A ring has a power of two of 4096 to ${SLAB_BYTES} bytes: it is ${ringSize}`,
      );
    }
    this.ringSize = ringSize;
    this.#most = most;
  }

  /** Rings that are out. */
  get taken(): number {
    return this.#made - this.#free.length;
  }

  /** Rings that may still be taken. */
  get left(): number {
    return this.#most - this.taken;
  }

  /** Takes an empty ring; null if there are none left. Give it back. */
  take(): Ring | null {
    if (this.taken >= this.#most) return null;
    if (this.#free.length === 0) this.#grow();
    const ring = this.#free.pop() ?? null;
    ring?.clear();
    return ring;
  }

  /** Takes a ring back. */
  give(ring: Ring): void {
    this.#free.push(ring);
  }

  #grow(): void {
    const { ringSize } = this;
    const count = Math.min(SLAB_BYTES / ringSize, this.#most - this.#made);
    let buffer: ArrayBufferLike;
    try {
      ({ buffer } = allocateBytes(count * ringSize));
    } catch (error) {
      if (error instanceof RangeError) return;
      throw error;
    }
    const region = new GuestMemory([{ base: 0, buffer }]).regions[0]!;
    // The last to go in is the first to come out.
    for (let i = count - 1; i >= 0; i--) this.#free.push(new Ring(region, i * ringSize, ringSize));
    this.#made += count;
  }
}
