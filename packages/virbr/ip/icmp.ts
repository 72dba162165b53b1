/** Messages of ICMP and ICMPv6: echo answered, errors sent. */
import type { Station } from "../wire/station.ts";
import { isGroup, isUnspecified, writeIpv6 } from "./address.ts";
import type { StationPath } from "./output.ts";
import type { Output } from "./output.ts";
import {
  type AddressWords,
  type IcmpErrorKind,
  type IpPacket,
  IpProtocol,
  type Path,
} from "./packet.ts";

/** Types of ICMP (RFC 792) and ICMPv6 (RFC 4443). */
export const IcmpType = {
  echoReply: 0,
  unreachable: 3,
  echoRequest: 8,
  timeExceeded: 11,
  parameterProblem: 12,
  unreachable6: 1,
  tooBig6: 2,
  timeExceeded6: 3,
  parameterProblem6: 4,
  echoRequest6: 128,
  echoReply6: 129,
} as const;

/** Bytes of an error at most, IP header included (RFC 1812, 4.3.2.3; RFC 4443, 2.4). */
const MOST_4 = 576;
const MOST_6 = 1280;

/** Type and code of each kind: IPv4, then IPv6. */
const CODES: Record<IcmpErrorKind, readonly [number, number, number, number]> = {
  network: [IcmpType.unreachable, 0, IcmpType.unreachable6, 0],
  host: [IcmpType.unreachable, 1, IcmpType.unreachable6, 3],
  protocol: [IcmpType.unreachable, 2, IcmpType.parameterProblem6, 1],
  port: [IcmpType.unreachable, 3, IcmpType.unreachable6, 4],
  tooBig: [IcmpType.unreachable, 4, IcmpType.tooBig6, 0],
  prohibited: [IcmpType.unreachable, 13, IcmpType.unreachable6, 1],
  hopLimit: [IcmpType.timeExceeded, 0, IcmpType.timeExceeded6, 0],
};

/** Whether a message of ICMP is an error: there is never one about it. */
export function isIcmpError(packet: IpPacket): boolean {
  const type = packet.view.getUint8(packet.offset);
  if (packet.version === 6) return type < 128;
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
}

/** Whether a packet may be answered with an error (RFC 1122, 3.2.2; RFC 4443, 2.4). */
export function mayRefuse(packet: IpPacket, kind: IcmpErrorKind): boolean {
  if (isUnspecified(packet.source) || isGroup(packet.source)) return false;
  if (isGroup(packet.destination) && !(packet.version === 6 && kind === "tooBig")) return false;
  const own = packet.version === 6 ? IpProtocol.icmpv6 : IpProtocol.icmp;
  return packet.protocol !== own || (packet.length > 0 && !isIcmpError(packet));
}

/** Sends an error that quotes a packet. @param path To the packet's sender. */
export function sendError(
  output: Output,
  path: StationPath,
  kind: IcmpErrorKind,
  packet: IpPacket,
  mtu: number,
): void {
  if (!output.begin(path)) return;
  const { buffer, start } = output;
  header(output, path, kind, mtu);
  const from = packet.headerOffset;
  const most = (path.version === 4 ? MOST_4 - 20 : MOST_6 - 40) - 8;
  const size = Math.min(most, packet.offset + packet.length - from);
  buffer.set(packet.buffer.subarray(from, from + size), start + 8);
  output.finish(8 + size, 2, 0);
}

/** Sends an error about a packet of the past, whose IP header is made up from its flow. */
export function sendRejection(
  output: Output,
  path: StationPath,
  kind: IcmpErrorKind,
  flow: Path,
  quote: Uint8Array,
  mtu: number,
): void {
  if (!output.begin(path)) return;
  const { buffer, view, start } = output;
  header(output, path, kind, mtu);
  const at = start + 8;
  const size = Math.min(quote.length, 512);
  if (path.version === 4) {
    view.setUint32(at, 0x4500_0000 | 20 + quote.length);
    view.setUint32(at + 4, 0x4000);
    view.setUint8(at + 8, 64);
    view.setUint8(at + 9, flow.protocol);
    view.setUint16(at + 10, 0);
    view.setUint32(at + 12, flow.destination[3]!);
    view.setUint32(at + 16, flow.source[3]!);
  } else {
    view.setUint32(at, 0x6000_0000);
    view.setUint16(at + 4, quote.length);
    view.setUint8(at + 6, flow.protocol);
    view.setUint8(at + 7, 64);
    writeIpv6(view, at + 8, flow.destination);
    writeIpv6(view, at + 24, flow.source);
  }
  const ipSize = path.version === 4 ? 20 : 40;
  buffer.set(quote.subarray(0, size), at + ipSize);
  output.finish(8 + ipSize + size, 2, 0);
}

/** Answers an echo request. @param path To the asker. */
export function sendEchoReply(output: Output, path: StationPath, packet: IpPacket): void {
  if (!output.begin(path) || packet.length > output.room) return;
  const { buffer, view, start } = output;
  buffer.set(packet.buffer.subarray(packet.offset, packet.offset + packet.length), start);
  view.setUint8(start, path.version === 4 ? IcmpType.echoReply : IcmpType.echoReply6);
  output.finish(packet.length, 2, 0);
}

/** Which address of the gateway's answers a packet: the one that was asked, else that of the same version. */
export function answerFrom(
  packet: IpPacket,
  addresses: readonly AddressWords[],
): AddressWords | null {
  if (packet.local && !isGroup(packet.destination)) return packet.destination;
  const wanted = packet.version === 4 ? 0 : 1;
  return addresses[wanted] ?? null;
}

/** Whether a station may be told of an error now. */
export function mayTell(station: Station, now: number): boolean {
  return station.errors.take(now);
}

function header(output: Output, path: StationPath, kind: IcmpErrorKind, mtu: number): void {
  const { view, start } = output;
  const codes = CODES[kind];
  const at = path.version === 4 ? 0 : 2;
  view.setUint8(start, codes[at]!);
  view.setUint8(start + 1, codes[at + 1]!);
  view.setUint16(start + 2, 0);
  // The next hop's MTU (RFC 1191), or where the wrong next header is: that of the fixed header.
  const rest = kind === "tooBig" ? mtu : kind === "protocol" && path.version === 6 ? 6 : 0;
  view.setUint32(start + 4, rest);
}
