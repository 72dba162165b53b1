import { formatAddress, parseAddress, sameAddress } from "../ip/address.ts";
import { type AddressWords, type IpOutput, type IpPacket, IpProtocol } from "../ip/packet.ts";
import type { Guest, Path } from "../ip/packet.ts";
import type { Outside, OutsidePeer, OutsideProblem, OutsideSocket } from "../outside/outside.ts";
import { Timer, type Timers } from "../tcp/timers.ts";
import { type FlowCounts, ICMP_KINDS } from "./flow.ts";

const HEADER_SIZE = 8;
/** Milliseconds without a datagram after which a flow is over: one that nobody answered, and one with answers. */
const UNANSWERED = 30_000;
const ANSWERED = 120_000;
/** Destinations that a flow remembers: only those may answer. */
const MAX_DESTINATIONS = 64;
/** Datagrams that wait until a flow's socket is there. */
const MAX_WAITING = 16;

/** Sends a datagram to a guest. */
export function sendDatagram(
  output: IpOutput,
  path: Path,
  sourcePort: number,
  destinationPort: number,
  bytes: Uint8Array,
): boolean {
  if (!output.begin(path)) return false;
  const { view, start } = output;
  const length = HEADER_SIZE + bytes.length;
  if (length > output.room) return false;
  view.setUint16(start, sourcePort);
  view.setUint16(start + 2, destinationPort);
  view.setUint16(start + 4, length);
  view.setUint16(start + 6, 0);
  output.buffer.set(bytes, start + HEADER_SIZE);
  output.finish(length, 6, 0);
  return true;
}

/** Where a guest sends to: as it sees it, and where that really is. */
interface Destination {
  readonly seen: AddressWords;
  readonly port: number;
  readonly real: string;
  readonly realPort: number;
  readonly path: Path;
}

/** What `UdpFlows` needs. */
export interface UdpHost {
  readonly output: IpOutput;
  readonly outside: Outside;
  readonly timers: Timers;
  readonly counts: FlowCounts;
  /** A flow is over: its place is free again. */
  left(guest: Guest): void;
}

/** All datagrams that a guest sends from one port: one socket of the outside. */
class UdpFlow {
  readonly key: string;
  readonly guest: Guest;
  readonly address: AddressWords;
  readonly port: number;
  readonly timer: Timer;
  closed = false;
  #socket: OutsideSocket | null = null;
  #waiting: { readonly to: Destination; readonly bytes: Uint8Array }[] = [];
  readonly #host: UdpHost;
  /** By real address and port. */
  readonly #destinations: Map<string, Destination> = new Map();
  #last: Destination | null = null;
  #answered = false;

  constructor(host: UdpHost, key: string, packet: IpPacket, port: number, end: () => void) {
    this.#host = host;
    this.key = key;
    this.guest = packet.guest;
    this.address = packet.source.slice();
    this.port = port;
    this.timer = new Timer(end);
  }

  async open(version: 4 | 6): Promise<void> {
    const { outside } = this.#host;
    const socket = await outside.datagrams!({
      version,
      receive: (bytes, from) => this.#take(bytes, from),
      problem: (problem, to) => this.#fail(problem, to),
    });
    if (this.closed) {
      socket.close();
      return;
    }
    this.#socket = socket;
    for (const { to, bytes } of this.#waiting) socket.send(bytes, to.real, to.realPort);
    this.#waiting = [];
  }

  /** Finds or makes what is known of a destination; null if there are too many. */
  destination(packet: IpPacket, port: number, real: AddressWords): Destination | null {
    const last = this.#last;
    if (last !== null && last.port === port && sameAddress(last.seen, packet.destination)) {
      return last;
    }
    const text = formatAddress(real);
    const key = `${text} ${port}`;
    let found = this.#destinations.get(key);
    if (found === undefined || !sameAddress(found.seen, packet.destination)) {
      if (this.#destinations.size >= MAX_DESTINATIONS) {
        const [oldest] = this.#destinations.keys();
        this.#destinations.delete(oldest!);
      }
      const seen = packet.destination.slice();
      const { output } = this.#host;
      const path = output.path(this.guest, seen, this.address, IpProtocol.udp);
      path.dontFragment = false;
      found = { seen, port, real: text, realPort: port, path };
      this.#destinations.set(key, found);
    }
    this.#last = found;
    return found;
  }

  send(to: Destination, bytes: Uint8Array): void {
    this.refresh();
    this.#host.counts.datagramsOut++;
    if (this.#socket !== null) this.#socket.send(bytes, to.real, to.realPort);
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ to, bytes: bytes.slice() });
    else this.#host.counts.datagramsDropped++;
  }

