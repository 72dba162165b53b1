/**
 * Routing through an uplink, such as a tap: packets of guests leave as they are, with their own addresses, and whoever is out
 * there reaches guests if it has a route. IPv4.
 */
import { Frame, type FrameSink, type NetBackend, Offload, pass } from "@virtio/net";
import {
  type Clock,
  ipv4HeaderChecksum,
  type MacAddress,
  sumBytes,
  TokenBucket,
} from "@virtio/net/wire";
import { EtherType } from "../wire/guard.ts";
import type { Station } from "../wire/station.ts";
import type { Subnet } from "./address.ts";
import { Cutter, mayCut, mayTell, packetLength, writeTooLong } from "./link_mtu.ts";
import { type IpPacket, IpProtocol } from "./packet.ts";

const IP = 14;
const HEADER = 20;
const ARP_SIZE = 28;
/** Neighbours out there that are remembered, and for how many milliseconds. */
const MAX_NEIGHBOURS = 256;
const FRESH = 60_000;
/** Requests for neighbours a second, and at once. */
const ASK_RATE = 20;
/** Errors a second to whoever is out there, and at once. */
const ERROR_RATE = 50;
const ERROR_BURST = 20;

/** What a router is. */
export interface RouterOptions {
  /** The way out: the other end is the host, or another network. */
  readonly backend: NetBackend;
  readonly mac: MacAddress;
  /** Its address there. */
  readonly address: number;
  /** The network there. */
  readonly network: Subnet;
  /** Who knows the way to everything else; 0 if there is nobody. */
  readonly router: number;
  /** The largest packet there. */
  readonly mtu: number;
  /** The guests' network. */
  readonly guests: Subnet;
  /** The largest packet that guests take. */
  readonly guestMtu: number;
  readonly clock: Clock;
  /** The guest with an address; asked for if it was silent. */
  find(address: number): Station | null;
  /** Gives a frame to a guest. */
  give(frame: Frame, to: Station): void;
}

/** What a router counted. */
export interface RouterStats {
  /** Packets to the outside. */
  out: number;
  /** Packets to guests. */
  in: number;
  /** Packets whose next hop was not known, and was asked for. */
  unresolved: number;
  /** Packets from outside that break a rule, or are for nobody here. */
  refused: number;
  /** Packets from outside that guests do not take, and that were not to be cut: their senders were told. */
  tooLong: number;
}

interface Neighbour {
  high: number;
  low: number;
  until: number;
}

/** Routes between guests and an uplink. */
export class Router implements FrameSink {
  readonly offloads: number = Offload.all;
  readonly stats: RouterStats = { out: 0, in: 0, unresolved: 0, refused: 0, tooLong: 0 };
  readonly #options: RouterOptions;
  readonly #neighbours: Map<number, Neighbour> = new Map();
  readonly #asking: TokenBucket = new TokenBucket(ASK_RATE, ASK_RATE);
  readonly #telling: TokenBucket = new TokenBucket(ERROR_RATE, ERROR_BURST);
  readonly #own: Frame = new Frame(256);
  readonly #cutOut: Cutter;
  readonly #cutIn: Cutter;

  constructor(options: RouterOptions) {
    this.#options = options;
    const { backend, router } = options;
    this.#cutOut = new Cutter(options.mtu);
    this.#cutIn = new Cutter(options.guestMtu);
    const greet = (): void => {
      // So that the first packet finds its way.
      if (router !== 0 && backend.linkUp !== false) this.#ask(router);
    };
    backend.onLinkChange = greet;
    backend.connect(this);
    greet();
  }

  /** Takes a frame of a guest's if it is to be routed. @returns False if it is for the gateway, or needs to be told something. */
  out(frame: Frame): boolean {
    const { view } = frame;
    if (!isSound(frame) || view.getUint8(IP + 8) < 2) return false;
    const to = view.getUint32(IP + 16);
    const { guests, network, router, address } = this.#options;
    if (isInside(guests, to) || to === address) return false;
    const first = to >>> 24;
    if (first === 0 || first === 127 || first >= 224) return false;
    const hop = isInside(network, to) ? to : router;
    if (hop === 0) return false;
    const tooLong = packetLength(frame) > this.#options.mtu;
    if (tooLong && !mayCut(frame)) return false;
    const neighbour = this.#neighbours.get(hop);
    if (neighbour === undefined || neighbour.until < this.#options.clock()) this.#ask(hop);
    // One that is old is still better than none.
    if (neighbour === undefined) {
      this.stats.unresolved++;
      return true;
    }
    this.#rewrite(frame, neighbour.high, neighbour.low);
    const { backend } = this.#options;
    if (tooLong) this.#cutOut.cut(frame, (part) => pass(part, backend) && this.stats.out++);
    else if (pass(frame, backend)) this.stats.out++;
    return true;
  }

  /** The largest packet that the uplink takes, if one that it was not to cut is larger; 0 if it is not. */
  tooLong(
    { dontFragment, gsoSize, length, headerOffset, offset, protocol, view }: IpPacket,
  ): number {
    const { mtu } = this.#options;
    const header = offset - headerOffset;
    if (!dontFragment && gsoSize === 0 && header === HEADER) return 0;
    const tcp = protocol === IpProtocol.tcp && length >= 20;
    const size = gsoSize === 0
      ? length
      : gsoSize + (tcp ? (view.getUint8(offset + 12) >> 4) * 4 : 8);
    return header + size > mtu ? mtu : 0;
  }

  /** Takes a frame of the outside. */
  deliver(frame: Frame): void {
    const { view } = frame;
    if (frame.length < IP + HEADER) {
      this.stats.refused++;
      return;
    }
    const type = view.getUint16(12);
    if (type === EtherType.arp) this.#arp(frame);
    else if (type === EtherType.ipv4) this.#in(frame);
  }

  /** Unplugs the uplink. */
  close(): void {
    const { backend } = this.#options;
    backend.onLinkChange = null;
    backend.connect(null);
  }

  #in(frame: Frame): void {
    const { view } = frame;
    const { mac, guests } = this.#options;
    // What goes to all stays out there.
    if (view.getUint32(0) >>> 8 !== mac.high || (view.getUint32(2) & 0xff_ffff) !== mac.low) return;
    const to = view.getUint32(IP + 16);
    const fine = isSound(frame) && view.getUint8(IP + 8) > 1 && isInside(guests, to) &&
      // Nobody out there is a guest.
      !isInside(guests, view.getUint32(IP + 12));
    if (!fine) {
      this.stats.refused++;
      return;
    }
    const station = this.#options.find(to);
    if (station === null) {
      this.stats.unresolved++;
      return;
    }
    const { guestMtu, give } = this.#options;
    const tooLong = packetLength(frame) > guestMtu;
    if (tooLong && !mayCut(frame)) {
      this.#tell(frame);
      return;
    }
    this.#rewrite(frame, station.high, station.low);
    if (tooLong) this.#cutIn.cut(frame, (part) => give(part, station));
    else give(frame, station);
    this.stats.in++;
  }

