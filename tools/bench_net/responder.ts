/**
 * The station at the other end of a guest's cable, the same for every card: answers ARP and ICMP echo, throws away UDP and TCP
 * that come to the discard port, and sends TCP for ever from the character generator's. It trusts its guest: checksums of what
 * comes are not looked at, and nothing is sent twice.
 */
import { CHARGEN_PORT, DISCARD_PORT } from "./program.ts";

const ETHERNET = 14;
const IP = 20;
const TCP = 20;
const AT = ETHERNET + IP;
const ARP_SIZE = 42;
const SYN = 2;
const FIN = 1;
const ACK = 16;
const RST = 4;
const WINDOW = 0xffff;
/** We take 4 MiB at once. */
const SCALE = 6;
const SYN_OPTIONS = 8;
/** Bytes on their way to the guest at most: fewer than its card has buffers for. */
const IN_FLIGHT = 256 * 1024;

/** How the station sends. */
export interface ResponderCable {
  /** Largest TCP segment's data: more than `mss` where the card takes frames unsegmented. */
  readonly bulk: number;
  /**
   * Sends a frame.
   *
   * @param header Bytes of all headers if the frame is a TCP segment whose checksum is that of the pseudo header, where `bulk`
   * says that the card takes such frames; else 0.
   */
  send(frame: Uint8Array, header: number): void;
}

/** What passed. */
export interface ResponderCounts {
  /** Datagrams to the discard port. */
  datagrams: number;
  /** Bytes that came by TCP. */
  received: number;
  /** Bytes of TCP that were acknowledged. */
  sent: number;
}

interface Connection {
  readonly port: number;
  next: number;
  unacknowledged: number;
  expected: number;
  window: number;
  scale: number;
}

