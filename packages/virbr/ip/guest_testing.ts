/** A guest of tests: makes frames byte by byte, and reads what comes. */
import { assert, assertEquals } from "@std/assert";
import { Frame, Offload } from "@virtio/net";
import { finish, finishUdp, fold, ipv4HeaderChecksum, sumBytes } from "@virtio/net/wire";
import type { VirbrPort } from "../wire/port.ts";
import { parseAddress, parseIpv4, readIpv6, writeIpv6 } from "./address.ts";
import { type AddressWords, IpProtocol } from "./packet.ts";

/** What came in an IP packet. */
export interface Heard {
  readonly version: 4 | 6;
  readonly source: AddressWords;
  readonly destination: AddressWords;
  readonly protocol: number;
  readonly hopLimit: number;
  /** Behind the IP header. */
  readonly payload: Uint8Array;
  /** The whole frame. */
  readonly bytes: Uint8Array;
  /** `gso_size` of the frame. */
  readonly gsoSize: number;
}

/** Fields of a packet of IPv4 that are not the usual ones. */
export interface Ipv4Fields {
  readonly id?: number;
  readonly flags?: number;
  readonly ttl?: number;
  readonly to?: string;
}

/** A guest with a MAC address, on a port. */
export class TestGuest {
  readonly mac: Uint8Array;
  readonly port: VirbrPort;
  /** Its address of IPv4 as text; it says so in what it sends. */
  ip: string;
  /** Its address of IPv6. */
  ip6 = "fe80::2";
  /** The gateway's MAC address. */
  gateway: Uint8Array;
  /** Frames that came, the oldest first. */
  readonly frames: { bytes: Uint8Array; gsoSize: number }[] = [];

  constructor(port: VirbrPort, mac: string, gateway: string, ip = "0.0.0.0", offloads = 0) {
    this.mac = macBytes(mac);
    this.gateway = macBytes(gateway);
    this.port = port;
    this.ip = ip;
    port.connect({
      offloads,
      deliver: (frame) => {
        assertEquals(frame.needs & ~offloads, 0);
        this.frames.push({ bytes: frame.bytes.slice(), gsoSize: frame.gsoSize });
      },
    });
  }

  /** Sends a frame. */
  send(bytes: Uint8Array): void {
    this.port.deliver(new Frame().fromBytes(bytes));
  }

  /** Takes what came and is an IP packet. */
  packets(): Heard[] {
    return this.frames.splice(0).map(({ bytes, gsoSize }) => readPacket(bytes, gsoSize))
      .filter((packet) => packet !== null);
  }

  /** A frame of ARP. */
  arp(operation: number, sender: string, target: string, mac: Uint8Array = this.mac): Uint8Array {
    const bytes = new Uint8Array(42);
    const view = new DataView(bytes.buffer);
    bytes.fill(255, 0, 6);
    bytes.set(this.mac, 6);
    view.setUint16(12, 0x0806);
    view.setUint32(14, 0x0001_0800);
    view.setUint32(18, 0x0604_0000 | operation);
    bytes.set(mac, 22);
    view.setUint32(28, parseIpv4(sender)!);
    view.setUint32(38, parseIpv4(target)!);
    return bytes;
  }

  /** A frame of IPv4. */
  ipv4(
    protocol: number,
    destination: string,
    payload: Uint8Array,
    fields: Ipv4Fields = {},
  ): Uint8Array {
    const bytes = new Uint8Array(34 + payload.length);
    const view = new DataView(bytes.buffer);
    bytes.set(fields.to === undefined ? this.gateway : macBytes(fields.to));
    bytes.set(this.mac, 6);
    view.setUint16(12, 0x0800);
    view.setUint16(14, 0x4500);
    view.setUint16(16, 20 + payload.length);
    view.setUint16(18, fields.id ?? 1);
    view.setUint16(20, fields.flags ?? 0);
    view.setUint8(22, fields.ttl ?? 64);
    view.setUint8(23, protocol);
    view.setUint32(26, parseIpv4(this.ip)!);
    view.setUint32(30, parseIpv4(destination)!);
    view.setUint16(24, ipv4HeaderChecksum(view, 14, 20));
    bytes.set(payload, 34);
    return bytes;
  }

