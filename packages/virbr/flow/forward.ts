import { formatAddress, isIpv4, parseAddress, sameAddress } from "../ip/address.ts";
import {
  type AddressWords,
  type Guest,
  type IpOutput,
  type IpPacket,
  IpProtocol,
  type Path,
} from "../ip/packet.ts";
import type { Outside, OutsidePeer, OutsideSocket, OutsideStream } from "../outside/outside.ts";
import type { TcpEngine } from "../tcp/engine.ts";
import { Timer, type Timers } from "../tcp/timers.ts";
import type { FlowCounts, FlowRequest } from "./flow.ts";
import { TcpFlow } from "./tcp_flow.ts";
import { sendDatagram } from "./udp_flows.ts";

/** Milliseconds between attempts to find a guest that is silent, and how many. */
const FIND_PAUSE = 200;
const FIND_TRIES = 15;
/** Milliseconds without a datagram after which somebody outside is forgotten. */
const UDP_IDLE = 120_000;
/** Senders outside that all UDP forwards together remember. */
const MAX_SENDERS = 1024;
const HEADER_SIZE = 8;
/** Ports of the gateway's that stand for senders outside. */
const FIRST_PORT = 20_000;
const PORTS = 12_000;

/** A port of the host's that leads to a guest. */
export interface ForwardOptions {
  /** "tcp" unless given. */
  readonly protocol?: "tcp" | "udp";
  /** Where the host listens: `127.0.0.1` unless given, so that nobody else reaches it; `0.0.0.0` or `::` for all addresses. */
  readonly address?: string;
  /** The host's port; 0 unless given: one that is free. */
  readonly port?: number;
  /** The guest's address, or what gives it: a guest may get it later, or another one. */
  readonly guest: string | (() => string | null);
  /** The guest's port. */
  readonly guestPort: number;
}

/** A forward that is in force. */
export interface Forward {
  /** "tcp" or "udp". */
  readonly protocol: "tcp" | "udp";
  /** Where the host listens. */
  readonly address: string;
  /** The port at which it does. */
  readonly port: number;
  /** The guest's address as it is now; null if it has none. */
  readonly guest: string | null;
  /** The guest's port. */
  readonly guestPort: number;
  /** Ends it. Connections that there are stay. */
  close(): void;
  /** For `Nat`: takes a guest's datagram if it answers one of this forward's. */
  answer?(packet: IpPacket): boolean;
}

/** What a forward needs. */
export interface ForwardHost {
  readonly outside: Outside;
  readonly output: IpOutput;
  readonly tcp: TcpEngine;
  readonly timers: Timers;
  readonly counts: FlowCounts;
  readonly bufferSize: number;
  /** Ports of the gateway's that stand for somebody outside. */
  readonly ports: Set<number>;
  /** Connections that are joined to the outside. */
  readonly joined: Set<TcpFlow>;
  admit(flow: FlowRequest): boolean;
  leave(guest: Guest): void;
  closed(forward: Forward): void;
}

/** Opens a forward. @throws {TypeError} If an option is none of its kind. */
export async function openForward(options: ForwardOptions, host: ForwardHost): Promise<Forward> {
  const { guest, guestPort, port = 0, address = "127.0.0.1", protocol = "tcp" } = options;
  if (typeof guest === "string" && parseAddress(guest) === null) {
    throw new TypeError(`A forward leads to the address of a guest: ${guest} is none`);
  }
  if (parseAddress(address) === null) {
    throw new TypeError(`A forward listens at an address of the host's: ${address} is none`);
  }
  if (!(Number.isInteger(guestPort) && guestPort >= 1 && guestPort <= 65_535)) {
    throw new RangeError(`guestPort is an integer from 1 to 65535: it is ${guestPort}`);
  }
  if (!(Number.isInteger(port) && port >= 0 && port <= 65_535)) {
    throw new RangeError(`port is an integer from 0 to 65535: it is ${port}`);
  }
  const find = typeof guest === "string" ? () => guest : guest;
  if (protocol === "tcp") return await TcpForward.open(host, address, port, find, guestPort);
  return await UdpForward.open(host, address, port, find, guestPort);
}

