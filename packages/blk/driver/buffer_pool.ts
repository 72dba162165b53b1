import { checkInteger } from "@virtio/device";
import type { DmaPool } from "@virtio/vring/driver";

/** Buffers of one size in guest memory, allocated when first needed and kept. */
export class BufferPool {
  readonly #dma: DmaPool;
  readonly #size: number;
  readonly #most: number;
  readonly #all: number[] = [];
  readonly #free: number[] = [];

  /**
   * @param size Bytes of each.
   * @param most How many at most.
   */
  constructor(dma: DmaPool, size: number, most: number) {
    this.#dma = dma;
    this.#size = size;
    this.#most = checkInteger("buffers", most, 1, Infinity);
  }

  /**
   * Takes one.
   *
   * @returns Its guest-physical address, or -1 if all are in use.
   * @throws {RangeError} If there is no memory for even one.
   */
  take(): number {
    const kept = this.#free.pop();
    if (kept !== undefined) return kept;
    if (this.#all.length >= this.#most) return -1;
    try {
      const address = this.#dma.allocate(this.#size, 512);
      this.#all.push(address);
      return address;
    } catch (error) {
      if (this.#all.length === 0) throw error;
      return -1;
    }
  }

  /** Gives one back. */
  give(address: number): void {
    this.#free.push(address);
  }

  /** Gives all memory back. */
  release(): void {
    for (const address of this.#all.splice(0)) this.#dma.free(address);
    this.#free.length = 0;
  }
}
