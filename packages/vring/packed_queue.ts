/**
 * The device side of a packed virtqueue (virtio 1.4, 2.8).
 *
 * Hot path: nothing is allocated per chain; two atomic loads when what was seen of the ring is used up; used descriptors of
 * a batch are written plainly, but for the first one's id and flags, which one 32-bit atomic store publishes last, so that
 * the driver sees the batch at once. bench/vring_bench.ts guards it.
 */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import { type Chain, ChainOwner } from "./chain.ts";
import { ChainPool } from "./chain_pool.ts";
import { VirtqueueError } from "./errors.ts";
import {
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
} from "./layout.ts";
import { needEvent } from "./need_event.ts";
import type { ResolvedAreas } from "./open_queue.ts";
import type { Queue, QueueConfig, QueueState } from "./queue.ts";
import { addBuffer, checkTotal, INDIRECT_LIMIT, openTable, trackWrites } from "./segments.ts";

const BOTH = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;

/** Made by `openQueue`; see `Queue` for what the methods promise. */
export class PackedQueue implements Queue {
  /** Number of entries. */
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #config: QueueConfig;
  readonly #pool: ChainPool;
  readonly #ringRegion: MemoryRegion;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  /** Byte offset of the descriptor ring. */
  readonly #ring: number;
  /** Indexes of the two event suppression structures into their regions' i32. */
  readonly #driverEvent: number;
  readonly #deviceEvent: number;
  readonly #indirect: boolean;
  readonly #eventIdx: boolean;
  /** Next slot to pop, its wrap counter, and how many slots from there on were seen to be available. */
  #nextAvail = 0;
  #availWrap = 1;
  #seen = 0;
  /** Next slot to use, and its wrap counter. */
  #nextUsed = 0;
  #usedWrap = 1;
  /** Slots and chains used but not published. */
  #addedSlots = 0;
  #addedChains = 0;
  /** The first used descriptor of the batch: where, and its id and flags, kept back until `flush`. */
  #headAt = 0;
  #headWord = 0;
  #suspended = false;
  #broken: VirtqueueError | null = null;

  /** Use `openQueue`. */
  constructor(
    memory: GuestMemory,
    config: QueueConfig,
    areas: ResolvedAreas,
    features: bigint,
  ) {
    this.size = config.size;
    this.#memory = memory;
    this.#config = config;
    this.#pool = new ChainPool(config.size, (features & VIRTIO_F_IN_ORDER) !== 0n);
    this.#ringRegion = areas.descriptor.region;
    this.#driverRegion = areas.driver.region;
    this.#deviceRegion = areas.device.region;
    this.#ring = areas.descriptor.offset;
    this.#driverEvent = areas.driver.offset / 4;
    this.#deviceEvent = areas.device.offset / 4;
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;
    if (config.position !== undefined) {
      this.#nextAvail = config.position.nextAvail;
      this.#availWrap = config.position.availWrap;
      this.#nextUsed = config.position.nextUsed;
      this.#usedWrap = config.position.usedWrap;
    }
  }

  /** Chains popped and not yet used. */
  get inFlight(): number {
    return this.#pool.inFlight;
  }

