/**
 * One contiguous range of guest-physical addresses and the buffer behind it.
 *
 * Hot path: rings and chains keep the region, and read `region.view` into a local once per batch or chain. The views are
 * ordinary data fields, so an access costs the same whatever kind of buffer stands behind them.
 */

import { copyBetween, ownerOf, Peer, register } from "./copy.ts";

/** Something whose `buffer` may become another object, such as a `WebAssembly.Memory` that grows. */
export interface BufferHolder {
  /** The buffer as it is now. */
  readonly buffer: ArrayBufferLike;
}

/** Where the bytes of a region come from. */
export interface RegionSource {
  /** Guest-physical address of the first byte; a multiple of 8. */
  readonly base: number;
  /**
   * The bytes: a buffer of fixed length, or an object that holds one and may replace it (`WebAssembly.Memory`).
   * A growable SharedArrayBuffer is refused, because every access to it is about ten times slower.
   */
  readonly buffer: ArrayBufferLike | BufferHolder;
  /** Offset of the first byte in the buffer; a multiple of 8; 0 unless given. */
  readonly byteOffset?: number;
  /** Length in bytes; up to the end of the buffer unless given. */
  readonly size?: number;
  /**
   * The address of the first byte in this process, where the buffer is a view of mapped memory. Such a view cannot be
   * sent to another thread (it would be copied), but the address can, and is, by `GuestMemory.share()`.
   */
  readonly address?: bigint;
}

/** Size of a window of a large region, and the distance to the next; see `MemoryRegion.window`. */
const WINDOW_SIZE = 0x7000_0000;
const WINDOW_STEP = 0x4000_0000;
const HIGH = 0x1_0000_0000;

let made = 0;

/** Up to this many bytes a loop is the fastest copy. */
const LOOP_LIMIT = 16;
/** Up to this many where no memory of WebAssembly is on both sides: below, `set(subarray)` costs more. */
const PLAIN_LOOP_LIMIT = 64;
/** Views for which a region remembers how to copy; a power of two. */
const PEERS = 8;

// Ring indexes are accessed through Uint16Array (the only way to use Atomics on them), and virtio 1.x is little-endian.
if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
  throw new Error("@virtio/memory needs a little-endian host");
}

function isBuffer(value: ArrayBufferLike | BufferHolder): value is ArrayBufferLike {
  return value instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer !== "undefined" && value instanceof SharedArrayBuffer);
}

/**
 * A region of guest memory. Made by `GuestMemory`; the fields are public because rings work on them directly.
 *
 * Every offset that goes into `view` or `u16` must have been checked against `size` first: `view` throws beyond its end,
 * but a typed array reads `undefined` and ignores writes silently.
 */
export class MemoryRegion {
  // Fields are declared, not defined: a field that is defined as undefined first, and assigned then, is checked again by the
  // compiled code at every use.

  /** Guest-physical address of the first byte. */
  declare readonly base: number;
  /** Length in bytes. */
  declare readonly size: number;
  /** The lower half of `base` as a signed number, and the upper half. */
  declare readonly baseLow: number;
  declare readonly baseHigh: number;
  /** A small integer of its own: to compare regions costs less by it. */
  declare readonly id: number;
  /** Whether the bytes stay in the same buffer for good. Where false, a view kept across a turn may be detached. */
  declare readonly stable: boolean;
  /** All bytes, for bulk copies. Replaced by `refresh()`. */
  declare bytes: Uint8Array;
  /** The same bytes as 16-bit words, for `Atomics` on ring indexes and flags. Replaced by `refresh()`. */
  declare u16: Uint16Array;
  /** The same bytes as 32-bit words, for `Atomics` that publish an id and flags in one store. Replaced by `refresh()`. */
  declare i32: Int32Array;
  /** The same bytes, for fields. Replaced by `refresh()`. */
  declare view: DataView;
  /** Address in this process, where the source gave one. */
  declare readonly address: bigint | null;
  /** The region that this is a window of; itself, if it is none. */
  declare readonly whole: MemoryRegion;
  /** The memory of WebAssembly that the bytes are in, or null. */
  declare readonly memory: WebAssembly.Memory | null;
  /** Windows of a large region; see `window`. */
  readonly #windows: MemoryRegion[] = [];
  readonly #holder: BufferHolder | null;
  readonly #byteOffset: number;
  readonly #peers: Peer[] = [];
  #nextPeer = 0;
  /** The last view with which copies are plain. */
  #plain: Uint8Array | null = null;

