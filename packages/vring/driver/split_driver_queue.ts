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
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY,
} from "../layout.ts";
import { needEvent } from "../need_event.ts";
import type { ResolvedAreas } from "../open_queue.ts";
import type { QueueConfig } from "../queue.ts";
import type { BufferList } from "./buffer_list.ts";
import type { DriverQueue } from "./driver_queue.ts";
import { checkBuffers, FlightRecord, putAddress } from "./record.ts";

/** Made by `openDriverQueue`; see `DriverQueue` for what the methods promise. */
export class SplitDriverQueue implements DriverQueue {
  /** Where the queue lies. */
  readonly config: QueueConfig;
  /** Number of entries. */
  readonly size: number;
  /** Descriptors that are free. */
  free: number;
  /** Bytes that the device wrote into the buffer that `take` returned last. */
  usedLength = 0;
  readonly #memory: GuestMemory;
  readonly #record: FlightRecord;
  readonly #mask: number;
  readonly #descriptorRegion: MemoryRegion;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  readonly #descriptors: number;
  readonly #availRing: number;
  readonly #usedRing: number;
  readonly #availFlags: number;
  readonly #availIdx: number;
  readonly #usedEvent: number;
  readonly #usedFlags: number;
  readonly #usedIdx: number;
  readonly #availEvent: number;
  readonly #indirect: boolean;
  readonly #eventIdx: boolean;
  readonly #inOrder: boolean;
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
    const units = checkBuffers(buffers, this.size, table, this.#indirect);
    if (units > this.free) return false;
    // First, since it throws if the table is not in memory.
    if (table !== undefined) this.#writeTable(buffers, table);
    const head = this.#firstFree;
    let index = head;
    if (table === undefined) {
      const view = this.#descriptorRegion.view;
      const { count, readableCount, addresses, lengths } = buffers;
      for (let i = 0; i < count; i++) {
        const at = this.#descriptors + 16 * index;
        const next = this.#links[index]!;
        const more = i + 1 < count;
        putAddress(view, at, addresses[i]!);
        view.setUint32(at + 8, lengths[i]!, true);
        view.setUint16(
          at + 12,
          (i < readableCount ? 0 : VIRTQ_DESC_F_WRITE) | (more ? VIRTQ_DESC_F_NEXT : 0),
          true,
        );
        view.setUint16(at + 14, more ? next : 0, true);
        index = next;
      }
    } else {
      const view = this.#descriptorRegion.view;
      const at = this.#descriptors + 16 * index;
      putAddress(view, at, table);
      view.setUint32(at + 8, 16 * buffers.count, true);
      view.setUint16(at + 12, VIRTQ_DESC_F_INDIRECT, true);
      view.setUint16(at + 14, 0, true);
      index = this.#links[index]!;
    }
    this.#firstFree = index;
    this.free -= units;
    this.#record.start(head, token, units, buffers.writableBytes);
    const slot = (this.#nextAvail + this.#added) & this.#mask;
    this.#driverRegion.view.setUint16(this.#availRing + 2 * slot, head, true);
    this.#added++;
    return true;
  }

  #writeTable(buffers: BufferList, table: number): void {
    const { count, readableCount, addresses, lengths } = buffers;
    const region = this.#memory.find(table, 16 * count);
    const view = region.view;
    let at = table - region.base;
    for (let i = 0; i < count; i++) {
      const more = i + 1 < count;
      putAddress(view, at, addresses[i]!);
      view.setUint32(at + 8, lengths[i]!, true);
      view.setUint16(
        at + 12,
        (i < readableCount ? 0 : VIRTQ_DESC_F_WRITE) | (more ? VIRTQ_DESC_F_NEXT : 0),
        true,
      );
      view.setUint16(at + 14, more ? i + 1 : 0, true);
      at += 16;
    }
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
    if (this.#seenUsed === this.#nextUsed && !this.#look()) return -1;
    const view = this.#deviceRegion.view;
    const at = this.#usedRing + 8 * (this.#nextUsed & this.#mask);
    const id = view.getUint32(at, true);
    const length = view.getUint32(at + 4, true);
    try {
      this.#record.check(id, length);
    } catch (error) {
      this.#broken = error as VirtqueueError;
      this.#seenUsed = this.#nextUsed;
      throw error;
    }
    if (this.#inOrder) {
      const batch = this.#record.batch(id);
      if (batch > ((this.#seenUsed - this.#nextUsed) & 0xffff)) {
        this.#seenUsed = this.#nextUsed;
        this.#broken = new VirtqueueError("2.7.8", `The device used buffer ${id} out of order`);
        throw this.#broken;
      }
      this.#batch = batch;
      this.#batchLength = length;
      return this.#takeOrdered();
    }
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.usedLength = length;
    return this.#release(id);
  }

  /** In-order: only the last buffer of a batch has a used entry; the others count as written in full (2.7.9). */
  #takeOrdered(): number {
    const record = this.#record;
    const id = record.oldest;
    this.usedLength = this.#batch === 1 ? this.#batchLength : record.writable(id);
    this.#batch--;
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    return this.#release(id);
  }

  #release(id: number): number {
    const units = this.#record.units(id);
    if (!this.#inOrder) {
      let last = id;
      for (let i = 1; i < units; i++) last = this.#links[last]!;
      this.#links[last] = this.#firstFree;
      this.#firstFree = id;
    }
    this.free += units;
    return this.#record.end(id);
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
