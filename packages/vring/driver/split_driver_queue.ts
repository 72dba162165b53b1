/**
 * The driver side of a split virtqueue (virtio 1.4, 2.7).
 *
 * Hot path: nothing is allocated per buffer; one atomic store and one atomic load per publish; one atomic load when what
 * was seen of the used ring is used up.
 */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import { VirtqueueError } from "../errors.ts";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_USED_F_NO_NOTIFY,
} from "../layout.ts";
import { needEvent } from "../need_event.ts";
import type { ResolvedAreas } from "../open_queue.ts";
import type { QueueConfig } from "../queue.ts";
import type { BufferList } from "./buffer_list.ts";
import type { DriverQueue } from "./driver_queue.ts";
import { checkBuffers, FlightRecord, mustCheck, upperHalf, writeTable } from "./record.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const F_NEXT = VIRTQ_DESC_F_NEXT;
const F_INDIRECT = VIRTQ_DESC_F_INDIRECT;

/** Made by `openDriverQueue`; see `DriverQueue` for what the methods promise. */
export class SplitDriverQueue implements DriverQueue {
  /** Where the queue lies. */
  readonly config: QueueConfig;
  /** Number of entries. */
  declare readonly size: number;
  /** Descriptors that are free. */
  declare free: number;
  /** Bytes that the device wrote into the buffer that `take` returned last. */
  usedLength = 0;
  readonly #memory: GuestMemory;
  readonly #record: FlightRecord;
  readonly #mask: number = 0;
  readonly #ringRegion: MemoryRegion;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  readonly #descriptors: number = 0;
  readonly #availRing: number = 0;
  readonly #usedRing: number = 0;
  readonly #availFlags: number = 0;
  readonly #availIdx: number = 0;
  readonly #usedEvent: number = 0;
  readonly #usedFlags: number = 0;
  readonly #usedIdx: number = 0;
  readonly #availEvent: number = 0;
  readonly #indirect: boolean = false;
  readonly #eventIdx: boolean = false;
  readonly #inOrder: boolean = false;
  /** For each free descriptor the next free one; for each used one the next of its chain. Private. */
  readonly #links: Uint16Array;
  #firstFree = 0;
  #nextAvail = 0;
  #added = 0;
  #nextUsed = 0;
  #seenUsed = 0;
  /** In-order: buffers that the device used together with one entry, and that `take` has not given out yet. */
  #batch = 0;
  #batchLength = 0;
  #broken: VirtqueueError | null = null;

  /** Use `openDriverQueue`. */
  constructor(
    memory: GuestMemory,
    config: QueueConfig,
    areas: ResolvedAreas,
    features: bigint,
  ) {
    const { size } = config;
    this.config = config;
    this.size = size;
    this.free = size;
    this.#memory = memory;
    this.#inOrder = (features & VIRTIO_F_IN_ORDER) !== 0n;
    this.#record = new FlightRecord(size, this.#inOrder, "2.7.8");
    this.#mask = size - 1;
    this.#ringRegion = areas.descriptor.region;
    this.#driverRegion = areas.driver.region;
    this.#deviceRegion = areas.device.region;
    this.#descriptors = areas.descriptor.offset / 4;
    this.#availRing = areas.driver.offset / 2 + 2;
    this.#usedRing = areas.device.offset / 4 + 1;
    this.#availFlags = areas.driver.offset / 2;
    this.#availIdx = this.#availFlags + 1;
    this.#usedEvent = this.#availFlags + 2 + size;
    this.#usedFlags = areas.device.offset / 2;
    this.#usedIdx = this.#usedFlags + 1;
    this.#availEvent = this.#usedFlags + 2 + 4 * size;
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;
    this.#links = new Uint16Array(size);
    // A ring of all descriptors. In-order chains come back in the order they left, so it stays in order by itself, which
    // 2.7.5.2 demands.
    for (let i = 0; i < size; i++) this.#links[i] = i + 1 === size ? 0 : i + 1;
  }

  /** Buffers that the device has not given back. */
  get inFlight(): number {
    return this.#record.count;
  }

