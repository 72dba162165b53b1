/** DHCPv6 without addresses (RFC 8415, 6.1): resolvers and search domains for those who made an address of a prefix. */
import type { MacAddress } from "@virtio/net/wire";
import { writeIpv6 } from "../ip/address.ts";
import type { AddressWords, IpPacket } from "../ip/packet.ts";

/** Ports of UDP. */
export const DHCP6_SERVER_PORT = 547;
/** Where clients listen. */
export const DHCP6_CLIENT_PORT = 546;

const INFORMATION_REQUEST = 11;
const REPLY = 7;

const OPTION_CLIENT_ID = 1;
const OPTION_SERVER_ID = 2;
const OPTION_IA_NA = 3;
const OPTION_IA_TA = 4;
const OPTION_RESOLVERS = 23;
const OPTION_DOMAINS = 24;
const OPTION_REFRESH = 32;
const OPTION_IA_PD = 25;

/** Seconds after which clients ask again. */
const REFRESH = 3600;
/** Bytes of an identifier at most (RFC 8415, 11.1). */
const MOST_ID = 130;
const MOST_OPTIONS = 64;

/** What is told to clients. */
export interface Dhcp6Settings {
  readonly mac: MacAddress;
  /** Null if there is none. */
  readonly resolver: AddressWords | null;
  /** In the format of DNS; empty if there is none. */
  readonly search: Uint8Array;
}

/** What the server counted. */
export interface Dhcp6Stats {
  /** Questions answered. */
  answered: number;
  /** Messages that were none, or want what there is not. */
  refused: number;
}

/** The server. It knows nothing about its clients. */
export class Dhcp6Server {
  readonly stats: Dhcp6Stats = { answered: 0, refused: 0 };
  readonly #settings: Dhcp6Settings;
  /** DUID-LL: over Ethernet (RFC 8415, 11.4). */
  readonly #id: Uint8Array = new Uint8Array(10);

  constructor(settings: Dhcp6Settings) {
    this.#settings = settings;
    const { high, low } = settings.mac;
    const view = new DataView(this.#id.buffer);
    view.setUint32(0, 0x0003_0001);
    view.setUint32(4, high << 8 | low >>> 16);
    view.setUint16(8, low & 0xffff);
  }

  /** Answers a datagram. @returns Null if there is nothing to say. */
  answer(packet: IpPacket, offset: number, length: number): Uint8Array | null {
    const { view, buffer } = packet;
    const client = length < 4 ? null : this.#read(view, offset + 4, offset + length);
    // Who wants an address makes one itself: nothing else is advertised.
    if (client === null || view.getUint8(offset) !== INFORMATION_REQUEST) {
      this.stats.refused++;
      return null;
    }
    this.stats.answered++;
    const { resolver, search } = this.#settings;
    const reply = new Uint8Array(4 + 4 + MOST_ID + 14 + 20 + 4 + search.length + 8);
    const out = new DataView(reply.buffer);
    // The type, and the client's number of the exchange.
    out.setUint32(0, REPLY * 0x100_0000 + (view.getUint32(offset) & 0xff_ffff));
    let at = 4;
    const put = (option: number, bytes: Uint8Array): void => {
      out.setUint16(at, option);
      out.setUint16(at + 2, bytes.length);
      reply.set(bytes, at + 4);
      at += 4 + bytes.length;
    };
    if (client.length > 0) {
      put(OPTION_CLIENT_ID, buffer.subarray(client.from, client.from + client.length));
    }
    put(OPTION_SERVER_ID, this.#id);
    if (resolver !== null) {
      const bytes = new Uint8Array(16);
      writeIpv6(new DataView(bytes.buffer), 0, resolver);
      put(OPTION_RESOLVERS, bytes);
    }
    if (search.length > 0) put(OPTION_DOMAINS, search);
    put(OPTION_REFRESH, new Uint8Array([0, 0, REFRESH >> 8, REFRESH & 0xff]));
    return reply.subarray(0, at);
  }

  /** Where the client's identifier is; null if the message breaks a rule, or is not for us (RFC 8415, 16.12). */
  #read(view: DataView, from: number, to: number): { from: number; length: number } | null {
    let client = { from: 0, length: 0 };
    let at = from;
    for (let count = 0; at < to; count++) {
      if (count === MOST_OPTIONS || at + 4 > to) return null;
      const option = view.getUint16(at);
      const length = view.getUint16(at + 2);
      at += 4;
      if (at + length > to) return null;
      if (option === OPTION_IA_NA || option === OPTION_IA_TA || option === OPTION_IA_PD) {
        return null;
      }
      if (option === OPTION_CLIENT_ID) {
        if (length > MOST_ID) return null;
        client = { from: at, length };
      } else if (option === OPTION_SERVER_ID) {
        if (length !== this.#id.length) return null;
        for (let i = 0; i < length; i++) if (view.getUint8(at + i) !== this.#id[i]) return null;
      }
      at += length;
    }
    return client;
  }
}
