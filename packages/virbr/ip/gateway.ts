/** The gateway: a station that every port reaches, with the IP layer of the network. */
import type { Frame } from "@virtio/net";
import { type Clock, type MacAddress, TokenBucket } from "@virtio/net/wire";
import { EtherType } from "../wire/guard.ts";
import type { GuestPort } from "../wire/port.ts";
import type { Station } from "../wire/station.ts";
import type { Stations } from "../wire/stations.ts";
import {
  ipv4,
  isGroup,
  isIpv4,
  isLinkLocal,
  isMartian4,
  isMartian6,
  isUnspecified,
  sameAddress,
  type Subnet,
} from "./address.ts";
import { answerArp, askArp } from "./arp.ts";
import {
  answerFrom,
  IcmpType,
  isIcmpError,
  mayRefuse,
  mayTell,
  sendEchoReply,
  sendError,
  sendRejection,
} from "./icmp.ts";
import { Input, type InputDrops } from "./input.ts";
import { ALL_NODES, type Neighbours } from "./ndp.ts";
import { Output, stationOf, StationPath } from "./output.ts";
import {
  type AddressWords,
  type Guest,
  type IcmpErrorKind,
  type IpLayer,
  type IpOutput,
  type IpPacket,
  IpProtocol,
  type Path,
  type Transport,
} from "./packet.ts";
import type { Router } from "./router.ts";
import { Turns } from "./turns.ts";
import type { ReassemblyLimits } from "./reassembly.ts";

/**
 * Handles a datagram to a service of the gateway's: the packet, where its payload is, and the port that it came from.
 */
export type UdpService = (
  packet: IpPacket,
  offset: number,
  length: number,
  sourcePort: number,
) => void;

/** What the gateway is. */
export interface GatewayOptions {
  readonly mac: MacAddress;
  /** Of IPv4. */
  readonly address: number;
  readonly subnet: Subnet;
  /** Addresses of IPv6: the global one and the link-local one; none without IPv6. */
  readonly addresses6: readonly AddressWords[];
  /** The network of IPv6; null if there is none. */
  readonly prefix: Subnet | null;
  /** Largest packet. */
  readonly mtu: number;
  readonly clock: Clock;
  readonly reassembly?: ReassemblyLimits;
  /** Whether guests may reach the outside. */
  readonly forwarding: boolean;
  /** Every port, for those that are asked for an address. */
  readonly ports: () => Iterable<GuestPort>;
  /** Told what a handler threw; without it that is thrown on. */
  readonly onError?: (error: unknown) => void;
}

/** What the gateway counted. */
export interface GatewayStats extends Readonly<InputDrops> {
  /** Packets from guests that were whole and right. */
  readonly received: number;
  /** Packets to guests. */
  readonly sent: number;
  /** Packets that came while too many others waited. */
  readonly overrun: number;
  /** Errors of ICMP sent. */
  readonly errors: number;
}

/** The gateway. */
export class Gateway implements IpLayer, IpOutput {
  readonly addresses: readonly AddressWords[];
  /** Of IPv6; set by whoever makes it. */
  neighbours: Neighbours | null = null;
  /** Routes to an uplink instead of translating; set by whoever makes it. */
  router: Router | null = null;
  readonly #options: GatewayOptions;
  readonly #stations: Stations;
  readonly #input: Input;
  readonly #out: Output;
  readonly #transports: (Transport | null)[] = [];
  readonly #services: Map<number, UdpService> = new Map();
  readonly #waiting: Turns = new Turns((frame, from) => this.#handle(frame, from));
  readonly #asking: TokenBucket = new TokenBucket(10, 10);
  /** Of the subnet. */
  readonly #broadcast: AddressWords;
  #busy = 0;
  #received = 0;
  #overrun = 0;
  #errors = 0;

  constructor(options: GatewayOptions, stations: Stations) {
    this.#options = options;
    this.#stations = stations;
    this.#broadcast = ipv4(options.subnet.broadcast);
    this.addresses = [ipv4(options.address), ...options.addresses6];
    this.#input = new Input(options.reassembly);
    this.#out = new Output(options.mac, (frame, port) => this.#send(frame, port));
  }

  /** What was counted until now. */
  get stats(): GatewayStats {
    return {
      ...this.#input.drops,
      received: this.#received,
      sent: this.#out.sent,
      overrun: this.#overrun,
      errors: this.#errors,
    };
  }

  get output(): IpOutput {
    return this;
  }

  get buffer(): Uint8Array {
    return this.#out.buffer;
  }

  get view(): DataView {
    return this.#out.view;
  }

  get start(): number {
    return this.#out.start;
  }

