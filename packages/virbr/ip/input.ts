/** Reads packets of guests: headers, lengths, checksums, fragments. What does not keep the rules goes no further. */
import {
  type Frame,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
} from "@virtio/net";
import { completeChecksum, fold, sumBytes } from "@virtio/net/wire";
import type { Station } from "../wire/station.ts";
import { isIpv4, readIpv4, readIpv6 } from "./address.ts";
import { type AddressWords, type IpPacket, IpProtocol } from "./packet.ts";
import { type FragmentInfo, Reassembly, type ReassemblyLimits } from "./reassembly.ts";

const ETHERNET = 14;
const IPV4 = 20;
const IPV6 = 40;
/** Bytes of a packet: of IPv6 too, though its own limit does not count its header. */
const MOST = 65_535;
const MAX_EXTENSIONS = 6;

/** The packet in hand; also what reassembly reads of a fragment. */
export class InputPacket implements IpPacket, FragmentInfo {
  guest!: Station;
  version = 4;
  readonly source: AddressWords = new Uint32Array(4);
  readonly destination: AddressWords = new Uint32Array(4);
  local = false;
  protocol = 0;
  hopLimit = 0;
  trafficClass = 0;
  dontFragment = false;
  buffer: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(new ArrayBuffer(0));
  headerOffset = 0;
  offset = 0;
  length = 0;
  checksumGood = false;
  gsoSize = 0;
  identification = 0;
  place = 0;
  more = false;

  get headerSize(): number {
    return this.offset - this.headerOffset;
  }
}

/** Why packets were not taken. */
export interface InputDrops {
  /** Headers that break a rule. */
  malformed: number;
  /** Wrong checksums. */
  checksum: number;
  /** Fragments that overlap, are too many, or waited in vain. */
  fragments: number;
}

/** What became of a frame: a packet is in hand, nothing is, or a header asks for an error of ICMPv6 about its next header. */
export type Outcome = "packet" | "nothing";

/** Reads frames into one packet. */
export class Input {
  readonly packet: InputPacket = new InputPacket();
  readonly drops: InputDrops = { malformed: 0, checksum: 0, fragments: 0 };
  readonly reassembly: Reassembly;

  constructor(limits?: ReassemblyLimits) {
    this.reassembly = new Reassembly(limits);
  }

  /** Reads a frame of IPv4. @returns Whether `packet` is one now. */
  ipv4(frame: Frame, guest: Station, now: number): boolean {
    frame.hold();
    const { packet } = this;
    const { view, length } = frame;
    if (length < ETHERNET + IPV4) return this.#malformed();
    const first = view.getUint8(ETHERNET);
    const size = (first & 15) * 4;
    if (first >> 4 !== 4 || size < IPV4 || ETHERNET + size > length) return this.#malformed();
    let total = view.getUint16(ETHERNET + 2);
    // Drivers that have a packet segmented may leave the length 0, since every segment has another.
    if (total === 0 && frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) total = length - ETHERNET;
    if (total < size || total > MOST || ETHERNET + total > length) return this.#malformed();
    if (sumBytes(view, ETHERNET, ETHERNET + size) !== 0xffff) return this.#damaged();
    const place = view.getUint16(ETHERNET + 6);
    packet.version = 4;
    packet.trafficClass = view.getUint8(ETHERNET + 1);
    packet.identification = view.getUint16(ETHERNET + 4);
    packet.dontFragment = (place & 0x4000) !== 0;
    packet.hopLimit = view.getUint8(ETHERNET + 8);
    packet.protocol = view.getUint8(ETHERNET + 9);
    readIpv4(view, ETHERNET + 12, packet.source);
    readIpv4(view, ETHERNET + 16, packet.destination);
    this.#place(frame, guest, ETHERNET + size, total - size);
    if (packet.hopLimit === 0) return this.#malformed();
    if ((place & 0x3fff) === 0) return this.#whole(frame, now);
    packet.place = (place & 0x1fff) * 8;
    packet.more = (place & 0x2000) !== 0;
    return this.#fragment(frame, now);
  }

