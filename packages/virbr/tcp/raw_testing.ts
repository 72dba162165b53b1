/** A guest that says whatever a test wants, segment by segment. */
import type { AddressWords, Guest } from "../ip/packet.ts";
import type { Connection } from "./connection.ts";
import { TcpEngine, type TcpOptions } from "./engine.ts";
import { ACK, Segment, SYN } from "./segment.ts";
import { TestTiming } from "./timing_testing.ts";
import { ipv4, packetOf, TestEnd, testGuest, TestIp } from "./wire_testing.ts";

/** A segment of the guest's; what is not given is what a well-behaved guest would say. */
export interface RawSegment {
  readonly flags: number;
  readonly seq?: number;
  readonly ack?: number;
  readonly window?: number;
  readonly options?: readonly number[];
  readonly payload?: Uint8Array;
  /** Bytes that the header says it has. */
  readonly headerSize?: number;
  readonly checksumGood?: boolean;
  /** Who sends it. */
  readonly guest?: Guest;
}

/** A segment that the gateway sent, and the payload of a piece if it is to be cut. */
export interface Answer {
  readonly segment: Segment;
  readonly gsoSize: number;
}

/** The options of a SYN: the largest segment, the shift of windows, selective acknowledgements. */
export function synOptions(mss: number, scale: number | null, sack: boolean): number[] {
  return [
    ...[2, 4, mss >> 8, mss & 255],
    ...(scale === null ? [] : [1, 3, 3, scale]),
    ...(sack ? [1, 1, 4, 2] : []),
  ];
}

/** The option that tells what came out of order. */
export function sackOption(...edges: number[]): number[] {
  const bytes = new Uint8Array(4 * edges.length);
  const view = new DataView(bytes.buffer);
  edges.forEach((edge, i) => view.setInt32(4 * i, edge));
  return [1, 1, 5, 2 + bytes.length, ...bytes];
}

/** The gateway's engine, and such a guest. */
export class RawGuest {
  readonly timing: TestTiming = new TestTiming();
  readonly engine: TcpEngine;
  readonly guest: Guest = testGuest("02:00:00:00:00:05");
  readonly gateway: AddressWords = ipv4(192, 0, 2, 1);
  readonly address: AddressWords = ipv4(192, 168, 122, 5);
  port = 1000;
  peerPort = 80;
  /** The guest's next number. */
  seq = 0x7fff_f000;
  /** The gateway's next number, as far as the guest acknowledges it. */
  ack = 0;
  window = 0xffff;
  /** Connections that the gateway was asked for. */
  readonly asked: Connection[] = [];
  #answers: Answer[] = [];

  constructor(options: TcpOptions = {}) {
    const ip = new TestIp(1500, (_path, bytes, gsoSize) => {
      const segment = new Segment();
      segment.parse(bytes, new DataView(bytes.buffer), 0, bytes.length);
      this.#answers.push({ segment, gsoSize });
    });
    this.engine = new TcpEngine(ip, { keepAliveIdle: 1e9, ...options, timing: this.timing });
    this.engine.incoming = (connection) => this.asked.push(connection);
  }

  /** The guest sends a segment; what the gateway does at once is done when this returns. */
  send(segment: RawSegment): void {
    const { flags, options = [], payload = new Uint8Array(0), headerSize = 20 + options.length } =
      segment;
    const bytes = new Uint8Array(20 + options.length + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, this.port);
    view.setUint16(2, this.peerPort);
    view.setInt32(4, segment.seq ?? this.seq);
    view.setInt32(8, segment.ack ?? this.ack);
    view.setUint8(12, headerSize << 2);
    view.setUint8(13, flags);
    view.setUint16(14, segment.window ?? this.window);
    bytes.set(options, 20);
    bytes.set(payload, 20 + options.length);
    this.engine.receive({
      ...packetOf(segment.guest ?? this.guest, this.address, this.gateway, bytes),
      checksumGood: segment.checksumGood ?? true,
    });
    this.timing.pass(0);
  }

  /** What the gateway sent since this was called last. */
  take(): Answer[] {
    this.timing.pass(0);
    const answers = this.#answers;
    this.#answers = [];
    return answers;
  }

  /** Asks for a connection. @returns It, as the gateway sees it. */
  ask(options: readonly number[] = synOptions(1460, 7, true)): Connection {
    this.send({ flags: SYN, ack: 0, options });
    return this.asked.at(-1)!;
  }

  /** The gateway accepts what was asked for. @returns Its end; the guest did not hear of it yet. */
  accept(connection: Connection): TestEnd {
    const end = new TestEnd((handler) => {
      connection.accept(handler);
      return connection;
    });
    this.timing.pass(0);
    return end;
  }

  /** Connects. @returns The gateway's end. */
  connect(options?: readonly number[]): TestEnd {
    const end = this.accept(this.ask(options));
    const { segment } = this.take()[0]!;
    this.seq = (this.seq + 1) | 0;
    this.ack = (segment.seq + 1) | 0;
    this.send({ flags: ACK });
    this.take();
    return end;
  }
}

/** Bytes of payload in all of them. */
export function payloadOf(answers: readonly Answer[]): number {
  return answers.reduce((sum, { segment }) => sum + segment.length, 0);
}