/** The station. */
export class Responder {
  /** What passed. */
  readonly counts: ResponderCounts = { datagrams: 0, received: 0, sent: 0 };
  readonly #mac: Uint8Array;
  readonly #ip: Uint8Array;
  readonly #cable: ResponderCable;
  readonly #mss: number;
  readonly #connections = new Map<number, Connection>();
  /** What is sent is made here; valid until the next. */
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  /** @param ip The station's address. */
  constructor(mac: readonly number[], ip: string, cable: ResponderCable, mtu = 1500) {
    this.#mac = new Uint8Array(mac);
    this.#ip = new Uint8Array(ip.split(".").map(Number));
    this.#cable = cable;
    this.#mss = mtu - IP - TCP;
    this.#bytes = new Uint8Array(AT + TCP + SYN_OPTIONS + Math.max(cable.bulk, this.#mss)).fill(
      0x61,
    );
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Takes a frame; it is read during the call. */
  receive(frame: Uint8Array): void {
    if (frame.length < ARP_SIZE) return;
    const type = frame[12]! << 8 | frame[13]!;
    if (type === 0x0806) return this.#arp(frame);
    if (type !== 0x0800 || frame[14] !== 0x45) return;
    for (let i = 0; i < 4; i++) if (frame[30 + i] !== this.#ip[i]) return;
    const protocol = frame[23]!;
    if (protocol === 1) this.#echo(frame);
    else if (protocol === 6) this.#tcp(frame);
    else if (protocol === 17 && (frame[AT + 2]! << 8 | frame[AT + 3]!) === DISCARD_PORT) {
      this.counts.datagrams++;
    }
  }

  #arp(frame: Uint8Array): void {
    for (let i = 0; i < 4; i++) if (frame[38 + i] !== this.#ip[i]) return;
    if (frame[21] !== 1) return;
    const answer = this.#bytes.subarray(0, ARP_SIZE);
    answer.set(frame.subarray(0, ARP_SIZE));
    answer.set(frame.subarray(6, 12), 0);
    answer.set(this.#mac, 6);
    answer[21] = 2;
    answer.set(this.#mac, 22);
    answer.set(this.#ip, 28);
    answer.set(frame.subarray(22, 32), 32);
    this.#cable.send(answer, 0);
  }

  #echo(frame: Uint8Array): void {
    if (frame[AT] !== 8) return;
    const answer = this.#bytes.subarray(0, frame.length);
    answer.set(frame);
    answer.set(frame.subarray(6, 12), 0);
    answer.set(this.#mac, 6);
    answer.set(this.#ip, 26);
    answer.set(frame.subarray(26, 30), 30);
    answer[AT] = 0;
    const sum = (frame[AT + 2]! << 8 | frame[AT + 3]!) + 0x0800;
    this.#view.setUint16(AT + 2, (sum & 0xffff) + (sum >>> 16));
    this.#cable.send(answer, 0);
  }

  #tcp(frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    const flags = frame[AT + 13]!;
    const key = view.getUint16(AT) << 8 | (view.getUint16(AT + 2) & 0xff);
    const sequence = view.getUint32(AT + 4);
    if ((flags & SYN) !== 0) return this.#open(frame, view, key, sequence);
    const connection = this.#connections.get(key);
    if (connection === undefined) return;
    if ((flags & RST) !== 0) {
      this.#connections.delete(key);
      return;
    }
    const header = (frame[AT + 12]! >> 4) * 4;
    const length = view.getUint16(16) - IP - header;
    const acknowledged = view.getUint32(AT + 8);
    const fresh = acknowledged - connection.unacknowledged | 0;
    if (fresh > 0) {
      connection.unacknowledged = acknowledged;
      this.counts.sent += fresh;
    }
    connection.window = view.getUint16(AT + 14) << connection.scale;
    const inOrder = sequence === connection.expected;
    if (inOrder) {
      connection.expected = sequence + length >>> 0;
      this.counts.received += length;
    }
    if (inOrder && (flags & FIN) !== 0) {
      connection.expected = connection.expected + 1 >>> 0;
      this.#connections.delete(key);
      this.#control(frame, connection, ACK | FIN);
    } else if (length > 0) {
      this.#control(frame, connection, ACK);
    }
    if (connection.port === CHARGEN_PORT) this.#pump(frame, connection);
  }

  #open(frame: Uint8Array, view: DataView, key: number, sequence: number): void {
    const port = view.getUint16(AT + 2);
    if (port !== DISCARD_PORT && port !== CHARGEN_PORT) return;
    let scale = 0;
    const end = AT + (frame[AT + 12]! >> 4) * 4;
    for (let at = AT + TCP; at < end && frame[at] !== 0;) {
      if (frame[at] === 3) scale = frame[at + 2]!;
      at += frame[at] === 1 ? 1 : Math.max(2, frame[at + 1]!);
    }
    const connection: Connection = {
      port,
      next: 1,
      unacknowledged: 2,
      expected: sequence + 1 >>> 0,
      window: 0,
      scale,
    };
    this.#connections.set(key, connection);
    this.#control(frame, connection, SYN | ACK);
    connection.next = 2;
  }

  #pump(frame: Uint8Array, connection: Connection): void {
    const most = Math.max(this.#cable.bulk, this.#mss);
    for (;;) {
      const onTheWay = connection.next - connection.unacknowledged | 0;
      const room = Math.min(connection.window, IN_FLIGHT) - onTheWay;
      // Whole segments only, as long as there are more to come.
      const length = Math.min(most, room - room % this.#mss);
      if (length <= 0) return;
      const sequence = connection.next;
      connection.next = sequence + length >>> 0;
      this.#segment(frame, connection, sequence, ACK, TCP, length);
    }
  }

  #control(frame: Uint8Array, connection: Connection, flags: number): void {
    const header = TCP + ((flags & SYN) !== 0 ? SYN_OPTIONS : 0);
    this.#segment(frame, connection, connection.next, flags, header, 0);
  }

  /** Sends a segment to whom a frame came from. */
  #segment(
    to: Uint8Array,
    connection: Connection,
    sequence: number,
    flags: number,
    header: number,
    length: number,
  ): void {
    const bytes = this.#bytes;
    const view = this.#view;
    const total = IP + header + length;
    bytes.set(to.subarray(6, 12), 0);
    bytes.set(this.#mac, 6);
    view.setUint16(12, 0x0800);
    view.setUint32(14, 0x4500_0000 | total);
    view.setUint32(18, 0x4000);
    view.setUint32(22, 0x4006_0000);
    bytes.set(this.#ip, 26);
    bytes.set(to.subarray(26, 30), 30);
    view.setUint16(24, ~fold(this.#sum(14, AT, 0)) & 0xffff);
    bytes.set(to.subarray(AT + 2, AT + 4), AT);
    bytes.set(to.subarray(AT, AT + 2), AT + 2);
    view.setUint32(AT + 4, sequence);
    view.setUint32(AT + 8, connection.expected);
    view.setUint16(AT + 12, header << 10 | flags);
    view.setUint16(AT + 14, WINDOW);
    view.setUint32(AT + 16, 0);
    if (header > TCP) {
      view.setUint32(AT + TCP, 0x0204_0000 | this.#mss);
      view.setUint32(AT + TCP + 4, 0x0103_0300 | SCALE);
    }
    const pseudo = this.#sum(26, AT, 6 + header + length);
    if (this.#cable.bulk > 0) {
      view.setUint16(AT + 16, fold(pseudo));
      this.#cable.send(bytes.subarray(0, ETHERNET + total), AT + header);
    } else {
      view.setUint16(AT + 16, ~fold(this.#sum(AT, ETHERNET + total, pseudo)) & 0xffff);
      this.#cable.send(bytes.subarray(0, ETHERNET + total), 0);
    }
    // The options of a SYN lie where data are.
    if (header > TCP) bytes.fill(0x61, AT + TCP, AT + header);
  }

  #sum(from: number, to: number, before: number): number {
    const view = this.#view;
    let sum = before;
    const even = to - ((to - from) & 1);
    for (let at = from; at < even; at += 2) sum += view.getUint16(at);
    return even < to ? sum + (this.#bytes[even]! << 8) : sum;
  }
}

function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}
