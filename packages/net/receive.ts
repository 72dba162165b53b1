import { type FeatureSet, hasFeature, type LazyQueue } from "@virtio/device";
import { type Chain, type ChainWriter, VirtqueueError } from "@virtio/vring";
import {
  NET_HEADER_HASH_SIZE,
  NET_HEADER_SIZE,
  NetHeaderOffset,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
} from "./constants.ts";
import type { Frame } from "./frame.ts";
import { Offload } from "./sink.ts";
import type { ReceiveStats } from "./stats.ts";

/** A receive queue as frames are put into its buffers. */
export interface ReceiveQueue {
  /** Where buffers come from. */
  readonly buffers: LazyQueue;
  /** Entries of the queue. */
  readonly size: number;
  /** Counts. */
  readonly stats: ReceiveStats;
}

/** What became of a frame that was to be put into buffers. */
export const Placed = {
  /** The driver gets it. */
  done: 0,
  /** There is no buffer. */
  empty: 1,
  /** There are buffers, but too few. */
  short: 2,
  /** It does not fit, and never will. */
  never: 3,
} as const;

// To the compiler names of this module are constants; imported names are looked up at every use.
const DONE = Placed.done;
const EMPTY = Placed.empty;
const HASHED = NET_HEADER_HASH_SIZE;
const CSUM = Offload.csum;
const TOLD = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
const NEEDS_CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM;
const GSO_NONE = VIRTIO_NET_HDR_GSO_NONE;
const GSO_SIZE = NetHeaderOffset.gso_size;
const CSUM_OFFSET = NetHeaderOffset.csum_offset;
const HASH_VALUE = NetHeaderOffset.hash_value;
const HASH_REPORT = NetHeaderOffset.hash_report;

/**
 * Puts frames into the driver's buffers (virtio 1.4, 5.1.9.3 and 5.1.9.4), with their headers.
 *
 * Nothing is written before there is room for all of it: a frame is in the buffers as a whole, or they are the driver's still.
 *
 * Hot path: nothing is allocated for a frame once the list of buffers has grown to the most that one took.
 */
export class BufferFiller {
  /** Hash of the frame, for its header. */
  hashValue = 0;
  /** `hash_report` of the frame. */
  hashReport = 0;
  readonly #fail: (error: Error) => void;
  #headerSize = NET_HEADER_SIZE;
  #mergeable = false;
  readonly #chains: Chain[] = [];
  readonly #header: Uint8Array = new Uint8Array(NET_HEADER_HASH_SIZE);
  readonly #view: DataView = new DataView(this.#header.buffer);

  /** @param fail The driver broke a rule. */
  constructor(fail: (error: Error) => void) {
    this.#fail = fail;
  }

  /** What the driver negotiated. */
  start(features: FeatureSet): void {
    const hashed = hasFeature(features, VIRTIO_NET_F_HASH_REPORT);
    this.#headerSize = hashed ? NET_HEADER_HASH_SIZE : NET_HEADER_SIZE;
    this.#mergeable = hasFeature(features, VIRTIO_NET_F_MRG_RXBUF);
  }

  /**
   * Puts a frame into the next buffers of a receive queue.
   *
   * @param frame Kept, if it was passed on before.
   * @param offloads What the driver takes now.
   * @returns One of `Placed`.
   */
  place(frame: Frame, queue: ReceiveQueue, offloads: number): number {
    // Somebody else may have had it before.
    frame.rewind();
    const headerSize = this.#headerSize;
    const need = headerSize + frame.length;
    const { buffers } = queue;
    const first = buffers.take();
    if (first === null) return EMPTY;
    const at = first.readableCount;
    if (at === first.count || first.lengths[at]! < need) {
      return this.#placeInto(first, frame, queue, offloads);
    }
    // Most often there is room in one piece, which needs no cursor.
    const region = first.regions[at]!;
    const offset = first.offsets[at]!;
    const flags = flagsFor(frame, offloads);
    this.#writeAt(region.view, offset, frame, flags, 1);
    frame.copyInto(region, offset + headerSize);
    buffers.complete(first, need);
    tally(frame, flags, 1, queue.stats);
    return DONE;
  }

