import { guestInfo } from "../snapshot.ts";
import { formatAddress, parseAddress, sameAddress, type Subnet } from "../ip/address.ts";
import {
  type AddressWords,
  type Guest,
  type IpLayer,
  type IpOutput,
  type IpPacket,
  IpProtocol,
} from "../ip/packet.ts";
import { type Outside, OutsideError, type OutsideStream } from "../outside/outside.ts";
import type { Connection } from "../tcp/connection.ts";
import { type TcpCounters, TcpEngine, type TcpOptions } from "../tcp/engine.ts";
import { TcpStream } from "../tcp/stream.ts";
import { Timer, Timers } from "../tcp/timers.ts";
import { systemTiming } from "../tcp/timing.ts";
import { EchoFlows } from "./echo_flows.ts";
import {
  type FlowCounters,
  FlowCounts,
  type FlowHook,
  type FlowRequest,
  ICMP_KINDS,
} from "./flow.ts";
import { type Forward, type ForwardOptions, openForward } from "./forward.ts";
import { type LimitOptions, Limits } from "./limits.ts";
import { Policy } from "./policy.ts";
import { TcpFlow } from "./tcp_flow.ts";
import { UdpFlows } from "./udp_flows.ts";

/** Milliseconds after which the outside is taken for silent. */
const CONNECT_TIMEOUT = 60_000;

/** Options of `Nat`. */
export interface NatOptions extends LimitOptions {
  /** The way out; guests reach nothing but the gateway without one. */
  readonly outside?: Outside;
  /** Networks of the guests. */
  readonly inside: readonly Subnet[];
  /** Whether guests reach the outside, or only the gateway's services; "nat" unless given. */
  readonly mode?: "nat" | "isolated";
  /** Whether the gateway's address means the host's loopback, for ports at which no service listens; no unless given. */
  readonly hostLoopback?: boolean;
  /** Networks that guests reach though they are the host's own, such as `192.0.2.0/24`. */
  readonly allow?: readonly string[];
  /** Networks that guests do not reach. */
  readonly deny?: readonly string[];
  /** Whether guests reach all networks that the host is in; no unless given. */
  readonly hostNetworks?: boolean;
  /** Sees each new flow, and may refuse it. */
  readonly onFlow?: FlowHook;
  /** For TCP. */
  readonly tcp?: TcpOptions;
}

/** A service of the gateway's own: gets a stream per connection, and closes it. */
export type TcpService = (stream: TcpStream, guest: Guest) => void;

/**
 * The way from guests to the outside and back: TCP connections, UDP flows, echoes, forwards, services at the gateway's own
 * address. It registers with the IP layer.
 */
export class Nat {
  /** TCP's end. */
  readonly tcp: TcpEngine;
  readonly #layer: IpLayer;
  readonly #output: IpOutput;
  readonly #options: NatOptions;
  readonly #outside: Outside | null;
  readonly #policy: Policy;
  readonly #limits: Limits;
  readonly #timers: Timers;
  readonly #udp: UdpFlows;
  readonly #echo: EchoFlows;
  readonly #counts: FlowCounts = new FlowCounts();
  readonly #services: Map<number, TcpService> = new Map();
  /** Connections that are joined; some may be over for the guest, while the outside still takes what it said. */
  readonly #joined: Set<TcpFlow> = new Set();
  readonly #forwards: Set<Forward> = new Set();
  readonly #forwardPorts: Set<number> = new Set();
  readonly #bufferSize: number;
  #closed = false;

