/**
 * Cuts frames that ask for it (`gso_type` of virtio 1.4, 5.1.9.2) into frames that fit the wire: TCP into segments, UDP into
 * datagrams (USO) or into IP fragments (UFO).
 *
 * Every segment gets a copy of the headers, in which lengths, sequence numbers, identifications, flags and checksums are made
 * its own.
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../constants.ts";
import { copyAndSum, finish, finishUdp, fold, ipv4HeaderChecksum, sumBytes } from "./checksum.ts";
import { FRAGMENT_UNIT, type FrameHeader, segmentCount } from "./header.ts";
import { type FrameLayout, IPPROTO_FRAGMENT } from "./parse.ts";

const FRAGMENT_HEADER_SIZE = 8;
const IPV4_MF = 0x2000;
const IPV4_OPTIONS = 20;
const IPOPT_NOP = 1;
const TCP_FIN_PSH = 0x09;
const TCP_CWR = 0x80;

/** How the frame is cut. */
const TCP = 0;
const DATAGRAMS = 1;
const FRAGMENTS = 2;

/**
 * Cuts one frame after the other. `start` takes a frame, whose header `checkHeader` has found good; each `next` writes a
 * segment. Nothing is allocated on the way.
 *
 * @example A TCP frame of 3,000 bytes for a wire that takes 1,400
 * ```ts
 * import { Segmenter } from "./segment.ts";
 * import { FrameLayout } from "./parse.ts";
 * import { buildFrame } from "./testing.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const frame = buildFrame({
 *   ip: 4, transport: "tcp", payload: new Uint8Array(3000), checksum: "partial",
 * });
 * const view = new DataView(frame.buffer);
 * const layout = new FrameLayout().parse(view, frame.length);
 * const segmenter = new Segmenter();
 * const header = {
 *   flags: 1, gsoType: 1, headerLength: 54, gsoSize: 1400, csumStart: 34, csumOffset: 16,
 * };
 * assertEquals(segmenter.start(view, header, layout, false), 3);
 * const wire = new DataView(new ArrayBuffer(2000));
 * const lengths = [];
 * while (segmenter.next(wire)) lengths.push(segmenter.length);
 * assertEquals(lengths, [1454, 1454, 254]);
 * ```
 */
export class Segmenter {
  /** Bytes of the segment that `next` wrote. */
  length = 0;
  /** `flags` of that segment: VIRTIO_NET_HDR_F_NEEDS_CSUM if its checksum was left partial, else 0. */
  flags = 0;
  /** `hdr_len` of a segment whose checksum was left partial; 0 else. */
  headerLength = 0;
  /** `csum_start` of a segment whose checksum was left partial; 0 else. */
  csumStart = 0;
  /** `csum_offset` of a segment whose checksum was left partial; 0 else. */
  csumOffset = 0;

  /** The frame; an empty view before the first. */
  #view: DataView = new DataView(new ArrayBuffer(0));
  #kind = TCP;
  #partial = false;
  #ipVersion = 4;
  #networkOffset = 0;
  #transportOffset = 0;
  #nextHeaderOffset = 0;
  #checksumAt = 0;
  /** Bytes of headers that stand in every segment. */
  #headerSize = 0;
  /** Bytes of payload in every segment but the last. */
  #unit = 0;
  /** The next byte of the frame that goes into a segment. */
  #position = 0;
  #end = 0;
  /** Segments written. */
  #count = 0;
  /** Sum of the pseudo header but for the length; of fragments the whole checksum. */
  #checksum = 0;
  /** Identification of IPv6 fragments: another for each datagram (RFC 8200, 4.5). */
  #fragmentId: number;

  /** @param fragmentId Identification of the first datagram that is cut into IPv6 fragments; random unless given. */
  constructor(fragmentId: number = Math.floor(Math.random() * 0x1_0000_0000)) {
    this.#fragmentId = fragmentId >>> 0;
  }

