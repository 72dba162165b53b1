import type { GuestMemory } from "@virtio/memory";

/** A range of guest memory from which a driver takes rings and buffers: first fit, neighbours joined when freed. */
export class DmaPool {
  /** The memory that the addresses are in. */
  readonly memory: GuestMemory;
  /** Free ranges, sorted by address, never adjacent. */
  #free: { address: number; size: number }[];
  readonly #used: Map<number, number> = new Map();

  /**
   * @param base Guest-physical address of the first byte.
   * @param size Bytes.
   * @throws {AddressError} If the range is not in one region.
   */
  constructor(memory: GuestMemory, base: number, size: number) {
    memory.find(base, size);
    this.memory = memory;
    this.#free = [{ address: base, size }];
  }

  /** Bytes that are free in all. */
  get available(): number {
    return this.#free.reduce((sum, range) => sum + range.size, 0);
  }

  /**
   * Takes `size` bytes.
   *
   * @param align The address is a multiple of this.
   * @returns The guest-physical address; what the bytes hold is not defined.
   * @throws {RangeError} If no free range is large enough.
   */
  allocate(size: number, align = 16): number {
    const wanted = Math.max(16, Math.ceil(size / 16) * 16);
    for (let i = 0; i < this.#free.length; i++) {
      const range = this.#free[i]!;
      const address = Math.ceil(range.address / align) * align;
      const before = address - range.address;
      if (before + wanted > range.size) continue;
      const after = range.size - before - wanted;
      const rest: { address: number; size: number }[] = [];
      if (before > 0) rest.push({ address: range.address, size: before });
      if (after > 0) rest.push({ address: address + wanted, size: after });
      this.#free.splice(i, 1, ...rest);
      this.#used.set(address, wanted);
      return address;
    }
    throw new RangeError(
      `No ${size} bytes of guest memory left for the driver: ${this.available} are free in all`,
    );
  }

  /**
   * Gives a range back.
   *
   * @throws {TypeError} If `allocate` did not give this address, or it was freed already.
   */
  free(address: number): void {
    const size = this.#used.get(address);
    if (size === undefined) {
      throw new TypeError(`0x${address.toString(16)} was not allocated from this pool`);
    }
    this.#used.delete(address);
    let i = this.#free.findIndex((range) => range.address > address);
    if (i === -1) i = this.#free.length;
    this.#free.splice(i, 0, { address, size });
    this.#join(i);
    this.#join(i - 1);
  }

  #join(i: number): void {
    const range = this.#free[i];
    const next = this.#free[i + 1];
    if (range === undefined || next === undefined) return;
    if (range.address + range.size !== next.address) return;
    range.size += next.size;
    this.#free.splice(i + 1, 1);
  }
}
