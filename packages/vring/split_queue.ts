/**
 * The device side of a split virtqueue (virtio 1.4, 2.7).
 *
 * Hot path: nothing is allocated per chain; plain loads and stores of ring entries through one DataView per area, read
 * into a local once per call; one atomic load when what was seen of the available ring is used up, one atomic store and one
 * atomic load per flush. bench/vring_bench.ts guards it.
 */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import { type Chain, ChainOwner } from "./chain.ts";
import { ChainPool } from "./chain_pool.ts";
import { VirtqueueError } from "./errors.ts";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY,
} from "./layout.ts";
import { needEvent } from "./need_event.ts";
import type { ResolvedAreas } from "./open_queue.ts";
import type { Queue, QueueConfig, QueueState } from "./queue.ts";
import { addBuffer, checkTotal, INDIRECT_LIMIT, openTable, trackWrites } from "./segments.ts";

/** Made by `openQueue`; see `Queue` for what the methods promise. */
export class SplitQueue implements Queue {
  /** Number of entries, a power of two. */
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #config: QueueConfig;
  readonly #pool: ChainPool;
  readonly #mask: number;
  readonly #descriptorRegion: MemoryRegion;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  readonly #descriptors: number;
  /** Byte offset of the available ring's entries, and of the used ring's. */
  readonly #availRing: number;
  readonly #usedRing: number;
  /** Indexes into the regions' u16. */
  readonly #availFlags: number;
  readonly #availIdx: number;
  readonly #usedEvent: number;
  readonly #usedFlags: number;
  readonly #usedIdx: number;
  readonly #availEvent: number;
  readonly #indirect: boolean;
  readonly #eventIdx: boolean;
  /** Next available index to pop, and how far the driver was when last looked at. */
  #nextAvail = 0;
  #seenAvail = 0;
  /** Next used index to write, and how many are written but not published. */
  #nextUsed = 0;
  #added = 0;
  #suspended = false;
  #broken: VirtqueueError | null = null;

  /** Use `openQueue`. */
  constructor(
    memory: GuestMemory,
    config: QueueConfig,
    areas: ResolvedAreas,
    features: bigint,
  ) {
    const { size } = config;
    this.size = size;
    this.#memory = memory;
    this.#config = config;
    this.#pool = new ChainPool(size, (features & VIRTIO_F_IN_ORDER) !== 0n);
    this.#mask = size - 1;
    this.#descriptorRegion = areas.descriptor.region;
    this.#driverRegion = areas.driver.region;
    this.#deviceRegion = areas.device.region;
    this.#descriptors = areas.descriptor.offset;
    this.#availRing = areas.driver.offset + 4;
    this.#usedRing = areas.device.offset + 4;
    this.#availFlags = areas.driver.offset / 2;
    this.#availIdx = this.#availFlags + 1;
    this.#usedEvent = this.#availFlags + 2 + size;
    this.#usedFlags = areas.device.offset / 2;
    this.#usedIdx = this.#usedFlags + 1;
    this.#availEvent = this.#usedFlags + 2 + 4 * size;
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;
    if (config.position !== undefined) {
      this.#nextAvail = this.#seenAvail = config.position.nextAvail;
      this.#nextUsed = config.position.nextUsed;
    }
  }

  /** Chains popped and not yet used. */
  get inFlight(): number {
    return this.#pool.inFlight;
  }

