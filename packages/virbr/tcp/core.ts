import type { Path } from "../ip/packet.ts";
import type { Connection } from "./connection.ts";
import {
  type CloseReason,
  type ConnectionHandler,
  type ConnectionHost,
  Count,
  State,
} from "./connection_types.ts";
import { At, Deadlines } from "./deadlines.ts";
import { Emitter } from "./emitter.ts";
import { Receiver } from "./receiver.ts";
import type { Ring } from "./ring.ts";
import { RoundTrip } from "./round_trip.ts";
import { ACK, RST } from "./segment.ts";
import { Sender } from "./sender.ts";
import type { RingPair } from "./shares.ts";

/** Segments that are acknowledged at once at first: the guest's window opens the faster. */
const QUICK = 16;

/**
 * What the parts of one connection share: where it is, what it has, and how it ends. `Opening` begins it, `Arrivals` takes what
 * comes, `Departures` sends what goes, `Due` does what time brings; `Connection` is what others see of them.
 */
export class Core {
  /** What others see of it. */
  readonly connection: Connection;
  /** What it needs of its engine. */
  readonly host: ConnectionHost;
  /** Where the guest is, and who we are to it. */
  readonly path: Path;
  /** One of `State`. */
  state: number = State.asked;
  /** Who is told. */
  handler: ConnectionHandler | null = null;
  /** What goes out. */
  readonly sender: Sender = new Sender();
  /** What comes in. */
  readonly receiver: Receiver = new Receiver();
  /** How long the guest takes to answer. */
  readonly roundTrip: RoundTrip = new RoundTrip();
  /** Writes segments. */
  readonly emitter: Emitter;
  /** When things are due. */
  readonly deadlines: Deadlines;
  /** Those of `deadlines`. */
  readonly times: Float64Array;
  /** Its buffers, from `takeRings` to `giveBack`. */
  rings: RingPair | null = null;
  /** That of `rings` for what goes out. */
  sendRing: Ring | null = null;
  /** That of `rings` for what comes in. */
  receiveRing: Ring | null = null;
  /** Bytes of payload that go out in one frame. */
  most = 0;
  /** What the segment that is timed ends with. */
  timed = 0;
  /** Whether a segment is timed. */
  timing = false;
  /** What came is acknowledged when the batch is done. */
  acknowledgeNow = false;
  /** There is more to read, or the end, and nobody was told yet. */
  dataCame = false;
  /** There is more room to write, and nobody was told yet. */
  roomCame = false;
  /** It stands, and nobody was told yet. */
  opened = false;
  /** Segments that will still be acknowledged at once. */
  quick = QUICK;
  /** Whether the guest understands windows that are scaled. */
  scales = true;
  /** FIN was sent. */
  finSent = false;
  /** This side closed first: it remembers what was. */
  active = false;
  /** Questions whether the guest is there that it did not answer. */
  probes = 0;
  /** Nobody needs the buffers any more. */
  released = false;
  /** Whoever uses it was told that it is over. */
  told = false;
  /** Number of the guest's SYN. */
  irs = 0;

  /** @param due Told when something is due, or was to be. */
  constructor(connection: Connection, host: ConnectionHost, due: (now: number) => void) {
    const { path, localPort, guestPort } = connection;
    this.connection = connection;
    this.host = host;
    this.path = path;
    this.emitter = new Emitter(host, path, localPort, guestPort);
    this.deadlines = new Deadlines(host.timers, due);
    this.times = this.deadlines.times;
  }

  /** Whether it is over: nothing goes in or out any more. */
  get over(): boolean {
    return this.state >= State.timeWait;
  }

  /** Has `flush` called when the batch is done. */
  touch(): void {
    this.host.touch(this.connection);
  }

  /** Milliseconds. */
  get now(): number {
    this.host.tick();
    return this.host.clock[0]!;
  }

  /** Takes the buffers. @returns False if there are none left for this guest. */
  takeRings(): boolean {
    const pair = this.host.rings.take(this.path.guest.port);
    if (pair === null) return false;
    this.rings = pair;
    this.sendRing = pair.send;
    this.receiveRing = pair.receive;
    return true;
  }

  /** Gives the buffers back, if nobody needs them any more. */
  giveBack(): void {
    if (!this.released || !this.over || this.rings === null) return;
    this.host.rings.give(this.rings);
    this.rings = this.sendRing = this.receiveRing = null;
  }

  /** Nothing that is out may wait longer than this for its answer. */
  startRepeat(): void {
    const { clock } = this.host;
    this.host.tick();
    this.times[At.repeat] = clock[0]! + this.roundTrip.timeout;
    this.deadlines.arm(At.repeat);
  }

  /** Sends a segment without data. */
  send(seq: number, ack: number, flags: number, window: number): void {
    const tells = flags === ACK && this.state === State.open && this.sender.sackPermitted;
    this.emitter.bare(seq, ack, flags, window, tells ? this.receiver : null);
  }

  /** Says what came, and how much more may come. */
  acknowledge(): void {
    this.acknowledgeNow = false;
    this.times[At.acknowledge] = Infinity;
    const ring = this.receiveRing;
    const window = ring === null ? 0 : this.receiver.advertise(ring);
    // While what was lost is sent again, `nxt` is behind what the guest has: it would not look at the segment.
    this.send(this.sender.max, this.receiver.nxt, ACK, window);
  }

  /** Tells the guest that it is over. */
  reset(): void {
    if (this.state === State.synSent) return;
    this.host.counts[Count.resets]!++;
    if (this.state === State.asked) this.send(0, this.receiver.nxt, RST | ACK, 0);
    else this.send(this.sender.max, this.receiver.nxt, RST | ACK, 0);
  }

  /** It is over, and forgotten. */
  close(reason: CloseReason): void {
    if (this.state === State.closed) return;
    const waited = this.state === State.timeWait;
    this.state = State.closed;
    this.deadlines.clear();
    this.host.remove(this.connection);
    if (!waited) this.tell(reason);
    this.giveBack();
  }

  /** Tells whoever uses it that it is over, once. */
  tell(reason: CloseReason): void {
    if (this.told) return;
    this.told = true;
    const { handler } = this;
    if (handler === null) this.released = true;
    handler?.closed(reason);
  }
}
