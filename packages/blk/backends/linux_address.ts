import { addressOf } from "@virtio/linux";

/** Where bytes begin in this process. */
interface Place {
  readonly low: number;
  readonly high: number;
}

/**
 * Addresses of memory in this process, as two words. Asked of the runtime once for each view, which costs as much as a small
 * read; so views are to be used again and again, as those of guest memory are.
 */
export class Addresses {
  /** Lower word of what `find` found, as a signed number: others do not fit a small integer, and each would be an object. */
  low = 0;
  /** Upper word. */
  high = 0;
  #bytes: Uint8Array | null = null;
  #place: Place = { low: 0, high: 0 };
  readonly #known: WeakMap<Uint8Array, Place> = new WeakMap();

  /**
   * Finds the address of `bytes[offset]`.
   *
   * @throws {RangeError} If `length` bytes from there on are not within.
   */
  find(bytes: Uint8Array, offset: number, length: number): void {
    // Also of a view whose buffer was taken away since: it has no bytes then.
    if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) {
      throw new RangeError(`There are no ${length} bytes at ${offset}: there are ${bytes.length}`);
    }
    if (bytes !== this.#bytes) this.#place = this.#look(bytes);
    const low = this.#place.low + offset;
    this.low = low | 0;
    this.high = this.#place.high + (low > 0xffff_ffff ? Math.floor(low / 0x1_0000_0000) : 0);
  }

  #look(bytes: Uint8Array): Place {
    let place = this.#known.get(bytes);
    if (place === undefined) {
      const address = addressOf(bytes);
      place = { low: Number(address & 0xffff_ffffn), high: Number(address >> 32n) };
      this.#known.set(bytes, place);
    }
    this.#bytes = bytes;
    return place;
  }
}