/** The gateway's address of a version. */
function gatewayAddress(output: IpOutput, guest: AddressWords): AddressWords | null {
  return output.addresses.find((own) => isIpv4(own) === isIpv4(guest)) ?? null;
}

async function findGuest(
  host: ForwardHost,
  find: () => string | null,
  stop: () => boolean,
): Promise<{ readonly guest: Guest; readonly address: AddressWords } | null> {
  for (let tries = 0; tries < FIND_TRIES && !stop(); tries++) {
    const text = find();
    const address = text === null ? null : parseAddress(text);
    const guest = address === null ? null : host.output.find(address);
    if (guest !== null) return { guest, address: address! };
    await new Promise<void>((resolve) => {
      host.timers.set(new Timer(() => resolve()), host.timers.now() + FIND_PAUSE);
    });
  }
  return null;
}

class TcpForward implements Forward {
  readonly protocol = "tcp";
  readonly address: string;
  readonly port: number;
  readonly guestPort: number;
  readonly #host: ForwardHost;
  readonly #find: () => string | null;
  readonly #close: () => void;
  #closed = false;

  private constructor(
    host: ForwardHost,
    where: OutsidePeer,
    find: () => string | null,
    guestPort: number,
    close: () => void,
  ) {
    this.#host = host;
    this.address = where.address;
    this.port = where.port;
    this.#find = find;
    this.guestPort = guestPort;
    this.#close = close;
  }

  static async open(
    host: ForwardHost,
    address: string,
    port: number,
    find: () => string | null,
    guestPort: number,
  ): Promise<TcpForward> {
    if (host.outside.listen === undefined) throw new TypeError("This way out cannot listen");
    let forward: TcpForward | null = null;
    const listener = await host.outside.listen(address, port, (stream, from) => {
      if (forward === null) stream.close();
      else void forward.#accept(stream, from);
    });
    return forward = new TcpForward(host, listener, find, guestPort, () => listener.close());
  }

  get guest(): string | null {
    return this.#find();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#close();
    this.#host.closed(this);
  }

  async #accept(stream: OutsideStream, from: OutsidePeer): Promise<void> {
    const host = this.#host;
    const found = await findGuest(host, this.#find, () => this.#closed);
    const local = found === null ? null : gatewayAddress(host.output, found.address);
    if (found === null || local === null) {
      host.counts.failed++;
      stream.close();
      return;
    }
    const { guest, address } = found;
    const flow: FlowRequest = {
      protocol: "tcp",
      direction: "in",
      guest,
      guestAddress: formatAddress(address),
      guestPort: this.guestPort,
      address: from.address,
      port: from.port,
    };
    if (!host.admit(flow)) {
      stream.close();
      return;
    }
    host.counts.tcp++;
    const end = (): void => {
      host.counts.tcp--;
      host.leave(guest);
    };
    const connection = host.tcp.connect(
      guest,
      local,
      address,
      this.guestPort,
      (connection) => {
        const flow = new TcpFlow(connection, stream, host.bufferSize, () => {
          host.joined.delete(flow);
          end();
        });
        host.joined.add(flow);
        return flow;
      },
    );
    if (connection !== null) return;
    host.counts.exhausted++;
    stream.close();
    end();
  }
}

/** Somebody outside who sends to a UDP forward: a port of the gateway's to the guest. */
interface Sender {
  readonly from: OutsidePeer;
  readonly port: number;
  readonly path: Path;
  readonly timer: Timer;
}

class UdpForward implements Forward {
  readonly protocol = "udp";
  readonly guestPort: number;
  readonly #host: ForwardHost;
  readonly #find: () => string | null;
  #socket: OutsideSocket | null = null;
  readonly #senders: Map<string, Sender> = new Map();
  readonly #byPort: Map<number, Sender> = new Map();
  #nextPort = 0;
  #closed = false;