  get room(): number {
    return this.#out.room;
  }

  transport(protocol: number, transport: Transport | null): void {
    this.#transports[protocol] = transport;
  }

  /** Sets who serves a port of UDP at the gateway's addresses, and at those of groups. */
  service(port: number, service: UdpService): void {
    this.#services.set(port, service);
  }

  /** Takes a frame for the gateway, or for a group, which the guard has let pass. */
  enter(frame: Frame, from: Station): void {
    if (this.#busy === 0 && this.#waiting.count === 0) {
      this.#handle(frame, from);
      return;
    }
    // No recursion: whoever is in the midst of a packet finishes it first.
    if (!this.#waiting.add(frame, from)) this.#overrun++;
  }

  path(guest: Guest, source: AddressWords, destination: AddressWords, protocol: number): Path {
    return new StationPath(
      stationOf(guest),
      source,
      destination,
      protocol,
      this.#options.mtu,
    );
  }

  begin(path: Path): boolean {
    return this.#out.begin(path as StationPath);
  }

  finish(length: number, checksumOffset: number, gsoSize: number): void {
    this.#out.finish(length, checksumOffset, gsoSize);
  }

  refuse(packet: IpPacket, kind: IcmpErrorKind, mtu: number = 0): void {
    if (!mayRefuse(packet, kind)) return;
    const guest = stationOf(packet.guest);
    const source = answerFrom(packet, this.addresses);
    if (source === null || !mayTell(guest, this.#options.clock())) return;
    this.#errors++;
    const protocol = packet.version === 4 ? IpProtocol.icmp : IpProtocol.icmpv6;
    const path = this.path(guest, source, packet.source, protocol) as StationPath;
    sendError(this.#out, path, kind, packet, mtu);
  }

  reject(flow: Path, kind: IcmpErrorKind, start: Uint8Array, mtu: number = 0): void {
    const guest = stationOf(flow.guest);
    // What the host itself says comes from the host; what a router says, from the gateway.
    const own = kind === "port" || kind === "protocol"
      ? flow.source
      : this.addresses[flow.version === 4 ? 0 : 1];
    if (own === undefined || !mayTell(guest, this.#options.clock())) return;
    this.#errors++;
    const protocol = flow.version === 4 ? IpProtocol.icmp : IpProtocol.icmpv6;
    const path = this.path(guest, own, flow.destination, protocol) as StationPath;
    sendRejection(this.#out, path, kind, flow, start, mtu);
  }

  find(address: AddressWords): Guest | null {
    const four = isIpv4(address);
    const known = four ? this.#stations.find4(address[3]!) : this.#stations.find6(address);
    if (known !== null) return known;
    const { subnet, prefix, ports, mac, clock } = this.#options;
    if (!(four ? subnet.contains(address) : prefix?.contains(address) ?? false)) return null;
    if (!this.#asking.take(clock())) return null;
    for (const port of ports()) {
      if (four) askArp(port, address[3]!, this.addresses[0]![3]!, mac, this.#out);
      else this.neighbours?.ask(port, address, this.#out);
    }
    return null;
  }

  /** Gives a guest a frame of somebody else's. */
  give(frame: Frame, to: Station): void {
    this.#send(frame, to.at);
  }

  /** Sends a router advertisement that nobody asked for. */
  advertise(station: Station): void {
    // In the midst of something else it is not that urgent.
    if (this.#busy === 0) this.neighbours?.advertise(station, ALL_NODES, this.#out);
  }

  /** A station is no more. */
  forget(station: Station): void {
    this.#input.reassembly.forget(station);
    for (const transport of new Set(this.#transports)) transport?.guestGone?.(station);
  }

  /** Forgets what waits. */
  close(): void {
    this.#waiting.close();
  }

  #send(frame: Frame, port: GuestPort): void {
    this.#busy++;
    try {
      port.emit(frame);
    } finally {
      this.#busy--;
    }
  }

  #handle(frame: Frame, from: Station): void {
    this.#busy++;
    try {
      this.#read(frame, from);
    } catch (error) {
      const { onError } = this.#options;
      if (onError === undefined) throw error;
      onError(error);
    } finally {
      this.#busy--;
    }
  }

  #read(frame: Frame, from: Station): void {
    const { mac, address, clock, addresses6 } = this.#options;
    switch (frame.view.getUint16(12)) {
      case EtherType.arp:
        answerArp(frame, from, address, mac, this.#out);
        return;
      case EtherType.ipv4:
        if (this.router !== null && this.router.out(frame)) return;
        if (this.#input.ipv4(frame, from, clock())) this.#route4();
        return;
      case EtherType.ipv6:
        if (addresses6.length > 0 && this.#input.ipv6(frame, from, clock())) this.#route6();
        return;
      default:
        return;
    }
  }

  #route4(): void {
    this.#received++;
    const { packet } = this.#input;
    const { destination } = packet;
    const { subnet, forwarding } = this.#options;
    packet.local = destination[3] === this.addresses[0]![3];
    if (packet.local) {
      this.#local(packet);
      return;
    }
    if (isGroup(destination) || destination[3] === this.#broadcast[3]) {
      if (packet.protocol === IpProtocol.udp) this.#serve(packet);
      return;
    }
    if (isUnspecified(packet.source)) return;
    if (subnet.contains(destination)) this.refuse(packet, "host");
    else if (isMartian4(destination)) this.refuse(packet, "network");
    else if (packet.hopLimit < 2) this.refuse(packet, "hopLimit");
    else if (!forwarding) this.#unrouted(packet);
    else this.#outward(packet);
  }

  /** A packet to the outside that was not routed. */
  #unrouted(packet: IpPacket): void {
    const mtu = this.router?.tooLong(packet) ?? 0;
    this.refuse(packet, mtu > 0 ? "tooBig" : "prohibited", mtu);
  }

  #route6(): void {
    this.#received++;
    const { packet } = this.#input;
    const { destination } = packet;
    const { prefix, forwarding } = this.#options;
    packet.local = this.#own6(destination);
    if (packet.protocol === IpProtocol.icmpv6 && (packet.local || isGroup(destination))) {
      if (this.neighbours?.receive(packet, this.#out) === true) return;
    }
    if (packet.local) {
      this.#local(packet);
      return;
    }
    if (isGroup(destination)) {
      if (packet.protocol === IpProtocol.udp) this.#serve(packet);
      return;
    }
    // A link-local address is none to answer to from elsewhere (RFC 4291, 2.5.6).
    if (isUnspecified(packet.source) || isLinkLocal(packet.source)) return;
    if (prefix !== null && prefix.contains(destination)) this.refuse(packet, "host");
    else if (isMartian6(destination)) this.refuse(packet, "network");
    else if (packet.hopLimit < 2) this.refuse(packet, "hopLimit");
    else if (!forwarding) this.refuse(packet, "prohibited");
    else this.#outward(packet);
  }

  #own6(address: AddressWords): boolean {
    for (const own of this.#options.addresses6) if (sameAddress(own, address)) return true;
    return false;
  }

  /** A packet to the gateway itself. */
  #local(packet: IpPacket): void {
    const { protocol, version } = packet;
    if (isUnspecified(packet.source) && protocol !== IpProtocol.udp) return;
    if (protocol === IpProtocol.udp && this.#serve(packet)) return;
    if (protocol === (version === 4 ? IpProtocol.icmp : IpProtocol.icmpv6)) {
      this.#echo(packet);
      return;
    }
    const transport = this.#transports[protocol];
    if (transport != null) transport.receive(packet);
    else if (protocol === IpProtocol.udp || protocol === IpProtocol.tcp) {
      this.refuse(packet, "port");
    } else this.refuse(packet, "protocol");
  }

  #echo(packet: IpPacket): void {
    if (packet.length < 8) return;
    const type = packet.view.getUint8(packet.offset);
    const request = packet.version === 4 ? IcmpType.echoRequest : IcmpType.echoRequest6;
    if (type !== request) return;
    const path = this.path(packet.guest, packet.destination, packet.source, packet.protocol);
    sendEchoReply(this.#out, path as StationPath, packet);
  }

  /** A packet to the outside. */
  #outward(packet: IpPacket): void {
    const { protocol, version } = packet;
    if (protocol === IpProtocol.icmp || protocol === IpProtocol.icmpv6) {
      if ((protocol === IpProtocol.icmp) !== (version === 4) || packet.length < 8) return;
      const type = packet.view.getUint8(packet.offset);
      const request = version === 4 ? IcmpType.echoRequest : IcmpType.echoRequest6;
      if (type !== request && !isIcmpError(packet)) return;
    }
    const transport = this.#transports[protocol];
    if (transport != null) transport.receive(packet);
    else this.refuse(packet, version === 4 ? "protocol" : "prohibited");
  }

  /** @returns Whether there is a service that took the packet. */
  #serve(packet: IpPacket): boolean {
    const { view, offset } = packet;
    if (packet.length < 8) return false;
    const service = this.#services.get(view.getUint16(offset + 2));
    if (service === undefined) return false;
    const length = view.getUint16(offset + 4) - 8;
    if (length < 0 || length > packet.length - 8) return true;
    service(packet, offset + 8, length, view.getUint16(offset));
    return true;
  }
}