  /**
   * Takes a frame, and forgets the last one. The frame must stay as it is until its last segment was written; it is not
   * changed.
   *
   * @param view The whole frame.
   * @param header Its header, as `checkHeader` left it, with a `gsoType`.
   * @param layout Its layout.
   * @param partial Whether checksums are left to the receiver (VIRTIO_NET_HDR_F_NEEDS_CSUM). Those of fragments never are.
   * @returns How many segments there are: at most MAX_SEGMENTS, none of them longer than the frame unless it is shorter than
   *   its headers and 16 bytes, when it may be 8 bytes more.
   */
  start(view: DataView, header: FrameHeader, layout: FrameLayout, partial: boolean): number {
    this.#view = view;
    this.#ipVersion = layout.ipVersion;
    this.#networkOffset = layout.networkOffset;
    this.#transportOffset = layout.transportOffset;
    this.#nextHeaderOffset = layout.nextHeaderOffset;
    this.#checksumAt = header.csumStart + header.csumOffset;
    this.#partial = partial;
    this.#end = layout.length;
    this.#count = 0;
    const count = segmentCount(header.gsoType, header.gsoSize, layout);
    if (header.gsoType === VIRTIO_NET_HDR_GSO_UDP && count > 1) {
      this.#kind = FRAGMENTS;
      this.#headerSize = layout.fragmentOffset;
      this.#position = layout.fragmentOffset;
      const size = this.#end - this.#position;
      // An IPv6 fragment has 8 bytes more of headers: with the largest frame and the largest gso_size they would not fit.
      const most = Math.min(header.gsoSize, size - FRAGMENT_HEADER_SIZE) & -FRAGMENT_UNIT;
      this.#unit = Math.max(FRAGMENT_UNIT, most);
      this.#checksum = finishUdp(sumBytes(view, header.csumStart, this.#end));
      this.#fragmentId = (this.#fragmentId + 1) >>> 0;
      return Math.ceil(size / this.#unit);
    }
    const datagrams = header.gsoType === VIRTIO_NET_HDR_GSO_UDP ||
      header.gsoType === VIRTIO_NET_HDR_GSO_UDP_L4;
    this.#kind = datagrams ? DATAGRAMS : TCP;
    this.#headerSize = layout.payloadOffset;
    this.#position = layout.payloadOffset;
    this.#unit = count === 1 ? this.#end - this.#position : header.gsoSize;
    // The sender has summed the length of the whole; subtracting is adding the complement.
    const whole = this.#end - this.#transportOffset;
    this.#checksum = fold(view.getUint16(this.#checksumAt) + finish(fold(whole)));
    return count;
  }

  /**
   * Writes the next segment to the beginning of `target`, and sets `length`, `flags`, `csumStart` and `csumOffset`.
   *
   * @param target Room for a segment, in other memory than the frame.
   * @returns Whether there was one.
   * @throws {RangeError} If it does not fit.
   */
  next(target: DataView): boolean {
    const left = this.#end - this.#position;
    // A TCP frame may have nothing but headers: that is one segment.
    if (left <= 0 && this.#count > 0) return false;
    const size = left < this.#unit ? left : this.#unit;
    const last = size === left;
    copyAndSum(this.#view, 0, target, 0, this.#headerSize);
    if (this.#kind === FRAGMENTS) this.#fragment(target, size, last);
    else this.#segment(target, size, last);
    this.#position += size;
    this.#count++;
    return true;
  }

  #segment(target: DataView, size: number, last: boolean): void {
    const at = this.#transportOffset;
    const headerSize = this.#headerSize;
    const length = headerSize + size;
    const sum = copyAndSum(this.#view, this.#position, target, headerSize, size);
    const upper = length - at;
    if (this.#kind === TCP) {
      const sequence = this.#view.getUint32(at + 4);
      target.setUint32(at + 4, (sequence + this.#count * this.#unit) >>> 0);
      let flags = this.#view.getUint8(at + 13);
      if (!last) flags &= ~TCP_FIN_PSH;
      // The window was reduced once, not once for every segment (RFC 3168, 6.1.2).
      if (this.#count > 0) flags &= ~TCP_CWR;
      target.setUint8(at + 13, flags);
    } else {
      target.setUint16(at + 4, upper);
    }
    this.#ipHeader(target, length, this.#count, -1);
    const pseudo = fold(this.#checksum + upper);
    target.setUint16(this.#checksumAt, pseudo);
    this.length = length;
    if (this.#partial) {
      this.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
      this.headerLength = headerSize;
      this.csumStart = at;
      this.csumOffset = this.#checksumAt - at;
      return;
    }
    this.#plain();
    const total = fold(sumBytes(target, at, headerSize) + sum);
    target.setUint16(this.#checksumAt, this.#kind === TCP ? finish(total) : finishUdp(total));
  }

  #fragment(target: DataView, size: number, last: boolean): void {
    const place = this.#position - this.#headerSize;
    let at = this.#headerSize;
    if (this.#ipVersion === 6) {
      target.setUint8(at, this.#view.getUint8(this.#nextHeaderOffset));
      target.setUint8(this.#nextHeaderOffset, IPPROTO_FRAGMENT);
      target.setUint8(at + 1, 0);
      target.setUint16(at + 2, place | (last ? 0 : 1));
      target.setUint32(at + 4, this.#fragmentId);
      at += FRAGMENT_HEADER_SIZE;
    } else if (place > 0) {
      this.#dropOptions(target);
    }
    copyAndSum(this.#view, this.#position, target, at, size);
    // In whichever fragment it is: IPv6 may have options before UDP. Fragments never cut it, for it ends a unit.
    const field = this.#checksumAt - this.#position;
    if (field >= 0 && field < size) target.setUint16(at + field, this.#checksum);
    this.#ipHeader(target, at + size, 0, (place / FRAGMENT_UNIT) | (last ? 0 : IPV4_MF));
    this.length = at + size;
    this.#plain();
  }

  #plain(): void {
    this.flags = 0;
    this.headerLength = 0;
    this.csumStart = 0;
    this.csumOffset = 0;
  }

  /** @param fragment Of IPv4: flags and offset to be written, or -1. */
  #ipHeader(target: DataView, length: number, idStep: number, fragment: number): void {
    const at = this.#networkOffset;
    if (this.#ipVersion === 6) {
      target.setUint16(at + 4, length - at - 40);
      return;
    }
    target.setUint16(at + 2, length - at);
    target.setUint16(at + 4, this.#view.getUint16(at + 4) + idStep);
    if (fragment >= 0) target.setUint16(at + 6, fragment);
    target.setUint16(at + 10, ipv4HeaderChecksum(target, at, this.#transportOffset - at));
  }

  /** Only options with the highest bit set stand in every fragment (RFC 791, 3.1); no-operations take the others' places. */
  #dropOptions(target: DataView): void {
    let at = this.#networkOffset + IPV4_OPTIONS;
    const end = this.#transportOffset;
    while (at < end) {
      const type = target.getUint8(at);
      if (type === 0) return;
      let size = type === IPOPT_NOP || at + 1 === end ? 1 : target.getUint8(at + 1);
      // Not a length: what follows cannot be told apart.
      if (size < 1 || at + size > end) size = end - at;
      if ((type & 0x80) === 0) {
        for (let i = 0; i < size; i++) target.setUint8(at + i, IPOPT_NOP);
      }
      at += size;
    }
  }
}
