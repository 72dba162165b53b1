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
import { checkBuffers, FlightRecord, mustCheck, upperHalf, writeTable } from "./record.ts";

// To the compiler names of this module are constants; imported names are looked up at every use. In the last word of a
// descriptor the flags follow the id.
const F_AVAIL = VIRTQ_DESC_F_AVAIL << 16;
const F_USED = VIRTQ_DESC_F_USED << 16;
const F_NEXT = VIRTQ_DESC_F_NEXT << 16;
const F_WRITE = VIRTQ_DESC_F_WRITE << 16;
const F_INDIRECT = VIRTQ_DESC_F_INDIRECT << 16;
const BOTH = F_AVAIL | F_USED;

/** Made by `openDriverQueue`; see `DriverQueue` for what the methods promise. */
export class PackedDriverQueue implements DriverQueue {
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
  readonly #ringRegion: MemoryRegion;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  readonly #ring: number = 0;
  readonly #driverEvent: number = 0;
  readonly #deviceEvent: number = 0;
  readonly #indirect: boolean = false;
  readonly #eventIdx: boolean = false;
  readonly #inOrder: boolean = false;
  /** Free buffer ids: a ring, so that in-order ids are used in a circle. The next one to take, and where the next one goes. */
  readonly #ids: Uint16Array;
  #firstId = 0;
  #freeId = 0;
  #nextAvail = 0;
  #availWrap = 1;
  #nextUsed = 0;
  #usedWrap = 1;
  #addedSlots = 0;
  /** The first descriptor of the batch: the u16 index of its flags, which are kept back until `publish`, and what they are. */
  #headAt = 0;
  #headFlags = 0;
  /** The last descriptor of the batch: the u16 index of its flags, and what they are. */
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
    this.#ring = areas.descriptor.offset / 4;
    this.#driverEvent = areas.driver.offset / 4;
    this.#deviceEvent = areas.device.offset / 4;
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;
    this.#ids = new Uint16Array(size);
    for (let i = 0; i < size; i++) this.#ids[i] = i;
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
    const units = buffers.count;
    const id = this.#takeId();
    const at = (this.#ring + (this.#nextAvail << 2)) | 0;
    const words = this.#ringRegion.i32;
    const from = buffers.words;
    words[at] = from[0]!;
    words[(at + 1) | 0] = from[1]!;
    words[(at + 2) | 0] = from[2]!;
    // The head's flags make the whole list available, so they are written after the others (2.8.17).
    let word = id | (from[3]! << 16) | (this.#availWrap === 1 ? F_AVAIL : F_USED);
    if (units > 1) {
      word |= F_NEXT;
      this.#writeRest(buffers, id);
    }
    this.#enter(buffers, token, id, at, word, units);
    return true;
  }

  #addIndirect(buffers: BufferList, token: number, table: number): boolean {
    if (mustCheck(buffers, this.size) || !this.#indirect) {
      checkBuffers(buffers, this.size, table, this.#indirect);
    }
    if (this.free === 0) return false;
    const high = upperHalf(table);
    // First, since it throws if the table is not in memory.
    writeTable(this.#memory, table, high, buffers, true);
    const id = this.#takeId();
    const at = (this.#ring + (this.#nextAvail << 2)) | 0;
    const words = this.#ringRegion.i32;
    words[at] = table;
    words[(at + 1) | 0] = high;
    words[(at + 2) | 0] = buffers.count << 4;
    const word = id | F_INDIRECT | (this.#availWrap === 1 ? F_AVAIL : F_USED);
    this.#enter(buffers, token, id, at, word, 1);
    return true;
  }

  #takeId(): number {
    const firstId = this.#firstId;
    this.#firstId = firstId + 1 === this.size ? 0 : (firstId + 1) | 0;
    return this.#ids[firstId]!;
  }

  /** All but the last word of the head is written: notes the buffer, and writes or keeps back that word. */
  #enter(
    buffers: BufferList,
    token: number,
    id: number,
    at: number,
    word: number,
    units: number,
  ): void {
    const added = this.#addedSlots;
    if (added === 0) {
      this.#ringRegion.u16[((at << 1) + 6) | 0] = id;
      this.#headAt = ((at << 1) + 7) | 0;
      this.#headFlags = word >>> 16;
    } else {
      this.#ringRegion.i32[(at + 3) | 0] = word;
    }
    if (units === 1) {
      this.#lastAt = ((at << 1) + 7) | 0;
      this.#lastFlags = word >>> 16;
    }
    this.#addedSlots = (added + units) | 0;
    let next = (this.#nextAvail + units) | 0;
    if (next >= this.size) {
      next = (next - this.size) | 0;
      this.#availWrap ^= 1;
    }
    this.#nextAvail = next;
    this.free = (this.free - units) | 0;
    this.#record.start(id, token, units, 0, buffers.writableBytes);
  }

  /** Writes all descriptors of a list but the first one. */
  #writeRest(buffers: BufferList, id: number): void {
    const words = this.#ringRegion.i32;
    const from = buffers.words;
    const size = this.size;
    const start = this.#ring | 0;
    const last = (buffers.count - 1) << 2;
    let slot = this.#nextAvail;
    let available = (this.#availWrap === 1 ? F_AVAIL : F_USED) | id;
    for (let k = 4;; k = (k + 4) | 0) {
      slot = (slot + 1) | 0;
      if (slot === size) {
        slot = 0;
        available ^= BOTH;
      }
      const at = (start + (slot << 2)) | 0;
      words[at] = from[k]!;
      words[(at + 1) | 0] = from[(k + 1) | 0]!;
      words[(at + 2) | 0] = from[(k + 2) | 0]!;
      const word = available | (from[(k + 3) | 0]! << 16);
      if (k >= last) {
        words[(at + 3) | 0] = word;
        this.#lastAt = ((at << 1) + 7) | 0;
        this.#lastFlags = word >>> 16;
        return;
      }
      words[(at + 3) | 0] = word | F_NEXT;
    }
  }

  /** See `DriverQueue.publish`. */
  publish(): boolean {
    const added = this.#addedSlots;
    if (added === 0) return false;
    this.#addedSlots = 0;
    this.#record.publish();
    const { u16 } = this.#ringRegion;
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
    const words = this.#ringRegion.i32;
    const at = (this.#ring + (this.#nextUsed << 2)) | 0;
    // One atomic load for each buffer: only the first of a batch is stored atomically by every device, so a scan could not
    // tell where the next batch, which must be read after it, begins.
    const word = Atomics.load(words, (at + 3) | 0);
    if ((word & BOTH) !== (this.#usedWrap === 1 ? BOTH : 0)) return -1;
    const id = word & 0xffff;
    // 2.8.4: without WRITE the length is reserved.
    const length = (word & F_WRITE) === 0 ? 0 : words[(at + 2) | 0]!;
    const record = this.#record;
    const units = record.accepts(id, length);
    if (units === 0) throw this.#broken = record.error(id, length >>> 0);
    if (this.#inOrder) return this.#takeBatch(id, length >>> 0);
    this.usedLength = length >>> 0;
    return this.#release(id, units);
  }

  #takeBatch(id: number, length: number): number {
    this.#batch = this.#record.batch(id);
    this.#batchLength = length;
    return this.#takeOrdered();
  }

  /** In-order: only the last buffer of a batch has a used descriptor; the others count as written in full (2.8.13). */
  #takeOrdered(): number {
    const record = this.#record;
    const id = record.oldest;
    this.usedLength = this.#batch === 1 ? this.#batchLength : record.writable(id);
    this.#batch--;
    return this.#release(id, record.units(id));
  }

  #release(id: number, units: number): number {
    const { size } = this;
    let next = (this.#nextUsed + units) | 0;
    if (next >= size) {
      next = (next - size) | 0;
      this.#usedWrap ^= 1;
    }
    this.#nextUsed = next;
    const freeId = this.#freeId;
    this.#ids[freeId] = id;
    this.#freeId = freeId + 1 === size ? 0 : (freeId + 1) | 0;
    this.free = (this.free + units) | 0;
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
    const used = Atomics.load(this.#ringRegion.i32, this.#ring + 4 * this.#nextUsed + 3);
    return (used & BOTH) === (this.#usedWrap === 1 ? BOTH : 0);
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