  /** There is not room for all at the start of the first buffer. */
  #placeInto(first: Chain, frame: Frame, queue: ReceiveQueue, offloads: number): number {
    const need = this.#headerSize + frame.length;
    const chains = this.#chains;
    const { buffers } = queue;
    let taken = 0;
    let room = 0;
    let slots = 0;
    for (let chain: Chain | null = first;; chain = buffers.take()) {
      if (chain === null) {
        this.#giveBack(buffers, taken);
        // No driver can ever give more than all entries.
        return slots < queue.size ? Placed.short : Placed.never;
      }
      if (taken === chains.length) chains.push(chain);
      else chains[taken] = chain;
      taken++;
      slots += chain.slots;
      room += chain.writable;
      if (chain.writable < this.#headerSize) return this.#tooSmall(chain);
      if (room >= need) break;
      if (!this.#mergeable) {
        this.#giveBack(buffers, taken);
        return Placed.never;
      }
    }
    const flags = flagsFor(frame, offloads);
    this.#writeHeader(first.writer, frame, flags, taken);
    for (let i = 0; i < taken; i++) {
      const chain = chains[i]!;
      frame.copyTo(chain.writer, chain.writer.remaining);
      // Published later and together, so the driver sees all of them or none (5.1.9.4.1).
      buffers.complete(chain);
    }
    tally(frame, flags, taken, queue.stats);
    return Placed.done;
  }

  #tooSmall(chain: Chain): number {
    this.#fail(
      new VirtqueueError(
        "5.1.9.3.1",
        `A receive buffer has ${chain.writable} device-writable bytes: too few for a header of ${this.#headerSize}`,
      ),
    );
    return Placed.never;
  }

  #giveBack(buffers: LazyQueue, count: number): void {
    const chains = this.#chains;
    for (let i = count - 1; i >= 0; i--) buffers.untake(chains[i]!);
  }

  #writeHeader(writer: ChainWriter, frame: Frame, flags: number, count: number): void {
    const size = this.#headerSize;
    // Where it lies in one piece, right there.
    writer.next(size);
    if (writer.length === size) {
      this.#writeAt(writer.region!.view, writer.offset, frame, flags, count);
    } else {
      this.#writeAt(this.#view, 0, frame, flags, count);
      this.#scatter(writer);
    }
  }

  /** Three words, little endian as the fields are, or five. */
  #writeAt(view: DataView, at: number, frame: Frame, flags: number, count: number): void {
    view.setUint32(at, flags | frame.gsoType << 8 | frame.headerLength << 16, true);
    view.setUint32(at + GSO_SIZE, frame.gsoSize | frame.csumStart << 16, true);
    view.setUint32(at + CSUM_OFFSET, frame.csumOffset | count << 16, true);
    if (this.#headerSize === HASHED) {
      view.setUint32(at + HASH_VALUE, this.hashValue, true);
      view.setUint32(at + HASH_REPORT, this.hashReport, true);
    }
  }

  /** Writes the header from the scratch to where the writer has just passed its first piece. */
  #scatter(writer: ChainWriter): void {
    const { length } = writer;
    writer.region!.copyFrom(writer.offset, this.#header, 0, length);
    writer.writeFrom(this.#header, length, this.#headerSize - length);
  }
}

/** `flags` of a received frame. */
function flagsFor(frame: Frame, offloads: number): number {
  return (offloads & CSUM) === 0 ? 0 : frame.flags & TOLD;
}

function tally(frame: Frame, flags: number, buffers: number, stats: ReceiveStats): void {
  stats.frames++;
  stats.bytes += frame.length;
  stats.buffers += buffers;
  if ((flags & NEEDS_CSUM) !== 0) stats.needsChecksum++;
  else if (flags !== 0) stats.valid++;
  if (frame.gsoType !== GSO_NONE) {
    stats.gsoFrames++;
    stats.gsoBytes += frame.length;
  }
}
