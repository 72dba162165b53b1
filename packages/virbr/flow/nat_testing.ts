/** A gateway without cables, with an outside of the test's own, and a guest. */
import { formatAddress } from "../ip/address.ts";
import {
  type AddressWords,
  type Guest,
  type IpLayer,
  type IpPacket,
  IpProtocol,
  type Path,
  type Transport,
} from "../ip/packet.ts";
import { Subnet } from "../ip/address.ts";
import {
  type DatagramOptions,
  type Outside,
  OutsideError,
  type OutsideListener,
  type OutsidePeer,
  type OutsideProblem,
  type OutsideSocket,
  type OutsideStream,
} from "../outside/outside.ts";
import { TcpEngine } from "../tcp/engine.ts";
import { TestTiming } from "../tcp/timing_testing.ts";
import { ipv4, packetOf, TestEnd, testGuest, TestIp } from "../tcp/wire_testing.ts";
import { Nat, type NatOptions } from "./nat.ts";

/** One end of a stream in memory. */
export class TestStream implements OutsideStream {
  /** What was written to it and not read. */
  readonly got: number[] = [];
  ended = false;
  closed = false;
  /** Writes wait while this is so. */
  stuck = false;
  /** Whom it was to reach. */
  readonly peer: string;
  #incoming: Uint8Array[] = [];
  #ends = false;
  #failure: Error | null = null;
  #refusal: Error | null = null;
  #wake: (() => void) | null = null;
  #release: (() => void) | null = null;

  constructor(peer = "") {
    this.peer = peer;
  }

