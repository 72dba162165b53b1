import {
  type AddressWords,
  type Guest,
  type IpOutput,
  type IpPacket,
  IpProtocol,
  type Transport,
} from "../ip/packet.ts";
import { Connection } from "./connection.ts";
import {
  type ConnectionHandler,
  type ConnectionHost,
  type ConnectionTimes,
  Count,
} from "./connection_types.ts";
import { RingPool } from "./ring.ts";
import { ACK, CHECKSUM_OFFSET, HEADER_SIZE, RST, Segment, SYN, writeHeader } from "./segment.ts";
import { advance } from "./sequence.ts";
import { RingShares } from "./shares.ts";
import { ConnectionTable } from "./table.ts";
import { Timers } from "./timers.ts";
import { systemTiming, type Timing } from "./timing.ts";

/** Ports that connections to guests come from. */
const FIRST_PORT = 32_768;
const PORTS = 28_232;

/** Options of `TcpEngine`. Times are in milliseconds. */
export interface TcpOptions extends Partial<ConnectionTimes> {
  /** Bytes of buffer for each direction of a connection, a power of two; 512 KiB unless given. */
  readonly bufferSize?: number;
  /**
   * The most bytes of all buffers; 2 GiB unless given. Memory is used as it is needed. The guests behind one port (ports of one
   * name count as one) together get no more than is left for all others: half of it if they are alone, a third if those of
   * another port want all they can get too.
   */
  readonly maxBuffers?: number;
  /** The most connections that are remembered after their end; 1,024 unless given. */
  readonly maxTimeWait?: number;
  /** Where time comes from. */
  readonly timing?: Timing;
}

/** What was counted. */
export interface TcpCounters {
  /** Connections that there are, those that wait for their end to be forgotten included. */
  readonly connections: number;
  /** Those of them that are over. */
  readonly timeWait: number;
  /** Segments of guests. */
  readonly segmentsIn: number;
  /** Segments to guests. */
  readonly segmentsOut: number;
  /** Bytes of payload that came from guests in order. */
  readonly bytesIn: number;
  /** Bytes of payload that guests acknowledged. */
  readonly bytesOut: number;
  /** Segments that were sent again. */
  readonly repeated: number;
  /** Connections and segments that were refused. */
  readonly resets: number;
}

/**
 * Takes a guest's wish for a connection, to any address: `accept`, `refuse` or `forget` it, now or later. The packet is valid
 * during the call.
 */
export type Incoming = (connection: Connection, packet: IpPacket) => void;

/**
 * The gateway's end of all TCP connections (RFC 9293). To a guest it is whichever host the guest wants to talk to.
 *
 * Segments are put into rings as they come; what is to be told, and sent in answer, is told and sent once per batch, when
 * whoever hands in packets is done. Nothing is allocated per segment.
 */
export class TcpEngine implements Transport {
  /** Asked about each new connection that a guest wants; everybody is refused while it is null. */
  incoming: Incoming | null = null;
  readonly #output: IpOutput;
  readonly #timing: Timing;
  readonly #timers: Timers;
  readonly #rings: RingShares;
  readonly #table: ConnectionTable = new ConnectionTable();
  readonly #segment: Segment = new Segment();
  readonly #counts: Float64Array = new Float64Array(6);
  readonly #maxTimeWait: number;
  readonly #waiting: Set<Connection> = new Set();
  readonly #now: Float64Array = new Float64Array(1);
  /** Whether the clock was read in this batch. */
  #fresh = false;
  #touched: (Connection | null)[] = [];
  #spare: (Connection | null)[] = [];
  #touchedCount = 0;
  #deferred = false;
  #closed = false;
  #nextPort = 0;
  readonly #flush = (): void => this.flush();
  readonly #host: ConnectionHost;