  private constructor(host: ForwardHost, find: () => string | null, guestPort: number) {
    this.#host = host;
    this.#find = find;
    this.guestPort = guestPort;
  }

  static async open(
    host: ForwardHost,
    address: string,
    port: number,
    find: () => string | null,
    guestPort: number,
  ): Promise<UdpForward> {
    if (host.outside.datagrams === undefined) {
      throw new TypeError("This way out has no datagrams");
    }
    const forward = new UdpForward(host, find, guestPort);
    forward.#socket = await host.outside.datagrams({
      version: isIpv4(parseAddress(address)!) ? 4 : 6,
      address,
      port,
      receive: (bytes, from) => forward.#take(bytes, from),
    });
    return forward;
  }

  get address(): string {
    return this.#socket!.address;
  }

  get port(): number {
    return this.#socket!.port;
  }

  get guest(): string | null {
    return this.#find();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket!.close();
    for (const sender of this.#senders.values()) this.#forget(sender);
    this.#host.closed(this);
  }

  answer(packet: IpPacket): boolean {
    const { view, offset, buffer } = packet;
    if (view.getUint16(offset) !== this.guestPort) return false;
    const sender = this.#byPort.get(view.getUint16(offset + 2));
    if (sender === undefined || !sameAddress(sender.path.destination, packet.source)) return false;
    const end = offset + Math.min(packet.length, view.getUint16(offset + 4));
    this.#refresh(sender);
    this.#host.counts.datagramsOut++;
    this.#socket!.send(
      buffer.subarray(offset + HEADER_SIZE, end),
      sender.from.address,
      sender.from.port,
    );
    return true;
  }

  #take(bytes: Uint8Array, from: OutsidePeer): void {
    const { counts, output } = this.#host;
    const sender = this.#closed ? null : this.#sender(from);
    if (sender === null) {
      counts.datagramsDropped++;
      return;
    }
    this.#refresh(sender);
    if (sendDatagram(output, sender.path, sender.port, this.guestPort, bytes)) counts.datagramsIn++;
    else counts.datagramsDropped++;
  }

  #sender(from: OutsidePeer): Sender | null {
    const key = `${from.address} ${from.port}`;
    const known = this.#senders.get(key);
    const text = this.#find();
    const address = text === null ? null : parseAddress(text);
    if (address === null) return null;
    if (known !== undefined) {
      if (!known.path.guest.gone && sameAddress(known.path.destination, address)) return known;
      this.#forget(known);
    }
    const host = this.#host;
    const guest = host.output.find(address);
    const local = gatewayAddress(host.output, address);
    if (guest === null || local === null || this.#host.ports.size >= MAX_SENDERS) return null;
    const admitted = host.admit({
      protocol: "udp",
      direction: "in",
      guest,
      guestAddress: formatAddress(address),
      guestPort: this.guestPort,
      address: from.address,
      port: from.port,
    });
    if (!admitted) return null;
    const path = host.output.path(guest, local.slice(), address, IpProtocol.udp);
    path.dontFragment = false;
    const sender: Sender = {
      from,
      port: this.#freePort(),
      path,
      timer: new Timer(() => this.#forget(sender)),
    };
    host.counts.udp++;
    this.#senders.set(key, sender);
    this.#byPort.set(sender.port, sender);
    return sender;
  }

  #freePort(): number {
    let port: number;
    do {
      port = FIRST_PORT + this.#nextPort;
      this.#nextPort = (this.#nextPort + 1) % PORTS;
    } while (this.#host.ports.has(port));
    this.#host.ports.add(port);
    return port;
  }

  #refresh(sender: Sender): void {
    const { timers } = this.#host;
    timers.set(sender.timer, timers.now() + UDP_IDLE);
  }

  #forget(sender: Sender): void {
    this.#host.timers.clear(sender.timer);
    this.#senders.delete(`${sender.from.address} ${sender.from.port}`);
    this.#byPort.delete(sender.port);
    this.#host.ports.delete(sender.port);
    this.#host.counts.udp--;
    this.#host.leave(sender.path.guest);
  }
}
