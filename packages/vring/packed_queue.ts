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
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "./layout.ts";
import type { ResolvedAreas } from "./open_queue.ts";
import { PackedEvents } from "./packed_events.ts";
import { availableSlots, isAvailable } from "./packed_scan.ts";
import { PackedUsed } from "./packed_used.ts";
import type { Queue, QueueConfig, QueuePosition, QueueState } from "./queue.ts";
import { lookAtQueue, type QueueLook } from "./queue_look.ts";
import { stateOf } from "./queue_state.ts";
import { checkTotal, wrongOrder } from "./segments.ts";
import { ChainWalker, isPlainTable } from "./walker.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const DEVICE = ChainOwner.device;
// In the last word of a descriptor the flags follow the id.
const F_NEXT = VIRTQ_DESC_F_NEXT << 16;
const F_WRITE = VIRTQ_DESC_F_WRITE << 16;
const F_INDIRECT = VIRTQ_DESC_F_INDIRECT << 16;

/** Made by `openQueue`; see `Queue` for what the methods promise. */
export class PackedQueue implements Queue {
  /** Number of entries. */
  declare readonly size: number;
  readonly #memory: GuestMemory;
  readonly #config: QueueConfig;
  readonly #pool: ChainPool;
  readonly #walker: ChainWalker;
  readonly #ringRegion: MemoryRegion;
  readonly #used: PackedUsed;
  readonly #events: PackedEvents;
  /** Index of the descriptor ring's first word in its region's i32. */
  readonly #ring: number = 0;
  readonly #indirect: boolean = false;
  /** Next slot to pop, its wrap counter, and how many slots from there on were seen to be available. */
  #nextAvail = 0;
  #availWrap = 1;
  #seen = 0;
  /** Chains popped and not yet used, or used and not published. */
  #owed = 0;
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
    this.#pool = new ChainPool(
      config.size,
      0,
      areas.descriptor.region,
      (features & VIRTIO_F_IN_ORDER) !== 0n,
    );
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#walker = new ChainWalker(memory, config.size, "packed", this.#indirect);
    this.#ringRegion = areas.descriptor.region;
    const eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;
    this.#used = new PackedUsed(memory, config.size, areas.descriptor, config.position);
    this.#events = new PackedEvents(memory, config.size, areas, eventIdx);
    this.#ring = areas.descriptor.offset / 4;
    if (config.position !== undefined) {
      this.#nextAvail = config.position.nextAvail;
      this.#availWrap = config.position.availWrap;
    }
  }

  /** Chains popped and not yet used. */
  get inFlight(): number {
    return this.#owed - this.#used.added;
  }

  /** See `Queue.pop`. */
  pop(): Chain | null {
    if (this.#seen === 0 && !this.#look()) return null;
    if (this.#owed >= this.size) throw this.#tooMany();
    const chain = this.#pool.take();
    // The short way, for plain chains. Each descriptor is read once; what is unusual, or wrong, is handed over.
    let words = this.#ringRegion.i32;
    let table = this.#ring | 0;
    let entries = this.size | 0;
    let index = this.#nextAvail | 0;
    let at = (table + (index << 2)) | 0;
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
    let inTable = 0;
    if ((word & (F_INDIRECT | F_NEXT)) === F_INDIRECT && this.#indirect) {
      const offset = (low - baseLow) | 0;
      if (high === baseHigh && isPlainTable(offset, length, size)) {
        chain.id = word & 0xffff;
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
      index = (index + 1) | 0;
      if (inTable === 0) {
        // The last descriptor of a list carries the buffer id (2.8.6).
        if ((word & F_NEXT) === 0) break;
        if (index === entries) index = 0;
      } else if (index === entries) {
        // The entries of a table follow each other, whatever their flags say (2.8.7).
        break;
      }
      at = (table + (index << 2)) | 0;
      low = words[at]!;
      high = words[(at + 1) | 0]!;
      length = words[(at + 2) | 0]!;
      word = words[(at + 3) | 0]!;
    }
    let slots = 1;
    if (inTable === 0) {
      slots = count;
      chain.id = word & 0xffff;
    }
    chain.slots = slots;
    chain.finish(count, count, readableCount, readable, writable);
    if (slots > this.#seen || readable + writable > 0x7fff_ffff) this.#check(chain);
    this.#popped(chain.slots);
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
    if (chain.slots > this.#seen) this.#check(chain);
    this.#popped(chain.slots);
    return chain;
  }

  #check(chain: Chain): void {
    try {
      if (chain.slots > this.size) {
        throw new VirtqueueError("2.8.17", "A descriptor list is longer than the queue");
      }
      checkTotal(chain);
      if (chain.slots > this.#seen) this.#walkAgain(chain);
    } catch (error) {
      this.#failed(chain, error);
    }
  }

  /**
   * A list that goes on beyond what was seen to be available. Its first descriptor is made available last (2.8.17), so the
   * rest must be by now, though it may not have been when it was read.
   */
  #walkAgain(chain: Chain): void {
    const { slots } = chain;
    this.#look();
    if (slots <= this.#seen) {
      const words = this.#ringRegion.i32;
      const at = this.#ring + 4 * this.#nextAvail;
      chain.begin();
      this.#walker.enter(words, this.#ring, this.size);
      this.#walker.walk(
        chain,
        false,
        this.#nextAvail,
        words[at]!,
        words[at + 1]!,
        words[at + 2]!,
        words[at + 3]!,
      );
    }
    if (chain.slots > this.#seen) {
      throw new VirtqueueError(
        "2.8.17",
        "The first descriptor of a list was made available before the rest",
      );
    }
  }

  #popped(slots: number): void {
    this.#seen = (this.#seen - slots) | 0;
    let next = (this.#nextAvail + slots) | 0;
    if (next >= this.size) {
      next = (next - this.size) | 0;
      this.#availWrap ^= 1;
    }
    this.#nextAvail = next;
    this.#owed = (this.#owed + 1) | 0;
  }

  #failed(chain: Chain, error: unknown): never {
    this.#pool.putBack(chain);
    if (error instanceof VirtqueueError) this.#break(error);
    throw error;
  }

  #tooMany(): VirtqueueError {
    return this.#break(
      new VirtqueueError(
        "3.3.1",
        `The driver made buffers available again that are still in flight: ${this.inFlight} of at most ${this.size}`,
      ),
    );
  }

  #break(error: VirtqueueError): VirtqueueError {
    this.#broken = error;
    // Nothing is seen any more, so that the next call meets the error again and not what the driver made of the chain.
    this.#seen = 0;
    return error;
  }

  /** Looks how far the driver is. */
  #look(): boolean {
    if (this.#broken !== null) throw this.#broken;
    const { u16 } = this.#ringRegion;
    const seen = availableSlots(u16, this.#ring, this.size, this.#nextAvail, this.#availWrap);
    // Finding nothing leaves what was seen before: a list may be known in part.
    if (seen === 0) return false;
    this.#seen = seen;
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
    this.#used.add(chain, written);
    this.#pool.put(chain);
  }

  /** See `Queue.undo`. */
  undo(chain: Chain): void {
    this.#pool.undo(chain);
    this.#owed--;
    const { slots } = chain;
    let before = this.#nextAvail - slots;
    if (before < 0) {
      before += this.size;
      this.#availWrap ^= 1;
    }
    this.#nextAvail = before;
    this.#seen += slots;
  }

  /** See `Queue.flush`. */
  flush(): boolean {
    const used = this.#used;
    if (used.added === 0) return false;
    this.#owed = (this.#owed - used.added) | 0;
    return used.publish(this.#events);
  }

  /** See `Queue.arm`. */
  arm(): boolean {
    this.#events.ask(this.#nextAvail, this.#availWrap);
    return this.available();
  }

  /** See `Queue.available`. */
  available(): boolean {
    if (this.#seen > 0) return true;
    return isAvailable(this.#ringRegion.u16, this.#ring, this.#nextAvail, this.#availWrap);
  }

  /** See `Queue.suspend`. */
  suspend(): void {
    this.#events.suspend();
  }

  /** See `Queue.abandon`. */
  abandon(): void {
    this.#pool.abandon();
    this.#owed = 0;
    this.#used.abandon();
  }

  /** See `Queue.snapshot`. */
  snapshot(): QueueState {
    return stateOf(this.#config, this.#position(), this.inFlight, this.#used.added);
  }

  /** See `Queue.look`. */
  look(): QueueLook {
    return lookAtQueue("packed", this.#config, this.#position(), this.#events.eventIdx, this.#pool);
  }

  #position(): QueuePosition {
    return {
      nextAvail: this.#nextAvail,
      nextUsed: this.#used.next,
      availWrap: this.#availWrap,
      usedWrap: this.#used.wrap,
    };
  }
}