  /** See `DriverQueue.add`. */
  add(buffers: BufferList, token: number, table?: number): boolean {
    if (table !== undefined) return this.#addIndirect(buffers, token, table);
    if (mustCheck(buffers, this.free)) {
      checkBuffers(buffers, this.size, table, this.#indirect);
      if (buffers.count > this.free) return false;
    }
    const head = this.#firstFree;
    const words = this.#ringRegion.i32;
    const start = this.#descriptors | 0;
    const links = this.#links;
    const from = buffers.words;
    const last = (buffers.count - 1) << 2;
    let index = head;
    for (let k = 0;; k = (k + 4) | 0) {
      const at = (start + (index << 2)) | 0;
      words[at] = from[k]!;
      words[(at + 1) | 0] = from[(k + 1) | 0]!;
      words[(at + 2) | 0] = from[(k + 2) | 0]!;
      const flags = from[(k + 3) | 0]!;
      if (k >= last) {
        words[(at + 3) | 0] = flags;
        break;
      }
      index = links[index]!;
      words[(at + 3) | 0] = flags | F_NEXT | (index << 16);
    }
    this.#enter(buffers, token, head, index, buffers.count);
    return true;
  }

  #addIndirect(buffers: BufferList, token: number, table: number): boolean {
    if (mustCheck(buffers, this.size) || !this.#indirect) {
      checkBuffers(buffers, this.size, table, this.#indirect);
    }
    if (this.free === 0) return false;
    const high = upperHalf(table);
    // First, since it throws if the table is not in memory.
    writeTable(this.#memory, table, high, buffers, false);
    const head = this.#firstFree;
    const words = this.#ringRegion.i32;
    const at = (this.#descriptors + (head << 2)) | 0;
    words[at] = table;
    words[(at + 1) | 0] = high;
    words[(at + 2) | 0] = buffers.count << 4;
    words[(at + 3) | 0] = F_INDIRECT;
    this.#enter(buffers, token, head, head, 1);
    return true;
  }

  /** The descriptors are written: notes the buffer, and puts its head into the available ring. */
  #enter(buffers: BufferList, token: number, head: number, last: number, units: number): void {
    this.#firstFree = this.#links[last]!;
    this.free = (this.free - units) | 0;
    this.#record.start(head, token, units, last, buffers.writableBytes);
    const added = this.#added;
    const slot = (this.#nextAvail + added) & this.#mask;
    this.#driverRegion.u16[(this.#availRing + slot) | 0] = head;
    this.#added = (added + 1) | 0;
  }

  /** See `DriverQueue.publish`. */
  publish(): boolean {
    const added = this.#added;
    if (added === 0) return false;
    this.#added = 0;
    this.#record.publish();
    const now = (this.#nextAvail + added) & 0xffff;
    this.#nextAvail = now;
    // 2.7.13.3.1: entries first, then the index; 2.7.13.4.1: the index first, then look whether a kick is wanted. The
    // sequentially consistent store and loads give both barriers.
    Atomics.store(this.#driverRegion.u16, this.#availIdx, now);
    if (this.#eventIdx) {
      return needEvent(Atomics.load(this.#deviceRegion.u16, this.#availEvent), now, added);
    }
    const flags = Atomics.load(this.#deviceRegion.u16, this.#usedFlags);
    return (flags & VIRTQ_USED_F_NO_NOTIFY) === 0;
  }

  /** See `DriverQueue.notificationData`. */
  notificationData(): number {
    return this.#nextAvail;
  }

  /** See `DriverQueue.take`. */
  take(): number {
    if (this.#batch > 0) return this.#takeOrdered();
    const next = this.#nextUsed;
    if (this.#seenUsed === next && !this.#look()) return -1;
    const words = this.#deviceRegion.i32;
    const at = (this.#usedRing + ((next & this.#mask) << 1)) | 0;
    const id = words[at]!;
    const length = words[(at + 1) | 0]!;
    const record = this.#record;
    const units = record.accepts(id, length);
    if (units === 0) throw this.#refuse(record.error(id >>> 0, length >>> 0));
    if (this.#inOrder) return this.#takeBatch(id, length >>> 0);
    this.#nextUsed = (next + 1) & 0xffff;
    this.usedLength = length >>> 0;
    this.#links[record.last(id)] = this.#firstFree;
    this.#firstFree = id;
    this.free = (this.free + units) | 0;
    return record.end(id);
  }

  #refuse(error: VirtqueueError): VirtqueueError {
    this.#broken = error;
    this.#seenUsed = this.#nextUsed;
    return error;
  }

  #takeBatch(id: number, length: number): number {
    const batch = this.#record.batch(id);
    if (batch > ((this.#seenUsed - this.#nextUsed) & 0xffff)) {
      throw this.#refuse(
        new VirtqueueError("2.7.8", `The device used buffer ${id} out of order`),
      );
    }
    this.#batch = batch;
    this.#batchLength = length;
    return this.#takeOrdered();
  }

  /** In-order: only the last buffer of a batch has a used entry; the others count as written in full (2.7.9). */
  #takeOrdered(): number {
    const record = this.#record;
    const id = record.oldest;
    this.usedLength = this.#batch === 1 ? this.#batchLength : record.writable(id);
    this.#batch--;
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.free = (this.free + record.units(id)) | 0;
    return record.end(id);
  }

  #look(): boolean {
    if (this.#broken !== null) throw this.#broken;
    const seen = Atomics.load(this.#deviceRegion.u16, this.#usedIdx);
    const ahead = (seen - this.#nextUsed) & 0xffff;
    if (ahead === 0) return false;
    if (ahead > this.#record.count) {
      this.#broken = new VirtqueueError(
        "2.7.8",
        `The used index jumped ahead by ${ahead} with ${this.#record.count} buffers in flight`,
      );
      throw this.#broken;
    }
    this.#seenUsed = seen;
    return true;
  }

  /** See `DriverQueue.enableInterrupts`. */
  enableInterrupts(after = 0): boolean {
    const u16 = this.#driverRegion.u16;
    if (this.#eventIdx) {
      Atomics.store(u16, this.#usedEvent, (this.#nextUsed + after) & 0xffff);
    } else {
      Atomics.store(u16, this.#availFlags, 0);
    }
    const ahead = (Atomics.load(this.#deviceRegion.u16, this.#usedIdx) - this.#nextUsed) & 0xffff;
    return ahead > (this.#eventIdx ? after : 0);
  }

  /** See `DriverQueue.disableInterrupts`. */
  disableInterrupts(): void {
    const u16 = this.#driverRegion.u16;
    if (this.#eventIdx) {
      // As far away as an index can be; flags must stay 0 (2.7.7.1).
      Atomics.store(u16, this.#usedEvent, (this.#nextUsed - 1) & 0xffff);
    } else {
      Atomics.store(u16, this.#availFlags, VIRTQ_AVAIL_F_NO_INTERRUPT);
    }
  }

  /** See `DriverQueue.drain`. */
  drain(): number[] {
    this.#batch = 0;
    return this.#record.drain();
  }
}
