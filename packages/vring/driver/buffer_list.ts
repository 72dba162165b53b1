import { VIRTQ_DESC_F_WRITE } from "../layout.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const F_WRITE = VIRTQ_DESC_F_WRITE;
const HIGH = 0x1_0000_0000;
/** Compared with this, a small integer is not made a floating-point number first. */
const SMALL = 0x4000_0000;

/**
 * The elements of one buffer: device-readable ones, then device-writable ones (2.7.4.2, 2.8.17). Reuse one list for many
 * requests; nothing is allocated once it has grown.
 */
export class BufferList {
  /** Number of elements. */
  count = 0;
  /** Number of device-readable elements; they come first. */
  readableCount = 0;
  /** Device-readable bytes in all. */
  readableBytes = 0;
  /** Device-writable bytes in all. */
  writableBytes = 0;
  /**
   * The elements as four words each, those of a descriptor: the halves of the address, the length, and
   * VIRTQ_DESC_F_WRITE or 0. For queues.
   */
  words: Int32Array = new Int32Array(4 * 8);

  /** Empties the list. */
  clear(): this {
    this.count = 0;
    this.readableCount = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
    return this;
  }

  /**
   * Adds an element that the device may read.
   *
   * @throws {TypeError} After a device-writable one: the standard forbids that order.
   */
  readable(address: number, length: number): this {
    const { count } = this;
    if (this.readableCount !== count) {
      throw new TypeError("Add the device-readable elements before the device-writable ones");
    }
    this.#put(count, address, length, 0);
    this.readableCount = this.count = (count + 1) | 0;
    this.readableBytes += length;
    return this;
  }

  /** Adds an element that the device may write. */
  writable(address: number, length: number): this {
    const { count } = this;
    this.#put(count, address, length, F_WRITE);
    this.count = (count + 1) | 0;
    this.writableBytes += length;
    return this;
  }

  /** Bytes in all. */
  get bytes(): number {
    return this.readableBytes + this.writableBytes;
  }

  /** Guest-physical address of an element. */
  address(index: number): number {
    const at = 4 * index;
    return (this.words[at]! >>> 0) + (this.words[at + 1]! >>> 0) * HIGH;
  }

  /** Bytes of an element. */
  length(index: number): number {
    return this.words[4 * index + 2]! >>> 0;
  }

  #put(index: number, address: number, length: number, flags: number): void {
    const at = index << 2;
    let { words } = this;
    if (at === words.length) words = this.#grow();
    words[at] = address;
    words[(at + 1) | 0] = address < SMALL ? 0 : Math.floor(address / HIGH);
    words[(at + 2) | 0] = length;
    words[(at + 3) | 0] = flags;
  }

  #grow(): Int32Array {
    const words = new Int32Array(2 * this.words.length);
    words.set(this.words);
    this.words = words;
    return words;
  }
}
