/** A DHCP server (RFC 2131) that is the only one on its network, and says so. */
import { parseIpv4 } from "../ip/address.ts";
import type { IpPacket } from "../ip/packet.ts";
import type { Station } from "../wire/station.ts";
import type { Entry, Leases } from "./leases.ts";
import { DhcpOption, DhcpRequest, DhcpType, DhcpWriter } from "./message.ts";

/** Ports of UDP. */
export const DHCP_SERVER_PORT = 67;
/** Where clients listen. */
export const DHCP_CLIENT_PORT = 68;

/** What is told to clients. */
export interface DhcpSettings {
  /** The server: the gateway's address. */
  readonly address: number;
  readonly mask: number;
  readonly broadcast: number;
  /** 0 if there is no way out. */
  readonly router: number;
  /** Resolvers, none if there are none. */
  readonly resolvers: readonly number[];
  /** Empty if there is none. */
  readonly domain: string;
  /** The search list in the format of DNS; empty if there is none. */
  readonly search: Uint8Array;
  readonly mtu: number;
  /** In seconds. */
  readonly leaseTime: number;
  /** What to boot from the network, if anything. */
  readonly boot: DhcpBoot | null;
}

/** Booting from the network. */
export interface DhcpBoot {
  /** The file, a name or a URL. */
  readonly file: string;
  /** The TFTP server, an address as text; the gateway unless given. */
  readonly server?: string;
}

/** What the server needs of the network. */
export interface DhcpHost {
  /** Sends a message to a client: to its address, or to all addresses if that is null. */
  send(to: Station, address: number | null, message: Uint8Array): void;
  /** A station got an address, or got it again. */
  bound(station: Station, entry: Entry): void;
  /** A station gave its address back. */
  released(station: Station, address: number): void;
}

/** What the server counted. */
export interface DhcpStats {
  /** Messages that were none, came through a relay, or spoke for another station. */
  refused: number;
  /** Clients that found the pool empty, or their port with as many leases as it may have. */
  exhausted: number;
  /** Messages by type: discover, offer and so on. */
  readonly messages: Record<keyof typeof DhcpType, number>;
}

/** The server. */
export class DhcpServer {
  readonly stats: DhcpStats = {
    refused: 0,
    exhausted: 0,
    messages: {
      discover: 0,
      offer: 0,
      request: 0,
      decline: 0,
      ack: 0,
      nak: 0,
      release: 0,
      inform: 0,
    },
  };
  readonly #settings: DhcpSettings;
  readonly #leases: Leases;
  readonly #host: DhcpHost;

  constructor(settings: DhcpSettings, leases: Leases, host: DhcpHost) {
    this.#settings = settings;
    this.#leases = leases;
    this.#host = host;
  }

  /** Takes a datagram. @param station Who sent it. */
  receive(packet: IpPacket, offset: number, length: number, station: Station): void {
    const request = DhcpRequest.parse(packet.buffer.subarray(offset, offset + length));
    // One station, one lease; how many leases a port has is limited, so the pool is not drained by one guest.
    if (request === null || request.relay !== 0 || request.mac !== station.mac) {
      this.stats.refused++;
      return;
    }
    const { messages } = this.stats;
    switch (request.type) {
      case DhcpType.discover:
        messages.discover++;
        this.#discover(request, station);
        return;
      case DhcpType.request:
        messages.request++;
        this.#request(request, station);
        return;
      case DhcpType.decline:
        messages.decline++;
        this.#decline(request, station);
        return;
      case DhcpType.release:
        messages.release++;
        this.#release(request, station);
        return;
      case DhcpType.inform:
        messages.inform++;
        this.#inform(request, station);
        return;
      default:
        this.stats.refused++;
    }
  }