  /** See `Queue.pop`. */
  pop(): Chain | null {
    const next = this.#nextAvail;
    if (this.#seenAvail === next && !this.#look()) return null;
    const head = this.#driverRegion.view.getUint16(
      this.#availRing + 2 * (next & this.#mask),
      true,
    );
    const pool = this.#pool;
    let chain: Chain | null = null;
    try {
      chain = pool.take(this.#added);
      chain.id = head;
      chain.slots = 1;
      this.#walk(chain, head);
    } catch (error) {
      if (chain !== null) pool.put(chain);
      if (error instanceof VirtqueueError) {
        this.#broken = error;
        // Nothing is seen any more, so that the next call meets the error again and not what the driver made of the chain.
        this.#seenAvail = next;
      }
      throw error;
    }
    this.#nextAvail = (next + 1) & 0xffff;
    pool.start(chain);
    return chain;
  }

  /** Looks how far the driver is. The atomic load orders the reads of ring entries and descriptors after it. */
  #look(): boolean {
    if (this.#broken !== null) throw this.#broken;
    const seen = Atomics.load(this.#driverRegion.u16, this.#availIdx);
    const ahead = (seen - this.#nextAvail) & 0xffff;
    if (ahead === 0) return false;
    if (ahead > this.size) {
      this.#broken = new VirtqueueError(
        "2.7.6.1",
        `The available index jumped ahead by ${ahead} in a queue of ${this.size}`,
      );
      throw this.#broken;
    }
    this.#seenAvail = seen;
    return true;
  }

  #walk(chain: Chain, head: number): void {
    const memory = this.#memory;
    let view = this.#descriptorRegion.view;
    let table = this.#descriptors;
    let entries = this.size;
    let index = head;
    // A chain visits no descriptor twice, so more steps than entries are a loop.
    let steps = entries;
    let indirect = false;
    for (;;) {
      if (index >= entries) {
        throw new VirtqueueError(
          indirect ? "2.7.5.3.1" : chain.count === 0 ? "2.7.6" : "2.7.5",
          `Descriptor ${index} is beyond the table of ${entries}`,
        );
      }
      if (steps-- === 0) {
        throw new VirtqueueError("2.7.5.2", "A descriptor chain loops");
      }
      const at = table + 16 * index;
      const low = view.getUint32(at, true);
      const high = view.getUint32(at + 4, true);
      const length = view.getUint32(at + 8, true);
      const flags = view.getUint16(at + 12, true);
      const next = view.getUint16(at + 14, true);
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if (!this.#indirect) {
          throw new VirtqueueError(
            "2.7.5.3.1",
            "An indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated",
          );
        }
        if (indirect) {
          throw new VirtqueueError("2.7.5.3.1", "An indirect descriptor inside an indirect table");
        }
        if ((flags & VIRTQ_DESC_F_NEXT) !== 0) {
          throw new VirtqueueError("2.7.5.3.1", "A descriptor is both INDIRECT and NEXT");
        }
        // VIRTQ_DESC_F_WRITE is ignored here: 2.7.5.3.2.
        const limit = this.size > INDIRECT_LIMIT ? this.size : INDIRECT_LIMIT;
        const found = openTable(memory, low, high, length, limit);
        view = found.view;
        table = found.start;
        entries = length / 16;
        steps = entries;
        index = 0;
        indirect = true;
        continue;
      }
      addBuffer(chain, memory, low, high, length, (flags & VIRTQ_DESC_F_WRITE) !== 0);
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) break;
      index = next;
    }
    checkTotal(chain);
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
    const view = this.#deviceRegion.view;
    const at = this.#usedRing + 8 * (this.#nextUsed & this.#mask);
    view.setUint32(at, chain.id, true);
    view.setUint32(at + 4, written, true);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.#added++;
    const tracker = this.#memory.tracker;
    if (tracker !== null) {
      trackWrites(tracker, chain);
      tracker.mark(this.#deviceRegion.base + at, 8);
    }
    this.#pool.inFlight--;
    this.#pool.put(chain);
  }

  /** See `Queue.undo`. */
  undo(chain: Chain): void {
    this.#pool.undo(chain);
    this.#nextAvail = (this.#nextAvail - 1) & 0xffff;
  }

  /** See `Queue.flush`. */
  flush(): boolean {
    const added = this.#added;
    if (added === 0) return false;
    this.#added = 0;
    const now = this.#nextUsed;
    // 2.7.8.2: the entries are written; only now may the index tell of them. The atomic store keeps that order.
    Atomics.store(this.#deviceRegion.u16, this.#usedIdx, now);
    this.#memory.tracker?.mark(this.#deviceRegion.base + this.#usedIdx * 2, 2);
    // Sequentially consistent with the store above: either we see the driver's new event index, or it sees our used index.
    if (this.#eventIdx) {
      return needEvent(Atomics.load(this.#driverRegion.u16, this.#usedEvent), now, added);
    }
    const flags = Atomics.load(this.#driverRegion.u16, this.#availFlags);
    return (flags & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
  }

  /** See `Queue.arm`. */
  arm(): boolean {
    const u16 = this.#deviceRegion.u16;
    if (this.#eventIdx) {
      Atomics.store(u16, this.#availEvent, this.#nextAvail);
      this.#memory.tracker?.mark(this.#deviceRegion.base + this.#availEvent * 2, 2);
    } else if (this.#suspended) {
      this.#suspended = false;
      Atomics.store(u16, this.#usedFlags, 0);
      this.#memory.tracker?.mark(this.#deviceRegion.base + this.#usedFlags * 2, 2);
    }
    return this.#seenAvail !== this.#nextAvail ||
      Atomics.load(this.#driverRegion.u16, this.#availIdx) !== this.#nextAvail;
  }

  /** See `Queue.suspend`. */
  suspend(): void {
    // With EVENT_IDX the old avail_event is behind already, and flags must stay 0 (2.7.10.2).
    if (this.#eventIdx || this.#suspended) return;
    this.#suspended = true;
    this.#deviceRegion.view.setUint16(this.#usedFlags * 2, VIRTQ_USED_F_NO_NOTIFY, true);
    this.#memory.tracker?.mark(this.#deviceRegion.base + this.#usedFlags * 2, 2);
  }

  /** See `Queue.abandon`. */
  abandon(): void {
    this.#pool.abandon();
    this.#added = 0;
  }

  /** See `Queue.snapshot`. */
  snapshot(): QueueState {
    if (this.#pool.inFlight !== 0 || this.#added !== 0) {
      throw new TypeError(
        `Cannot save a queue with ${this.#pool.inFlight} chains in flight and ${this.#added} not flushed: stop the device first`,
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
        availWrap: 0,
        usedWrap: 0,
      },
    };
  }
}
