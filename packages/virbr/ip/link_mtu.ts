/** Packets of IPv4, and links that they are too long for (RFC 791, 3.2; RFC 1191). */
import {
  type Frame,
  type FrameSink,
  pass,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "@virtio/net";
import { finish, ipv4HeaderChecksum, sumBytes } from "@virtio/net/wire";
import { Fragmenter } from "./fragmenter.ts";
import { IcmpType } from "./icmp.ts";
import { IpProtocol } from "./packet.ts";

const IP = 14;
const HEADER = 20;
const DONT_FRAGMENT = 0x4000;
const OFFSET = 0x1fff;
const FRAGMENTATION_NEEDED = 4;
const ICMP_HEADER = 8;
/** What an error quotes: the header, and eight bytes of what follows (RFC 792). */
const QUOTE = HEADER + 8;

/** Bytes of the longest packet that a frame becomes on its way: one that is not segmented is one packet. */
export function packetLength(frame: Frame): number {
  const { view, gsoType, gsoSize, headLength } = frame;
  if (gsoType === VIRTIO_NET_HDR_GSO_NONE) return frame.length - IP;
  const size = (view.getUint8(IP) & 15) * 4;
  const at = IP + size + 12;
  if (gsoType === VIRTIO_NET_HDR_GSO_UDP_L4) return size + 8 + gsoSize;
  return size + (at < headLength ? (view.getUint8(at) >> 4) * 4 : 20) + gsoSize;
}

/** Whether a packet may be cut: its sender has not ruled it out. One with options is not, since not all parts need them. */
export function mayCut(frame: Frame): boolean {
  const { view } = frame;
  return frame.gsoType === VIRTIO_NET_HDR_GSO_NONE && view.getUint8(IP) === 0x45 &&
    (view.getUint16(IP + 6) & DONT_FRAGMENT) === 0;
}

/** Cuts packets that are too long for a link. */
export class Cutter implements FrameSink {
  /** What is cut needs all its sums. */
  readonly offloads: number = 0;
  readonly #fragmenter: Fragmenter = new Fragmenter();
  readonly #mtu: number;
  #send: (frame: Frame) => void = () => {};

  /** @param mtu Of the link. */
  constructor(mtu: number) {
    this.#mtu = mtu;
  }

  /** Cuts a packet. @param send Gets each part, to be used during the call. */
  cut(frame: Frame, send: (frame: Frame) => void): void {
    this.#send = send;
    pass(frame, this);
  }

  deliver(frame: Frame): void {
    frame.hold();
    this.#fragmenter.start(frame, 4, this.#mtu, 0);
    let part: Frame | null;
    while ((part = this.#fragmenter.next()) !== null) this.#send(part);
  }
}

/** Whether the sender of a packet may be told that it is too long: nobody is told about an error, or twice about parts. */
export function mayTell({ view }: Frame): boolean {
  if ((view.getUint16(IP + 6) & OFFSET) !== 0) return false;
  if (view.getUint8(IP + 9) !== IpProtocol.icmp) return true;
  const type = view.getUint8(IP + (view.getUint8(IP) & 15) * 4);
  return type === IcmpType.echoReply || type === IcmpType.echoRequest;
}

/**
 * Writes an error behind the Ethernet header of a frame: a packet was too long for the next link.
 *
 * @param source Whose error it is.
 */
export function writeTooLong(frame: Frame, about: Frame, source: number, mtu: number): void {
  const { view, buffer } = frame;
  const length = HEADER + ICMP_HEADER + QUOTE;
  view.setUint32(IP, 0x4500_0000 | length);
  view.setUint32(IP + 4, 0);
  view.setUint16(IP + 8, 64 << 8 | IpProtocol.icmp);
  view.setUint32(IP + 12, source);
  view.setUint32(IP + 16, about.view.getUint32(IP + 12));
  view.setUint16(IP + 10, ipv4HeaderChecksum(view, IP, HEADER));
  const at = IP + HEADER;
  view.setUint32(at, IcmpType.unreachable << 24 | FRAGMENTATION_NEEDED << 16);
  view.setUint32(at + 4, mtu);
  buffer.set(about.head.subarray(IP, IP + QUOTE), at + ICMP_HEADER);
  view.setUint16(at + 2, finish(sumBytes(view, at, at + ICMP_HEADER + QUOTE)));
  frame.plain();
  frame.setLength(IP + length);
}
