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
import type { Queue, QueueConfig, QueuePosition, QueueState } from "./queue.ts";
import { lookAtQueue, type QueueLook } from "./queue_look.ts";
import { stateOf } from "./queue_state.ts";
import { checkTotal, trackWrites, wrongOrder } from "./segments.ts";
import { beyond, ChainWalker, isPlainTable } from "./walker.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const DEVICE = ChainOwner.device;
const F_NEXT = VIRTQ_DESC_F_NEXT;
const F_WRITE = VIRTQ_DESC_F_WRITE;
const F_INDIRECT = VIRTQ_DESC_F_INDIRECT;

/** Made by `openQueue`; see `Queue` for what the methods promise. */
export class SplitQueue implements Queue {
  /** Number of entries, a power of two. */
  declare readonly size: number;
  readonly #memory: GuestMemory;
  readonly #config: QueueConfig;
  readonly #pool: ChainPool;
  readonly #walker: ChainWalker;
  readonly #mask: number = 0;
  readonly #ringRegion: MemoryRegion;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  /** Byte offset of the available ring's entries, and of the used ring's. */
  readonly #descriptors: number = 0;
  readonly #availRing: number = 0;
  readonly #usedRing: number = 0;
  /** Indexes into the regions' u16. */
  readonly #availFlags: number = 0;
  readonly #availIdx: number = 0;
  readonly #usedEvent: number = 0;
  readonly #usedFlags: number = 0;
  readonly #usedIdx: number = 0;
  readonly #availEvent: number = 0;
  readonly #indirect: boolean = false;
  readonly #eventIdx: boolean = false;
  /** Next available index to pop, and how far the driver was when last looked at. */
  #nextAvail = 0;
  #seenAvail = 0;
  /** Next used index to write, and how many are written but not published. */
  #nextUsed = 0;
  #added = 0;
  #suspended = false;
  /** `#nextAvail - #nextUsed` when nothing is in flight. */
  #skew = 0;
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
    this.#pool = new ChainPool(
      size,
      1,
      areas.descriptor.region,
      (features & VIRTIO_F_IN_ORDER) !== 0n,
    );
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#walker = new ChainWalker(memory, size, "split", this.#indirect);
    this.#mask = size - 1;
    this.#ringRegion = areas.descriptor.region;
    this.#descriptors = areas.descriptor.offset / 4;
    this.#driverRegion = areas.driver.region;
    this.#deviceRegion = areas.device.region;
    this.#availRing = areas.driver.offset / 2 + 2;
    this.#usedRing = areas.device.offset / 4 + 1;
    this.#availFlags = areas.driver.offset / 2;
    this.#availIdx = this.#availFlags + 1;
    this.#usedEvent = this.#availFlags + 2 + size;
    this.#usedFlags = areas.device.offset / 2;
    this.#usedIdx = this.#usedFlags + 1;
    this.#availEvent = this.#usedFlags + 2 + 4 * size;
    this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;
    if (config.position !== undefined) {
      this.#nextAvail = this.#seenAvail = config.position.nextAvail;
      this.#nextUsed = config.position.nextUsed;
      this.#skew = this.#nextAvail - this.#nextUsed;
    }
  }

  /** Chains popped and not yet used. */
  get inFlight(): number {
    return (this.#nextAvail - this.#nextUsed - this.#skew) & 0xffff;
  }

  /** See `Queue.pop`. */
  pop(): Chain | null {
    const next = this.#nextAvail;
    if (this.#seenAvail === next && !this.#look()) return null;
    const chain = this.#pool.take();
    const head = this.#driverRegion.u16[(this.#availRing + (next & this.#mask)) | 0]! | 0;
    chain.id = head;
    // The short way, for plain chains. Each descriptor is read once; what is unusual, or wrong, is handed over.
    let words = this.#ringRegion.i32;
    let table = this.#descriptors | 0;
    let entries = this.size | 0;
    if (head >= entries) this.#failed(chain, beyond(head, entries, false, 0));
    let at = (table + (head << 2)) | 0;
    let low = words[at]!;
    let high = words[(at + 1) | 0]!;
    let length = words[(at + 2) | 0]!;
    let word = words[(at + 3) | 0]!;
    const { offsets, lengths } = chain;
    const capacity = chain.capacity | 0;
    let region = chain.region;
    let baseLow = region.baseLow | 0;
    let baseHigh = region.baseHigh | 0;
    let size = region.size | 0;
    let mixed = chain.mixed | 0;
    let index = head;
    let inTable = 0;
    if ((word & (F_INDIRECT | F_NEXT)) === F_INDIRECT && this.#indirect) {
      const offset = (low - baseLow) | 0;
      if (high === baseHigh && isPlainTable(offset, length, size)) {
        words = region.i32;
        table = offset >> 2;
        entries = length >>> 4;
        index = 0;
        inTable = 1;
        low = words[table]!;
        high = words[(table + 1) | 0]!;
        length = words[(table + 2) | 0]!;
        word = words[(table + 3) | 0]!;
      }
    }
    let count = 0;
    let readableCount = 0;
    let readable = 0;
    let writable = 0;
    for (;;) {
      let offset = (low - baseLow) | 0;
      if (
        high !== baseHigh || offset < 0 || length <= 0 || length > ((size - offset) | 0) ||
        (word & F_INDIRECT) !== 0 || count === capacity
      ) {
        const found = (word & F_INDIRECT) !== 0 || count === capacity || length <= 0
          ? null
          : this.#memory.locate(low, high, length);
        if (found === null) {
          chain.count = count;
          chain.readableCount = readableCount;
          chain.readable = readable;
          chain.writable = writable;
          this.#walker.enter(words, table, entries);
          return this.#walk(chain, inTable, index, low, high, length, word);
        }
        region = found;
        baseLow = region.baseLow | 0;
        baseHigh = region.baseHigh | 0;
        size = region.size | 0;
        offset = (low - baseLow) | 0;
        mixed = chain.mixed = 1;
      }
      if ((word & F_WRITE) !== 0) {
        writable += length;
      } else {
        if (writable !== 0) this.#failed(chain, wrongOrder());
        readable += length;
        readableCount = (count + 1) | 0;
      }
      if (mixed !== 0) chain.regions[count] = region;
      offsets[count] = offset;
      lengths[count] = length;
      count = (count + 1) | 0;
      if ((word & F_NEXT) === 0) break;
      index = word >>> 16;
      if (index >= entries) this.#failed(chain, beyond(index, entries, inTable !== 0, count));
      at = (table + (index << 2)) | 0;
      low = words[at]!;
      high = words[(at + 1) | 0]!;
      length = words[(at + 2) | 0]!;
      word = words[(at + 3) | 0]!;
    }
    chain.finish(count, count, readableCount, readable, writable);
    if (count > entries || readable + writable > 0x7fff_ffff) this.#check(chain, entries);
    this.#nextAvail = (next + 1) & 0xffff;
    return chain;
  }

  /** The long way. */
  #walk(
    chain: Chain,
    inTable: number,
    index: number,
    low: number,
    high: number,
    length: number,
    word: number,
  ): Chain {
    try {
      this.#walker.walk(chain, inTable !== 0, index, low, high, length, word);
    } catch (error) {
      this.#failed(chain, error);
    }
    this.#nextAvail = (this.#nextAvail + 1) & 0xffff;
    return chain;
  }

  /** A chain of the short way is uncommonly long. */
  #check(chain: Chain, entries: number): void {
    try {
      if (chain.count > entries) throw new VirtqueueError("2.7.5.2", "A descriptor chain loops");
      checkTotal(chain);
    } catch (error) {
      this.#failed(chain, error);
    }
  }

  #failed(chain: Chain, error: unknown): never {
    this.#pool.putBack(chain);
    if (error instanceof VirtqueueError) this.#break(error);
    throw error;
  }

  #break(error: VirtqueueError): void {
    this.#broken = error;
    // Nothing is seen any more, so that the next call meets the error again and not what the driver made of the chain.
    this.#seenAvail = this.#nextAvail;
  }

  /** Looks how far the driver is. The atomic load orders the reads of ring entries and descriptors after it. */
  #look(): boolean {
    if (this.#broken !== null) throw this.#broken;
    const next = this.#nextAvail;
    const seen = Atomics.load(this.#driverRegion.u16, this.#availIdx);
    const ahead = (seen - next) & 0xffff;
    if (ahead === 0) return false;
    if (ahead > this.size) {
      this.#broken = new VirtqueueError(
        "2.7.6.1",
        `The available index jumped ahead by ${ahead} in a queue of ${this.size}`,
      );
      throw this.#broken;
    }
    // What is in flight, or used but not yet published, cannot be available again.
    const room = this.size - this.inFlight - this.#added;
    if (room === 0) {
      this.#broken = new VirtqueueError(
        "3.3.1",
        `The driver made buffers available again that are still in flight: ${this.inFlight} of at most ${this.size}`,
      );
      throw this.#broken;
    }
    this.#seenAvail = (next + (ahead < room ? ahead : room)) & 0xffff;
    return true;
  }

  /** See `Queue.push`. */
  push(chain: Chain, written: number = chain.written): void {
    const pool = this.#pool;
    if (
      chain.owner !== DEVICE || chain.pool !== pool ||
      !(written >= 0 && written <= chain.writable)
    ) {
      pool.refuse(chain, written);
    }
    if (pool.ordered !== 0) this.#pushOrdered(chain, written);
    else this.#use(chain, written);
  }

  #pushOrdered(chain: Chain, written: number): void {
    const pool = this.#pool;
    if (pool.isNext(chain)) this.#use(chain, written);
    else pool.hold(chain, written);
    for (let turn = pool.nextOrdered(); turn !== null; turn = pool.nextOrdered()) {
      this.#use(turn, turn.held);
    }
  }

  #use(chain: Chain, written: number): void {
    const words = this.#deviceRegion.i32;
    const next = this.#nextUsed;
    const at = (this.#usedRing + ((next & this.#mask) << 1)) | 0;
    words[at] = chain.id;
    words[(at + 1) | 0] = written;
    this.#nextUsed = (next + 1) & 0xffff;
    this.#added = (this.#added + 1) | 0;
    if (this.#memory.tracker !== null) this.#track(chain, 4 * at);
    this.#pool.put(chain);
  }

  #track(chain: Chain, at: number): void {
    const tracker = this.#memory.tracker!;
    trackWrites(tracker, chain);
    tracker.mark(this.#deviceRegion.base + at, 8);
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
    return this.available();
  }

  /** See `Queue.available`. */
  available(): boolean {
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
    this.#skew = this.#nextAvail - this.#nextUsed;
    this.#added = 0;
  }

  /** See `Queue.snapshot`. */
  snapshot(): QueueState {
    return stateOf(this.#config, this.#position(), this.inFlight, this.#added);
  }

  /** See `Queue.look`. */
  look(): QueueLook {
    return lookAtQueue("split", this.#config, this.#position(), this.#eventIdx, this.#pool);
  }

  #position(): QueuePosition {
    return {
      nextAvail: this.#nextAvail,
      nextUsed: this.#nextUsed,
      availWrap: 0,
      usedWrap: 0,
    };
  }
}