  /** Reads a frame of IPv6. @returns Whether `packet` is one now. */
  ipv6(frame: Frame, guest: Station, now: number): boolean {
    frame.hold();
    const { packet } = this;
    const { view } = frame;
    if (frame.length < ETHERNET + IPV6) return this.#malformed();
    const first = view.getUint32(ETHERNET);
    if (first >>> 28 !== 6) return this.#malformed();
    let payload = view.getUint16(ETHERNET + 4);
    if (payload === 0 && frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) {
      payload = frame.length - ETHERNET - IPV6;
    }
    const end = ETHERNET + IPV6 + payload;
    if (IPV6 + payload > MOST || end > frame.length) return this.#malformed();
    packet.version = 6;
    packet.trafficClass = first >>> 20 & 0xff;
    packet.dontFragment = true;
    packet.hopLimit = view.getUint8(ETHERNET + 7);
    readIpv6(view, ETHERNET + 8, packet.source);
    readIpv6(view, ETHERNET + 24, packet.destination);
    // Mapped addresses never travel (RFC 4291, 2.5.5.2); here they would pass for IPv4.
    if (isIpv4(packet.source) || isIpv4(packet.destination)) return this.#malformed();
    let at = ETHERNET + IPV6;
    let next = view.getUint8(ETHERNET + 6);
    for (let i = 0; next === 0 || next === 43 || next === 60 || next === 44; i++) {
      if (i === MAX_EXTENSIONS || at + 8 > end) return this.#malformed();
      const following = view.getUint8(at);
      if (next === 44) {
        const place = view.getUint16(at + 2);
        packet.identification = view.getUint32(at + 4);
        packet.protocol = following;
        packet.place = place & 0xfff8;
        packet.more = (place & 1) !== 0;
        // The fixed header is enough for what comes after: nobody looks at the extensions again.
        this.#place(frame, guest, at + 8, end - at - 8);
        if (packet.place === 0 && !packet.more) break;
        return this.#fragment(frame, now);
      }
      // A routing header with segments left asks us to forward: never (RFC 5095).
      if (next === 43 && view.getUint8(at + 3) !== 0) return this.#malformed();
      at += (view.getUint8(at + 1) + 1) * 8;
      if (at > end) return this.#malformed();
      next = following;
    }
    if (next !== 44) {
      packet.protocol = next;
      this.#place(frame, guest, at, end - at);
    }
    if (packet.hopLimit === 0) return this.#malformed();
    return this.#whole(frame, now);
  }

