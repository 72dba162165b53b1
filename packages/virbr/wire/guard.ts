/**
 * What a station may say about itself. A frame that speaks for another, or for the gateway, goes nowhere: neither to the
 * gateway nor to other guests.
 */
import { ETHERNET_HEADER_SIZE, type Frame } from "@virtio/net";
import { isUnspecified, readIpv6 } from "../ip/address.ts";
import { IpProtocol } from "../ip/packet.ts";
import type { Station } from "./station.ts";
import type { Stations } from "./stations.ts";

/** EtherTypes (IEEE 802 numbers). */
export const EtherType = {
  ipv4: 0x0800,
  arp: 0x0806,
  vlan: 0x8100,
  ipv6: 0x86dd,
  vlanService: 0x88a8,
} as const;

/** What becomes of a frame. */
export const Verdict = { fine: 0, spoofed: 1, malformed: 2, rogue: 3, tagged: 4 } as const;
/** One of `Verdict`. */
export type VerdictValue = (typeof Verdict)[keyof typeof Verdict];

const IP = ETHERNET_HEADER_SIZE;
const ARP_SIZE = 28;
const MAX_EXTENSIONS = 6;
const ND_TYPES = { advertisement: 134, neighbour: 136, redirect: 137 } as const;

/** Looks at a frame of a station. Only the frame's head is read. */
export function guard(frame: Frame, station: Station, stations: Stations): VerdictValue {
  const { view, headLength } = frame;
  switch (view.getUint16(12)) {
    case EtherType.ipv4:
      return guardIpv4(view, headLength, station, stations);
    case EtherType.ipv6:
      return guardIpv6(view, headLength, station, stations);
    case EtherType.arp:
      return guardArp(view, headLength, station, stations);
    case EtherType.vlan:
    case EtherType.vlanService:
      // What is behind a tag is not looked at, so it does not pass.
      return Verdict.tagged;
    default:
      return Verdict.fine;
  }
}

function guardArp(
  view: DataView,
  length: number,
  station: Station,
  stations: Stations,
): VerdictValue {
  if (length < IP + ARP_SIZE) return Verdict.malformed;
  if (view.getUint32(IP) !== 0x0001_0800 || view.getUint16(IP + 4) !== 0x0604) {
    return Verdict.malformed;
  }
  const high = view.getUint32(IP + 8) >>> 8;
  const low = view.getUint32(IP + 10) & 0xff_ffff;
  if (high !== station.high || low !== station.low) return Verdict.spoofed;
  const sender = view.getUint32(IP + 14);
  // A probe (RFC 5227) says nothing yet.
  return sender === 0 || stations.claim4(station, sender) ? Verdict.fine : Verdict.spoofed;
}

function guardIpv4(
  view: DataView,
  length: number,
  station: Station,
  stations: Stations,
): VerdictValue {
  if (length < IP + 20) return Verdict.malformed;
  const size = (view.getUint8(IP) & 15) * 4;
  if (view.getUint8(IP) >> 4 !== 4 || size < 20) return Verdict.malformed;
  const first = (view.getUint16(IP + 6) & 0x1fff) === 0;
  const udp = view.getUint8(IP + 9) === IpProtocol.udp && first && length >= IP + size + 4;
  const ports = udp ? view.getUint32(IP + size) : 0;
  // Only the gateway gives out addresses.
  if (ports === 67 * 0x1_0000 + 68) return Verdict.rogue;
  if (view.getInt32(IP + 12) === station.latest4 && station.latest4 !== 0) return Verdict.fine;
  const source = view.getUint32(IP + 12);
  if (source === 0) return (ports & 0xffff) === 67 ? Verdict.fine : Verdict.spoofed;
  if (!stations.claim4(station, source)) return Verdict.spoofed;
  station.latest4 = source | 0;
  return Verdict.fine;
}

function guardIpv6(
  view: DataView,
  length: number,
  station: Station,
  stations: Stations,
): VerdictValue {
  if (length < IP + 40 || view.getUint8(IP) >> 4 !== 6) return Verdict.malformed;
  readIpv6(view, IP + 8, words);
  const from = isUnspecified(words);
  let next = view.getUint8(IP + 6);
  let at = IP + 40;
  // Behind extension headers too: a router advertisement may hide there (RFC 7113).
  for (let i = 0; next === 0 || next === 43 || next === 44 || next === 60; i++) {
    if (i === MAX_EXTENSIONS || at + 8 > length) return Verdict.malformed;
    if (next === 44 && (view.getUint16(at + 2) & 0xfff8) !== 0) {
      if (view.getUint8(at) === IpProtocol.icmpv6 && from) return Verdict.malformed;
      return stations.claim6(station, words) ? Verdict.fine : Verdict.spoofed;
    }
    const size = next === 44 ? 8 : (view.getUint8(at + 1) + 1) * 8;
    next = view.getUint8(at);
    at += size;
  }
  if (next === IpProtocol.icmpv6) {
    if (at + 4 > length) return Verdict.malformed;
    const type = view.getUint8(at);
    if (type === ND_TYPES.advertisement || type === ND_TYPES.redirect) return Verdict.rogue;
    if (type === ND_TYPES.neighbour) {
      if (from || at + 24 > length) return Verdict.malformed;
      readIpv6(view, at + 8, target);
      if (!stations.claim6(station, target)) return Verdict.spoofed;
    }
    if (from) return Verdict.fine;
  } else if (next === IpProtocol.udp) {
    if (at + 4 > length) return Verdict.malformed;
    if (view.getUint32(at) === 547 * 0x1_0000 + 546) return Verdict.rogue;
  }
  return !from && stations.claim6(station, words) ? Verdict.fine : Verdict.spoofed;
}

const words: Uint32Array = new Uint32Array(4);
const target: Uint32Array = new Uint32Array(4);