  /**
   * Makes one that sends by `output`.
   *
   * @throws {RangeError} If an option is out of range.
   */
  constructor(output: IpOutput, options: TcpOptions = {}) {
    this.#output = output;
    this.#timing = options.timing ?? systemTiming;
    this.#timers = new Timers(this.#timing);
    const size = options.bufferSize ?? 512 * 1024;
    const most = options.maxBuffers ?? 2 * 1024 ** 3;
    if (!(most >= 2 * size)) {
      throw new RangeError(
        `maxBuffers must be at least two buffers of ${size} bytes: it is ${most}`,
      );
    }
    this.#rings = new RingShares(new RingPool(size, Math.floor(most / size)));
    this.#maxTimeWait = options.maxTimeWait ?? 1024;
    if (!(Number.isInteger(this.#maxTimeWait) && this.#maxTimeWait >= 0)) {
      throw new RangeError(`maxTimeWait is an integer from 0: it is ${this.#maxTimeWait}`);
    }
    const times: ConnectionTimes = {
      keepAliveIdle: options.keepAliveIdle ?? 600_000,
      keepAliveInterval: options.keepAliveInterval ?? 15_000,
      keepAliveProbes: options.keepAliveProbes ?? 5,
      timeWait: options.timeWait ?? 30_000,
    };
    for (const [name, value] of Object.entries(times)) {
      if (!(value > 0)) throw new RangeError(`${name} must be above 0: it is ${value}`);
    }
    this.#host = {
      output,
      timers: this.#timers,
      rings: this.#rings,
      times,
      counts: this.#counts,
      clock: this.#now,
      tick: () => this.#tick(),
      touch: (connection) => this.#touch(connection),
      waits: (connection) => this.#waits(connection),
      remove: (connection) => {
        this.#table.remove(connection);
        this.#waiting.delete(connection);
      },
    };
  }

  /** What was counted until now. */
  get counters(): TcpCounters {
    const counts = this.#counts;
    return {
      connections: this.#table.size,
      timeWait: this.#waiting.size,
      segmentsIn: counts[Count.segmentsIn]!,
      segmentsOut: counts[Count.segmentsOut]!,
      bytesIn: counts[Count.bytesIn]!,
      bytesOut: counts[Count.bytesOut]!,
      repeated: counts[Count.repeated]!,
      resets: counts[Count.resets]!,
    };
  }

  /** Bytes of buffers that are in use. */
  get bufferBytes(): number {
    return this.#rings.bytes;
  }

  /** Takes a packet of TCP. */
  receive(packet: IpPacket): void {
    const segment = this.#segment;
    if (this.#closed || !packet.checksumGood) return;
    if (!segment.parse(packet.buffer, packet.view, packet.offset, packet.length)) return;
    if (segment.sourcePort === 0 || segment.destinationPort === 0) return;
    this.#counts[Count.segmentsIn]!++;
    const { source, destination } = packet;
    const known = this.#table.find(
      destination,
      segment.destinationPort,
      source,
      segment.sourcePort,
    );
    if (known !== null) {
      // Another station has the address now: it is not the one that we talk to.
      if (known.path.guest !== packet.guest) known.forget("gone");
      else if (!known.take(segment)) return;
      else known.forget("finished");
    }
    if ((segment.flags & (SYN | ACK | RST)) === SYN) this.#ask(packet, segment);
    else this.#refuse(packet, segment);
  }

  /** Forgets all connections of a guest. */
  guestGone(guest: Guest): void {
    for (const each of this.#table.all()) if (each.path.guest === guest) each.forget("gone");
  }

  /**
   * Asks a guest for a connection.
   *
   * @param local The address that it is to come from, such as the gateway's; of the same version as the guest's.
   * @param handle Makes who is told of what becomes of it.
   * @returns Null if there is no port or memory left for it.
   */
  connect(
    guest: Guest,
    local: AddressWords,
    address: AddressWords,
    port: number,
    handle: (connection: Connection) => ConnectionHandler,
  ): Connection | null {
    if (this.#closed) return null;
    const localPort = this.#freePort(local, address, port);
    if (localPort === 0) return null;
    const path = this.#output.path(guest, local.slice(), address.slice(), IpProtocol.tcp);
    const connection = new Connection(this.#host, path, localPort, port);
    this.#table.add(connection);
    if (connection.connect(handle)) return connection;
    this.#table.remove(connection);
    return null;
  }

  /** Ends all connections; guests are told. */
  close(): void {
    if (this.#closed) return;
    for (const each of this.#table.all()) {
      each.abort();
      each.forget("aborted");
    }
    this.#closed = true;
    this.#timers.close();
  }

  /** Tells and sends what is to be told and sent. Happens by itself. */
  flush(): void {
    this.#deferred = false;
    const touched = this.#touched;
    const count = this.#touchedCount;
    this.#touched = this.#spare;
    this.#touchedCount = 0;
    this.#spare = touched;
    for (let i = 0; i < count; i++) {
      const connection = touched[i]!;
      // The array stays as long as it is: to make it shorter and longer again would allocate.
      touched[i] = null;
      connection.touched = false;
      connection.flush();
    }
    if (!this.#deferred) this.#fresh = false;
  }

  #tick(): void {
    if (this.#fresh) return;
    this.#fresh = true;
    this.#now[0] = this.#timers.now();
    this.#defer();
  }

  #touch(connection: Connection): void {
    if (connection.touched) return;
    connection.touched = true;
    this.#touched[this.#touchedCount++] = connection;
    this.#defer();
  }

  #defer(): void {
    if (this.#deferred) return;
    this.#deferred = true;
    this.#timing.defer(this.#flush);
  }

  #waits(connection: Connection): void {
    this.#waiting.add(connection);
    if (this.#waiting.size <= this.#maxTimeWait) return;
    const [oldest] = this.#waiting;
    oldest!.forget("finished");
  }

  #ask(packet: IpPacket, segment: Segment): void {
    const { incoming } = this;
    if (incoming === null) return this.#refuse(packet, segment);
    const path = this.#output.path(
      packet.guest,
      packet.destination.slice(),
      packet.source.slice(),
      IpProtocol.tcp,
    );
    const connection = new Connection(
      this.#host,
      path,
      segment.destinationPort,
      segment.sourcePort,
    );
    connection.ask(segment);
    this.#table.add(connection);
    incoming(connection, packet);
  }

  /** Nobody knows of it (RFC 9293, 3.10.7.1). */
  #refuse(packet: IpPacket, segment: Segment): void {
    const { flags } = segment;
    if ((flags & RST) !== 0) return;
    const output = this.#output;
    const path = output.path(
      packet.guest,
      packet.destination.slice(),
      packet.source.slice(),
      IpProtocol.tcp,
    );
    if (!output.begin(path)) return;
    const acked = (flags & ACK) !== 0;
    writeHeader(
      output.view,
      output.start,
      segment.destinationPort,
      segment.sourcePort,
      acked ? segment.ack : 0,
      acked ? 0 : advance(segment.seq, segment.space),
      acked ? RST : RST | ACK,
      0,
      HEADER_SIZE,
    );
    this.#counts[Count.resets]!++;
    this.#counts[Count.segmentsOut]!++;
    output.finish(HEADER_SIZE, CHECKSUM_OFFSET, 0);
  }

  #freePort(local: AddressWords, address: AddressWords, port: number): number {
    for (let tries = 0; tries < PORTS; tries++) {
      const candidate = FIRST_PORT + this.#nextPort;
      this.#nextPort = (this.#nextPort + 1) % PORTS;
      if (this.#table.find(local, candidate, address, port) === null) return candidate;
    }
    return 0;
  }
}