  /**
   * Makes the views.
   *
   * @param whole The region that this is to be a window of.
   * @throws {RangeError} If base, offset or size are not aligned, negative, unsafe or beyond the buffer.
   * @throws {TypeError} If the buffer is growable in place.
   */
  constructor(source: RegionSource, whole?: MemoryRegion) {
    this.whole = whole ?? this;
    const holder = isBuffer(source.buffer) ? null : source.buffer;
    const buffer = isBuffer(source.buffer) ? source.buffer : source.buffer.buffer;
    const growable = (buffer as { growable?: boolean }).growable === true ||
      (buffer as { resizable?: boolean }).resizable === true;
    if (growable) {
      throw new TypeError(
        "Cannot use a growable or resizable buffer as guest memory: give a buffer of fixed length",
      );
    }
    const byteOffset = source.byteOffset ?? 0;
    const size = source.size ?? buffer.byteLength - byteOffset;
    const { base } = source;
    if (!Number.isSafeInteger(base) || base < 0 || base % 8 !== 0) {
      throw new RangeError(`Region base must be a non-negative multiple of 8: it is ${base}`);
    }
    if (!Number.isSafeInteger(byteOffset) || byteOffset < 0 || byteOffset % 8 !== 0) {
      throw new RangeError(
        `Region byteOffset must be a non-negative multiple of 8: it is ${byteOffset}`,
      );
    }
    if (!Number.isSafeInteger(size) || size <= 0 || size % 8 !== 0) {
      throw new RangeError(`Region size must be a positive multiple of 8: it is ${size}`);
    }
    if (byteOffset + size > buffer.byteLength) {
      throw new RangeError(
        `Region of ${size} bytes at offset ${byteOffset} does not fit into a buffer of ${buffer.byteLength} bytes`,
      );
    }
    if (!Number.isSafeInteger(base + size)) {
      throw new RangeError(`Region ends beyond 2^53: base ${base}, size ${size}`);
    }
    if (size > WINDOW_SIZE || Math.floor(base / HIGH) !== Math.floor((base + size - 1) / HIGH)) {
      // Window n starts at the multiple n of the step from the one below the base on.
      const before = base % WINDOW_STEP;
      for (let at = -before; at < size; at += WINDOW_STEP) {
        const start = Math.max(at, 0);
        const boundary = (Math.floor((base + start) / HIGH) + 1) * HIGH - base;
        this.#windows.push(
          new MemoryRegion({
            ...source,
            base: base + start,
            byteOffset: byteOffset + start,
            size: Math.min(at + WINDOW_SIZE, size, boundary) - start,
            ...(source.address === undefined ? {} : { address: source.address + BigInt(start) }),
          }, this),
        );
      }
    }
    this.base = base;
    this.size = size;
    this.baseLow = base | 0;
    this.baseHigh = Math.floor(base / HIGH);
    this.id = made = (made + 1) & 0x3fff_ffff;
    this.stable = holder === null;
    this.address = source.address ?? null;
    this.#holder = holder;
    this.#byteOffset = byteOffset;
    this.bytes = new Uint8Array(buffer, byteOffset, size);
    this.u16 = new Uint16Array(buffer, byteOffset, size / 2);
    this.i32 = new Int32Array(buffer, byteOffset, size / 4);
    this.view = new DataView(buffer, byteOffset, size);
    if (typeof WebAssembly !== "undefined" && holder instanceof WebAssembly.Memory) {
      register(holder);
      this.memory = holder;
    } else {
      this.memory = holder === null ? ownerOf(this.bytes) : null;
    }
  }

  /** Offset of the region's first byte in its buffer. */
  get byteOffset(): number {
    return this.#byteOffset;
  }

  /**
   * The part of the region, around an address in it, where offsets stay below 2^31 and all addresses have the same upper
   * half: the region itself, unless it is large or crosses a multiple of 4 GiB. Larger numbers are no small integers, and
   * cost several times as much.
   *
   * A range of up to 768 MiB lies in the window that its first address gives, if it lies in the region and does not cross
   * a multiple of 4 GiB.
   */
  window(address: number): MemoryRegion {
    const windows = this.#windows;
    if (windows.length === 0) return this;
    const index = Math.floor(address / WINDOW_STEP) - Math.floor(this.base / WINDOW_STEP);
    // The end of the region counts as an address in it: an empty range may lie there.
    return windows[index] ?? windows[windows.length - 1]!;
  }

  /**
   * Makes the views again if the holder has another buffer now. Cheap when nothing moved.
   *
   * @returns Whether the views were made again.
   */
  refresh(): boolean {
    if (this.#holder === null) return false;
    const buffer = this.#holder.buffer;
    if (buffer === this.bytes.buffer) return false;
    if (this.memory !== null) register(this.memory);
    for (const window of this.#windows) window.refresh();
    this.bytes = new Uint8Array(buffer, this.#byteOffset, this.size);
    this.u16 = new Uint16Array(buffer, this.#byteOffset, this.size / 2);
    this.i32 = new Int32Array(buffer, this.#byteOffset, this.size / 4);
    this.view = new DataView(buffer, this.#byteOffset, this.size);
    return true;
  }

  /**
   * Copies bytes of the region to `into[at...]`. Allocates nothing if the region and `into` are memory of WebAssembly
   * (`GuestMemory.allocate`, `allocateBytes`, a `WebAssembly.Memory`) and `into` is one of a few views that are used again
   * and again, nor if the copy is short. Where the ranges overlap, what is written is not defined.
   *
   * @throws {RangeError} If a range is not within its side; nothing is copied then.
   */
  copyTo(offset: number, into: Uint8Array, at: number, length: number): void {
    checkCopy(offset, this.size, at, into.length, length);
    const { bytes } = this;
    if (length > LOOP_LIMIT) {
      const peer = this.#peer(into);
      if (peer !== null) {
        peer.out((this.#byteOffset + offset) | 0, (peer.start + at) | 0, length | 0);
        return;
      }
      if (length > PLAIN_LOOP_LIMIT) {
        into.set(bytes.subarray(offset, offset + length), at);
        return;
      }
    }
    copyShort(bytes, offset, into, at, length);
  }

  /**
   * Copies `from[at...]` into the region, as `copyTo` does the other way round. The tracker of the memory is not told.
   *
   * @throws {RangeError} If a range is not within its side; nothing is copied then.
   */
  copyFrom(offset: number, from: Uint8Array, at: number, length: number): void {
    checkCopy(offset, this.size, at, from.length, length);
    const { bytes } = this;
    if (length > LOOP_LIMIT) {
      const peer = this.#peer(from);
      if (peer !== null) {
        peer.in((peer.start + at) | 0, (this.#byteOffset + offset) | 0, length | 0);
        return;
      }
      if (length > PLAIN_LOOP_LIMIT) {
        bytes.set(
          at === 0 && length === from.length ? from : from.subarray(at, at + length),
          offset,
        );
        return;
      }
    }
    copyShort(from, at, bytes, offset, length);
  }

  /** Whether copies to and from a view allocate nothing, of whatever length they are. */
  copiesFast(bytes: Uint8Array): boolean {
    return this.#peer(bytes) !== null;
  }

  #peer(bytes: Uint8Array): Peer | null {
    const peers = this.#peers;
    for (let i = 0; i < peers.length; i++) {
      const peer = peers[i]!;
      if (peer.bytes === bytes) return peer;
    }
    return this.memory === null || this.#plain === bytes ? null : this.#meet(bytes, this.memory);
  }

  #meet(bytes: Uint8Array, memory: WebAssembly.Memory): Peer | null {
    const other = ownerOf(bytes);
    const out = other === null ? null : copyBetween(memory, other);
    const into = other === null ? null : copyBetween(other, memory);
    if (out === null || into === null) {
      this.#plain = bytes;
      return null;
    }
    const peer = new Peer(bytes, out, into);
    this.#peers[this.#nextPeer] = peer;
    this.#nextPeer = (this.#nextPeer + 1) & (PEERS - 1);
    return peer;
  }
}

/** Written so that NaN fails too. */
function checkCopy(offset: number, size: number, at: number, room: number, length: number): void {
  if (!(length >= 0 && offset >= 0 && length <= size - offset && at >= 0 && length <= room - at)) {
    throw new RangeError(
      `Cannot copy ${length} bytes between offset ${offset} of a region of ${size} and offset ${at} of ${room}`,
    );
  }
}

function copyShort(
  from: Uint8Array,
  fromAt: number,
  to: Uint8Array,
  toAt: number,
  length: number,
): void {
  for (let i = 0; i < length; i++) to[toAt + i] = from[fromAt + i]!;
}
