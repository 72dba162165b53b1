/** The used descriptors of a packed ring (virtio 1.4, 2.8). */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import type { Chain } from "./chain.ts";
import { VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED, VIRTQ_DESC_F_WRITE } from "./layout.ts";
import type { ResolvedArea } from "./open_queue.ts";
import type { PackedEvents } from "./packed_events.ts";
import type { QueuePosition } from "./queue.ts";
import { trackWrites } from "./segments.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const BOTH = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;
const WRITE = VIRTQ_DESC_F_WRITE;

/**
 * Writes used descriptors, and publishes those of a batch together: all are written plainly, but for the first one's id and
 * flags, which one 32-bit atomic store publishes last.
 */
export class PackedUsed {
  readonly #memory: GuestMemory;
  readonly #region: MemoryRegion;
  /** Index of the descriptor ring's first word in its region's i32. */
  readonly #ring: number = 0;
  readonly #size: number = 0;
  /** Next slot to use, and its wrap counter. */
  next = 0;
  wrap = 1;
  /** Chains used but not published, and where the first one is. */
  added = 0;
  #published = 0;
  /** The first used descriptor of the batch: where, and its id and flags, kept back until `publish`. */
  #headAt = 0;
  #headWord = 0;

  /** @param position Where to go on; a fresh queue unless given. */
  constructor(
    memory: GuestMemory,
    size: number,
    area: ResolvedArea,
    position: QueuePosition | undefined,
  ) {
    this.#memory = memory;
    this.#region = area.region;
    this.#ring = area.offset / 4;
    this.#size = size;
    if (position !== undefined) {
      this.next = this.#published = position.nextUsed;
      this.wrap = position.usedWrap;
    }
  }

  /** Uses a chain. */
  add(chain: Chain, written: number): void {
    const words = this.#region.i32;
    const at = (this.#ring + (this.next << 2)) | 0;
    // The length counts only with WRITE (2.8.4).
    const flags = (this.wrap === 1 ? BOTH : 0) | (written > 0 ? WRITE : 0);
    const word = chain.id | (flags << 16);
    words[(at + 2) | 0] = written;
    const added = this.added;
    if (added === 0) {
      this.#headAt = at;
      this.#headWord = word;
    } else {
      words[(at + 3) | 0] = word;
    }
    this.added = (added + 1) | 0;
    let next = (this.next + chain.slots) | 0;
    if (next >= this.#size) {
      next = (next - this.#size) | 0;
      this.wrap ^= 1;
    }
    this.next = next;
    if (this.#memory.tracker !== null) this.#track(chain, 4 * at);
  }

  #track(chain: Chain, at: number): void {
    const tracker = this.#memory.tracker!;
    trackWrites(tracker, chain);
    tracker.mark(this.#region.base + at, 16);
  }

  /** Publishes what was added, at least one chain. @returns Whether the driver wants to be told. */
  publish(events: PackedEvents): boolean {
    this.added = 0;
    const next = this.next;
    // Never 0: nothing, or else all slots of the ring.
    let slots = (next - this.#published) | 0;
    if (slots <= 0) slots = (slots + this.#size) | 0;
    this.#published = next;
    // The driver looks at the first one first: publishing it last publishes the batch.
    Atomics.store(this.#region.i32, (this.#headAt + 3) | 0, this.#headWord);
    return events.wanted(next, this.wrap, slots);
  }

  /** Forgets what was added and not published. */
  abandon(): void {
    this.added = 0;
    this.#published = this.next;
  }
}
