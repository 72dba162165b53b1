/** Two engines, and between them a wire that loses, doubles, delays and reorders. */
import { formatAddress } from "../ip/address.ts";
import type { AddressWords, Guest, IpOutput, IpPacket, Path } from "../ip/packet.ts";
import type { Connection } from "./connection.ts";
import type { CloseReason, ConnectionHandler } from "./connection_types.ts";
import { TcpEngine, type TcpOptions } from "./engine.ts";
import { TestTiming } from "./timing_testing.ts";

/** What a wire does to packets; numbers are chances of 0 to 1. */
export interface Weather {
  readonly loss: number;
  readonly duplication: number;
  /** Chance that a packet is overtaken by later ones. */
  readonly reordering: number;
  /** Milliseconds that each packet takes. */
  readonly delay: number;
  readonly mtu: number;
  /** Whether large segments arrive as they are. */
  readonly unsegmented: boolean;
}

/** A wire that does nothing wrong. */
export const FINE: Weather = {
  loss: 0,
  duplication: 0,
  reordering: 0,
  delay: 1,
  mtu: 1500,
  unsegmented: true,
};

/** An IPv4 address as words. */
export function ipv4(a: number, b: number, c: number, d: number): AddressWords {
  return new Uint32Array([0, 0, 0xffff, ((a << 24) | (b << 16) | (c << 8) | d) >>> 0]);
}

/** A station for tests. */
export function testGuest(mac: string): Guest {
  return { mac, name: mac, port: "port", addresses: [], gone: false, tso4: true, tso6: true };
}

