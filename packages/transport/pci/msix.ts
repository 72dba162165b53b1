import { savedIntegers } from "../saved.ts";
import { partOf, type Width } from "../width.ts";
import { PCI_MSIX_ENTRY_SIZE } from "./registers.ts";

/** The vectors as plain data. */
export interface SavedMsix {
  /** Four words an entry: address, upper address, data, vector control. */
  readonly table: readonly number[];
  /** A word for each 32 vectors. */
  readonly pending: readonly number[];
}

const VECTOR_CONTROL = 3;
const MASKED = 1;

/**
 * An MSI-X table with its pending bits (PCI Local Bus Specification 3.0, 6.8.2). A vector that is masked, by itself or by
 * the function, becomes pending; its message goes out when it is unmasked.
 */
export class MsixTable {
  /** Number of vectors. */
  readonly size: number;
  readonly #send: (addressLow: number, addressHigh: number, data: number) => void;
  readonly #table: Uint32Array;
  readonly #pending: Uint32Array;
  #enabled = false;
  #open = false;

  /** @param send Takes the messages. */
  constructor(
    size: number,
    send: (addressLow: number, addressHigh: number, data: number) => void,
  ) {
    this.size = size;
    this.#send = send;
    this.#table = new Uint32Array(4 * size);
    this.#pending = new Uint32Array(Math.ceil(size / 32));
    this.#maskAll();
  }

  /** Whether messages are used instead of INTx. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /**
   * Follows the Message Control and Command registers.
   *
   * @param enabled MSI-X Enable.
   * @param open No Function Mask, and the function may master the bus: a message is a memory write.
   */
  control(enabled: boolean, open: boolean): void {
    this.#enabled = enabled;
    this.#open = enabled && open;
    if (!enabled) this.clearPending();
    else if (this.#open) this.#deliverAll();
  }

  /** Sends the vector's message, or leaves it pending. Vectors out of range do nothing. */
  signal(vector: number): void {
    if (!this.#enabled || vector >= this.size) return;
    if (this.#open && (this.#table[4 * vector + VECTOR_CONTROL]! & MASKED) === 0) {
      this.#message(vector);
    } else {
      this.#pending[vector >>> 5]! |= 1 << (vector & 31);
    }
  }

  /** Forgets what is pending: the events behind it are gone (a device reset). */
  clearPending(): void {
    this.#pending.fill(0);
  }

  /** The state after a reset of the bus. */
  reset(): void {
    this.#table.fill(0);
    this.#maskAll();
    this.clearPending();
    this.control(false, false);
  }

  /** A read of the table, aligned. */
  readTable(offset: number, size: Width): number {
    return partOf(this.#table[offset >>> 2] ?? 0, offset, size);
  }

  /** A write to the table. Software has to write whole words; anything else is ignored. */
  writeTable(offset: number, size: Width, value: number): void {
    const word = offset >>> 2;
    if (size !== 4 || (offset & 3) !== 0 || word >= this.#table.length) return;
    const field = word & 3;
    // The two lowest address bits and the reserved bits of the vector control are 0.
    this.#table[word] = field === VECTOR_CONTROL
      ? value & MASKED
      : field === 0
      ? value & ~3
      : value;
    if (field === VECTOR_CONTROL) this.#deliver(word >>> 2);
  }

  /** A read of the pending bits, aligned. They cannot be written. */
  readPending(offset: number, size: Width): number {
    return partOf(this.#pending[offset >>> 2] ?? 0, offset, size);
  }

  /** The table and the pending bits. */
  save(): SavedMsix {
    return { table: Array.from(this.#table), pending: Array.from(this.#pending) };
  }

  /**
   * Takes what `save` gave, with nothing enabled; `control` then delivers what was pending.
   *
   * @returns A function that does it: everything is checked before anything is changed.
   * @throws {TypeError} If the state is not of this shape.
   * @throws {RangeError} If it is for another number of vectors, or a word is out of range.
   */
  prepareRestore(saved: unknown): () => void {
    if (typeof saved !== "object" || saved === null) {
      throw new TypeError("Saved state: msix has to be an object for a device with MSI-X");
    }
    const fields = saved as Record<string, unknown>;
    const table = savedIntegers(fields["table"], "msix.table", this.#table.length, 0xffff_ffff);
    const pending = savedIntegers(
      fields["pending"],
      "msix.pending",
      this.#pending.length,
      0xffff_ffff,
    );
    return () => {
      this.control(false, false);
      table.forEach((value, word) => this.writeTable(4 * word, 4, value));
      this.#pending.set(pending);
    };
  }

  #maskAll(): void {
    for (let i = VECTOR_CONTROL; i < this.#table.length; i += PCI_MSIX_ENTRY_SIZE / 4) {
      this.#table[i] = MASKED;
    }
  }

  #message(vector: number): void {
    const entry = 4 * vector;
    this.#send(this.#table[entry]!, this.#table[entry + 1]!, this.#table[entry + 2]!);
  }

  #deliver(vector: number): void {
    const bit = 1 << (vector & 31);
    const word = vector >>> 5;
    // A restored state may have bits for vectors that do not exist.
    if (!this.#open || vector >= this.size || (this.#pending[word]! & bit) === 0) return;
    if ((this.#table[4 * vector + VECTOR_CONTROL]! & MASKED) !== 0) return;
    // Before the message: its receiver may look at the pending bits, or mask again.
    this.#pending[word]! &= ~bit;
    this.#message(vector);
  }

  #deliverAll(): void {
    for (let word = 0; word < this.#pending.length; word++) {
      if (this.#pending[word] === 0) continue;
      for (let bit = 0; bit < 32; bit++) this.#deliver(32 * word + bit);
    }
  }
}