  /** Tells whoever sent a packet from outside what guests take. */
  #tell(frame: Frame): void {
    this.stats.tooLong++;
    const { mac, address, guestMtu, clock, backend } = this.#options;
    if (!mayTell(frame) || !this.#telling.take(clock())) return;
    const own = this.#own;
    writeMacs(own.view, frame.view.getUint32(6) >>> 8, frame.view.getUint32(8) & 0xff_ffff, mac);
    own.view.setUint16(12, EtherType.ipv4);
    writeTooLong(own, frame, address, guestMtu);
    pass(own, backend);
  }

  #rewrite(frame: Frame, high: number, low: number): void {
    const { view } = frame;
    writeMacs(view, high, low, this.#options.mac);
    view.setUint8(IP + 8, view.getUint8(IP + 8) - 1);
    const size = (view.getUint8(IP) & 15) * 4;
    view.setUint16(IP + 10, ipv4HeaderChecksum(view, IP, size));
  }

  #arp(frame: Frame): void {
    const { view } = frame;
    if (frame.length < IP + ARP_SIZE) return;
    if (view.getUint32(IP) !== 0x0001_0800 || view.getUint16(IP + 4) !== 0x0604) return;
    const sender = view.getUint32(IP + 14);
    const { address, network } = this.#options;
    if (view.getUint32(IP + 24) !== address || !isInside(network, sender) || sender === address) {
      return;
    }
    const high = view.getUint32(IP + 8) >>> 8;
    const low = view.getUint32(IP + 10) & 0xff_ffff;
    if ((high & 0x01_0000) !== 0) return;
    this.#learn(sender, high, low);
    if (view.getUint16(IP + 6) === 1) this.#say(2, high, low, sender);
  }

  #learn(address: number, high: number, low: number): void {
    const neighbours = this.#neighbours;
    if (!neighbours.has(address) && neighbours.size >= MAX_NEIGHBOURS) {
      neighbours.delete(neighbours.keys().next().value!);
    }
    neighbours.set(address, { high, low, until: this.#options.clock() + FRESH });
  }

  #ask(address: number): void {
    if (this.#asking.take(this.#options.clock())) this.#say(1, 0xff_ffff, 0xff_ffff, address);
  }

  #say(operation: number, high: number, low: number, target: number): void {
    const frame = this.#own;
    const { view } = frame;
    const { mac, address, backend } = this.#options;
    writeMacs(view, high, low, mac);
    view.setUint16(12, EtherType.arp);
    view.setUint32(IP, 0x0001_0800);
    view.setUint32(IP + 4, 0x0604_0000 | operation);
    view.setUint32(IP + 8, mac.high << 8 | mac.low >>> 16);
    view.setUint16(IP + 12, mac.low & 0xffff);
    view.setUint32(IP + 14, address);
    view.setUint32(IP + 18, operation === 1 ? 0 : high << 8 | low >>> 16);
    view.setUint16(IP + 22, operation === 1 ? 0 : low & 0xffff);
    view.setUint32(IP + 24, target);
    frame.plain();
    frame.setLength(IP + ARP_SIZE);
    pass(frame, backend);
  }
}

function writeMacs(view: DataView, high: number, low: number, from: MacAddress): void {
  view.setUint32(0, high << 8 | low >>> 16);
  view.setUint16(4, low & 0xffff);
  view.setUint16(6, from.high >>> 8);
  view.setUint32(8, (from.high & 0xff) << 24 | from.low);
}

/** Whether a frame has a whole header of IPv4 whose sum is right. */
function isSound(frame: Frame): boolean {
  const { view, headLength, length } = frame;
  if (headLength < IP + HEADER) return false;
  const size = (view.getUint8(IP) & 15) * 4;
  if (view.getUint8(IP) >> 4 !== 4 || size < HEADER || IP + size > headLength) return false;
  const total = view.getUint16(IP + 2);
  if (total !== 0 && (total < size || IP + total > length)) return false;
  return sumBytes(view, IP, IP + size) === 0xffff;
}

function isInside(network: Subnet, address: number): boolean {
  return ((address ^ network.first[3]!) & network.mask) === 0;
}
