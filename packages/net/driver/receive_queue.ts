import type { DriverSession } from "@virtio/device/driver";
import type { MemoryRegion } from "@virtio/memory";
import { VirtqueueError } from "@virtio/vring";
import { BufferList, type DriverQueue } from "@virtio/vring/driver";
import {
  ETHERNET_HEADER_SIZE,
  NetHeaderOffset,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../constants.ts";
import { Frame } from "../frame.ts";
import { VIRTIO_NET_HASH_REPORT_NONE, VIRTIO_NET_HASH_REPORT_UDPv6_EX } from "../offload/hash.ts";
import { checkHeader, VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM } from "../offload/header.ts";
import { FrameLayout } from "../offload/parse.ts";
import { Offload } from "../sink.ts";

/** What a receive queue must know. */
export interface ReceiveSetup {
  /** Bytes of `struct virtio_net_hdr`. */
  readonly headerSize: number;
  /** Whether VIRTIO_NET_F_MRG_RXBUF was negotiated. */
  readonly merge: boolean;
  /** Whether VIRTIO_NET_F_HASH_REPORT was negotiated. */
  readonly hashed: boolean;
  /** What the device may ask of us: bits of `Offload`. */
  readonly offloads: number;
  /** Hash types that the device knows. */
  readonly hashTypes: number;
  /** Bytes of a frame, with its Ethernet header, that there must be room for. */
  readonly longest: number;
  /** Bytes of a buffer where they are merged. */
  readonly bufferSize: number;
  /** Buffers at most. */
  readonly buffers: number;
}

/** What a receive queue did. */
export interface ReceiveCounters {
  /** Frames that were handed over. */
  frames: number;
  /** Bytes of those. */
  bytes: number;
  /** Buffers that they took. */
  buffers: number;
  /** Frames dropped because of what their header says, or because they are too short or too long. */
  dropped: number;
}

/**
 * One receive queue: buffers for the device, frames out of what it used (virtio 1.4, 5.1.9.3 and 5.1.9.4). Everything that
 * the device says is read once, from its header and the used length, and checked; frames are copied out before anybody looks
 * at them. Nothing is allocated for a frame.
 */
export class ReceiveQueue {
  /** Index of the virtqueue. */
  readonly index: number;
  /** The frame that `next` found; valid until the next one. */
  readonly frame: Frame = new Frame();
  /** `hash_report` of that frame: VIRTIO_NET_HASH_REPORT_NONE where there is none that can be believed. */
  hashReport: number = VIRTIO_NET_HASH_REPORT_NONE;
  /** `hash_value` of that frame; 0 without a report. */
  hashValue = 0;
  /** Bytes of each buffer. */
  readonly bufferSize: number;
  /** What it did. */
  readonly counters: ReceiveCounters = { frames: 0, bytes: 0, buffers: 0, dropped: 0 };
  /** Why the last frame that was dropped was dropped. */
  reason = "";
  readonly #session: DriverSession;
  readonly #setup: ReceiveSetup;
  readonly #list: BufferList = new BufferList();
  readonly #layout: FrameLayout = new FrameLayout();
  readonly #address: number;
  readonly #region: MemoryRegion;
  /** Offset of the buffers in their region. */
  readonly #offset: number;
  readonly #count: number;
  /** Buffers that were taken and not yet given back to the device. */
  readonly #spare: Uint16Array;
  #spareCount: number;
  #queue: DriverQueue;

  /**
   * Takes memory for the buffers of a queue. `fill` gives them to the device.
   *
   * @throws {RangeError} If there is not enough memory.
   */
  constructor(session: DriverSession, index: number, setup: ReceiveSetup) {
    this.index = index;
    this.#session = session;
    this.#setup = setup;
    this.#queue = session.queue(index);
    this.#count = Math.min(this.#queue.size, setup.buffers);
    const whole = setup.headerSize + setup.longest;
    // A short queue has longer buffers, so that the longest frame fits into all of them together (5.1.4.2).
    const least = setup.merge ? Math.max(setup.bufferSize, Math.ceil(whole / this.#count)) : whole;
    this.bufferSize = Math.ceil(least / 64) * 64;
    const bytes = this.#count * this.bufferSize;
    this.#address = session.dma.allocate(bytes, 64);
    this.#region = session.dma.memory.find(this.#address, bytes);
    this.#offset = this.#address - this.#region.base;
    this.#spare = new Uint16Array(this.#count);
    for (let i = 0; i < this.#count; i++) this.#spare[i] = i;
    this.#spareCount = this.#count;
  }

  /** Buffers that the device holds. */
  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /** Gives the device all buffers that it does not have, with one kick at most. */
  fill(): void {
    const list = this.#list;
    const size = this.bufferSize;
    while (this.#spareCount > 0) {
      const buffer = this.#spare[this.#spareCount - 1]!;
      list.clear().writable(this.#address + buffer * size, size);
      if (!this.#queue.add(list, buffer)) break;
      this.#spareCount--;
    }
    this.#session.publish(this.index);
  }

  /** Whether enough buffers lie idle to give them back together. */
  get hungry(): boolean {
    return this.#spareCount << 2 >= this.#count;
  }

  /**
   * Takes the next frame; `frame`, `hashReport` and `hashValue` tell of it.
   *
   * @returns 1: there is one. 0: there was one that had to be dropped. -1: there is none.
   * @throws {VirtqueueError} If the device broke a rule: it must be reset.
   */
  next(): number {
    const queue = this.#queue;
    const first = queue.take();
    if (first < 0) return -1;
    const { headerSize, merge } = this.#setup;
    const used = queue.usedLength;
    this.#spare[this.#spareCount++] = first;
    if (used < headerSize) {
      throw new VirtqueueError(
        "5.1.9.4",
        `The device says it wrote ${used} bytes of a frame: its header alone has ${headerSize}`,
      );
    }
    const at = this.#offset + first * this.bufferSize;
    // Without the feature it is always 1, and there are devices that write something else: it means nothing then.
    const parts = merge ? this.#region.view.getUint16(at + NetHeaderOffset.num_buffers, true) : 1;
    if (parts === 0) {
      throw new VirtqueueError("5.1.9.4.1", "A frame of 0 buffers: num_buffers is 0");
    }
    const length = this.#join(first, used - headerSize, parts);
    this.counters.buffers += parts;
    if (length < ETHERNET_HEADER_SIZE) {
      return this.#drop(length < 0 ? "a frame longer than any" : `a frame of ${length} bytes`);
    }
    this.frame.setLength(length);
    if (!this.#readHeader(at)) return 0;
    this.counters.frames++;
    this.counters.bytes += length;
    return 1;
  }

  /**
   * Copies a frame out of its buffers.
   *
   * @param used Bytes behind the header in the first one.
   * @returns Its length; -1 if it is too long.
   */
  #join(first: number, used: number, parts: number): number {
    const queue = this.#queue;
    const { buffer } = this.frame;
    const region = this.#region;
    const size = this.bufferSize;
    const { headerSize } = this.#setup;
    const start = this.#offset + first * size + headerSize;
    let fits = used <= buffer.length;
    if (fits) region.copyTo(start, buffer, 0, used);
    let length = used;
    let full = used === size - headerSize;
    for (let part = 1; part < parts; part++) {
      const next = queue.take();
      if (next < 0) {
        throw new VirtqueueError(
          "5.1.9.4.1",
          `The device spread a frame over ${parts} buffers, and used ${part}`,
        );
      }
      this.#spare[this.#spareCount++] = next;
      if (!full) {
        throw new VirtqueueError(
          "5.1.9.4.1",
          "The device spread a frame over several buffers, and did not fill one before the last",
        );
      }
      const more = queue.usedLength;
      full = more === size;
      fits &&= length + more <= buffer.length;
      if (fits) region.copyTo(this.#offset + next * size, buffer, length, more);
      length += more;
    }
    return fits ? length : -1;
  }

  /** Takes what the header says into the frame, as far as it is true. */
  #readHeader(at: number): boolean {
    const { view } = this.#region;
    const { frame } = this;
    const { offloads, hashed } = this.#setup;
    frame.plain();
    this.#readHash(hashed, at);
    const flags = view.getUint8(at + NetHeaderOffset.flags);
    const gsoType = view.getUint8(at + NetHeaderOffset.gso_type);
    if (flags === 0 && gsoType === VIRTIO_NET_HDR_GSO_NONE) return true;
    let known = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
    // 5.1.9.4.2: only together with this one does it count; else it is one more bit to be ignored.
    if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) known |= VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM;
    frame.flags = flags & known;
    frame.gsoType = gsoType;
    frame.headerLength = view.getUint16(at + NetHeaderOffset.hdr_len, true);
    frame.gsoSize = view.getUint16(at + NetHeaderOffset.gso_size, true);
    if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      if ((flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0) {
        // 5.1.9.4.2: where the checksum goes may not be read then, so that it stays unfinished.
        return this.#drop("a partial checksum with VIRTIO_NET_HDR_F_RSC_INFO") > 0;
      }
      frame.csumStart = view.getUint16(at + NetHeaderOffset.csum_start, true);
      frame.csumOffset = view.getUint16(at + NetHeaderOffset.csum_offset, true);
    } else if ((gsoType & ~VIRTIO_NET_HDR_GSO_ECN) === VIRTIO_NET_HDR_GSO_NONE) {
      frame.plain();
      if ((offloads & Offload.csum) !== 0) frame.flags = flags & VIRTIO_NET_HDR_F_DATA_VALID;
      return true;
    }
    const layout = this.#layout.parse(frame.view, frame.headLength, frame.length);
    const reason = checkHeader(frame, layout, offloads, true);
    return reason === null || this.#drop(reason) > 0;
  }

  #readHash(hashed: boolean, at: number): void {
    this.hashReport = VIRTIO_NET_HASH_REPORT_NONE;
    this.hashValue = 0;
    if (!hashed) return;
    const { view } = this.#region;
    const report = view.getUint16(at + NetHeaderOffset.hash_report, true);
    if (report === VIRTIO_NET_HASH_REPORT_NONE || report > VIRTIO_NET_HASH_REPORT_UDPv6_EX) return;
    // VIRTIO_NET_HASH_TYPE_XXX = 1 << (VIRTIO_NET_HASH_REPORT_XXX - 1).
    if ((this.#setup.hashTypes >>> (report - 1) & 1) === 0) return;
    this.hashReport = report;
    this.hashValue = view.getUint32(at + NetHeaderOffset.hash_value, true);
  }

  #drop(reason: string): number {
    this.counters.dropped++;
    this.reason = reason;
    return 0;
  }

  /** Asks for an interrupt at the next frame. @returns Whether there are frames already. */
  enableInterrupts(): boolean {
    return this.#queue.enableInterrupts();
  }

  /** Asks for no interrupts, while frames are being taken (5.1.9.4). */
  disableInterrupts(): void {
    this.#queue.disableInterrupts();
  }

  /** The queue was reset: all buffers but those with frames in them go to its successor. */
  restart(lost: readonly number[]): void {
    this.#queue = this.#session.queue(this.index);
    for (const buffer of lost) this.#spare[this.#spareCount++] = buffer;
    this.fill();
  }

  /** Gives the memory back, after a reset of the device. */
  release(): void {
    this.#session.dma.free(this.#address);
  }
}
