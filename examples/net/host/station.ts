/**
 * The host as a station on the example's network, over raw frames: it answers ARP and ping, pings itself, and speaks enough
 * UDP and TCP for the example and its tests. IPv4 on one link only: no fragments, no routing, no options. A real stack is
 * another package's business.
 */
import {
  Frame,
  type NetBackend,
  Offload,
  pass,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "@virtio/net";
import { type Outgoing, TcpConnection, WINDOW_SCALE } from "./tcp.ts";
import {
  type Address,
  BROADCAST_IP,
  BROADCAST_MAC,
  ETHERNET_SIZE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  Flag,
  fold,
  formatIp,
  IP_SIZE,
  type IpPacket,
  parseIp,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  pseudoSum,
  putEthernet,
  putIp,
  readIp,
  readSegment,
  sameAddress,
  type Segment,
  sumWords,
  TCP_SIZE,
  UDP_SIZE,
} from "./wire.ts";

/** Options of a `Station`. */
export interface StationOptions {
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** Its address, such as "10.0.0.254". */
  readonly ip: string;
  /** Puts a frame on the network; the frame is used again when this returns. */
  readonly send: (frame: Frame) => void;
  /** Bytes of an IP packet at most; 1500 unless given. */
  readonly mtu?: number;
  /** Sends TCP unsegmented and without checksum, to be finished by whoever needs it; no unless given. */
  readonly offload?: boolean;
  /** Milliseconds until something unanswered is sent again; 300 unless given. */
  readonly patience?: number;
}

/** A UDP datagram. */
export interface Datagram {
  readonly from: Address;
  readonly fromMac: Address;
  readonly fromPort: number;
  readonly to: Address;
  readonly data: Uint8Array;
}

interface Connection {
  readonly tcp: TcpConnection;
}

const SYN_OPTIONS = 8;
const ARP_SIZE = 28;
const ATTEMPTS = 10;
/** Connections that are kept, those that ended included, before the ended ones are forgotten. */
const KEPT = 64;
const BULK = 32 * 1024;

/** A station. */
export class Station {
  /** Its address. */
  readonly ip: Address;
  /** Frames that were for it, but damaged: wrong checksums. */
  damaged = 0;
  /** Pings that were answered. */
  pingsAnswered = 0;
  readonly #mac: Uint8Array;
  readonly #options: StationOptions;
  readonly #mtu: number;
  readonly #patience: number;
  readonly #frame: Frame = new Frame();
  /** Stations by address. */
  readonly #neighbours = new Map<string, Address>();
  readonly #askers = new Map<string, (() => void)[]>();
  readonly #connections = new Map<string, Connection>();
  readonly #listeners = new Map<number, (connection: TcpConnection) => void>();
  readonly #udp = new Map<number, (datagram: Datagram) => void>();
  readonly #pings = new Map<number, () => void>();
  #id = 0;
  #port = 49152;

  constructor(options: StationOptions) {
    this.#options = options;
    this.#mac = options.mac;
    this.ip = parseIp(options.ip);
    this.#mtu = options.mtu ?? 1500;
    this.#patience = options.patience ?? 300;
  }

  /** Which unfinished frames it takes: none, since it looks at checksums; or all of TCP over IPv4. */
  get offloads(): number {
    return this.#options.offload ? Offload.csum | Offload.tso4 | Offload.ecn : 0;
  }

  /** Takes a frame of the network. */
  receive(frame: Frame): void {
    const { bytes } = frame;
    const group = (bytes[0]! & 1) !== 0;
    if (!group && !sameAddress(bytes.subarray(0, 6), this.#mac)) return;
    const type = bytes[12]! << 8 | bytes[13]!;
    if (type === ETHERTYPE_ARP) return this.#takeArp(bytes);
    const packet = readIp(bytes);
    if (packet === null) return;
    const mine = sameAddress(packet.to, this.ip);
    if (!mine && !sameAddress(packet.to, BROADCAST_IP)) return;
    const unfinished = (frame.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
    if (!unfinished && !this.#isSound(packet)) {
      this.damaged++;
      return;
    }
    if (mine) this.#neighbours.set(formatIp(packet.from), packet.fromMac);
    if (packet.protocol === PROTOCOL_UDP) this.#takeUdp(packet);
    else if (!mine) return;
    else if (packet.protocol === PROTOCOL_ICMP) this.#takeIcmp(packet);
    else if (packet.protocol === PROTOCOL_TCP) this.#takeTcp(packet);
  }

  /**
   * Pings.
   *
   * @param size Bytes of data.
   * @returns Milliseconds until the answer; null if there was none.
   */
  async ping(ip: string, size = 56, timeout = 2000): Promise<number | null> {
    const to = parseIp(ip);
    const mac = await this.#resolve(to);
    const sequence = this.#id++ & 0xffff;
    const start = performance.now();
    return await new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#pings.delete(sequence);
        resolve(null);
      }, timeout);
      this.#pings.set(sequence, () => {
        clearTimeout(timer);
        this.#pings.delete(sequence);
        resolve(performance.now() - start);
      });
      const body = new Uint8Array(8 + size).map((_, i) => i);
      this.#sendIcmp(mac, to, 8, 0x4711, sequence, body.subarray(8));
    });
  }

  /** Has connections to a port taken by `taken`. */
  listen(port: number, taken: (connection: TcpConnection) => void): void {
    this.#listeners.set(port, taken);
  }

  /** Opens a connection. @throws {Error} Rejects if nobody answers, or it is refused. */
  async connect(ip: string, port: number): Promise<TcpConnection> {
    const to = parseIp(ip);
    await this.#resolve(to);
    this.#port = this.#port === 65535 ? 49152 : this.#port + 1;
    const tcp = this.#connection(to, port, this.#port);
    tcp.connect();
    await tcp.opened;
    return tcp;
  }

  /** Has datagrams to a port taken by `taken`. */
  onUdp(port: number, taken: (datagram: Datagram) => void): void {
    this.#udp.set(port, taken);
  }

  /** Sends a datagram to a station whose MAC address is known. */
  sendUdp(
    mac: Address,
    to: Address,
    ports: { from: number; to: number },
    data: Uint8Array,
  ): void {
    const length = UDP_SIZE + data.length;
    const bytes = this.#start(mac, to, PROTOCOL_UDP, length);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const at = ETHERNET_SIZE + IP_SIZE;
    view.setUint16(at, ports.from);
    view.setUint16(at + 2, ports.to);
    view.setUint16(at + 4, length);
    view.setUint16(at + 6, 0);
    bytes.set(data, at + UDP_SIZE);
    const sum = fold(
      pseudoSum(this.ip, to, PROTOCOL_UDP, length) + sumWords(bytes, at, at + length),
    );
    // 0 would say that there is none (RFC 768).
    view.setUint16(at + 6, ~sum & 0xffff || 0xffff);
    this.#emit(at + length);
  }

  /** Breaks all connections. */
  close(): void {
    for (const { tcp } of this.#connections.values()) tcp.abort();
    this.#connections.clear();
    this.#listeners.clear();
  }

  #isSound({ protocol, from, to, payload }: IpPacket): boolean {
    if (protocol === PROTOCOL_ICMP) return fold(sumWords(payload)) === 0xffff;
    // UDP over IPv4 may do without.
    if (protocol === PROTOCOL_UDP && (payload[6]! | payload[7]!) === 0) return true;
    const sum = pseudoSum(from, to, protocol, payload.length) + sumWords(payload);
    return fold(sum) === 0xffff;
  }

  async #resolve(ip: Address): Promise<Address> {
    const key = formatIp(ip);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const known = this.#neighbours.get(key);
      if (known !== undefined) return known;
      this.#sendArp(BROADCAST_MAC, 1, new Uint8Array(6), ip);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.#patience);
        const askers = this.#askers.get(key) ?? [];
        askers.push(() => {
          clearTimeout(timer);
          resolve();
        });
        this.#askers.set(key, askers);
      });
    }
    throw new Error(`Nobody on the network has the address ${key}`);
  }

  #takeArp(bytes: Uint8Array): void {
    const at = ETHERNET_SIZE;
    if (bytes.length < at + ARP_SIZE) return;
    const operation = bytes[at + 6]! << 8 | bytes[at + 7]!;
    const mac = bytes.slice(at + 8, at + 14);
    const ip = bytes.slice(at + 14, at + 18);
    if (!sameAddress(bytes.subarray(at + 24, at + 28), this.ip)) return;
    const key = formatIp(ip);
    this.#neighbours.set(key, mac);
    for (const tell of this.#askers.get(key) ?? []) tell();
    this.#askers.delete(key);
    if (operation === 1) this.#sendArp(mac, 2, mac, ip);
  }

  #sendArp(toMac: Address, operation: number, aboutMac: Address, aboutIp: Address): void {
    const bytes = this.#frame.buffer;
    putEthernet(bytes, toMac, this.#mac, ETHERTYPE_ARP);
    // Ethernet and IPv4, addresses of 6 and 4 bytes.
    bytes.set([0, 1, 8, 0, 6, 4, 0, operation], ETHERNET_SIZE);
    bytes.set(this.#mac, ETHERNET_SIZE + 8);
    bytes.set(this.ip, ETHERNET_SIZE + 14);
    bytes.set(aboutMac, ETHERNET_SIZE + 18);
    bytes.set(aboutIp, ETHERNET_SIZE + 24);
    this.#emit(ETHERNET_SIZE + ARP_SIZE);
  }

  #takeIcmp(packet: IpPacket): void {
    const { payload } = packet;
    if (payload.length < 8) return;
    const id = payload[4]! << 8 | payload[5]!;
    const sequence = payload[6]! << 8 | payload[7]!;
    if (payload[0] === 8) {
      this.pingsAnswered++;
      this.#sendIcmp(packet.fromMac, packet.from, 0, id, sequence, payload.slice(8));
    } else if (payload[0] === 0 && id === 0x4711) {
      this.#pings.get(sequence)?.();
    }
  }

  #sendIcmp(
    mac: Address,
    to: Address,
    type: number,
    id: number,
    sequence: number,
    data: Uint8Array,
  ): void {
    const length = 8 + data.length;
    const bytes = this.#start(mac, to, PROTOCOL_ICMP, length);
    const at = ETHERNET_SIZE + IP_SIZE;
    bytes.set([type, 0, 0, 0, id >> 8, id & 0xff, sequence >> 8, sequence & 0xff], at);
    bytes.set(data, at + 8);
    const sum = ~fold(sumWords(bytes, at, at + length)) & 0xffff;
    bytes.set([sum >> 8, sum & 0xff], at + 2);
    this.#emit(at + length);
  }

  #takeUdp({ from, fromMac, to, payload }: IpPacket): void {
    if (payload.length < UDP_SIZE) return;
    const length = payload[4]! << 8 | payload[5]!;
    if (length < UDP_SIZE || length > payload.length) return;
    this.#udp.get(payload[2]! << 8 | payload[3]!)?.({
      from,
      fromMac,
      fromPort: payload[0]! << 8 | payload[1]!,
      to,
      data: payload.slice(UDP_SIZE, length),
    });
  }

  #takeTcp({ from, payload }: IpPacket): void {
    const segment = readSegment(payload);
    if (segment === null) return;
    const key = `${formatIp(from)} ${segment.fromPort} ${segment.toPort}`;
    let connection = this.#connections.get(key);
    const opening = (segment.flags & (Flag.syn | Flag.ack)) === Flag.syn;
    if (connection === undefined || connection.tcp.over && opening) {
      const listener = this.#listeners.get(segment.toPort);
      if (listener === undefined || !opening) {
        if ((segment.flags & Flag.rst) === 0) this.#refuse(from, segment);
        return;
      }
      const tcp = this.#connection(from, segment.fromPort, segment.toPort);
      connection = this.#connections.get(key)!;
      listener(tcp);
    }
    connection.tcp.receive(segment);
  }

  /** There is no such connection (RFC 9293, 3.10.7.1). */
  #refuse(to: Address, segment: Segment): void {
    const acknowledges = (segment.flags & Flag.ack) !== 0;
    const length = segment.data.length + ((segment.flags & (Flag.syn | Flag.fin)) !== 0 ? 1 : 0);
    this.#sendTcp(to, segment.fromPort, segment.toPort, {
      sequence: acknowledges ? segment.acknowledged : 0,
      acknowledged: segment.sequence + length >>> 0,
      flags: acknowledges ? Flag.rst : Flag.rst | Flag.ack,
      window: 0,
      options: false,
      mss: 0,
      data: new Uint8Array(0),
    });
  }

  #connection(to: Address, theirPort: number, ourPort: number): TcpConnection {
    const key = `${formatIp(to)} ${theirPort} ${ourPort}`;
    const tcp = new TcpConnection({
      send: (segment) => this.#sendTcp(to, theirPort, ourPort, segment),
      mss: this.#mtu - IP_SIZE - TCP_SIZE,
      bulk: this.#options.offload ? BULK : 0,
      patience: this.#patience,
    }, crypto.getRandomValues(new Uint32Array(1))[0]!);
    // Those that ended are kept for a while: the other side may not know it yet.
    if (this.#connections.size >= KEPT) {
      for (const [old, { tcp }] of this.#connections) if (tcp.over) this.#connections.delete(old);
    }
    this.#connections.set(key, { tcp });
    tcp.closed.catch(() => {
      if (this.#connections.get(key)?.tcp === tcp) this.#connections.delete(key);
    });
    return tcp;
  }

  #sendTcp(to: Address, theirPort: number, ourPort: number, segment: Outgoing): void {
    const mac = this.#neighbours.get(formatIp(to));
    if (mac === undefined) return;
    const header = TCP_SIZE + (segment.options ? SYN_OPTIONS : 0);
    const length = header + segment.data.length;
    const bytes = this.#start(mac, to, PROTOCOL_TCP, length);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const at = ETHERNET_SIZE + IP_SIZE;
    view.setUint16(at, ourPort);
    view.setUint16(at + 2, theirPort);
    view.setUint32(at + 4, segment.sequence);
    view.setUint32(at + 8, segment.acknowledged);
    bytes[at + 12] = header << 2;
    bytes[at + 13] = segment.flags;
    view.setUint16(at + 14, segment.window);
    view.setUint32(at + 16, 0);
    if (segment.options) {
      const mss = this.#mtu - IP_SIZE - TCP_SIZE;
      bytes.set([2, 4, mss >> 8, mss & 0xff, 1, 3, 3, WINDOW_SCALE], at + TCP_SIZE);
    }
    bytes.set(segment.data, at + header);
    const pseudo = pseudoSum(this.ip, to, PROTOCOL_TCP, length);
    const frame = this.#frame;
    frame.plain();
    if (this.#options.offload) {
      // 5.1.6.2: the field holds the sum over the pseudo header; whoever finishes the frame adds the rest.
      view.setUint16(at + 16, fold(pseudo));
      frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
      frame.csumStart = at;
      frame.csumOffset = 16;
      frame.headerLength = at + header;
      if (segment.data.length > segment.mss) {
        frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
        frame.gsoSize = segment.mss;
      }
    } else {
      view.setUint16(at + 16, ~fold(pseudo + sumWords(bytes, at, at + length)) & 0xffff);
    }
    frame.setLength(at + length);
    this.#options.send(frame);
  }

  /** Writes headers; the payload goes behind them. */
  #start(mac: Address, to: Address, protocol: number, length: number): Uint8Array {
    const bytes = this.#frame.buffer;
    putEthernet(bytes, mac, this.#mac, ETHERTYPE_IPV4);
    putIp(bytes, this.ip, to, protocol, length, this.#id++ & 0xffff);
    return bytes;
  }

  #emit(length: number): void {
    this.#frame.plain();
    this.#frame.setLength(length);
    this.#options.send(this.#frame);
  }
}

/** A station at the end of a cable: a port of a switch, or a driver's. */
export function stationOn(cable: NetBackend, options: Omit<StationOptions, "send">): Station {
  const station: Station = new Station({ ...options, send: (frame) => pass(frame, cable) });
  cable.connect({
    get offloads() {
      return station.offloads;
    },
    deliver: (frame) => station.receive(frame),
  });
  return station;
}
