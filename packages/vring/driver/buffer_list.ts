/**
 * The elements of one buffer: device-readable ones, then device-writable ones (2.7.4.2, 2.8.17). Reuse one list for many
 * requests; nothing is allocated once it has grown.
 */
export class BufferList {
  /** Number of elements. */
  count = 0;
  /** Number of device-readable elements; they come first. */
  readableCount = 0;
  /** Bytes in all. */
  bytes = 0;
  /** Device-writable bytes in all. */
  writableBytes = 0;
  /** Guest-physical address of each element. */
  readonly addresses: number[] = [];
  /** Bytes of each element. */
  readonly lengths: number[] = [];

  /** Empties the list. */
  clear(): this {
    this.count = 0;
    this.readableCount = 0;
    this.bytes = 0;
    this.writableBytes = 0;
    return this;
  }

  /**
   * Adds an element that the device may read.
   *
   * @throws {TypeError} After a device-writable one: the standard forbids that order.
   */
  readable(address: number, length: number): this {
    if (this.readableCount !== this.count) {
      throw new TypeError("Add the device-readable elements before the device-writable ones");
    }
    this.#add(address, length);
    this.readableCount = this.count;
    return this;
  }

  /** Adds an element that the device may write. */
  writable(address: number, length: number): this {
    this.#add(address, length);
    this.writableBytes += length;
    return this;
  }

  #add(address: number, length: number): void {
    const { count } = this;
    this.addresses[count] = address;
    this.lengths[count] = length;
    this.bytes += length;
    this.count = count + 1;
  }
}