  #discover(request: DhcpRequest, station: Station): void {
    const wanted = request.address(DhcpOption.requestedAddress);
    const entry = this.#leases.offer(station.mac, wanted, station.at);
    if (entry === null) {
      this.stats.exhausted++;
      return;
    }
    this.stats.messages.offer++;
    this.#answer(request, station, DhcpType.offer, entry.address, entry.name);
  }

  /** The four states of a client are told apart by what it sends (RFC 2131, 4.3.2). */
  #request(request: DhcpRequest, station: Station): void {
    const { mac } = station;
    const server = request.address(DhcpOption.serverId);
    const requested = request.address(DhcpOption.requestedAddress);
    const address = requested ?? request.clientAddress;
    if (server !== null && server !== this.#settings.address) {
      // It took another server's offer.
      const offer = this.#leases.of(mac);
      if (offer !== null && !offer.bound) this.#leases.release(mac, offer.address);
      return;
    }
    const known = this.#leases.of(mac);
    // Selecting: only what was offered. Else: what it has, or had before we were started, if nobody else has it.
    const fine = server !== null
      ? known !== null && known.address === address
      : known !== null
      ? known.address === address
      : true;
    if (address === 0 || !fine || !this.#leases.available(address, mac)) {
      this.#refuse(request, station);
      return;
    }
    const { leaseTime } = this.#settings;
    const entry = this.#leases.bind(mac, address, request.hostName, leaseTime, station.at);
    if (entry === null) {
      this.stats.exhausted++;
      this.#refuse(request, station);
      return;
    }
    this.#host.bound(station, entry);
    this.stats.messages.ack++;
    this.#answer(request, station, DhcpType.ack, address, entry.name);
  }

  #decline(request: DhcpRequest, station: Station): void {
    const address = request.address(DhcpOption.requestedAddress);
    if (address === null || !this.#isOurs(request)) return;
    if (this.#leases.decline(station.mac, address, station.port)) {
      this.#host.released(station, address);
    }
  }

  #release(request: DhcpRequest, station: Station): void {
    const address = request.clientAddress;
    if (!this.#isOurs(request)) return;
    if (this.#leases.release(station.mac, address)) this.#host.released(station, address);
  }

  #inform(request: DhcpRequest, station: Station): void {
    if (request.clientAddress === 0) return;
    this.stats.messages.ack++;
    this.#answer(request, station, DhcpType.ack, 0, "");
  }

  #isOurs(request: DhcpRequest): boolean {
    const server = request.address(DhcpOption.serverId);
    return server === null || server === this.#settings.address;
  }

  #refuse(request: DhcpRequest, station: Station): void {
    this.stats.messages.nak++;
    const none = { clientAddress: 0, yourAddress: 0, nextServer: 0, bootFile: "" };
    const writer = new DhcpWriter(request, none)
      .byte(DhcpOption.type, DhcpType.nak)
      .word(DhcpOption.serverId, this.#settings.address);
    this.#echoClientId(request, writer);
    // The address that it has is not to be trusted, so it goes to all (RFC 2131, 4.3.2).
    this.#host.send(station, null, writer.finish());
  }

  #answer(
    request: DhcpRequest,
    station: Station,
    type: number,
    address: number,
    name: string,
  ): void {
    const { boot, leaseTime, ...rest } = this.#settings;
    const server = boot?.server ?? "";
    const writer = new DhcpWriter(request, {
      clientAddress: request.clientAddress,
      yourAddress: address,
      nextServer: boot === null ? 0 : parseIpv4(server) ?? rest.address,
      bootFile: boot?.file ?? "",
    });
    writer.byte(DhcpOption.type, type).word(DhcpOption.serverId, rest.address);
    if (address !== 0) {
      writer.word(DhcpOption.leaseTime, leaseTime)
        .word(DhcpOption.renewal, Math.floor(leaseTime / 2))
        .word(DhcpOption.rebinding, Math.floor(leaseTime * 0.875));
    }
    writer.word(DhcpOption.subnetMask, rest.mask);
    if (rest.router !== 0) writer.word(DhcpOption.router, rest.router);
    if (rest.resolvers.length > 0) writer.words(DhcpOption.resolver, rest.resolvers);
    writer.word(DhcpOption.broadcast, rest.broadcast);
    this.#echoClientId(request, writer);
    if (rest.domain !== "") writer.text(DhcpOption.domainName, rest.domain);
    const wanted = request.options.get(DhcpOption.parameters) ?? new Uint8Array(0);
    if (wanted.includes(DhcpOption.interfaceMtu)) {
      writer.bytes(DhcpOption.interfaceMtu, new Uint8Array([rest.mtu >> 8, rest.mtu & 0xff]));
    }
    if (boot !== null) {
      if (wanted.includes(DhcpOption.tftpServer) && server !== "") {
        writer.text(DhcpOption.tftpServer, server);
      }
      if (wanted.includes(DhcpOption.bootFile) || boot.file.length > 127) {
        writer.text(DhcpOption.bootFile, boot.file);
      }
    }
    if (name !== "" && wanted.includes(DhcpOption.hostName)) {
      writer.text(DhcpOption.hostName, name);
    }
    if (wanted.includes(DhcpOption.search)) writer.bytes(DhcpOption.search, rest.search);
    const fqdn = request.options.get(DhcpOption.fqdn);
    if (fqdn !== undefined && fqdn.length >= 3 && name !== "") {
      // We have put it into DNS, whatever the client wanted (S and O of RFC 4702, 2.1).
      const flags = (fqdn[0]! & 1) !== 0 ? 1 : 3;
      const text = rest.domain === "" ? name : `${name}.${rest.domain}`;
      writer.bytes(
        DhcpOption.fqdn,
        new Uint8Array([flags, 255, 255, ...new TextEncoder().encode(text)]),
      );
    }
    const to = request.clientAddress !== 0
      ? request.clientAddress
      : request.broadcast
      ? null
      : address;
    this.#host.send(station, to, writer.finish());
  }

  #echoClientId(request: DhcpRequest, writer: DhcpWriter): void {
    const id = request.options.get(DhcpOption.clientId);
    // RFC 6842.
    if (id !== undefined) writer.bytes(DhcpOption.clientId, id);
  }
}
