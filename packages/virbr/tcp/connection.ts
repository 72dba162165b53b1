import type { Path } from "../ip/packet.ts";
import { Arrivals } from "./arrivals.ts";
import {
  type CloseReason,
  type ConnectionHandler,
  type ConnectionHost,
  Count,
  State,
} from "./connection_types.ts";
import { Core } from "./core.ts";
import { Departures } from "./departures.ts";
import { Due } from "./due.ts";
import { Opening } from "./opening.ts";
import { ACK, RST, type Segment, SYN } from "./segment.ts";

/** One connection with a guest, of which this is the end (RFC 9293). Made by `TcpEngine`. */
export class Connection {
  /** Where the guest is, and who we are to it. */
  readonly path: Path;
  /** Port on this side. */
  readonly localPort: number;
  /** The guest's port. */
  readonly guestPort: number;
  /** Next in its bucket. For `ConnectionTable`. */
  next: Connection | null = null;
  /** Whether `flush` will be called. For `TcpEngine`. */
  touched = false;
  readonly #core: Core;
  readonly #opening: Opening;
  readonly #departures: Departures;
  readonly #arrivals: Arrivals;
  readonly #due: Due;

  /** Made by `TcpEngine`. */
  constructor(host: ConnectionHost, path: Path, localPort: number, guestPort: number) {
    this.path = path;
    this.localPort = localPort;
    this.guestPort = guestPort;
    const core = new Core(this, host, (now) => this.#due.run(now));
    this.#core = core;
    this.#opening = new Opening(core);
    this.#departures = new Departures(core);
    this.#arrivals = new Arrivals(core, this.#opening, this.#departures);
    this.#due = new Due(core, this.#opening, this.#departures);
  }

  /** One of `State`. */
  get state(): number {
    return this.#core.state;
  }

  /** Who is told; set by whoever accepts or makes the connection. */
  get handler(): ConnectionHandler | null {
    return this.#core.handler;
  }
  set handler(handler: ConnectionHandler | null) {
    this.#core.handler = handler;
  }

  /** Bytes that were received and not consumed. */
  get readableBytes(): number {
    return this.#core.receiveRing?.used ?? 0;
  }

  /** Whether the guest has said all, and all of it was consumed. */
  get ended(): boolean {
    return this.#core.receiver.finished && this.readableBytes === 0;
  }

  /** Bytes that may be written. */
  get writableBytes(): number {
    return this.#core.sendRing?.free ?? 0;
  }

  /** Bytes that were written, and not acknowledged by the guest. */
  get unacknowledged(): number {
    return this.#core.sendRing?.used ?? 0;
  }

  /** Whether it is over: nothing goes in or out any more. */
  get over(): boolean {
    return this.#core.over;
  }

  /** The first bytes of the guest's SYN, for an ICMP error about it. */
  firstBytes(): Uint8Array {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, this.guestPort);
    view.setUint16(2, this.localPort);
    view.setInt32(4, this.#core.irs);
    return bytes;
  }

  /** Received bytes, as many as lie side by side; valid until they are consumed. */
  received(): Uint8Array {
    return this.#core.receiveRing?.head() ?? EMPTY;
  }

  /** Takes received bytes away; the guest may send as many more. */
  consume(length: number): void {
    const ring = this.#core.receiveRing;
    if (ring === null) return;
    ring.consume(length);
    if (this.state === State.open && this.#core.receiver.shouldOpen(ring, this.#core.sender.mss)) {
      this.#core.acknowledgeNow = true;
      this.#core.touch();
    }
  }

  /** Room for bytes to be sent, as much as lies side by side; valid until `release`. */
  room(): Uint8Array {
    return this.#core.sendRing?.room() ?? EMPTY;
  }

  /** Bytes were written into `room`: they are sent. */
  commit(length: number): void {
    if (this.#core.sendRing === null || this.#core.sender.ending) return;
    this.#core.sendRing.commit(length);
    if (length > 0) this.#core.touch();
  }

  /** All was written: the guest sees the end when it has everything. */
  end(): void {
    if (this.#core.sender.ending) return;
    this.#core.sender.ending = true;
    this.#core.touch();
  }

  /** Ends the connection at once, for the guest too. */
  abort(): void {
    if (this.state === State.timeWait || this.state === State.closed) return;
    this.#core.reset();
    this.#core.close("aborted");
  }

  /** The buffers are needed no more. A connection that is not over is aborted. */
  release(): void {
    if (this.#core.released) return;
    this.#core.released = true;
    this.abort();
    this.#core.giveBack();
  }

  /** The guest asked for the connection: it gets it. @returns False if there is no memory for it; it was refused then. */
  accept(handler: ConnectionHandler): boolean {
    if (this.state !== State.asked) return false;
    this.handler = handler;
    if (!this.#core.takeRings()) {
      this.handler = null;
      this.refuse();
      return false;
    }
    this.#opening.begin();
    this.#core.state = State.synReceived;
    this.#opening.sendSyn(SYN | ACK);
    return true;
  }

  /** The guest asked for the connection: it is refused. */
  refuse(): void {
    if (this.state !== State.asked) return;
    this.#core.send(0, this.#core.receiver.nxt, RST | ACK, 0);
    this.#core.host.counts[Count.resets]!++;
    this.forget();
  }

  /** The guest asked for the connection, and hears nothing; or it is gone. */
  forget(reason: CloseReason = "aborted"): void {
    if (this.state === State.closed) return;
    this.#core.close(reason);
  }

  /** Takes the guest's SYN. For `TcpEngine`. */
  ask(segment: Segment): void {
    this.#opening.ask(segment);
  }

  /** Asks the guest for a connection. For `TcpEngine`. @returns False if there is no memory for it. */
  connect(handle: (connection: Connection) => ConnectionHandler): boolean {
    if (!this.#core.takeRings()) return false;
    this.handler = handle(this);
    this.#opening.begin();
    this.#core.state = State.synSent;
    this.#opening.sendSyn(SYN);
    return true;
  }

  /** A segment of the guest's for this connection. For `TcpEngine`. @returns Whether a new one may begin. */
  take(segment: Segment): boolean {
    return this.#arrivals.take(segment);
  }

  /** Tells of what came, and sends what is to be sent. For `TcpEngine`, when a batch was handled. */
  flush(): void {
    this.#departures.flush();
  }
}

const EMPTY = new Uint8Array(0);