  /** See `Queue.pop`. */
  pop(): Chain | null {
    if (this.#seen === 0 && !this.#look()) return null;
    const pool = this.#pool;
    let chain: Chain | null = null;
    try {
      chain = pool.take(this.#addedChains);
      this.#walk(chain);
    } catch (error) {
      if (chain !== null) pool.put(chain);
      if (error instanceof VirtqueueError) {
        this.#broken = error;
        // Nothing is seen any more, so that the next call meets the error again and not what the driver made of the chain.
        this.#seen = 0;
      }
      throw error;
    }
    const slots = chain.slots;
    let next = this.#nextAvail + slots;
    if (next >= this.size) {
      next -= this.size;
      this.#availWrap ^= 1;
    }
    this.#nextAvail = next;
    this.#seen = slots < this.#seen ? this.#seen - slots : 0;
    pool.start(chain);
    return chain;
  }

  /**
   * Looks how far the driver is: scans the flags from the next slot on. The atomic load of the first slot orders what was
   * published before it, that of the last slot what was published later; between them plain loads are enough.
   */
  #look(): boolean {
    if (this.#broken !== null) throw this.#broken;
    const region = this.#ringRegion;
    const view = region.view;
    const size = this.size;
    const ring = this.#ring;
    let slot = this.#nextAvail;
    let expected = this.#availWrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
    if ((Atomics.load(region.u16, ring / 2 + 8 * slot + 7) & BOTH) !== expected) return false;
    let seen = 1;
    let last = slot;
    while (seen < size) {
      if (++slot === size) {
        slot = 0;
        expected ^= BOTH;
      }
      if ((view.getUint16(ring + 16 * slot + 14, true) & BOTH) !== expected) break;
      last = slot;
      seen++;
    }
    if (seen > 1) Atomics.load(region.u16, ring / 2 + 8 * last + 7);
    this.#seen = seen;
    return true;
  }

  #walk(chain: Chain): void {
    const memory = this.#memory;
    const view = this.#ringRegion.view;
    const size = this.size;
    let slot = this.#nextAvail;
    let slots = 0;
    for (;;) {
      const at = this.#ring + 16 * slot;
      const low = view.getUint32(at, true);
      const high = view.getUint32(at + 4, true);
      const length = view.getUint32(at + 8, true);
      const word = view.getUint32(at + 12, true);
      const flags = word >>> 16;
      slots++;
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if (!this.#indirect) {
          throw new VirtqueueError(
            "2.8.19",
            "An indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated",
          );
        }
        if (slots > 1 || (flags & VIRTQ_DESC_F_NEXT) !== 0) {
          throw new VirtqueueError("2.8.19", "An indirect descriptor in a list of several");
        }
        this.#walkTable(chain, low, high, length);
      } else {
        addBuffer(chain, memory, low, high, length, (flags & VIRTQ_DESC_F_WRITE) !== 0);
      }
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) {
        // The last descriptor of a list carries the buffer id (2.8.6).
        chain.id = word & 0xffff;
        break;
      }
      if (slots === size) {
        throw new VirtqueueError("2.8.17", "A descriptor list is longer than the queue");
      }
      if (++slot === size) slot = 0;
    }
    checkTotal(chain);
    chain.slots = slots;
  }

  /** An indirect table of the packed format: entries in order, only the WRITE flag counts (2.8.7). */
  #walkTable(chain: Chain, low: number, high: number, length: number): void {
    const limit = this.size > INDIRECT_LIMIT ? this.size : INDIRECT_LIMIT;
    const { view, start } = openTable(this.#memory, low, high, length, limit);
    for (let at = start; at < start + length; at += 16) {
      const flags = view.getUint16(at + 14, true);
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        throw new VirtqueueError("2.8.19", "An indirect descriptor inside an indirect table");
      }
      addBuffer(
        chain,
        this.#memory,
        view.getUint32(at, true),
        view.getUint32(at + 4, true),
        view.getUint32(at + 8, true),
        (flags & VIRTQ_DESC_F_WRITE) !== 0,
      );
    }
  }

  /** See `Queue.push`. */
  push(chain: Chain, written: number = chain.written): void {
    const pool = this.#pool;
    if (chain.owner !== ChainOwner.device || chain.pool !== pool) {
      throw new TypeError("Cannot use a chain that is not in flight on this queue");
    }
    if (!(written >= 0 && written <= chain.writable)) {
      throw new RangeError(
        `Cannot use a chain with ${written} bytes written: it has ${chain.writable} device-writable bytes`,
      );
    }
    if (!pool.ordered) {
      this.#use(chain, written);
      return;
    }
    pool.hold(chain, written);
    for (let turn = pool.nextOrdered(); turn !== null; turn = pool.nextOrdered()) {
      this.#use(turn, turn.held);
    }
  }

  #use(chain: Chain, written: number): void {
    const view = this.#ringRegion.view;
    const at = this.#ring + 16 * this.#nextUsed;
    let flags = this.#usedWrap === 1 ? BOTH : 0;
    // The length counts only with this flag (2.8.4).
    if (written > 0) flags |= VIRTQ_DESC_F_WRITE;
    const word = (chain.id | (flags << 16)) >>> 0;
    view.setUint32(at + 8, written, true);
    if (this.#addedChains === 0) {
      this.#headAt = at;
      this.#headWord = word;
    } else {
      view.setUint32(at + 12, word, true);
    }
    this.#addedChains++;
    this.#addedSlots += chain.slots;
    let next = this.#nextUsed + chain.slots;
    if (next >= this.size) {
      next -= this.size;
      this.#usedWrap ^= 1;
    }
    this.#nextUsed = next;
    const tracker = this.#memory.tracker;
    if (tracker !== null) {
      trackWrites(tracker, chain);
      tracker.mark(this.#ringRegion.base + at, 16);
    }
    this.#pool.inFlight--;
    this.#pool.put(chain);
  }

  /** See `Queue.undo`. */
  undo(chain: Chain): void {
    this.#pool.undo(chain);
    let next = this.#nextAvail - chain.slots;
    if (next < 0) {
      next += this.size;
      this.#availWrap ^= 1;
    }
    this.#nextAvail = next;
    this.#seen += chain.slots;
  }

  /** See `Queue.flush`. */
  flush(): boolean {
    const added = this.#addedSlots;
    if (added === 0) return false;
    this.#addedSlots = 0;
    this.#addedChains = 0;
    // The driver looks at the first one first: publishing it last publishes the batch.
    Atomics.store(this.#ringRegion.i32, (this.#headAt + 12) / 4, this.#headWord | 0);
    const word = Atomics.load(this.#driverRegion.i32, this.#driverEvent);
    const flags = (word >>> 16) & 3;
    if (flags === RING_EVENT_FLAGS_DISABLE) return false;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.#eventIdx) return true;
    let event = word & 0x7fff;
    if (((word >>> 15) & 1) !== this.#usedWrap) event -= this.size;
    return needEvent(event, this.#nextUsed, added);
  }

  /** See `Queue.arm`. */
  arm(): boolean {
    if (this.#eventIdx) {
      const word = this.#nextAvail | (this.#availWrap << 15) | (RING_EVENT_FLAGS_DESC << 16);
      Atomics.store(this.#deviceRegion.i32, this.#deviceEvent, word);
      this.#memory.tracker?.mark(this.#deviceRegion.base + this.#deviceEvent * 4, 4);
    } else if (this.#suspended) {
      this.#suspended = false;
      Atomics.store(this.#deviceRegion.i32, this.#deviceEvent, RING_EVENT_FLAGS_ENABLE << 16);
      this.#memory.tracker?.mark(this.#deviceRegion.base + this.#deviceEvent * 4, 4);
    }
    if (this.#seen > 0) return true;
    const flags = Atomics.load(this.#ringRegion.u16, this.#ring / 2 + 8 * this.#nextAvail + 7);
    return (flags & BOTH) === (this.#availWrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED);
  }

  /** See `Queue.suspend`. */
  suspend(): void {
    // With EVENT_IDX the descriptor that was asked for is behind already.
    if (this.#eventIdx || this.#suspended) return;
    this.#suspended = true;
    const at = this.#deviceEvent * 4;
    this.#deviceRegion.view.setUint32(at, RING_EVENT_FLAGS_DISABLE << 16, true);
    this.#memory.tracker?.mark(this.#deviceRegion.base + at, 4);
  }

  /** See `Queue.abandon`. */
  abandon(): void {
    this.#pool.abandon();
    this.#addedSlots = 0;
    this.#addedChains = 0;
  }

  /** See `Queue.snapshot`. */
  snapshot(): QueueState {
    if (this.#pool.inFlight !== 0 || this.#addedChains !== 0) {
      throw new TypeError(
        `Cannot save a queue with ${this.#pool.inFlight} chains in flight and ${this.#addedChains} not flushed: stop the device first`,
      );
    }
    const { size, descriptorArea, driverArea, deviceArea } = this.#config;
    return {
      version: 1,
      size,
      descriptorArea,
      driverArea,
      deviceArea,
      position: {
        nextAvail: this.#nextAvail,
        nextUsed: this.#nextUsed,
        availWrap: this.#availWrap,
        usedWrap: this.#usedWrap,
      },
    };
  }
}