  #place(frame: Frame, guest: Station, offset: number, length: number): void {
    const { packet } = this;
    packet.guest = guest;
    packet.buffer = frame.buffer;
    packet.view = frame.view;
    packet.headerOffset = ETHERNET;
    packet.offset = offset;
    packet.length = length;
    packet.gsoSize = 0;
    packet.checksumGood = false;
  }

  #whole(frame: Frame, _now: number): boolean {
    const { packet } = this;
    const at = transportChecksum(packet.protocol);
    if ((frame.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      if (frame.csumStart === packet.offset && frame.csumOffset === at) {
        // Whoever left it to be completed has just made the packet.
        packet.checksumGood = true;
      } else if (
        frame.csumStart < packet.offset ||
        !completeChecksum(frame.view, frame.length, frame.csumStart, frame.csumOffset, false)
      ) return this.#malformed();
    } else if ((frame.flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) packet.checksumGood = true;
    if (frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) {
      if (frame.gsoSize === 0 || !packet.checksumGood) return this.#malformed();
      packet.gsoSize = frame.gsoSize;
    }
    return this.#verify();
  }

  #fragment(frame: Frame, now: number): boolean {
    if ((frame.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 || frame.gsoType !== 0) {
      return this.#malformed();
    }
    const { packet, reassembly } = this;
    const outcome = packet.hopLimit === 0 ? "dropped" : reassembly.take(
      packet.version === 6 ? new FragmentOf6(packet) : packet,
      now,
    );
    if (outcome !== "whole") {
      if (outcome === "dropped") this.drops.fragments++;
      return false;
    }
    packet.buffer = reassembly.buffer;
    packet.view = reassembly.view;
    packet.headerOffset = reassembly.headerOffset;
    packet.offset = reassembly.offset;
    packet.length = reassembly.length;
    // What is quoted in errors says what the whole is.
    const { view, headerOffset } = packet;
    if (packet.version === 4) {
      view.setUint16(headerOffset + 2, packet.headerSize + packet.length);
      view.setUint16(headerOffset + 6, 0);
    } else {
      view.setUint16(headerOffset + 4, packet.length);
      view.setUint8(headerOffset + 6, packet.protocol);
    }
    return this.#verify();
  }

  /** Checks the transport's checksum unless it is known to be good. */
  #verify(): boolean {
    const { packet } = this;
    if (packet.checksumGood) return true;
    const { view, offset, protocol, version } = packet;
    let { length } = packet;
    switch (protocol) {
      case IpProtocol.icmp:
        if (version !== 4) return true;
        if (length < 8) return this.#malformed();
        packet.checksumGood = sumBytes(view, offset, offset + length) === 0xffff;
        return packet.checksumGood || this.#damaged();
      case IpProtocol.icmpv6:
        if (version !== 6) return true;
        if (length < 4) return this.#malformed();
        break;
      case IpProtocol.udp: {
        if (length < 8) return this.#malformed();
        const own = view.getUint16(offset + 4);
        if (own < 8 || own > length) return this.#malformed();
        length = own;
        if (view.getUint16(offset + 6) === 0) {
          packet.checksumGood = version === 4;
          return version === 4 || this.#damaged();
        }
        break;
      }
      case IpProtocol.tcp:
        if (length < 20) return this.#malformed();
        break;
      default:
        return true;
    }
    let sum = protocol + length;
    for (let i = version === 4 ? 3 : 0; i < 4; i++) {
      const from = packet.source[i]!;
      const to = packet.destination[i]!;
      sum += (from >>> 16) + (from & 0xffff) + (to >>> 16) + (to & 0xffff);
    }
    packet.checksumGood = fold(sum + sumBytes(view, offset, offset + length)) === 0xffff;
    return packet.checksumGood || this.#damaged();
  }

  #malformed(): false {
    this.drops.malformed++;
    return false;
  }

  #damaged(): false {
    this.drops.checksum++;
    return false;
  }
}

/** Where a transport's checksum is; -1 if it has none. */
function transportChecksum(protocol: number): number {
  switch (protocol) {
    case IpProtocol.tcp:
      return 16;
    case IpProtocol.udp:
      return 6;
    case IpProtocol.icmp:
    case IpProtocol.icmpv6:
      return 2;
    default:
      return -1;
  }
}

/** A fragment of IPv6, whose header for reassembly is the fixed one alone. */
class FragmentOf6 implements FragmentInfo {
  readonly guest: Station;
  readonly version = 6;
  readonly source: AddressWords;
  readonly destination: AddressWords;
  readonly protocol: number;
  readonly identification: number;
  readonly place: number;
  readonly more: boolean;
  readonly buffer: Uint8Array;
  readonly headerOffset: number;
  readonly headerSize: number = IPV6;
  readonly offset: number;
  readonly length: number;

  constructor(packet: InputPacket) {
    this.guest = packet.guest;
    this.source = packet.source;
    this.destination = packet.destination;
    this.protocol = packet.protocol;
    this.identification = packet.identification;
    this.place = packet.place;
    this.more = packet.more;
    this.buffer = packet.buffer;
    this.headerOffset = packet.headerOffset;
    this.offset = packet.offset;
    this.length = packet.length;
  }
}