/** Numbers that look random, the same each time. */
export function random(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** One end's IP layer: what is sent goes to whoever `deliver` names. */
export class TestIp implements IpOutput {
  readonly buffer: Uint8Array = new Uint8Array(70_000);
  readonly view: DataView = new DataView(this.buffer.buffer);
  readonly start = 34;
  readonly room = 65_515;
  readonly addresses: readonly AddressWords[];
  /** By their addresses as text, for `find`. */
  readonly guests: Map<string, Guest> = new Map();
  /** Whether anything can be sent. */
  up = true;
  readonly refused: string[] = [];
  readonly #deliver: (path: Path, bytes: Uint8Array, gsoSize: number) => void;
  readonly #mtu: number;
  #path: Path | null = null;

  constructor(
    mtu: number,
    deliver: (path: Path, bytes: Uint8Array, gsoSize: number) => void,
    addresses: readonly AddressWords[] = [],
  ) {
    this.#mtu = mtu;
    this.addresses = addresses;
    this.#deliver = deliver;
  }

  path(guest: Guest, source: AddressWords, destination: AddressWords, protocol: number): Path {
    return {
      guest,
      version: 4,
      protocol,
      source,
      destination,
      mtu: this.#mtu,
      ipHeaderSize: 20,
      trafficClass: 0,
      hopLimit: 64,
      dontFragment: true,
    };
  }

  begin(path: Path): boolean {
    if (!this.up) return false;
    if (this.#path !== null) throw new Error("a packet is begun already");
    this.#path = path;
    return true;
  }

  finish(length: number, _checksumOffset: number, gsoSize: number): void {
    const path = this.#path!;
    this.#path = null;
    if (length > this.room) throw new RangeError(`${length} bytes are too many`);
    const header = (this.view.getUint8(this.start + 12) >>> 4) * 4;
    if (gsoSize === 0 ? length > this.#mtu - 20 : header + gsoSize > this.#mtu - 20) {
      throw new RangeError(`a segment is larger than the MTU of ${this.#mtu} bytes`);
    }
    this.#deliver(path, this.buffer.slice(this.start, this.start + length), gsoSize);
  }

  refuse(_packet: IpPacket, kind: string): void {
    this.refused.push(kind);
  }

  reject(_path: Path, kind: string): void {
    this.refused.push(kind);
  }

  find(address: AddressWords): Guest | null {
    return this.guests.get(formatAddress(address)) ?? null;
  }
}

/** A packet as an IP layer hands it up. */
export function packetOf(
  guest: Guest,
  source: AddressWords,
  destination: AddressWords,
  bytes: Uint8Array,
  protocol = 6,
): IpPacket {
  return {
    guest,
    version: 4,
    source,
    destination,
    local: false,
    protocol,
    hopLimit: 64,
    trafficClass: 0,
    dontFragment: true,
    buffer: bytes,
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
    headerOffset: 0,
    offset: 0,
    length: bytes.length,
    checksumGood: true,
    gsoSize: 0,
  };
}

/** Two engines. `near` is the gateway, `far` what a guest would be. */
export class TestWire {
  readonly timing: TestTiming = new TestTiming();
  readonly near: TcpEngine;
  readonly far: TcpEngine;
  readonly nearIp: TestIp;
  readonly farIp: TestIp;
  readonly nearAddress: AddressWords = ipv4(192, 0, 2, 1);
  readonly farAddress: AddressWords = ipv4(192, 168, 122, 5);
  readonly guest: Guest = testGuest("02:00:00:00:00:05");
  /** Nothing arrives any more. */
  cut = false;
  /** Sees each segment; false loses it. */
  filter: ((bytes: Uint8Array, fromNear: boolean) => boolean) | null = null;
  weather: Weather;
  readonly #random: () => number;

  constructor(weather: Partial<Weather> = {}, options: TcpOptions = {}, seed = 1) {
    this.weather = { ...FINE, ...weather };
    this.#random = random(seed);
    const all = { ...options, timing: this.timing };
    const { mtu } = this.weather;
    this.nearIp = new TestIp(mtu, (path, bytes, gso) => this.#send(path, bytes, gso, true));
    this.farIp = new TestIp(mtu, (path, bytes, gso) => this.#send(path, bytes, gso, false));
    this.near = new TcpEngine(this.nearIp, all);
    this.far = new TcpEngine(this.farIp, all);
  }

  #send(path: Path, bytes: Uint8Array, gsoSize: number, fromNear: boolean): void {
    if (gsoSize === 0 || this.weather.unsegmented) return this.#carry(path, bytes, fromNear);
    const header = (bytes[12]! >>> 4) * 4;
    for (let at = header; at < bytes.length; at += gsoSize) {
      const payload = bytes.subarray(at, at + gsoSize);
      const segment = new Uint8Array(header + payload.length);
      segment.set(bytes.subarray(0, header));
      segment.set(payload, header);
      const view = new DataView(segment.buffer);
      view.setInt32(4, view.getInt32(4) + at - header);
      // FIN and PSH belong to the last one.
      if (at + gsoSize < bytes.length) view.setUint8(13, view.getUint8(13) & ~9);
      this.#carry(path, segment, fromNear);
    }
  }

  #carry(path: Path, bytes: Uint8Array, fromNear: boolean): void {
    if (this.cut || this.filter !== null && !this.filter(bytes, fromNear)) return;
    const { loss, duplication, reordering, delay } = this.weather;
    if (this.#random() < loss) return;
    for (let copies = this.#random() < duplication ? 2 : 1; copies > 0; copies--) {
      const late = this.#random() < reordering ? this.#random() * 10 : 0;
      const packet = packetOf(this.guest, path.source, path.destination, bytes);
      this.timing.after(delay + late, () => {
        if (!this.cut) (fromNear ? this.far : this.near).receive(packet);
      });
    }
  }

  /** Connects from the far side. @returns Both ends, when the near one is asked. */
  connect(port = 80): { far: TestEnd; asked: Promise<Connection> } {
    const asked = new Promise<Connection>((resolve) => this.near.incoming = resolve);
    return { far: new TestEnd((handler) => this.#ask(port, handler)), asked };
  }

  #ask(port: number, handler: ConnectionHandler): Connection {
    return this.far.connect(this.guest, this.farAddress, this.nearAddress, port, () => handler)!;
  }

  /** Connects, and accepts. */
  pair(): { far: TestEnd; near: TestEnd } {
    let near: TestEnd | null = null;
    this.near.incoming = (connection) =>
      near = new TestEnd((handler) => {
        connection.accept(handler);
        return connection;
      });
    const far = new TestEnd((handler) => this.#ask(80, handler));
    for (let i = 0; i < 100_000 && !(near !== null && far.isOpen); i++) this.timing.pass(1);
    return { far, near: near! };
  }

  close(): void {
    this.near.close();
    this.far.close();
  }
}

/** One end of a connection, which sends bytes and collects what comes. */
export class TestEnd implements ConnectionHandler {
  readonly connection: Connection;
  isOpen = false;
  ended = false;
  reason: CloseReason | null = null;
  /** Bytes that are read at most whenever there are some; 0 to read nothing. */
  greed = Infinity;
  readonly #got: Uint8Array[] = [];
  #toSend: Uint8Array = new Uint8Array(0);
  #ends = false;

  constructor(start: (handler: ConnectionHandler) => Connection) {
    this.connection = start(this);
  }

  get got(): Uint8Array {
    const all = new Uint8Array(this.#got.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const bytes of this.#got) {
      all.set(bytes, at);
      at += bytes.length;
    }
    return all;
  }

  send(bytes: Uint8Array, end = false): void {
    this.#toSend = bytes;
    this.#ends = end;
    if (this.isOpen) this.writable();
  }

  opened(): void {
    this.isOpen = true;
    this.writable();
  }

  writable(): void {
    while (this.#toSend.length > 0 && this.connection.writableBytes > 0) {
      const room = this.connection.room();
      const count = Math.min(room.length, this.#toSend.length);
      room.set(this.#toSend.subarray(0, count));
      this.connection.commit(count);
      this.#toSend = this.#toSend.subarray(count);
    }
    if (this.#toSend.length === 0 && this.#ends) this.connection.end();
  }

  readable(): void {
    let left = this.greed;
    while (left > 0 && this.connection.readableBytes > 0) {
      const bytes = this.connection.received();
      const count = Math.min(left, bytes.length);
      this.#got.push(bytes.slice(0, count));
      this.connection.consume(count);
      left -= count;
    }
    this.ended = this.connection.ended;
  }

  closed(reason: CloseReason): void {
    this.reason = reason;
    this.greed = Infinity;
    this.readable();
    this.connection.release();
  }
}
