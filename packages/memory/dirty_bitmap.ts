import type { WriteTracker } from "./memory.ts";

/** Bytes of guest memory that a bit stands for. */
export const DIRTY_PAGE_SIZE = 4096;

/**
 * Which pages a device wrote: a bit for each, in shared memory if need be, so that one thread can mark and another look.
 * Bit n of byte m stands for page 8 m + n, as in the dirty log of vhost-user.
 *
 * @example
 * ```ts
 * import { DirtyBitmap, GuestMemory } from "@virtio/memory";
 * import { assertEquals } from "@std/assert";
 *
 * const memory = GuestMemory.allocate(1 << 20);
 * const dirty = memory.tracker = new DirtyBitmap(1 << 20);
 * memory.write(0x2ff0, new Uint8Array(32));
 * const ranges: number[][] = [];
 * dirty.drain((address, length) => ranges.push([address, length]));
 * assertEquals(ranges, [[0x2000, 0x2000]]);
 * ```
 */
export class DirtyBitmap implements WriteTracker {
  /** The bits. */
  readonly buffer: ArrayBufferLike;
  readonly #words: Int32Array;
  readonly #pages: number;

  /**
   * @param size Bytes of guest memory from address 0 on, or the bits that another thread marks.
   * @throws {RangeError} If the size is no positive integer, or more than 2^43 (which would take 256 MiB of bits).
   */
  constructor(size: number | ArrayBufferLike) {
    if (typeof size === "number") {
      if (!Number.isSafeInteger(size) || size <= 0 || size > 2 ** 43) {
        throw new RangeError(
          `A dirty bitmap needs a size from 1 to 2^43 bytes of guest memory: it is ${size}`,
        );
      }
      const bytes = 4 * Math.ceil(size / DIRTY_PAGE_SIZE / 32);
      this.buffer = typeof SharedArrayBuffer === "undefined"
        ? new ArrayBuffer(bytes)
        : new SharedArrayBuffer(bytes);
    } else {
      this.buffer = size;
    }
    this.#words = new Int32Array(this.buffer);
    this.#pages = this.#words.length * 32;
  }

  /** Marks the pages of a range; what lies beyond the bitmap is left out. */
  mark(address: number, length: number): void {
    if (!(length > 0)) return;
    const first = Math.floor(address / DIRTY_PAGE_SIZE);
    const last = Math.min(Math.floor((address + length - 1) / DIRTY_PAGE_SIZE), this.#pages - 1);
    const words = this.#words;
    for (let page = first; page <= last; page++) {
      const bit = 1 << (page & 31);
      // Most pages are written again and again; a load costs less than taking the line for oneself.
      if ((Atomics.load(words, page >>> 5) & bit) === 0) Atomics.or(words, page >>> 5, bit);
    }
  }

  /**
   * Gives each run of marked pages once, in ascending order, and unmarks them.
   *
   * @returns Whether there were any.
   */
  drain(each: (address: number, length: number) => void): boolean {
    const words = this.#words;
    let any = false;
    let start = -1;
    let page = 0;
    const end = (at: number): void => {
      if (start >= 0) each(start * DIRTY_PAGE_SIZE, (at - start) * DIRTY_PAGE_SIZE);
      start = -1;
    };
    for (let index = 0; index < words.length; index++) {
      const bits = words[index] === 0 ? 0 : Atomics.exchange(words, index, 0);
      page = index * 32;
      if (bits === 0) {
        end(page);
        continue;
      }
      any = true;
      for (let bit = 0; bit < 32; bit++, page++) {
        if ((bits >>> bit & 1) === 0) end(page);
        else if (start < 0) start = page;
      }
    }
    end(this.#pages);
    return any;
  }
}
