/**
 * DHCPv6 (RFC 8415): resolvers and search domains for those who made an address of a prefix, as the router advertises; and an
 * address for who insists on getting one. Each station has one such address, made of its MAC address, so that nothing is to be
 * remembered.
 */
import type { MacAddress } from "@virtio/net/wire";
import { sameAddress } from "../ip/address.ts";
import type { AddressWords, IpPacket } from "../ip/packet.ts";
import {
  type Association,
  Dhcp6Option,
  type Dhcp6Request,
  Dhcp6Status,
  Dhcp6Type,
  Dhcp6Writer,
  readDhcp6,
} from "./message6.ts";

/** Ports of UDP. */
export const DHCP6_SERVER_PORT = 547;
/** Where clients listen. */
export const DHCP6_CLIENT_PORT = 546;

/** Seconds after which clients ask again for what is no address. */
const REFRESH = 3600;
/** Bytes that an association takes in an answer at most: its head, an address of ours, and eight others. */
const ASSOCIATION_ROOM = 16 + 28 * 9;

/** What is told to clients. */
export interface Dhcp6Settings {
  readonly mac: MacAddress;
  /** The network. */
  readonly prefix: AddressWords;
  /** Null if there is none. */
  readonly resolver: AddressWords | null;
  /** In the format of DNS; empty if there is none. */
  readonly search: Uint8Array;
  /** Seconds that an address is good. */
  readonly leaseTime: number;
  /** Whether an address belongs to somebody else already, or to the gateway. */
  taken(address: AddressWords, mac: MacAddress): boolean;
}

/** What the server counted. */
export interface Dhcp6Stats {
  /** Questions answered. */
  answered: number;
  /** Messages that were none, or are not for us. */
  refused: number;
}

/** The server. It remembers nothing about its clients. */
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

  /** Answers a datagram. @param mac Of who sent it. @returns Null if there is nothing to say. */
  answer(
    packet: IpPacket,
    offset: number,
    length: number,
    mac: MacAddress,
  ): Uint8Array | null {
    const request = readDhcp6(packet.view, offset, offset + length);
    if (request === null || !this.#isForUs(request)) {
      this.stats.refused++;
      return null;
    }
    this.stats.answered++;
    const { type, transaction, clientId, rapid, associations } = request;
    const { search, resolver } = this.#settings;
    const soliciting = type === Dhcp6Type.solicit;
    const writer = new Dhcp6Writer(
      soliciting && !rapid ? Dhcp6Type.advertise : Dhcp6Type.reply,
      transaction,
      clientId.length + search.length + ASSOCIATION_ROOM * associations.length,
    );
    if (clientId.length > 0) writer.put(Dhcp6Option.clientId, clientId);
    writer.put(Dhcp6Option.serverId, this.#id);
    if (type === Dhcp6Type.release || type === Dhcp6Type.decline) {
      writer.putStatus(Dhcp6Status.success);
      return writer.bytes;
    }
    const own = this.#addressOf(mac);
    if (type === Dhcp6Type.confirm) {
      const fine = associations.every(({ addresses }) =>
        addresses.every((one) => sameAddress(one, own))
      );
      writer.putStatus(fine ? Dhcp6Status.success : Dhcp6Status.notOnLink);
      return writer.bytes;
    }
    if (soliciting && rapid) writer.put(Dhcp6Option.rapidCommit, []);
    let free = !this.#settings.taken(own, mac);
    for (const association of associations) {
      this.#associate(writer, association, free ? own : null);
      if (association.option === Dhcp6Option.addresses) free = false;
    }
    if (resolver !== null) writer.putAddress(Dhcp6Option.resolvers, resolver);
    if (search.length > 0) writer.put(Dhcp6Option.domains, search);
    if (type === Dhcp6Type.informationRequest) {
      writer.put(Dhcp6Option.refresh, [0, 0, REFRESH >> 8, REFRESH & 0xff]);
    }
    return writer.bytes;
  }

  /** Whether a message says who asks, and whom (RFC 8415, 16). */
  #isForUs({ type, clientId, serverId, associations }: Dhcp6Request): boolean {
    const named = clientId.length > 0;
    const ours = serverId !== null && serverId.length === this.#id.length &&
      serverId.every((byte, i) => byte === this.#id[i]);
    switch (type) {
      case Dhcp6Type.solicit:
      case Dhcp6Type.rebind:
        return named && serverId === null;
      case Dhcp6Type.confirm:
        return named && serverId === null &&
          associations.some(({ addresses }) => addresses.length > 0);
      case Dhcp6Type.request:
      case Dhcp6Type.renew:
      case Dhcp6Type.release:
      case Dhcp6Type.decline:
        return named && ours;
      case Dhcp6Type.informationRequest:
        return (serverId === null || ours) && associations.length === 0;
      default:
        return false;
    }
  }

  /** Says what a client gets: an address, and that others are not its own; or that there is none. */
  #associate(writer: Dhcp6Writer, association: Association, own: AddressWords | null): void {
    const { leaseTime } = this.#settings;
    const { option, addresses } = association;
    if (option !== Dhcp6Option.addresses || own === null) {
      const prefixes = option === Dhcp6Option.prefixes;
      const status = prefixes ? Dhcp6Status.noPrefix : Dhcp6Status.noAddresses;
      writer.putAssociation(association, 0, () => writer.putStatus(status));
      return;
    }
    writer.putAssociation(association, Math.floor(leaseTime / 2), () => {
      writer.putLease(own, leaseTime);
      for (const one of addresses) if (!sameAddress(one, own)) writer.putLease(one, 0);
    });
  }

  #addressOf({ high, low }: MacAddress): AddressWords {
    const address = this.#settings.prefix.slice();
    address[2] = high >>> 8;
    address[3] = ((high & 0xff) << 24 | low) >>> 0;
    return address;
  }
}
