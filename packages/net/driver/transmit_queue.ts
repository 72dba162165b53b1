import { VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import type { DriverSession } from "@virtio/device/driver";
import type { MemoryRegion } from "@virtio/memory";
import { BufferList, type DriverQueue } from "@virtio/vring/driver";
import {
  ETHERNET_HEADER_SIZE,
  MAX_FRAME_SIZE,
  NetHeaderOffset,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
} from "../constants.ts";
import { ethernetSize } from "../ethernet.ts";
import { Frame, HEAD_SIZE } from "../frame.ts";
import { checkHeader, type FrameHeader } from "../offload/header.ts";
import { FrameLayout } from "../offload/parse.ts";
import { Offload } from "../sink.ts";

/** Flag of TCP: the sender reduced its window, which ECN made it do (RFC 3168, 6.1). */
const TCP_CWR = 0x80;

/** `hdr_len` where nobody looked where the headers end: not less than they are (5.1.9.2.1). */
function headersAtMost(length: number): number {
  return length < HEAD_SIZE ? length : HEAD_SIZE;
}

/** What a transmit queue must know. */
export interface TransmitSetup {
  /** Bytes of `struct virtio_net_hdr`, as in received frames (5.1.9.2.1). */
  readonly headerSize: number;
  /** What the device may be asked for: bits of `Offload`. */
  readonly offloads: number;
  /** `mtu`, 0: no limit. */
  readonly mtu: number;
  /** Bytes for frames; 0: as many as the queue's entries can hold, or 1 MiB. */
  readonly memory: number;
}

/** What a transmit queue did. */
export interface TransmitCounters {
  /** Frames that the device took. */
  frames: number;
  /** Bytes of those. */
  bytes: number;
}

/**
 * One transmit queue: frames are copied into guest memory behind their header, and sent (virtio 1.4, 5.1.9.2). Nothing is
 * allocated for a frame.
 *
 * The device is not asked for interrupts unless somebody waits for room: what it has used is found when the next frame is
 * sent (5.1.9.2.3).
 */
export class TransmitQueue {
  /** Index of the virtqueue. */
  readonly index: number;
  /** What it did. */
  readonly counters: TransmitCounters = { frames: 0, bytes: 0 };
  /** Told when frames are to be published. */
  onAdd: (() => void) | null = null;
  readonly #session: DriverSession;
  readonly #setup: TransmitSetup;
  readonly #list: BufferList = new BufferList();
  readonly #layout: FrameLayout = new FrameLayout();
  readonly #scratch: Frame = new Frame(HEAD_SIZE);
  readonly #header: FrameHeader = {
    flags: 0,
    gsoType: 0,
    headerLength: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
  };
  readonly #address: number;
  readonly #region: MemoryRegion;
  /** Offset of the blocks in their region. */
  readonly #offset: number;
  /** Frames lie in blocks of this size. */
  readonly #blockSize: number;
  /** Blocks of the longest frame. */
  readonly #mostParts: number;
  readonly #blocks: number;
  /** Where the indirect tables are, one for each block; -1 without. */
  readonly #tables: number;
  readonly #tableSize: number;
  readonly #free: Uint16Array;
  #freeCount: number;
  /** For each block the next one of its frame, plus 1; 0: it is the last. */
  readonly #links: Uint16Array;
  /** For the first block of each frame, its bytes. */
  readonly #lengths: Int32Array;
  #queue: DriverQueue;
  /** Whether `check` refused the length. */
  #tooLong = false;

  /**
   * Takes memory for the frames of a queue.
   *
   * @throws {RangeError} If there is not enough, or the queue is too short for the longest frame.
   */
  constructor(session: DriverSession, index: number, setup: TransmitSetup) {
    this.index = index;
    this.#session = session;
    this.#setup = setup;
    this.#queue = session.queue(index);
    const { size } = this.#queue;
    const { dma } = session;
    const gso = (setup.offloads & ~Offload.csum) !== 0;
    const frame = gso || setup.mtu === 0
      ? MAX_FRAME_SIZE
      : Math.min(MAX_FRAME_SIZE, setup.mtu + ETHERNET_HEADER_SIZE + 8);
    const longest = setup.headerSize + frame;
    // A frame of the usual 1500 bytes takes one block; the longest one 17 descriptors, fewer in a short queue.
    let blockSize = longest <= 2048 ? 2048 : 4096;
    while (Math.ceil(longest / blockSize) > size) blockSize *= 2;
    this.#blockSize = blockSize;
    const parts = this.#mostParts = Math.ceil(longest / blockSize);
    const memory = setup.memory || Math.min(size * blockSize, 2 ** 20);
    this.#blocks = Math.min(size, Math.max(parts, Math.floor(memory / blockSize)));
    if (this.#blocks < parts) {
      throw new RangeError(`A queue of ${size} entries has no room for a frame of ${frame} bytes`);
    }
    const bytes = this.#blocks * blockSize;
    this.#address = dma.allocate(bytes, 64);
    this.#region = dma.memory.find(this.#address, bytes);
    this.#offset = this.#address - this.#region.base;
    this.#tableSize = 16 * parts;
    this.#tables = session.has(VIRTIO_F_INDIRECT_DESC) && parts > 1
      ? dma.allocate(this.#blocks * this.#tableSize)
      : -1;
    this.#free = new Uint16Array(this.#blocks);
    for (let i = 0; i < this.#blocks; i++) this.#free[i] = this.#blocks - 1 - i;
    this.#freeCount = this.#blocks;
    this.#links = new Uint16Array(this.#blocks);
    this.#lengths = new Int32Array(this.#blocks);
  }

  /** Frames that the device has not given back, as far as we have looked. */
  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /** Whether there is room for a frame of any length. */
  hasRoom(): boolean {
    return this.#room(this.#mostParts);
  }

  /**
   * Copies a frame into the queue. The device sees it after `publish`.
   *
   * @returns False if there is no room now.
   * @throws {RangeError} If it is shorter than an Ethernet header, or longer than the MTU allows (5.1.4.2).
   * @throws {TypeError} If it asks for something that was not negotiated, or that makes no sense.
   * @throws {VirtqueueError} If the device broke a rule.
   */
  send(frame: Frame): boolean {
    const { length } = frame;
    const reason = this.check(frame);
    if (reason !== null) {
      if (this.#tooLong) throw new RangeError(reason);
      throw new TypeError(`${reason}: pass() finishes frames that a receiver cannot take`);
    }
    const first = this.#take(length);
    if (first < 0) return false;
    frame.hold();
    this.#copy(first, frame.buffer, length);
    return true;
  }

  /** As `send`, for bytes that need nothing done. */
  sendBytes(bytes: Uint8Array): boolean {
    const { length } = bytes;
    if (!this.#fits(length, false)) {
      const head = this.#scratch.fromBytes(bytes.subarray(0, 64));
      if (!this.#fits(length, false, ethernetSize(head))) {
        throw new RangeError(this.#lengthReason(length));
      }
    }
    this.#plain(length);
    const first = this.#take(length);
    if (first < 0) return false;
    this.#copy(first, bytes, length);
    return true;
  }

  /** Why a frame may not be sent; null if it may. */
  check(frame: Frame): string | null {
    const { length } = frame;
    const { offloads } = this.#setup;
    this.#tooLong = false;
    const gso = (frame.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) !== VIRTIO_NET_HDR_GSO_NONE;
    if (!this.#fits(length, gso) && !this.#fits(length, gso, ethernetSize(frame))) {
      this.#tooLong = true;
      return this.#lengthReason(length);
    }
    this.#plain(length);
    if (frame.needs === 0) return null;
    const header = this.#header;
    const { flags, gsoType } = frame;
    header.flags = flags;
    header.gsoType = gsoType;
    header.gsoSize = frame.gsoSize;
    header.csumStart = frame.csumStart;
    header.csumOffset = frame.csumOffset;
    const layout = this.#layout.parse(frame.view, frame.headLength, length);
    if (
      (gsoType === VIRTIO_NET_HDR_GSO_TCPV4 || gsoType === VIRTIO_NET_HDR_GSO_TCPV6) &&
      layout.payloadOffset !== 0 &&
      (frame.view.getUint8(layout.transportOffset + 13) & TCP_CWR) !== 0
    ) {
      // 5.1.9.2.1: a device that does not know ECN would repeat the flag in every segment.
      header.gsoType |= VIRTIO_NET_HDR_GSO_ECN;
    }
    // What is left of it is true, `hdr_len` to the byte, as VIRTIO_NET_F_GUEST_HDRLEN wants it.
    const reason = checkHeader(header, layout, offloads);
    if (header.headerLength === 0) header.headerLength = headersAtMost(length);
    return reason;
  }

  /** @param before Bytes before the packet, which the MTU does not count. */
  #fits(length: number, gso: boolean, before: number = ETHERNET_HEADER_SIZE): boolean {
    const { mtu } = this.#setup;
    return length >= ETHERNET_HEADER_SIZE && length <= MAX_FRAME_SIZE &&
      (gso || mtu === 0 || length <= mtu + before);
  }

  #lengthReason(length: number): string {
    const { mtu } = this.#setup;
    return `A frame of ${length} bytes cannot be sent: it must have ${ETHERNET_HEADER_SIZE} to ${
      mtu === 0 ? MAX_FRAME_SIZE : mtu + ETHERNET_HEADER_SIZE
    }${mtu === 0 ? "" : `, with the MTU of ${mtu}`} (5.1.4.2)`;
  }

  #plain(length: number): void {
    const header = this.#header;
    header.flags = 0;
    header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
    header.headerLength = headersAtMost(length);
    header.gsoSize = 0;
    header.csumStart = 0;
    header.csumOffset = 0;
  }

  #parts(length: number): number {
    return Math.ceil((this.#setup.headerSize + length) / this.#blockSize);
  }

  #room(parts: number): boolean {
    return this.#freeCount >= parts && this.#queue.free >= (this.#tables < 0 ? parts : 1);
  }

  /** Takes blocks for a frame, links them, adds them. @returns The first, or -1. */
  #take(length: number): number {
    const parts = this.#parts(length);
    if (!this.#room(parts)) {
      this.reclaim();
      if (!this.#room(parts)) return -1;
    }
    const list = this.#list.clear();
    const size = this.#blockSize;
    let left = this.#setup.headerSize + length;
    let first = -1;
    let last = -1;
    let at = this.#freeCount;
    for (; left > 0; left -= size) {
      const block = this.#free[--at]!;
      list.readable(this.#address + block * size, left < size ? left : size);
      if (last < 0) first = block;
      else this.#links[last] = block + 1;
      last = block;
    }
    this.#links[last] = 0;
    const table = this.#tables < 0 || parts === 1
      ? undefined
      : this.#tables + first * this.#tableSize;
    if (!this.#queue.add(list, first, table)) return -1;
    this.#freeCount = at;
    this.#lengths[first] = length;
    return first;
  }

  /** Writes header and bytes. The device does not see the descriptors before `publish`. */
  #copy(first: number, bytes: Uint8Array, length: number): void {
    const { headerSize } = this.#setup;
    const size = this.#blockSize;
    const region = this.#region;
    let at = this.#offset + first * size;
    this.#writeHeader(at, headerSize);
    let room = size - headerSize;
    at += headerSize;
    for (let done = 0, block = first;;) {
      const part = length - done < room ? length - done : room;
      region.copyFrom(at, bytes, done, part);
      done += part;
      if (done === length) break;
      block = this.#links[block]! - 1;
      at = this.#offset + block * size;
      room = size;
    }
    this.onAdd?.();
  }

  #writeHeader(at: number, headerSize: number): void {
    const { view } = this.#region;
    const header = this.#header;
    view.setUint8(at + NetHeaderOffset.flags, header.flags);
    view.setUint8(at + NetHeaderOffset.gso_type, header.gsoType);
    view.setUint16(at + NetHeaderOffset.hdr_len, header.headerLength, true);
    view.setUint16(at + NetHeaderOffset.gso_size, header.gsoSize, true);
    view.setUint16(at + NetHeaderOffset.csum_start, header.csumStart, true);
    view.setUint16(at + NetHeaderOffset.csum_offset, header.csumOffset, true);
    view.setUint16(at + NetHeaderOffset.num_buffers, 0, true);
    for (let i = NetHeaderOffset.hash_value; i < headerSize; i += 4) view.setUint32(at + i, 0);
  }

  /** Makes what was sent available, with one kick at most. */
  publish(): void {
    this.#session.publish(this.index);
  }

  /** Takes back what the device has used. @throws {VirtqueueError} If the device broke a rule. */
  reclaim(): void {
    for (let first = this.#queue.take(); first >= 0; first = this.#queue.take()) {
      this.counters.frames++;
      this.counters.bytes += this.#lengths[first]!;
      this.#giveBack(first);
    }
  }

  #giveBack(first: number): void {
    for (let block = first; block >= 0; block = this.#links[block]! - 1) {
      this.#free[this.#freeCount++] = block;
    }
  }

  /**
   * Asks for an interrupt when much of what is in flight was used.
   *
   * @returns Whether that much was used already.
   */
  enableInterrupts(): boolean {
    return this.#queue.enableInterrupts(this.#queue.inFlight >> 1);
  }

  /** Asks for no interrupts. */
  disableInterrupts(): void {
    this.#queue.disableInterrupts();
  }

  /** The queue was reset: frames that the device did not take are lost, as any frame may be. */
  restart(lost: readonly number[]): void {
    this.#queue = this.#session.queue(this.index);
    for (const first of lost) this.#giveBack(first);
    this.#queue.disableInterrupts();
  }

  /** Gives the memory back, after a reset of the device. */
  release(): void {
    this.#session.dma.free(this.#address);
    if (this.#tables >= 0) this.#session.dma.free(this.#tables);
  }
}