  /**
   * Registers with an IP layer.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option is none of its kind.
   */
  constructor(layer: IpLayer, options: NatOptions) {
    this.#layer = layer;
    this.#output = layer.output;
    this.#options = options;
    this.#outside = options.outside ?? null;
    this.#limits = new Limits(options);
    const timing = options.tcp?.timing ?? systemTiming;
    this.#timers = new Timers(timing);
    this.#bufferSize = options.tcp?.bufferSize ?? 512 * 1024;
    const { outside } = options;
    this.#policy = new Policy({
      inside: options.inside,
      now: this.#timers.now,
      allow: options.allow ?? [],
      deny: options.deny ?? [],
      hostNetworks: options.hostNetworks ?? false,
      ...(outside?.networks === undefined ? {} : { networks: () => outside.networks!() }),
    });
    this.tcp = new TcpEngine(layer.output, options.tcp);
    this.tcp.incoming = (connection, packet) => this.#connect(connection, packet);
    this.#udp = new UdpFlows({
      output: layer.output,
      outside: outside ?? NO_OUTSIDE,
      timers: this.#timers,
      counts: this.#counts,
      left: (guest) => this.#limits.leave(guest),
    });
    this.#echo = new EchoFlows(layer.output, outside ?? NO_OUTSIDE, this.#counts);
    layer.transport(IpProtocol.tcp, {
      receive: (packet) => this.tcp.receive(packet),
      guestGone: (guest) => {
        this.tcp.guestGone(guest);
        this.#udp.guestGone(guest);
      },
    });
    layer.transport(IpProtocol.udp, { receive: (packet) => this.#datagram(packet) });
    const ping = { receive: (packet: IpPacket) => this.#ping(packet) };
    layer.transport(IpProtocol.icmp, ping);
    layer.transport(IpProtocol.icmpv6, ping);
  }

  /** What was counted until now. */
  get counters(): FlowCounters {
    return { ...this.#counts };
  }

  /** What TCP counted until now. */
  get tcpCounters(): TcpCounters {
    return this.tcp.counters;
  }

  /** Flows that a guest has. */
  flows(guest: Guest): number {
    return this.#limits.flows(guest);
  }

  /**
   * Listens at a port of the gateway's addresses; null ends that.
   *
   * @throws {RangeError} If the port is none.
   */
  service(port: number, service: TcpService | null): void {
    if (!(Number.isInteger(port) && port >= 1 && port <= 65_535)) {
      throw new RangeError(`A port is an integer from 1 to 65535: it is ${port}`);
    }
    if (service === null) this.#services.delete(port);
    else this.#services.set(port, service);
  }

  /**
   * Makes a port of the host's lead to a guest.
   *
   * @throws {OutsideError} If the port cannot be had.
   * @throws {TypeError} If an option is none of its kind, or the outside cannot listen.
   */
  async forward(options: ForwardOptions): Promise<Forward> {
    if (this.#closed || this.#outside === null) {
      throw new TypeError("There is no way to the outside: give one, before the network is closed");
    }
    const forward = await openForward(options, {
      outside: this.#outside,
      output: this.#output,
      tcp: this.tcp,
      timers: this.#timers,
      counts: this.#counts,
      bufferSize: this.#bufferSize,
      ports: this.#forwardPorts,
      joined: this.#joined,
      admit: (flow) => this.#admit(flow),
      leave: (guest) => this.#limits.leave(guest),
      closed: (each) => this.#forwards.delete(each),
    });
    this.#forwards.add(forward);
    if (this.#closed) forward.close();
    return forward;
  }

  /** The forwards that there are. */
  get forwards(): readonly Forward[] {
    return [...this.#forwards];
  }

  /** Ends all flows and forwards. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const forward of this.#forwards) forward.close();
    for (const protocol of Object.values(IpProtocol)) this.#layer.transport(protocol, null);
    this.#udp.close();
    for (const flow of [...this.#joined]) flow.close();
    this.tcp.close();
    this.#timers.close();
  }

  /** Where a packet really goes; null if it may not. */
  #target(packet: IpPacket): AddressWords | null {
    const { mode = "nat", hostLoopback = false } = this.#options;
    if (this.#outside === null) return null;
    const { destination } = packet;
    if (packet.local || this.#output.addresses.some((own) => sameAddress(own, destination))) {
      return hostLoopback ? (packet.version === 4 ? LOOPBACK4 : LOOPBACK6) : null;
    }
    return mode === "nat" && this.#policy.allows(destination, packet.version) ? destination : null;
  }

  #admit(flow: FlowRequest): boolean {
    const counts = this.#counts;
    const { guest } = flow;
    if (!this.#limits.enter(guest, this.#timers.now())) {
      counts.limited++;
      return false;
    }
    const { onFlow } = this.#options;
    if (onFlow?.({ ...flow, guest: guestInfo(guest, this.flows(guest)) }) === false) {
      counts.unwanted++;
      this.#limits.leave(guest);
      return false;
    }
    counts.total++;
    return true;
  }

  #connect(connection: Connection, packet: IpPacket): void {
    const { localPort, guestPort, path } = connection;
    const flow: FlowRequest = {
      protocol: "tcp",
      direction: "out",
      guest: packet.guest,
      guestAddress: formatAddress(packet.source),
      guestPort,
      address: formatAddress(path.source),
      port: localPort,
    };
    const service = packet.local ? this.#services.get(localPort) : undefined;
    const target = service === undefined ? this.#target(packet) : null;
    if (service === undefined && target === null) {
      this.#counts.prohibited++;
      if (!packet.local) this.#output.refuse(packet, "prohibited");
      connection.refuse();
      return;
    }
    if (!this.#admit(flow)) {
      connection.refuse();
      return;
    }
    if (target !== null) {
      void this.#join(connection, formatAddress(target), localPort);
      return;
    }
    const stream = new TcpStream(connection, () => this.#limits.leave(flow.guest));
    if (!stream.refused) service!(stream, packet.guest);
  }

  async #join(connection: Connection, address: string, port: number): Promise<void> {
    const { guest } = connection.path;
    const counts = this.#counts;
    counts.tcp++;
    let stream: OutsideStream | null = null;
    const attempt = new AbortController();
    const timer = new Timer(() => attempt.abort());
    this.#timers.set(timer, this.#timers.now() + CONNECT_TIMEOUT);
    // A guest that gives up, or is gone, does not keep a socket.
    connection.handler = { readable() {}, writable() {}, closed: () => attempt.abort() };
    try {
      stream = await this.#outside!.connect(address, port, attempt.signal);
    } catch (error) {
      this.#failed(connection, error);
    }
    this.#timers.clear(timer);
    const end = (): void => {
      counts.tcp--;
      this.#limits.leave(guest);
    };
    if (stream === null) return end();
    const flow = new TcpFlow(connection, stream, this.#bufferSize, () => {
      this.#joined.delete(flow);
      end();
    });
    if (this.#closed || !connection.accept(flow)) {
      // The guest gave up meanwhile, or there is no memory.
      stream.close();
      end();
    } else this.#joined.add(flow);
  }

  #failed(connection: Connection, error: unknown): void {
    if (connection.over) return;
    const problem = error instanceof OutsideError ? error.problem : "failed";
    if (problem === "exhausted") this.#counts.exhausted++;
    else this.#counts.failed++;
    const kind = ICMP_KINDS[problem];
    if (kind === undefined) {
      connection.refuse();
      return;
    }
    this.#output.reject(connection.path, kind, connection.firstBytes());
    connection.forget();
  }

  #datagram(packet: IpPacket): void {
    const { view, offset, length } = packet;
    if (!packet.checksumGood || length < 8) return;
    const port = view.getUint16(offset + 2);
    const size = view.getUint16(offset + 4);
    if (size < 8 || size > length || port === 0) return;
    const target = this.#target(packet);
    if (packet.local && this.#answer(packet)) return;
    if (target === null || this.#outside!.datagrams === undefined) {
      this.#counts.prohibited++;
      this.#output.refuse(packet, packet.local ? "port" : "prohibited");
      return;
    }
    if (!this.#udp.has(packet)) {
      const admitted = this.#admit({
        protocol: "udp",
        direction: "out",
        guest: packet.guest,
        guestAddress: formatAddress(packet.source),
        guestPort: view.getUint16(offset),
        address: formatAddress(packet.destination),
        port,
      });
      if (!admitted) {
        this.#output.refuse(packet, "prohibited");
        return;
      }
    }
    this.#udp.send(packet, target, (error) => {
      const exhausted = error instanceof OutsideError && error.problem === "exhausted";
      if (exhausted) this.#counts.exhausted++;
      else this.#counts.failed++;
    });
  }

  /** Gives a guest's datagram to the forward that it answers. */
  #answer(packet: IpPacket): boolean {
    for (const forward of this.#forwards) if (forward.answer?.(packet)) return true;
    return false;
  }

  #ping(packet: IpPacket): void {
    if (packet.local || !this.#echo.isRequest(packet)) return;
    const { guest } = packet;
    const target = this.#target(packet);
    if (target === null || !this.#echo.possible) {
      this.#counts.prohibited++;
      this.#output.refuse(packet, "prohibited");
      return;
    }
    const admitted = this.#admit({
      protocol: "icmp",
      direction: "out",
      guest,
      guestAddress: formatAddress(packet.source),
      guestPort: 0,
      address: formatAddress(packet.destination),
      port: 0,
    });
    if (admitted) this.#echo.send(packet, target, () => this.#limits.leave(guest));
  }
}

const LOOPBACK4 = parseAddress("127.0.0.1")!;
const LOOPBACK6 = parseAddress("::1")!;

const NO_OUTSIDE: Outside = {
  connect: () => Promise.reject(new OutsideError("prohibited", "There is no way out")),
};
