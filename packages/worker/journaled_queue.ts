import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import {
  type Chain,
  openQueue,
  type Queue,
  type QueueLook,
  type QueueState,
  VIRTIO_F_RING_PACKED,
} from "@virtio/vring";
import { type Journal, JOURNAL_CHAINS } from "./journal.ts";

/** A chain that was popped, and what became of it. */
interface Popped {
  readonly chain: Chain;
  /** Bytes written, once it is used; -1 before. */
  written: number;
}

/**
 * A queue whose worker may die at any moment: chains are used in the order in which they were popped, and what is published
 * is written to a journal before. Not in the way of other queues: only workers that can be replaced have it.
 */
export class JournaledQueue implements Queue {
  readonly #queue: Queue;
  readonly #journal: Journal;
  /** Packed: where the ring is. */
  readonly #ring: MemoryRegion | null;
  readonly #ringAt: number = 0;
  readonly #popped: Popped[] = [];
  /** Of them, those that are used, in any order. */
  #used = 0;
  #slot: number;
  #wrap: number;

  /** @throws {VirtqueueError} As `openQueue`. */
  constructor(memory: GuestMemory, state: QueueState, features: bigint, journal: Journal) {
    this.#queue = openQueue(memory, state, features);
    this.#journal = journal;
    this.#slot = state.position.nextUsed;
    this.#wrap = state.position.usedWrap;
    this.#ring = null;
    if ((features & VIRTIO_F_RING_PACKED) !== 0n) {
      const region = memory.lookupSegment(state.descriptorArea, 16 * state.size)!;
      this.#ring = region;
      this.#ringAt = (state.descriptorArea - region.base) / 4;
    }
    journal.begin(this.#slot, this.#wrap);
  }

  /** See `Queue.size`. */
  get size(): number {
    return this.#queue.size;
  }

  /** See `Queue.inFlight`. */
  get inFlight(): number {
    return this.#popped.length - this.#used;
  }

  /** See `Queue.pop`. */
  pop(): Chain | null {
    const chain = this.#queue.pop();
    if (chain !== null) this.#popped.push({ chain, written: -1 });
    return chain;
  }

  /** See `Queue.push`. */
  push(chain: Chain, written: number = chain.written): void {
    const popped = this.#popped.find((each) => each.chain === chain);
    if (popped === undefined || popped.written >= 0) {
      throw new TypeError("Cannot use a chain that is not in flight on this queue");
    }
    if (!(written >= 0 && written <= chain.writable)) {
      throw new RangeError(
        `Cannot use a chain with ${written} bytes written: it has ${chain.writable} device-writable bytes`,
      );
    }
    popped.written = written;
    this.#used++;
  }

  /** See `Queue.undo`. */
  undo(chain: Chain): void {
    if (this.#popped.at(-1)?.chain !== chain || this.#popped.at(-1)!.written >= 0) {
      throw new TypeError("Only the chain that was popped last can be put back");
    }
    this.#queue.undo(chain);
    this.#popped.pop();
  }

  /** See `Queue.flush`. */
  flush(): boolean {
    let interrupt = false;
    for (;;) {
      let count = 0;
      while (count < JOURNAL_CHAINS && (this.#popped[count]?.written ?? -1) >= 0) count++;
      if (count === 0) return interrupt;
      if (this.#publish(this.#popped.splice(0, count))) interrupt = true;
    }
  }

  #publish(batch: readonly Popped[]): boolean {
    const journal = this.#journal;
    journal.prepare();
    for (const { chain } of batch) {
      const ring = this.#ring;
      if (ring === null) {
        this.#slot = (this.#slot + 1) & 0xffff;
        continue;
      }
      const at = this.#ringAt + 4 * this.#slot;
      journal.keep(this.#slot, ring.i32[at + 2]!, ring.i32[at + 3]!);
      this.#slot += chain.slots;
      if (this.#slot >= this.size) {
        this.#slot -= this.size;
        this.#wrap ^= 1;
      }
    }
    journal.publishing(this.#slot, this.#wrap);
    this.#used -= batch.length;
    for (const { chain, written } of batch) this.#queue.push(chain, written);
    const interrupt = this.#queue.flush();
    journal.published();
    return interrupt;
  }

  /** See `Queue.arm`. */
  arm(): boolean {
    return this.#queue.arm();
  }

  /** See `Queue.available`. */
  available(): boolean {
    return this.#queue.available();
  }

  /** See `Queue.suspend`. */
  suspend(): void {
    this.#queue.suspend();
  }

  /** See `Queue.abandon`. */
  abandon(): void {
    this.#popped.length = 0;
    this.#used = 0;
    this.#queue.abandon();
  }

  /** See `Queue.snapshot`. */
  snapshot(): QueueState {
    return this.#queue.snapshot();
  }

  /** See `Queue.look`. */
  look(): QueueLook {
    return this.#queue.look();
  }
}
