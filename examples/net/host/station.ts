/**
 * The host as a station on the example's network, over raw frames: it answers ARP and ping, pings itself, and speaks UDP and
 * TCP, which is that of `@virtio/virbr`. IPv4 on one link only: no fragments, no routing, no options.
 */
import { Frame, type NetBackend, Offload, pass, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "@virtio/net";
import { type Connection, TcpEngine, type Timing } from "@virtio/virbr/tcp";
import { StationConnection } from "./connection.ts";
import { StationOutput, wordsOf } from "./ip.ts";
import {
  type Address,
  BROADCAST_IP,
  BROADCAST_MAC,
  ETHERNET_SIZE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  fold,
  formatIp,
  IP_SIZE,
  type Packet,
  parseIp,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  pseudoSum,
  putEthernet,
  putIp,
  readIp,
  sameAddress,
  sumWords,
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
  /** Milliseconds until a question for an address is asked again; 300 unless given. */
  readonly patience?: number;
  /** Time as TCP sees it; as it is unless given. */
  readonly timing?: Timing;
}

/** A UDP datagram. */
export interface Datagram {
  readonly from: Address;
  readonly fromMac: Address;
  readonly fromPort: number;
  readonly to: Address;
  readonly data: Uint8Array;
}

const ARP_SIZE = 28;
const ATTEMPTS = 10;
/** Bytes of buffers of a connection, each way: no queue on the way shall overflow by our fault. */
const BUFFER = 256 * 1024;
/** Milliseconds that a connection is remembered after its end: the other side may not know it yet. */
const REMEMBERED = 1000;

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
  readonly #output: StationOutput;
  readonly #tcp: TcpEngine;
  readonly #listeners = new Map<number, (connection: StationConnection) => void>();
  readonly #udp = new Map<number, (datagram: Datagram) => void>();
  readonly #pings = new Map<number, () => void>();
  #id = 0;

  constructor(options: StationOptions) {
    this.#options = options;
    this.#mac = options.mac;
    this.ip = parseIp(options.ip);
    this.#mtu = options.mtu ?? 1500;
    this.#patience = options.patience ?? 300;
    this.#output = new StationOutput({
      mac: this.#mac,
      ip: this.ip,
      mtu: this.#mtu,
      offload: options.offload ?? false,
      neighbour: (ip) => this.#neighbours.get(ip),
      send: options.send,
    });
    this.#tcp = new TcpEngine(this.#output, {
      bufferSize: BUFFER,
      timeWait: REMEMBERED,
      ...(options.timing === undefined ? {} : { timing: options.timing }),
    });
    this.#tcp.incoming = (connection) => this.#accept(connection);
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
    else if (packet.protocol === PROTOCOL_TCP) {
      this.#tcp.receive(this.#output.packet(packet, frame.gsoSize));
    }
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
  listen(port: number, taken: (connection: StationConnection) => void): void {
    this.#listeners.set(port, taken);
  }

  /** Opens a connection. @throws {Error} Rejects if nobody answers, or it is refused. */
  async connect(ip: string, port: number): Promise<StationConnection> {
    const to = parseIp(ip);
    await this.#resolve(to);
    let made: StationConnection | null = null;
    const [local] = this.#output.addresses;
    this.#tcp.connect(this.#output.peer(to), local!, wordsOf(to), port, (connection) => {
      made = new StationConnection(connection);
      return made.handler;
    });
    if (made === null) throw new Error("There is no memory for one more connection");
    const connection: StationConnection = made;
    await connection.opened;
    return connection;
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
    this.#tcp.close();
    this.#listeners.clear();
  }

  #isSound({ protocol, from, to, payload }: Packet): boolean {
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

  #takeIcmp(packet: Packet): void {
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

  #takeUdp({ from, fromMac, to, payload }: Packet): void {
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

  #accept(connection: Connection): void {
    const listener = this.#listeners.get(connection.localPort);
    if (listener === undefined) return connection.refuse();
    const taken = new StationConnection(connection);
    if (connection.accept(taken.handler)) listener(taken);
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
