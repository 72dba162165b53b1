import { type FeatureSet, hasFeature } from "@virtio/device";
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

/** The device, from where frames are put into buffers. */
export interface ReceiveHost {
  /** The next buffer of a receive queue, or null. */
  take(queue: number): Chain | null;
  /** Puts back what `take` gave last. */
  untake(queue: number, chain: Chain): void;
  /** Uses a buffer. */
  complete(queue: number, chain: Chain): void;
  /** The driver broke a rule. */
  fail(error: Error): void;
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
  readonly #host: ReceiveHost;
  #headerSize = NET_HEADER_SIZE;
  #mergeable = false;
  readonly #chains: Chain[] = [];
  readonly #header: Uint8Array = new Uint8Array(NET_HEADER_HASH_SIZE);
  readonly #view: DataView = new DataView(this.#header.buffer);

  /** @param host The device. */
  constructor(host: ReceiveHost) {
    this.#host = host;
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
   * @param size Entries of the queue.
   * @param offloads What the driver takes now.
   * @returns One of `Placed`.
   */
  place(frame: Frame, queue: number, size: number, offloads: number, stats: ReceiveStats): number {
    // Somebody else may have had it before.
    frame.rewind();
    const need = this.#headerSize + frame.length;
    const chains = this.#chains;
    let count = 0;
    let room = 0;
    let slots = 0;
    do {
      const chain = this.#host.take(queue);
      if (chain === null) {
        this.#giveBack(queue, count);
        if (count === 0) return Placed.empty;
        // No driver can ever give more than all entries.
        return slots < size ? Placed.short : Placed.never;
      }
      if (count === chains.length) chains.push(chain);
      else chains[count] = chain;
      count++;
      slots += chain.slots;
      room += chain.writable;
      if (chain.writable < this.#headerSize) {
        this.#host.fail(
          new VirtqueueError(
            "5.1.9.3.1",
            `A receive buffer has ${chain.writable} device-writable bytes: too few for a header of ${this.#headerSize}`,
          ),
        );
        return Placed.never;
      }
      if (room < need && !this.#mergeable) {
        this.#giveBack(queue, count);
        return Placed.never;
      }
    } while (room < need);
    this.#fill(frame, queue, count, offloads, stats);
    return Placed.done;
  }

  #giveBack(queue: number, count: number): void {
    const chains = this.#chains;
    for (let i = count - 1; i >= 0; i--) this.#host.untake(queue, chains[i]!);
  }

  #fill(frame: Frame, queue: number, count: number, offloads: number, stats: ReceiveStats): void {
    const chains = this.#chains;
    const flags = (offloads & Offload.csum) === 0
      ? 0
      : frame.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID);
    this.#writeHeader(chains[0]!.writer, frame, flags, count);
    stats.frames++;
    stats.bytes += frame.length;
    stats.buffers += count;
    if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) stats.needsChecksum++;
    else if (flags !== 0) stats.valid++;
    if (frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) {
      stats.gsoFrames++;
      stats.gsoBytes += frame.length;
    }
    for (let i = 0; i < count; i++) {
      const chain = chains[i]!;
      frame.copyTo(chain.writer, chain.writer.remaining);
      // Published later and together, so the driver sees all of them or none (5.1.9.4.1).
      this.#host.complete(queue, chain);
    }
  }

  #writeHeader(writer: ChainWriter, frame: Frame, flags: number, count: number): void {
    const size = this.#headerSize;
    // Where it lies in one piece, right there: three words, little endian as the fields are.
    writer.next(size);
    const here = writer.length === size;
    const view = here ? writer.region!.view : this.#view;
    const at = here ? writer.offset : 0;
    view.setUint32(at, flags | frame.gsoType << 8 | frame.headerLength << 16, true);
    view.setUint32(at + GSO_SIZE, frame.gsoSize | frame.csumStart << 16, true);
    view.setUint32(at + CSUM_OFFSET, frame.csumOffset | count << 16, true);
    if (size === NET_HEADER_HASH_SIZE) {
      view.setUint32(at + HASH_VALUE, this.hashValue, true);
      view.setUint32(at + HASH_REPORT, this.hashReport, true);
    }
    if (!here) this.#scatter(writer);
  }

  /** Writes the header from the scratch to where the writer has just passed its first piece. */
  #scatter(writer: ChainWriter): void {
    const { length } = writer;
    writer.region!.copyFrom(writer.offset, this.#header, 0, length);
    writer.writeFrom(this.#header, length, this.#headerSize - length);
  }
}
