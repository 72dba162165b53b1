import { VirtqueueError } from "../errors.ts";
import type { BufferList } from "./buffer_list.ts";

/**
 * The driver's own record of what is in flight, by the id under which the device will give it back (split: head index;
 * packed: buffer id). In private memory: the device can forge what it writes, but not this.
 */
export class FlightRecord {
  /** Buffers in flight. */
  count = 0;
  readonly #clause: string;
  readonly #tokens: Float64Array;
  /** Descriptors or slots that each takes; 0: not in flight. */
  readonly #units: Uint16Array;
  readonly #writable: Float64Array;
  /** In which batch each was added; the device knows of those before `#batch` only. */
  readonly #batches: Float64Array;
  #batch = 0;
  /** In-order: ids from the oldest on, a ring. */
  readonly #order: Uint16Array | null;
  #oldest = 0;

  constructor(size: number, inOrder: boolean, clause: string) {
    this.#clause = clause;
    this.#tokens = new Float64Array(size);
    this.#units = new Uint16Array(size);
    this.#writable = new Float64Array(size);
    this.#batches = new Float64Array(size);
    this.#order = inOrder ? new Uint16Array(size) : null;
  }

  /** The buffer with this id is on its way. */
  start(id: number, token: number, units: number, writable: number): void {
    this.#tokens[id] = token;
    this.#units[id] = units;
    this.#writable[id] = writable;
    this.#batches[id] = this.#batch;
    if (this.#order !== null) {
      this.#order[(this.#oldest + this.count) % this.#order.length] = id;
    }
    this.count++;
  }

  /** What was started so far is made available. */
  publish(): void {
    this.#batch++;
  }

  /** Descriptors or slots of a buffer. */
  units(id: number): number {
    return this.#units[id]!;
  }

  /** Device-writable bytes of a buffer. */
  writable(id: number): number {
    return this.#writable[id]!;
  }

  /** @throws {VirtqueueError} Unless the buffer is in flight and has room for what the device says it wrote. */
  check(id: number, length: number): void {
    if (!(id < this.#units.length) || this.#units[id] === 0) {
      throw new VirtqueueError(
        this.#clause,
        `The device used buffer ${id}, which is not in flight`,
      );
    }
    if (this.#batches[id] === this.#batch) {
      throw new VirtqueueError(
        this.#clause,
        `The device used buffer ${id}, which was not made available yet`,
      );
    }
    if (length > this.#writable[id]!) {
      throw new VirtqueueError(
        this.#clause,
        `The device says it wrote ${length} bytes into buffer ${id}, which has room for ${this
          .#writable[id]!}`,
      );
    }
  }

  /** The buffer is back. @returns Its token. */
  end(id: number): number {
    this.#units[id] = 0;
    this.count--;
    if (this.#order !== null) this.#oldest = (this.#oldest + 1) % this.#order.length;
    return this.#tokens[id]!;
  }

  /** In-order: the oldest id in flight. */
  get oldest(): number {
    return this.#order![this.#oldest]!;
  }

  /** In-order: how many buffers are used when the device names `id`: those up to it. */
  batch(id: number): number {
    const order = this.#order!;
    for (let n = 0; n < this.count; n++) {
      if (order[(this.#oldest + n) % order.length] === id) return n + 1;
    }
    return 0;
  }

  /** Empties the record. @returns The tokens that were in flight. */
  drain(): number[] {
    const tokens: number[] = [];
    for (let id = 0; id < this.#units.length; id++) {
      if (this.#units[id] !== 0) tokens.push(this.#tokens[id]!);
    }
    this.#units.fill(0);
    this.count = 0;
    this.#oldest = 0;
    return tokens;
  }
}

/** What `add` refuses, in either format. `units`: descriptors that it would take. */
export function checkBuffers(
  buffers: BufferList,
  size: number,
  table: number | undefined,
  indirect: boolean,
): number {
  const { count } = buffers;
  if (count === 0) throw new TypeError("A buffer needs at least one element");
  if (table !== undefined && !indirect) {
    throw new TypeError(
      "Cannot use an indirect table: VIRTIO_F_INDIRECT_DESC was not negotiated",
    );
  }
  // 2.7.5.3.1 and 2.8.17: no longer than the queue, through a table or not.
  if (count > size) {
    throw new RangeError(`A buffer of ${count} elements does not fit a queue of ${size}`);
  }
  let total = 0;
  for (let i = 0; i < count; i++) total += buffers.lengths[i]!;
  if (total > 0x1_0000_0000) {
    throw new RangeError(`A buffer of ${total} bytes is longer than 2^32`);
  }
  return table === undefined ? count : 1;
}

/** Writes a 64-bit address. */
export function putAddress(view: DataView, at: number, address: number): void {
  view.setUint32(at, address, true);
  view.setUint32(at + 4, address < 0x1_0000_0000 ? 0 : Math.floor(address / 0x1_0000_0000), true);
}