  async read(into: Uint8Array): Promise<number | null> {
    for (;;) {
      if (this.closed) throw new Error("closed");
      if (this.#failure !== null) throw this.#failure;
      const next = this.#incoming[0];
      if (next !== undefined) {
        const count = Math.min(next.length, into.length);
        into.set(next.subarray(0, count));
        if (count === next.length) this.#incoming.shift();
        else this.#incoming[0] = next.subarray(count);
        return count;
      }
      if (this.#ends) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  async write(bytes: Uint8Array): Promise<number> {
    while (this.stuck && !this.closed) {
      await new Promise<void>((resolve) => this.#release = resolve);
    }
    if (this.closed || this.#failure !== null) throw new Error("broken");
    if (this.#refusal !== null) throw this.#refusal;
    for (const byte of bytes) this.got.push(byte);
    await Promise.resolve();
    return bytes.length;
  }

  closeWrite(): Promise<void> {
    this.ended = true;
    return Promise.resolve();
  }

  close(): void {
    this.closed = true;
    this.#wake?.();
    this.#release?.();
  }

  /** The outside says something. */
  say(bytes: Uint8Array, end = false): void {
    if (bytes.length > 0) this.#incoming.push(bytes);
    if (end) this.#ends = true;
    this.#wake?.();
  }

  /** The outside breaks. */
  fail(): void {
    this.#failure = new Error("reset");
    this.#wake?.();
    this.unstick();
  }

  /** Writes fail with a code; what was said can still be read. */
  refuse(code: string): void {
    this.#refusal = Object.assign(new Error("refused"), { code });
  }

  unstick(): void {
    this.stuck = false;
    this.#release?.();
  }
}

/** A socket for datagrams that goes nowhere. */
export class TestSocket implements OutsideSocket {
  readonly address = "0.0.0.0";
  readonly sent: { readonly bytes: number[]; readonly to: string }[] = [];
  closed = false;
  readonly options: DatagramOptions;
  readonly port: number;

  constructor(options: DatagramOptions, port: number) {
    this.options = options;
    this.port = port;
  }

  send(bytes: Uint8Array, address: string, port: number): void {
    this.sent.push({ bytes: [...bytes], to: `${address} ${port}` });
  }

  close(): void {
    this.closed = true;
  }
}

/** An outside that does what a test wants. */
export class TestOutside implements Outside {
  /** Whoever was connected to, as `address port`. */
  readonly connected: string[] = [];
  readonly streams: TestStream[] = [];
  readonly sockets: TestSocket[] = [];
  /** The next attempts fail so. */
  problem: OutsideProblem | null = null;
  /** Attempts wait for this. */
  gate: Promise<void> | null = null;
  aborted = 0;
  accept: ((stream: OutsideStream, from: OutsidePeer) => void) | null = null;
  listening = 0;

  async connect(address: string, port: number, signal?: AbortSignal): Promise<OutsideStream> {
    this.connected.push(`${address} ${port}`);
    if (this.gate !== null) {
      await Promise.race([
        this.gate,
        new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve())),
      ]);
    }
    if (signal?.aborted) {
      this.aborted++;
      throw new OutsideError("failed", "aborted");
    }
    if (this.problem !== null) throw new OutsideError(this.problem, "as the test wants");
    const stream = new TestStream(`${address} ${port}`);
    this.streams.push(stream);
    return stream;
  }

  datagrams(options: DatagramOptions): Promise<OutsideSocket> {
    if (this.problem !== null) {
      return Promise.reject(new OutsideError(this.problem, "as the test wants"));
    }
    const socket = new TestSocket(options, options.port ?? 0);
    this.sockets.push(socket);
    return Promise.resolve(socket);
  }

  listen(
    address: string,
    port: number,
    accept: (stream: OutsideStream, from: OutsidePeer) => void,
  ): Promise<OutsideListener> {
    this.accept = accept;
    this.listening++;
    return Promise.resolve({ address, port, close: () => this.listening-- });
  }

  /** Undefined where there are no echoes. */
  declare echo?: NonNullable<Outside["echo"]>;

  networks(): readonly string[] {
    return ["203.0.113.9/24"];
  }
}

/** All of it. */
export class TestWorld {
  readonly timing: TestTiming = new TestTiming();
  readonly outside: TestOutside = new TestOutside();
  readonly nat: Nat;
  readonly ip: TestIp;
  readonly guest: Guest = testGuest("52:54:00:00:00:05");
  readonly address: AddressWords = ipv4(192, 168, 122, 5);
  readonly gateway: AddressWords = ipv4(192, 168, 122, 1);
  /** The guest's own TCP. */
  readonly tcp: TcpEngine;
  /** Messages of ICMP that the guest got. */
  readonly echoes: number[][] = [];
  /** Gets the guest's segments in place of its TCP. */
  onSegment: ((path: Path, bytes: Uint8Array) => void) | null = null;
  /** Datagrams that the guest got. */
  readonly datagrams: { readonly from: string; readonly to: number; readonly bytes: number[] }[] =
    [];
  readonly #transports: Map<number, Transport | null> = new Map();

  constructor(options: Partial<NatOptions> = {}, bufferSize = 65_536) {
    const { timing } = this;
    this.ip = new TestIp(1500, (path, bytes) => this.#toGuest(path, bytes), [this.gateway]);
    this.ip.guests.set(formatAddress(this.address), this.guest);
    const layer: IpLayer = {
      output: this.ip,
      transport: (protocol, transport) => void this.#transports.set(protocol, transport),
    };
    this.nat = new Nat(layer, {
      outside: this.outside,
      inside: [Subnet.parse("192.168.122.0/24")],
      tcp: { timing, bufferSize },
      ...options,
    });
    const out = new TestIp(1500, (path, bytes) => {
      timing.after(1, () => this.send(path.destination, bytes, IpProtocol.tcp));
    });
    this.tcp = new TcpEngine(out, { timing, bufferSize: 65_536 });
  }

  /** Protocols that somebody takes. */
  get registered(): number {
    return [...this.#transports.values()].filter((each) => each !== null).length;
  }

  #toGuest(path: Path, bytes: Uint8Array): void {
    if (path.protocol === IpProtocol.icmp) this.echoes.push([...bytes]);
    if (path.protocol === IpProtocol.tcp && this.onSegment !== null) {
      this.onSegment(path, bytes);
    } else if (path.protocol === IpProtocol.tcp) {
      this.timing.after(1, () => {
        this.tcp.receive(packetOf(this.guest, path.source, path.destination, bytes));
      });
    } else if (path.protocol === IpProtocol.udp) {
      const view = new DataView(bytes.buffer);
      this.datagrams.push({
        from: `${formatAddress(path.source)} ${view.getUint16(0)}`,
        to: view.getUint16(2),
        bytes: [...bytes.subarray(8)],
      });
    }
  }

  /** The guest sends a packet. */
  send(
    destination: AddressWords,
    bytes: Uint8Array,
    protocol: number,
    more: Partial<IpPacket> = {},
  ): void {
    const local = formatAddress(destination) === formatAddress(this.gateway);
    this.#transports.get(protocol)?.receive({
      ...packetOf(this.guest, this.address, destination, bytes, protocol),
      local,
      ...more,
    });
  }

  /** The guest sends a datagram. */
  datagram(from: number, destination: AddressWords, port: number, bytes: number[]): void {
    const packet = new Uint8Array(8 + bytes.length);
    const view = new DataView(packet.buffer);
    view.setUint16(0, from);
    view.setUint16(2, port);
    view.setUint16(4, packet.length);
    packet.set(bytes, 8);
    this.send(destination, packet, IpProtocol.udp);
  }

  /** The guest connects. */
  connect(destination: AddressWords, port: number): TestEnd {
    return new TestEnd((handler) =>
      this.tcp.connect(this.guest, this.address, destination, port, () => handler)!
    );
  }

  /** The guest forgets everything: it is gone. */
  vanish(): void {
    this.#transports.get(IpProtocol.tcp)!.guestGone!(this.guest);
  }

  /** Lets time pass until something holds, or all is quiet. */
  async until(holds: () => boolean, milliseconds = 2000): Promise<boolean> {
    for (let i = 0; i < milliseconds && !holds(); i++) await this.pass(1);
    return holds();
  }

  /** Lets time pass, and promises between. */
  async pass(milliseconds: number): Promise<void> {
    const steps = Math.min(50, Math.ceil(milliseconds));
    for (let step = 0; step < steps; step++) {
      for (let i = 0; i < 5; i++) {
        await Promise.resolve();
        this.timing.settle();
      }
      this.timing.pass(milliseconds / steps);
    }
    for (let i = 0; i < 10; i++) {
      await Promise.resolve();
      this.timing.settle();
    }
  }

  /** Ends all. @returns What is left: connections, bytes of buffers, timers, open sockets. */
  async close(): Promise<number[]> {
    this.nat.close();
    this.tcp.close();
    await this.pass(10);
    return [
      this.nat.tcpCounters.connections,
      this.nat.tcp.bufferBytes,
      this.nat.counters.tcp + this.nat.counters.udp,
      this.outside.streams.filter(({ closed }) => !closed).length +
      this.outside.sockets.filter(({ closed }) => !closed).length + this.outside.listening,
      this.registered,
      this.timing.pending,
    ];
  }
}
