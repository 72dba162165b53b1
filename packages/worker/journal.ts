/**
 * What must be known of a queue when its worker is dead: how far it had published, and, while it publishes, what it overwrites.
 *
 * A worker that can be replaced after its death completes chains in the order in which they came, whatever the order in
 * which its device is done with them. So one position says everything: what is before it was told to the driver, what is
 * behind was not, and is handled again. A split ring keeps descriptors until the driver takes them back; a packed one has
 * used descriptors in the place of available ones (virtio 1.4, 2.8), so those are kept here until they are published.
 */
import type { GuestMemory } from "@virtio/memory";
import {
  type QueuePosition,
  type QueueState,
  VIRTIO_F_RING_PACKED,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
} from "@virtio/vring";
import { MAX_QUEUES } from "./words.ts";

/** Chains that are published at once. */
export const JOURNAL_CHAINS = 32;

/** Words of one queue: whether it publishes, its position before and after, how many descriptors follow; slot and two words. */
const At = { publishing: 0, before: 1, after: 2, count: 3, descriptors: 4 } as const;
const WORDS = At.descriptors + 3 * JOURNAL_CHAINS;

/** Shared memory for the journals of one worker. */
export function allocateJournals(): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * WORDS * MAX_QUEUES);
}

/** The journal of one queue, seen from either side. */
export class Journal {
  readonly #words: Int32Array;

  /** @param buffer As `allocateJournals` gave it. */
  constructor(buffer: SharedArrayBuffer, queue: number) {
    this.#words = new Int32Array(buffer, 4 * WORDS * queue, WORDS);
  }

  /** The queue begins at a position where nothing is in flight. */
  begin(slot: number, wrap: number): void {
    const words = this.#words;
    Atomics.store(words, At.publishing, 0);
    Atomics.store(words, At.before, slot | (wrap << 16));
  }

  /** Before chains are published. Descriptors to keep follow, then `publishing`. */
  prepare(): void {
    this.#words[At.count] = 0;
  }

  /** A descriptor that is about to be overwritten: its last two words. */
  keep(slot: number, length: number, last: number): void {
    const words = this.#words;
    const at = At.descriptors + 3 * words[At.count]!++;
    words[at] = slot;
    words[at + 1] = length;
    words[at + 2] = last;
  }

  /** All is kept: from now on the ring may be written. */
  publishing(slot: number, wrap: number): void {
    const words = this.#words;
    words[At.after] = slot | (wrap << 16);
    Atomics.store(words, At.publishing, 1);
  }

  /** The driver can see them. */
  published(): void {
    const words = this.#words;
    Atomics.store(words, At.before, words[At.after]!);
    Atomics.store(words, At.publishing, 0);
  }

  /**
   * Where the queue is to go on, once its worker touches nothing any more. What it had begun to publish and the driver cannot
   * see yet is taken back: descriptors are put where they were.
   *
   * @param state As the queue was given to the worker.
   */
  recover(memory: GuestMemory, state: QueueState, features: bigint): QueueState {
    const words = this.#words;
    const packed = (features & VIRTIO_F_RING_PACKED) !== 0n;
    let at = Atomics.load(words, At.before);
    const after = words[At.after]!;
    if (Atomics.load(words, At.publishing) === 1 && at !== after) {
      memory.refresh();
      if (isPublished(memory, state, packed, at & 0xffff, at >>> 16)) at = after;
      else if (packed) this.#takeBack(memory, state);
    }
    return { ...state, position: positionOf(at, packed) };
  }

  #takeBack(memory: GuestMemory, { descriptorArea, size }: QueueState): void {
    const words = this.#words;
    const count = Math.min(words[At.count]!, JOURNAL_CHAINS);
    for (let i = 0; i < count; i++) {
      const at = At.descriptors + 3 * i;
      const address = descriptorArea + 16 * (words[at]! % size);
      memory.writeU32(address + 8, words[at + 1]! >>> 0);
      memory.writeU32(address + 12, words[at + 2]! >>> 0);
      memory.tracker?.mark(address + 8, 8);
    }
  }
}

function positionOf(at: number, packed: boolean): QueuePosition {
  const slot = at & 0xffff;
  const wrap = packed ? at >>> 16 & 1 : 0;
  return { nextAvail: slot, nextUsed: slot, availWrap: wrap, usedWrap: wrap };
}

/** Whether the driver can see what comes at a position. All that is published together becomes visible with the first. */
function isPublished(
  memory: GuestMemory,
  { descriptorArea, deviceArea }: QueueState,
  packed: boolean,
  slot: number,
  wrap: number,
): boolean {
  if (!packed) return memory.readU16(deviceArea + 2) !== slot;
  const flags = memory.readU16(descriptorArea + 16 * slot + 14);
  const available = wrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
  // A driver that saw it used may have made the slot available again, for its next round.
  return (flags & (VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED)) !== available;
}