  refresh(): void {
    const { timers } = this.#host;
    timers.set(this.timer, timers.now() + (this.#answered ? ANSWERED : UNANSWERED));
  }

  close(): void {
    this.closed = true;
    this.#host.timers.clear(this.timer);
    this.#socket?.close();
    this.#waiting = [];
  }

  #take(bytes: Uint8Array, from: OutsidePeer): void {
    const { counts, output } = this.#host;
    const last = this.#last;
    const known = last !== null && last.realPort === from.port && last.real === from.address
      ? last
      : this.#find(from);
    if (this.closed || known === null) {
      counts.datagramsDropped++;
      return;
    }
    this.#answered = true;
    this.refresh();
    if (sendDatagram(output, known.path, known.port, this.port, bytes)) counts.datagramsIn++;
    else counts.datagramsDropped++;
  }

  /** A datagram came to nothing: the guest is told, as the outside was. */
  #fail(problem: OutsideProblem, to: OutsidePeer): void {
    const known = this.closed ? null : this.#find(to);
    const kind = problem === "refused" ? "port" : ICMP_KINDS[problem];
    if (known === null || kind === undefined) return;
    const start = new Uint8Array(HEADER_SIZE);
    const view = new DataView(start.buffer);
    view.setUint16(0, this.port);
    view.setUint16(2, known.port);
    view.setUint16(4, HEADER_SIZE);
    this.#host.output.reject(known.path, kind, start);
  }

  #find(from: OutsidePeer): Destination | null {
    const found = this.#destinations.get(`${from.address} ${from.port}`);
    if (found !== undefined) return found;
    // The same address may be written in more than one way.
    const words = parseAddress(from.address.replace(/%.*$/, ""));
    if (words === null) return null;
    return this.#destinations.get(`${formatAddress(words)} ${from.port}`) ?? null;
  }
}

/** The datagrams of guests to the outside, and the answers. */
export class UdpFlows {
  readonly #host: UdpHost;
  readonly #flows: Map<string, UdpFlow> = new Map();
  /** The flow of the last datagram: most come in rows. */
  #last: UdpFlow | null = null;

  constructor(host: UdpHost) {
    this.#host = host;
  }

  /** How many there are. */
  get size(): number {
    return this.#flows.size;
  }

  /** Whether a datagram belongs to a flow that there is. */
  has(packet: IpPacket): boolean {
    return this.#find(packet) !== null;
  }

  /**
   * Sends a guest's datagram, which was admitted, to where it really goes.
   *
   * @param failed Called if there can be no socket for a new flow.
   */
  send(packet: IpPacket, real: AddressWords, failed: (error: unknown) => void): void {
    const { view, offset, buffer } = packet;
    const port = view.getUint16(offset);
    let flow = this.#find(packet);
    if (flow === null) {
      const key = keyOf(packet.source, port);
      const made = new UdpFlow(this.#host, key, packet, port, () => this.#end(made));
      flow = made;
      this.#flows.set(key, made);
      this.#host.counts.udp++;
      made.open(packet.version === 4 ? 4 : 6).catch((error) => {
        this.#end(made);
        failed(error);
      });
    }
    this.#last = flow;
    const to = flow.destination(packet, view.getUint16(offset + 2), real);
    if (to === null) return;
    const length = Math.min(packet.length, view.getUint16(offset + 4)) - HEADER_SIZE;
    flow.send(to, buffer.subarray(offset + HEADER_SIZE, offset + HEADER_SIZE + length));
  }

  /** Ends all flows of a guest. */
  guestGone(guest: Guest): void {
    for (const flow of this.#flows.values()) if (flow.guest === guest) this.#end(flow);
  }

  /** Ends all. */
  close(): void {
    for (const flow of this.#flows.values()) this.#end(flow);
  }

  #find(packet: IpPacket): UdpFlow | null {
    const port = packet.view.getUint16(packet.offset);
    const last = this.#last;
    if (
      last !== null && last.port === port && last.guest === packet.guest &&
      sameAddress(last.address, packet.source)
    ) return last;
    const flow = this.#flows.get(keyOf(packet.source, port)) ?? null;
    if (flow === null || flow.guest === packet.guest) return flow;
    // Another station has the address now.
    this.#end(flow);
    return null;
  }

  #end(flow: UdpFlow): void {
    if (flow.closed) return;
    flow.close();
    this.#flows.delete(flow.key);
    if (this.#last === flow) this.#last = null;
    this.#host.counts.udp--;
    this.#host.left(flow.guest);
  }
}

function keyOf(address: AddressWords, port: number): string {
  return `${address[0]} ${address[1]} ${address[2]} ${address[3]} ${port}`;
}
