import { allocateBytes, type MemoryRegion } from "@virtio/memory";
import type { ChainReader, ChainWriter } from "@virtio/vring";
import {
  MAX_FRAME_SIZE,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "./constants.ts";
import { Offload } from "./sink.ts";

/** A need beside those of `Offload`: what such a header says, nobody can do. `pass` refuses it, or finds what is meant. */
const NOBODY = 128;
// To the compiler names of this module are constants; imported names are looked up at every use.
const NEEDS_CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM;
/** Bytes of a frame that are read at once, so that its headers are looked at in memory that no driver can change. */
export const HEAD_SIZE = 256;

/**
 * An Ethernet frame on its way, with what a `struct virtio_net_hdr` says about it (virtio 1.4, 5.1.9). One object is used
 * again and again: it is valid during the call that hands it over.
 *
 * Its first bytes (`head`) are a copy of our own: what is checked is what is passed on. The rest may still lie in the
 * sender's memory, and goes from there to the receiver's without a stop; `bytes` fetches it for those who want to look.
 *
 * @example A frame from bytes
 * ```ts
 * import { Frame } from "@virtio/net";
 * import { assertEquals } from "@std/assert";
 *
 * const frame = new Frame().fromBytes(new Uint8Array(60));
 * assertEquals(frame.length, 60);
 * assertEquals(frame.needs, 0);
 * ```
 */
export class Frame {
  /** `flags`: VIRTIO_NET_HDR_F_NEEDS_CSUM or VIRTIO_NET_HDR_F_DATA_VALID, or 0. */
  flags = 0;
  /** `gso_type`. */
  gsoType = 0;
  /** `hdr_len`. */
  headerLength = 0;
  /** `gso_size`. */
  gsoSize = 0;
  /** `csum_start`. */
  csumStart = 0;
  /** `csum_offset`. */
  csumOffset = 0;
  /** Bytes of the frame. */
  length = 0;
  /** The first `min(length, HEAD_SIZE)` bytes; what lies behind them is not part of the frame. */
  get head(): Uint8Array {
    return this.#bytes;
  }
  /** Bytes of `head` that belong to the frame. */
  headLength = 0;

  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Where the bytes behind the head still lie, if in pieces, or in one place; both null once they are here. */
  #reader: ChainReader | null = null;
  #region: MemoryRegion | null = null;
  #offset = 0;
  /** The next byte that `copyTo` gives. */
  #position = 0;

  /** @param capacity Longest frame that it can hold; MAX_FRAME_SIZE unless given. */
  constructor(capacity: number = MAX_FRAME_SIZE) {
    this.#bytes = allocateBytes(Math.max(capacity, HEAD_SIZE));
    this.#view = new DataView(this.#bytes.buffer, 0, this.#bytes.length);
  }

  /** Longest frame that it can hold. */
  get capacity(): number {
    return this.#bytes.length;
  }

  /** Reads fields of `head`, or of the whole frame once `bytes` was asked for. */
  get view(): DataView {
    return this.#view;
  }

  /** Which of `Offload` a receiver must have to take it as it is. */
  get needs(): number {
    return (this.flags & NEEDS_CSUM | this.gsoType) === 0 ? 0 : this.#allNeeds();
  }

  #allNeeds(): number {
    let needs = (this.flags & NEEDS_CSUM) !== 0 ? Offload.csum : 0;
    if (this.gsoType === VIRTIO_NET_HDR_GSO_NONE) return needs;
    // Every frame that is to be segmented has a partial checksum (5.1.9.4.1).
    if (needs === 0) needs = NOBODY;
    if ((this.gsoType & VIRTIO_NET_HDR_GSO_ECN) !== 0) needs |= Offload.ecn;
    switch (this.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) {
      case VIRTIO_NET_HDR_GSO_TCPV4:
        return needs | Offload.tso4;
      case VIRTIO_NET_HDR_GSO_TCPV6:
        return needs | Offload.tso6;
      case VIRTIO_NET_HDR_GSO_UDP:
        return needs | Offload.ufo;
      case VIRTIO_NET_HDR_GSO_UDP_L4:
        return needs | (this.#isIpv6() ? Offload.uso6 : Offload.uso4);
      default:
        return needs | NOBODY;
    }
  }

  /** Takes over what is left of a chain's readable bytes: the head at once, the rest when somebody wants it. */
  fromChain(reader: ChainReader): this {
    this.plain();
    const length = reader.remaining;
    if (length > this.#bytes.length) throw this.#tooLong(length);
    const head = length < HEAD_SIZE ? length : HEAD_SIZE;
    this.length = length;
    this.headLength = head;
    this.#reader = length > head ? reader : null;
    this.#region = null;
    this.#position = 0;
    if (reader.next(head)) {
      // Most often it lies in one piece.
      const here = reader.length;
      reader.region!.copyTo(reader.offset, this.#bytes, 0, here);
      if (here < head) this.#fetch(reader, here, head);
    }
    return this;
  }

  /** As `fromChain`, where all bytes lie in one place. */
  fromPlace(region: MemoryRegion, offset: number, length: number): void {
    this.plain();
    if (length > this.#bytes.length) throw this.#tooLong(length);
    const head = length < HEAD_SIZE ? length : HEAD_SIZE;
    this.length = length;
    this.headLength = head;
    this.#reader = null;
    this.#region = length > head ? region : null;
    this.#offset = offset;
    this.#position = 0;
    region.copyTo(offset, this.#bytes, 0, head);
  }

  /**
   * Takes a copy of bytes that need nothing done.
   *
   * @throws {RangeError} If they are longer than the frame's capacity.
   */
  fromBytes(bytes: Uint8Array): this {
    this.plain();
    this.#bytes.set(bytes);
    this.setLength(bytes.length);
    return this;
  }

  /** Takes a copy of another frame, its header included. */
  fromFrame(frame: Frame): this {
    this.#bytes.set(frame.bytes);
    this.setLength(frame.length);
    this.copyHeader(frame);
    return this;
  }

  /** Takes over what another frame's header says. */
  copyHeader(frame: Frame): void {
    this.flags = frame.flags;
    this.gsoType = frame.gsoType;
    this.headerLength = frame.headerLength;
    this.gsoSize = frame.gsoSize;
    this.csumStart = frame.csumStart;
    this.csumOffset = frame.csumOffset;
  }

  /** Nothing is to be done with the frame, and nothing known about its checksum. */
  plain(): void {
    this.flags = 0;
    this.gsoType = VIRTIO_NET_HDR_GSO_NONE;
    this.headerLength = 0;
    this.gsoSize = 0;
    this.csumStart = 0;
    this.csumOffset = 0;
  }

  /**
   * The whole buffer, to write a frame into; `setLength` then says how long it is.
   */
  get buffer(): Uint8Array {
    return this.#bytes;
  }

  /** Says how many bytes of `buffer` are the frame. */
  setLength(length: number): void {
    if (!(length >= 0 && length <= this.#bytes.length)) throw this.#tooLong(length);
    this.length = length;
    this.headLength = Math.min(length, HEAD_SIZE);
    this.#reader = null;
    this.#region = null;
    this.#position = 0;
  }

  /** Fetches the rest, so that the frame can be read more than once, and changed. Call it before giving it to several. */
  hold(): void {
    const reader = this.#reader;
    const region = this.#region;
    const { headLength, length } = this;
    this.#reader = null;
    this.#region = null;
    if (reader !== null) this.#fetch(reader, headLength, length);
    else if (region !== null) {
      region.copyTo(this.#offset + headLength, this.#bytes, headLength, length - headLength);
    }
  }

  /** All bytes of the frame, fetched if need be. A new view at each call: hot paths use `hold` and `buffer`. */
  get bytes(): Uint8Array {
    this.hold();
    return this.#bytes.subarray(0, this.length);
  }

  /** Starts `copyTo` at the first byte. @throws {TypeError} If bytes were passed on that are not kept: `hold` it before. */
  rewind(): void {
    if (this.#position > this.headLength && (this.#reader !== null || this.#region !== null)) {
      throw new TypeError("This frame was passed on without being kept: call hold() before");
    }
    this.#position = 0;
  }

  /**
   * Copies the next bytes of the frame to where the writer stands, as many as there are, as it has room for, and `max`.
   *
   * @returns How many.
   */
  copyTo(writer: ChainWriter, max: number): number {
    const start = this.#position;
    const stop = Math.min(this.length, start + max, start + writer.remaining);
    const reader = this.#reader;
    const region = this.#region;
    const own = reader === null && region === null ? stop : Math.min(stop, this.headLength);
    if (this.#position < own) {
      writer.writeFrom(this.#bytes, this.#position, own - this.#position);
      this.#position = own;
    }
    const left = stop - this.#position;
    if (left > 0) {
      if (reader !== null) writer.writeReader(reader, left);
      else writer.writeFrom(region!.bytes, this.#offset + this.#position, left);
      this.#position = stop;
    }
    return stop - start;
  }

  /** Copies the whole frame to a place in guest memory. */
  copyInto(region: MemoryRegion, offset: number): void {
    const reader = this.#reader;
    const from = this.#region;
    const { length } = this;
    this.#position = length;
    if (reader === null && from === null) {
      region.copyFrom(offset, this.#bytes, 0, length);
      return;
    }
    let done = this.headLength;
    region.copyFrom(offset, this.#bytes, 0, done);
    if (from !== null) {
      region.copyFrom(offset + done, from.bytes, this.#offset + done, length - done);
      return;
    }
    while (reader !== null && done < length && reader.next(length - done)) {
      region.copyFrom(offset + done, reader.region!.bytes, reader.offset, reader.length);
      done += reader.length;
    }
  }

  #tooLong(length: number): RangeError {
    return new RangeError(
      `A frame of ${length} bytes does not fit: there is room for ${this.#bytes.length}`,
    );
  }

  #fetch(reader: ChainReader, from: number, to: number): void {
    reader.readInto(this.#bytes, from, to - from);
  }

  /** Whether the EtherType, behind tags, is that of IPv6. */
  #isIpv6(): boolean {
    let at = 12;
    for (let tags = 0; tags < 2 && at + 2 <= this.headLength; tags++) {
      const type = this.#view.getUint16(at);
      if (type !== 0x8100 && type !== 0x88a8) break;
      at += 4;
    }
    return at + 2 <= this.headLength && this.#view.getUint16(at) === 0x86dd;
  }
}
