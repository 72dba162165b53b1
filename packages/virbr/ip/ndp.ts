/** Neighbour discovery (RFC 4861) and router advertisement with resolvers (RFC 8106), for the gateway. */
import type { MacAddress } from "@virtio/net/wire";
import type { GuestPort } from "../wire/port.ts";
import type { Station } from "../wire/station.ts";
import { isUnspecified, readIpv6, sameAddress, type Subnet, writeIpv6 } from "./address.ts";
import { type Output, stationOf, StationPath } from "./output.ts";
import { type AddressWords, type IpPacket, IpProtocol } from "./packet.ts";

const ROUTER_SOLICITATION = 133;
const ROUTER_ADVERTISEMENT = 134;
const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;

const OPTION_SOURCE = 1;
const OPTION_TARGET = 2;
const OPTION_PREFIX = 3;
const OPTION_MTU = 5;
const OPTION_RDNSS = 25;
const OPTION_DNSSL = 31;

/** Seconds that what is advertised counts. */
const ROUTER_LIFETIME = 9000;
const PREFIX_LIFETIME = 86_400;

/** All nodes of the link (RFC 4291, 2.7.1). */
export const ALL_NODES: AddressWords = new Uint32Array([0xff02_0000, 0, 0, 1]);

/** What is advertised. */
export interface NeighboursOptions {
  readonly mac: MacAddress;
  /** The gateway's address of the prefix: the resolver. */
  readonly address: AddressWords;
  /** The gateway's link-local address: the router. */
  readonly linkLocal: AddressWords;
  /** With 64 bits; guests make addresses of it. */
  readonly prefix: Subnet;
  readonly mtu: number;
  /** Whether there is a way out: without it nobody is told to be a router. */
  readonly router: boolean;
  /** Whether the gateway resolves names. */
  readonly resolver: boolean;
  /** The search list in the format of DNS; empty if there is none. */
  readonly search: Uint8Array;
  /** Whether DHCPv6 tells more (the O flag). */
  readonly dhcp: boolean;
}

/** The gateway's part of neighbour discovery. */
export class Neighbours {
  readonly #options: NeighboursOptions;
  readonly #target: AddressWords = new Uint32Array(4);

  constructor(options: NeighboursOptions) {
    this.#options = options;
  }

  /** Takes a message to the gateway or a group. @returns Whether it was one of neighbour discovery. */
  receive(packet: IpPacket, output: Output): boolean {
    const { view, offset, length } = packet;
    if (length < 8) return false;
    const type = view.getUint8(offset);
    if (type < ROUTER_SOLICITATION || type > 137) return false;
    // Nothing of it has passed a router (RFC 4861, 6.1 and 7.1).
    if (packet.hopLimit !== 255 || view.getUint8(offset + 1) !== 0) return true;
    const guest = stationOf(packet.guest);
    if (type === ROUTER_SOLICITATION) {
      this.advertise(guest, isUnspecified(packet.source) ? ALL_NODES : packet.source, output);
    } else if (type === NEIGHBOUR_SOLICITATION && length >= 24) {
      readIpv6(view, offset + 8, this.#target);
      this.#answer(guest, packet.source, output);
    }
    return true;
  }

  /** Sends a router advertisement. */
  advertise(to: Station, destination: AddressWords, output: Output): void {
    const { linkLocal, prefix, mtu, router, resolver, address, search, dhcp } = this.#options;
    const path = new StationPath(to, linkLocal, destination, IpProtocol.icmpv6, mtu);
    path.hopLimit = 255;
    if (!output.begin(path)) return;
    const { view, buffer, start } = output;
    view.setUint32(start, ROUTER_ADVERTISEMENT << 24);
    view.setUint8(start + 4, 64);
    view.setUint8(start + 5, dhcp ? 0x40 : 0);
    view.setUint16(start + 6, router ? ROUTER_LIFETIME : 0);
    view.setUint32(start + 8, 0);
    view.setUint32(start + 12, 0);
    let at = start + 16;
    at = this.#link(output, at, OPTION_SOURCE);
    view.setUint16(at, OPTION_MTU << 8 | 1);
    view.setUint16(at + 2, 0);
    view.setUint32(at + 4, mtu);
    at += 8;
    view.setUint32(at, OPTION_PREFIX << 24 | 4 << 16 | prefix.prefix << 8 | 0xc0);
    view.setUint32(at + 4, PREFIX_LIFETIME);
    view.setUint32(at + 8, PREFIX_LIFETIME);
    view.setUint32(at + 12, 0);
    writeIpv6(view, at + 16, prefix.first);
    at += 32;
    if (resolver) {
      view.setUint32(at, OPTION_RDNSS << 24 | 3 << 16);
      view.setUint32(at + 4, ROUTER_LIFETIME);
      writeIpv6(view, at + 8, address);
      at += 24;
    }
    if (search.length > 0) {
      const units = 1 + Math.ceil(search.length / 8);
      view.setUint32(at, OPTION_DNSSL << 24 | units << 16);
      view.setUint32(at + 4, ROUTER_LIFETIME);
      buffer.fill(0, at + 8, at + units * 8);
      buffer.set(search, at + 8);
      at += units * 8;
    }
    output.finish(at - start, 2, 0);
  }

  /** Asks for the link-layer address of a neighbour at a port. */
  ask(port: GuestPort, address: AddressWords, output: Output): void {
    const station = port.last;
    if (station === null) return;
    const { mtu, address: own } = this.#options;
    const group = new Uint32Array([0xff02_0000, 0, 1, (0xff00_0000 | address[3]!) >>> 0]);
    const path = new StationPath(station, own, group, IpProtocol.icmpv6, mtu);
    path.hopLimit = 255;
    if (!output.begin(path)) return;
    const { view, start } = output;
    view.setUint32(start, NEIGHBOUR_SOLICITATION << 24);
    view.setUint32(start + 4, 0);
    writeIpv6(view, start + 8, address);
    const end = this.#link(output, start + 24, OPTION_SOURCE);
    output.finish(end - start, 2, 0);
  }

  /** Answers a solicitation for an address of the gateway's. */
  #answer(to: Station, source: AddressWords, output: Output): void {
    const { address, linkLocal, mtu } = this.#options;
    const own = sameAddress(this.#target, address)
      ? address
      : sameAddress(this.#target, linkLocal)
      ? linkLocal
      : null;
    if (own === null) return;
    // Who has no address yet tries one (RFC 4862, 5.4): all are told that it is taken.
    const solicited = !isUnspecified(source);
    const path = new StationPath(to, own, solicited ? source : ALL_NODES, IpProtocol.icmpv6, mtu);
    path.hopLimit = 255;
    if (!output.begin(path)) return;
    const { view, start } = output;
    view.setUint32(start, NEIGHBOUR_ADVERTISEMENT << 24);
    view.setUint32(start + 4, 0xa000_0000 | (solicited ? 0x4000_0000 : 0));
    writeIpv6(view, start + 8, own);
    const end = this.#link(output, start + 24, OPTION_TARGET);
    output.finish(end - start, 2, 0);
  }

  #link({ view }: Output, at: number, type: number): number {
    const { mac } = this.#options;
    view.setUint16(at, type << 8 | 1);
    view.setUint32(at + 2, mac.high << 8 | mac.low >>> 16);
    view.setUint16(at + 6, mac.low & 0xffff);
    return at + 8;
  }
}
