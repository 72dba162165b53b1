/**
 * The driver side of a packed virtqueue (virtio 1.4, 2.8).
 *
 * Hot path: nothing is allocated per buffer; the descriptors of a batch are written plainly, but for the first one's flags,
 * which are stored atomically last, so that the device sees the batch at once.
 */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import type { VirtqueueError } from "../errors.ts";
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
} from "../layout.ts";
import { needEvent } from "../need_event.ts";
import type { ResolvedAreas } from "../open_queue.ts";
import type { QueueConfig } from "../queue.ts";
import type { BufferList } from "./buffer_list.ts";
import type { DriverQueue } from "./driver_queue.ts";
import { checkBuffers, FlightRecord, putAddress } from "./record.ts";

/** Made by `openDriverQueue`; see `DriverQueue` for what the methods promise. */
export class PackedDriverQueue implements DriverQueue {
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
  readonly #ringRegion: MemoryRegion;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  readonly #ring: number;
  readonly #driverEvent: number;
  readonly #deviceEvent: number;
  readonly #indirect: boolean;
  readonly #eventIdx: boolean;
  readonly #inOrder: boolean;
  /** Free buffer ids: a ring, so that in-order ids are used in a circle. */
  readonly #ids: Uint16Array;
  #firstId = 0;
  #idCount: number;
  #nextAvail = 0;
  #availWrap = 1;
  #nextUsed = 0;
  #usedWrap = 1;
  #addedSlots = 0;
  /** The first descriptor of the batch: its u16 index and its flags, kept back until `publish`. */
  #headAt = 0;
  #headFlags = 0;
  /** The last descriptor of the batch: its u16 index and its flags. */
  #lastAt = 0;
  #lastFlags = 0;
  /** In-order: buffers that the device used with one descriptor, and that `take` has not given out yet. */
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
    this.#record = new FlightRecord(size, this.#inOrder, "2.8.1");
    this.#ringRegion = areas.descriptor.region;
    this.#driverRegion = areas.driver.region;
    this.#deviceRegion = areas.device.region;
    this.#ring = areas.descriptor.offset;
    this.#driverEvent = areas.driver.offset / 4;
    this.#deviceEvent = areas.device.offset / 4;
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;
    this.#ids = new Uint16Array(size);
    for (let i = 0; i < size; i++) this.#ids[i] = i;
    this.#idCount = size;
  }

  /** Buffers that the device has not given back. */
  get inFlight(): number {
    return this.#record.count;
  }

  /** See `DriverQueue.add`. */
  add(buffers: BufferList, token: number, table?: number): boolean {
    const { size } = this;
    const units = checkBuffers(buffers, size, table, this.#indirect);
    if (units > this.free) return false;
    // First, since it throws if the table is not in memory.
    if (table !== undefined) this.#writeTable(buffers, table);
    const id = this.#ids[this.#firstId]!;
    this.#firstId = this.#firstId + 1 === size ? 0 : this.#firstId + 1;
    this.#idCount--;

    const first = this.#nextAvail;
    const firstWrap = this.#availWrap;
    let slot = first;
    let wrap = firstWrap;
    let flags = 0;
    // The head's flags make the whole list available, so they are written after the others (2.8.17).
    let headFlags = 0;
    const view = this.#ringRegion.view;
    for (let i = 0; i < units; i++) {
      const at = this.#ring + 16 * slot;
      flags = wrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
      if (table === undefined) {
        putAddress(view, at, buffers.addresses[i]!);
        view.setUint32(at + 8, buffers.lengths[i]!, true);
        if (i >= buffers.readableCount) flags |= VIRTQ_DESC_F_WRITE;
        if (i + 1 < units) flags |= VIRTQ_DESC_F_NEXT;
      } else {
        putAddress(view, at, table);
        view.setUint32(at + 8, 16 * buffers.count, true);
        flags |= VIRTQ_DESC_F_INDIRECT;
      }
      view.setUint16(at + 12, id, true);
      if (i === 0) headFlags = flags;
      else view.setUint16(at + 14, flags, true);
      this.#lastAt = at / 2 + 7;
      if (++slot === size) {
        slot = 0;
        wrap ^= 1;
      }
    }
    this.#lastFlags = flags;
    const headAt = (this.#ring + 16 * first + 14) / 2;
    if (this.#addedSlots === 0) {
      this.#headAt = headAt;
      this.#headFlags = headFlags;
    } else {
      view.setUint16(headAt * 2, headFlags, true);
    }
    this.#nextAvail = slot;
    this.#availWrap = wrap;
    this.#addedSlots += units;
    this.free -= units;
    this.#record.start(id, token, units, buffers.writableBytes);
    return true;
  }

  #writeTable(buffers: BufferList, table: number): void {
    const { count, readableCount, addresses, lengths } = buffers;
    const region = this.#memory.find(table, 16 * count);
    const view = region.view;
    let at = table - region.base;
    for (let i = 0; i < count; i++) {
      putAddress(view, at, addresses[i]!);
      view.setUint32(at + 8, lengths[i]!, true);
      view.setUint16(at + 12, 0, true);
      view.setUint16(at + 14, i < readableCount ? 0 : VIRTQ_DESC_F_WRITE, true);
      at += 16;
    }
  }

  /** See `DriverQueue.publish`. */
  publish(): boolean {
    const added = this.#addedSlots;
    if (added === 0) return false;
    this.#addedSlots = 0;
    this.#record.publish();
    const u16 = this.#ringRegion.u16;
    // A device that scans ahead looks at the last descriptor atomically, one that does not, at the first: both loads find
    // an atomic store before which everything else was written.
    if (this.#lastAt !== this.#headAt) Atomics.store(u16, this.#lastAt, this.#lastFlags);
    Atomics.store(u16, this.#headAt, this.#headFlags);
    const word = Atomics.load(this.#deviceRegion.i32, this.#deviceEvent);
    const flags = (word >>> 16) & 3;
    if (flags === RING_EVENT_FLAGS_DISABLE) return false;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.#eventIdx) return true;
    let event = word & 0x7fff;
    if (((word >>> 15) & 1) !== this.#availWrap) event -= this.size;
    return needEvent(event, this.#nextAvail, added);
  }

  /** See `DriverQueue.notificationData`. */
  notificationData(): number {
    return this.#nextAvail | (this.#availWrap << 15);
  }

  /** See `DriverQueue.take`. */
  take(): number {
    if (this.#batch > 0) return this.#takeOrdered();
    if (this.#broken !== null) throw this.#broken;
    const at = this.#ring + 16 * this.#nextUsed;
    const word = Atomics.load(this.#ringRegion.i32, (at + 12) / 4);
    const flags = word >>> 16;
    if (!this.#isUsed(flags)) return -1;
    const id = word & 0xffff;
    // 2.8.4: without WRITE the length is reserved.
    const length = (flags & VIRTQ_DESC_F_WRITE) === 0
      ? 0
      : this.#ringRegion.view.getUint32(at + 8, true);
    try {
      this.#record.check(id, length);
    } catch (error) {
      this.#broken = error as VirtqueueError;
      throw error;
    }
    if (this.#inOrder) {
      this.#batch = this.#record.batch(id);
      this.#batchLength = length;
      return this.#takeOrdered();
    }
    this.usedLength = length;
    return this.#release(id);
  }

  /** In-order: only the last buffer of a batch has a used descriptor; the others count as written in full (2.8.13). */
  #takeOrdered(): number {
    const record = this.#record;
    const id = record.oldest;
    this.usedLength = this.#batch === 1 ? this.#batchLength : record.writable(id);
    this.#batch--;
    return this.#release(id);
  }

  #isUsed(flags: number): boolean {
    const avail = (flags & VIRTQ_DESC_F_AVAIL) !== 0;
    const used = (flags & VIRTQ_DESC_F_USED) !== 0;
    return avail === used && used === (this.#usedWrap === 1);
  }

  #release(id: number): number {
    const units = this.#record.units(id);
    let next = this.#nextUsed + units;
    if (next >= this.size) {
      next -= this.size;
      this.#usedWrap ^= 1;
    }
    this.#nextUsed = next;
    const free = this.#firstId + this.#idCount;
    this.#ids[free >= this.size ? free - this.size : free] = id;
    this.#idCount++;
    this.free += units;
    return this.#record.end(id);
  }

  /** See `DriverQueue.enableInterrupts`. */
  enableInterrupts(after = 0): boolean {
    let word = RING_EVENT_FLAGS_ENABLE << 16;
    if (this.#eventIdx) {
      // Counted in buffers, of one slot at least: early is allowed, late is not.
      let event = this.#nextUsed + after;
      let wrap = this.#usedWrap;
      if (event >= this.size) {
        event -= this.size;
        wrap ^= 1;
      }
      word = event | (wrap << 15) | (RING_EVENT_FLAGS_DESC << 16);
    }
    Atomics.store(this.#driverRegion.i32, this.#driverEvent, word);
    const at = this.#ring + 16 * this.#nextUsed;
    return this.#isUsed(Atomics.load(this.#ringRegion.i32, (at + 12) / 4) >>> 16);
  }

  /** See `DriverQueue.disableInterrupts`. */
  disableInterrupts(): void {
    Atomics.store(
      this.#driverRegion.i32,
      this.#driverEvent,
      RING_EVENT_FLAGS_DISABLE << 16,
    );
  }

  /** See `DriverQueue.drain`. */
  drain(): number[] {
    this.#batch = 0;
    return this.#record.drain();
  }
}
