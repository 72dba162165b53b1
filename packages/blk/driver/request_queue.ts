import { VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import type { DriverSession } from "@virtio/device/driver";
import type { MemoryRegion } from "@virtio/memory";
import { BufferList, type DriverQueue } from "@virtio/vring/driver";
import { REQUEST_HEADER_SIZE, VIRTIO_BLK_T_IN } from "../constants.ts";
import { NO_STATUS } from "./error.ts";

/** Header, status, and room so that two requests do not share a cache line. */
const SLOT_SIZE = 64;
const STATUS_OFFSET = REQUEST_HEADER_SIZE;

/** Who is told of a completed request that was submitted with a note. */
export interface RequestNote {
  /** The device has answered: the status, or 255 if it gave none. */
  settled(status: number): void;
  /** The device was given up before it answered. Instead of `settled`. */
  failed(reason: Error): void;
  /** The queue was reset before the device answered; submit it again. Instead of `settled`. */
  lost(): void;
}

/** What a request queue must know of the device. */
export interface RequestQueueLimits {
  /** Bytes of one segment at most. */
  readonly sizeMax: number;
  /** Segments of one request at most. */
  readonly segMax: number;
}

/**
 * One queue of a block driver, without promises and without allocation: requests on buffers in guest memory, by token.
 *
 * ```text
 * token = queue.submit(VIRTIO_BLK_T_IN, sector, address, length)    // -1: no room
 * queue.publish()                                                   // several at once, one kick
 * while ((token = queue.poll()) >= 0) ... queue.status ...
 * ```
 */
export class BlkRequestQueue {
  /** Index of the queue. */
  readonly index: number;
  /** Status of the request that `poll` returned last: VIRTIO_BLK_S_OK, another, or 255 where the device gave none. */
  status = 0;
  readonly #session: DriverSession;
  readonly #limits: RequestQueueLimits;
  readonly #list = new BufferList();
  #queue: DriverQueue;
  #closed = false;
  readonly #region: MemoryRegion;
  /** Offset of the slots in their region. */
  readonly #slots: number;
  /** Guest-physical addresses of the slots, and of the indirect tables, -1 without. */
  readonly #slotAddress: number;
  readonly #tableAddress: number;
  readonly #tableSize: number;
  readonly #writable: Float64Array;
  readonly #notes: (RequestNote | null)[];
  /** The round of the watchdog in which each was submitted. */
  readonly #rounds: Uint32Array;
  readonly #busy: Uint8Array;
  readonly #free: Uint16Array;
  #freeCount: number;
  /** Tokens that `collect` came by while nobody polled: a ring. */
  readonly #stash: Uint16Array;
  readonly #stashStatus: Uint8Array;
  #stashStart = 0;
  #stashCount = 0;
  #round = 0;

  /**
   * Takes memory for the requests of a queue.
   *
   * @param session With the queue set up.
   * @param limits Of the device.
   * @throws {RangeError} If there is no memory for it, or the queue is too short for any request.
   */
  constructor(session: DriverSession, index: number, limits: RequestQueueLimits) {
    this.index = index;
    this.#session = session;
    this.#queue = session.queue(index);
    const { size } = this.#queue;
    if (size < 3) {
      throw new RangeError(
        `A queue of ${size} entries has no room for header, data and status of a block request`,
      );
    }
    this.#limits = { sizeMax: limits.sizeMax, segMax: Math.min(limits.segMax, size - 2) };
    const indirect = session.has(VIRTIO_F_INDIRECT_DESC);
    // Without indirect tables each request takes two descriptors at least.
    const count = indirect ? size : size >>> 1;
    // Data lies in one place, so that only a small size_max makes long tables; what is longer goes into the ring directly.
    const entries = Math.min(size, 64, 2 + Math.ceil(0x10_0000 / limits.sizeMax));
    this.#tableSize = indirect ? 16 * entries : 0;
    const { dma } = session;
    this.#slotAddress = dma.allocate(count * SLOT_SIZE, SLOT_SIZE);
    this.#tableAddress = indirect ? dma.allocate(count * this.#tableSize) : -1;
    this.#region = dma.memory.find(this.#slotAddress, count * SLOT_SIZE);
    this.#slots = this.#slotAddress - this.#region.base;
    this.#writable = new Float64Array(count);
    this.#notes = new Array<RequestNote | null>(count).fill(null);
    this.#rounds = new Uint32Array(count);
    this.#busy = new Uint8Array(count);
    this.#free = new Uint16Array(count);
    for (let i = 0; i < count; i++) this.#free[i] = count - 1 - i;
    this.#freeCount = count;
    this.#stash = new Uint16Array(count);
    this.#stashStatus = new Uint8Array(count);
  }

  /** Requests that the device has not answered. */
  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /** Bytes of data that a request can have at most, in sectors; what `size_max`, `seg_max` and the queue allow. */
  get maxTransfer(): number {
    const bytes = this.#limits.sizeMax * this.#limits.segMax;
    return bytes - bytes % 512;
  }

  /**
   * Puts a request into the queue. The device sees it after `publish`.
   *
   * @param type VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT and so on.
   * @param sector As it goes into the header.
   * @param address Guest-physical address of the data; left alone until the request is done.
   * @param length Bytes of data.
   * @param writes Whether the device writes the data; for VIRTIO_BLK_T_IN unless given.
   * @param note Told of the end; without, `poll` returns the token.
   * @returns The token, or -1 if there is no room now.
   * @throws {RangeError} If the data has more segments than the device allows.
   */
  submit(
    type: number,
    sector: number,
    address: number,
    length: number,
    writes: boolean = type === VIRTIO_BLK_T_IN,
    note: RequestNote | null = null,
  ): number {
    if (this.#freeCount === 0 || this.#closed) return -1;
    const slot = this.#free[this.#freeCount - 1]!;
    const { view } = this.#region;
    const at = this.#slots + slot * SLOT_SIZE;
    view.setUint32(at, type, true);
    view.setUint32(at + 4, 0, true);
    view.setUint32(at + 8, sector, true);
    view.setUint32(at + 12, sector < 0x1_0000_0000 ? 0 : Math.floor(sector / 0x1_0000_0000), true);
    view.setUint8(at + STATUS_OFFSET, NO_STATUS);
    const list = this.#list.clear();
    const header = this.#slotAddress + slot * SLOT_SIZE;
    list.readable(header, REQUEST_HEADER_SIZE);
    const { sizeMax, segMax } = this.#limits;
    let segments = 0;
    for (let done = 0; done < length; segments++) {
      const part = length - done < sizeMax ? length - done : sizeMax;
      if (writes) list.writable(address + done, part);
      else list.readable(address + done, part);
      done += part;
    }
    if (segments > segMax) {
      throw new RangeError(
        `The device takes at most ${segMax} segments of ${sizeMax} bytes: ${length} bytes need ${segments}`,
      );
    }
    list.writable(header + STATUS_OFFSET, 1);
    const table = 16 * list.count <= this.#tableSize
      ? this.#tableAddress + slot * this.#tableSize
      : undefined;
    if (!this.#queue.add(list, slot, table)) return -1;
    this.#freeCount--;
    this.#writable[slot] = list.writableBytes;
    this.#notes[slot] = note;
    this.#busy[slot] = 1;
    this.#rounds[slot] = this.#round;
    return slot;
  }

  /** Makes what was submitted available, with one kick at most. */
  publish(): void {
    this.#session.publish(this.index);
  }

  /**
   * The token of a request that is done and was submitted without a note; `status` is its status then.
   *
   * @returns -1 if there is none.
   * @throws {VirtqueueError} If the device broke a rule.
   */
  poll(): number {
    if (this.#stashCount > 0) {
      const at = this.#stashStart;
      this.#stashStart = (at + 1) % this.#stash.length;
      this.#stashCount--;
      this.status = this.#stashStatus[at]!;
      const token = this.#stash[at]!;
      this.#free[this.#freeCount++] = token;
      return token;
    }
    const token = this.#next();
    if (token >= 0) this.#free[this.#freeCount++] = token;
    return token;
  }

  /**
   * Takes everything that is done and asks for the next interrupt. Requests without a note are kept for `poll`.
   *
   * @throws {VirtqueueError} If the device broke a rule.
   */
  collect(): void {
    do {
      for (let token = this.#next(); token >= 0; token = this.#next()) this.#keep(token);
    } while (this.#queue.enableInterrupts());
  }

  /** Advice to the device: no interrupts, for a loop that polls. `collect` asks for them again. */
  disableInterrupts(): void {
    this.#queue.disableInterrupts();
  }

  /**
   * A turn of the watchdog.
   *
   * @returns Whether a request has been in flight since before the last turn.
   */
  overdue(): boolean {
    const round = this.#round++;
    for (let slot = 0; slot < this.#busy.length; slot++) {
      if (this.#busy[slot] === 1 && this.#rounds[slot]! < round) return true;
    }
    return false;
  }

  /** Fails everything in flight. Slots stay taken: until it is reset, the device may still write to them. */
  abandon(reason: Error): void {
    const notes = this.#notes.slice();
    this.#notes.fill(null);
    for (const note of notes) note?.failed(reason);
  }

  /**
   * Resets the queue (2.6.1) and opens it again.
   *
   * @throws {DriverError} If VIRTIO_F_RING_RESET was not negotiated, or the device does not finish.
   */
  async reset(): Promise<void> {
    this.publish();
    this.#closed = true;
    const lost = await this.#session.resetQueue(this.index, this.#queue.size);
    this.#queue = this.#session.queue(this.index);
    this.#closed = false;
    for (const slot of lost) {
      const note = this.#notes[slot]!;
      this.#notes[slot] = null;
      this.#busy[slot] = 0;
      if (note === null) {
        this.status = NO_STATUS;
        this.#keep(slot);
      } else {
        this.#free[this.#freeCount++] = slot;
        note.lost();
      }
    }
    this.collect();
  }

  /** Gives the memory back, after a reset of the device. */
  release(): void {
    this.#session.dma.free(this.#slotAddress);
    if (this.#tableAddress >= 0) this.#session.dma.free(this.#tableAddress);
  }

  #keep(token: number): void {
    const at = (this.#stashStart + this.#stashCount++) % this.#stash.length;
    this.#stash[at] = token;
    this.#stashStatus[at] = this.status;
  }

  /** The next used request without a note; its slot stays taken. */
  #next(): number {
    for (;;) {
      const slot = this.#queue.take();
      if (slot < 0) return -1;
      const at = this.#slots + slot * SLOT_SIZE + STATUS_OFFSET;
      // 2.7.8.3: beyond the used length nothing may be relied on, and the status comes last.
      const covered = this.#queue.usedLength >= this.#writable[slot]!;
      this.status = covered ? this.#region.view.getUint8(at) : NO_STATUS;
      const note = this.#notes[slot]!;
      this.#notes[slot] = null;
      this.#busy[slot] = 0;
      // Else the token is taken until it has been polled.
      if (note === null) return slot;
      this.#free[this.#freeCount++] = slot;
      note.settled(this.status);
    }
  }
}