  /** A frame of IPv6. */
  ipv6(protocol: number, destination: string, payload: Uint8Array, hopLimit = 64): Uint8Array {
    const bytes = new Uint8Array(54 + payload.length);
    const view = new DataView(bytes.buffer);
    const to = parseAddress(destination)!;
    bytes.set(this.gateway);
    if (to[0]! >>> 24 === 0xff) {
      view.setUint16(0, 0x3333);
      view.setUint32(2, to[3]!);
    }
    bytes.set(this.mac, 6);
    view.setUint16(12, 0x86dd);
    view.setUint32(14, 0x6000_0000);
    view.setUint16(18, payload.length);
    view.setUint8(20, protocol);
    view.setUint8(21, hopLimit);
    writeIpv6(view, 22, parseAddress(this.ip6)!);
    writeIpv6(view, 38, to);
    bytes.set(payload, 54);
    return bytes;
  }

  /** A datagram, with its checksum. */
  udp(from: number, to: number, destination: string, payload: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(8 + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, from);
    view.setUint16(2, to);
    view.setUint16(4, bytes.length);
    bytes.set(payload, 8);
    const source = destination.includes(":") ? this.ip6 : this.ip;
    view.setUint16(6, finishUdp(transportSum(view, IpProtocol.udp, source, destination)));
    return bytes;
  }

  /** A message of ICMP: type, code and the rest, with its checksum. */
  icmp(type: number, code: number, rest: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(4 + rest.length);
    const view = new DataView(bytes.buffer);
    bytes[0] = type;
    bytes[1] = code;
    bytes.set(rest, 4);
    view.setUint16(2, finish(sumBytes(view, 0, bytes.length)));
    return bytes;
  }

  /** A message of ICMPv6, with its checksum. */
  icmpv6(type: number, code: number, rest: Uint8Array, destination: string): Uint8Array {
    const bytes = this.icmp(type, code, rest);
    const view = new DataView(bytes.buffer);
    view.setUint16(2, 0);
    view.setUint16(2, finish(transportSum(view, IpProtocol.icmpv6, this.ip6, destination)));
    return bytes;
  }
}

/** Everything that a guest can be given. */
export const ALL_OFFLOADS: number = Offload.all;

/** Bytes of a MAC address. */
export function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(":"), (byte) => parseInt(byte, 16));
}

/** Reads a packet, and checks its headers' lengths and sums. Null if it is none of IP. */
export function readPacket(bytes: Uint8Array, gsoSize = 0): Heard | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const type = view.getUint16(12);
  const source = new Uint32Array(4);
  const destination = new Uint32Array(4);
  if (type === 0x0800) {
    assertEquals(sumBytes(view, 14, 34), 0xffff, "the sum of the IP header");
    const total = view.getUint16(16);
    assert(14 + total <= bytes.length, "the length of the packet");
    source.set([0, 0, 0xffff, view.getUint32(26)]);
    destination.set([0, 0, 0xffff, view.getUint32(30)]);
    return {
      version: 4,
      source,
      destination,
      protocol: view.getUint8(23),
      hopLimit: view.getUint8(22),
      payload: bytes.slice(34, 14 + total),
      bytes,
      gsoSize,
    };
  }
  if (type !== 0x86dd) return null;
  readIpv6(view, 22, source);
  readIpv6(view, 38, destination);
  const length = view.getUint16(18);
  assert(54 + length <= bytes.length, "the length of the packet");
  return {
    version: 6,
    source,
    destination,
    protocol: view.getUint8(20),
    hopLimit: view.getUint8(21),
    payload: bytes.slice(54, 54 + length),
    bytes,
    gsoSize,
  };
}

/** The partial sum of a transport's header and payload with its pseudo header. */
export function transportSum(
  view: DataView,
  protocol: number,
  source: string | AddressWords,
  destination: string | AddressWords,
): number {
  let sum = protocol + view.byteLength + sumBytes(view, 0, view.byteLength);
  for (const address of [source, destination]) {
    const words = typeof address === "string" ? parseAddress(address)! : address;
    const four = words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
    for (const word of four ? [words[3]!] : words) sum += (word >>> 16) + (word & 0xffff);
  }
  return fold(sum);
}

/** Asserts that the checksum of a transport is right. */
export function assertSum({ protocol, source, destination, payload }: Heard): void {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  if (protocol === IpProtocol.icmp) assertEquals(sumBytes(view, 0, view.byteLength), 0xffff);
  else assertEquals(transportSum(view, protocol, source, destination), 0xffff);
}
