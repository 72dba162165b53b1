import type { Path } from "../ip/packet.ts";
import {
  type CloseReason,
  type ConnectionHandler,
  type ConnectionHost,
  Count,
  State,
} from "./connection_types.ts";
import { At, Deadlines } from "./deadlines.ts";
import { Emitter } from "./emitter.ts";
import { Receiver, Taken } from "./receiver.ts";
import type { Ring } from "./ring.ts";
import { RoundTrip } from "./round_trip.ts";
import { ACK, FIN, PSH, RST, type Segment, SYN } from "./segment.ts";
import { Sender } from "./sender.ts";
import { advance, ahead } from "./sequence.ts";
import type { RingPair } from "./shares.ts";

/** Most that an acknowledgement waits for company. */
const DELAY = 40;
/** Least time between answers to segments that make no sense. */
const CHALLENGE_INTERVAL = 10;
const MAX_RETRIES = 12;
const MAX_SYN_RETRIES = 7;
/** Less than that is no path; a guest that asks for it would have frames cut into dust. */
const LEAST_MSS = 64;
/** Bytes of payload in a frame, and segments that it may be cut into. */
const MOST_BYTES = 65_400;
const MOST_SEGMENTS = 128;
/** Segments that are acknowledged at once at first: the guest's window opens the faster. */
const QUICK = 16;

const iss = new Int32Array(1);

/** One connection with a guest, of which this is the end (RFC 9293). Made by `TcpEngine`. */
export class Connection {
  /** Where the guest is, and who we are to it. */
  readonly path: Path;
  /** Port on this side. */
  readonly localPort: number;
  /** The guest's port. */
  readonly guestPort: number;
  /** One of `State`. */
  state: number = State.asked;
  /** Who is told; set by whoever accepts or makes the connection. */
  handler: ConnectionHandler | null = null;
  /** Next in its bucket. For `ConnectionTable`. */
  next: Connection | null = null;
  /** Whether `flush` will be called. For `TcpEngine`. */
  touched = false;
  readonly #host: ConnectionHost;
  readonly #sender: Sender = new Sender();
  readonly #receiver: Receiver = new Receiver();
  readonly #roundTrip: RoundTrip = new RoundTrip();
  readonly #emitter: Emitter;
  readonly #deadlines: Deadlines;
  /** Those of `#deadlines`. */
  readonly #times: Float64Array;
  #rings: RingPair | null = null;
  #sendRing: Ring | null = null;
  #receiveRing: Ring | null = null;
  /** Bytes of payload that go out in one frame. */
  #most = 0;
  /** What the segment that is timed ends with; `#timing` says whether there is one. */
  #timed = 0;
  #timing = false;
  #acknowledgeNow = false;
  #dataCame = false;
  #roomCame = false;
  #opened = false;
  #quick = QUICK;
  /** Whether the guest understands windows that are scaled. */
  #scales = true;
  #finSent = false;
  #active = false;
  #probes = 0;
  #released = false;
  #told = false;
  #irs = 0;

  /** Made by `TcpEngine`. */
  constructor(host: ConnectionHost, path: Path, localPort: number, guestPort: number) {
    this.#host = host;
    this.path = path;
    this.localPort = localPort;
    this.guestPort = guestPort;
    this.#emitter = new Emitter(host, path, localPort, guestPort);
    this.#deadlines = new Deadlines(host.timers, (now) => this.#due(now));
    this.#times = this.#deadlines.times;
  }

  /** Bytes that were received and not consumed. */
  get readableBytes(): number {
    return this.#receiveRing?.used ?? 0;
  }

  /** Whether the guest has said all, and all of it was consumed. */
  get ended(): boolean {
    return this.#receiver.finished && this.readableBytes === 0;
  }

  /** Bytes that may be written. */
  get writableBytes(): number {
    return this.#sendRing?.free ?? 0;
  }

  /** Bytes that were written, and not acknowledged by the guest. */
  get unacknowledged(): number {
    return this.#sendRing?.used ?? 0;
  }

  /** Whether it is over: nothing goes in or out any more. */
  get over(): boolean {
    return this.state >= State.timeWait;
  }

  /** The first bytes of the guest's SYN, for an ICMP error about it. */
  firstBytes(): Uint8Array {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, this.guestPort);
    view.setUint16(2, this.localPort);
    view.setInt32(4, this.#irs);
    return bytes;
  }

  /** Received bytes, as many as lie side by side; valid until they are consumed. */
  received(): Uint8Array {
    return this.#receiveRing?.head() ?? EMPTY;
  }

  /** Takes received bytes away; the guest may send as many more. */
  consume(length: number): void {
    const ring = this.#receiveRing;
    if (ring === null) return;
    ring.consume(length);
    if (this.state === State.open && this.#receiver.shouldOpen(ring, this.#sender.mss)) {
      this.#acknowledgeNow = true;
      this.#host.touch(this);
    }
  }

  /** Room for bytes to be sent, as much as lies side by side; valid until `release`. */
  room(): Uint8Array {
    return this.#sendRing?.room() ?? EMPTY;
  }

  /** Bytes were written into `room`: they are sent. */
  commit(length: number): void {
    if (this.#sendRing === null || this.#sender.ending) return;
    this.#sendRing.commit(length);
    if (length > 0) this.#host.touch(this);
  }

  /** All was written: the guest sees the end when it has everything. */
  end(): void {
    if (this.#sender.ending) return;
    this.#sender.ending = true;
    this.#host.touch(this);
  }

  /** Ends the connection at once, for the guest too. */
  abort(): void {
    if (this.state === State.timeWait || this.state === State.closed) return;
    this.#reset();
    this.#close("aborted");
  }

  /** The buffers are needed no more. A connection that is not over is aborted. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.abort();
    this.#giveBack();
  }

  /** The guest asked for the connection: it gets it. @returns False if there is no memory for it; it was refused then. */
  accept(handler: ConnectionHandler): boolean {
    if (this.state !== State.asked) return false;
    this.handler = handler;
    if (!this.#takeRings()) {
      this.handler = null;
      this.refuse();
      return false;
    }
    this.#begin();
    this.state = State.synReceived;
    this.#sendSyn(SYN | ACK);
    return true;
  }

  /** The guest asked for the connection: it is refused. */
  refuse(): void {
    if (this.state !== State.asked) return;
    this.#send(0, this.#receiver.nxt, RST | ACK, 0);
    this.#host.counts[Count.resets]!++;
    this.forget();
  }

  /** The guest asked for the connection, and hears nothing; or it is gone. */
  forget(reason: CloseReason = "aborted"): void {
    if (this.state === State.closed) return;
    this.#close(reason);
  }

  /** Takes the guest's SYN. For `TcpEngine`. */
  ask(segment: Segment): void {
    this.#irs = segment.seq;
    this.#receiver.begin(segment.seq);
    this.#negotiate(segment);
  }

  /** Asks the guest for a connection. For `TcpEngine`. @returns False if there is no memory for it. */
  connect(handle: (connection: Connection) => ConnectionHandler): boolean {
    if (!this.#takeRings()) return false;
    this.handler = handle(this);
    this.#begin();
    this.state = State.synSent;
    this.#sendSyn(SYN);
    return true;
  }

  #takeRings(): boolean {
    const pair = this.#host.rings.take(this.path.guest.port);
    if (pair === null) return false;
    this.#rings = pair;
    this.#sendRing = pair.send;
    this.#receiveRing = pair.receive;
    return true;
  }

  #giveBack(): void {
    if (!this.#released || !this.over || this.#rings === null) return;
    this.#host.rings.give(this.#rings);
    this.#rings = this.#sendRing = this.#receiveRing = null;
  }

  #begin(): void {
    crypto.getRandomValues(iss);
    this.#sender.begin(iss[0]!);
    this.#times[At.heard] = this.#now;
  }

  #negotiate(syn: Segment): void {
    const sender = this.#sender;
    const said = syn.mss === 0 ? (this.path.version === 4 ? 536 : 1220) : syn.mss;
    sender.mss = Math.max(LEAST_MSS, Math.min(said, this.#emitter.mss));
    const segments = Math.min(MOST_SEGMENTS, Math.floor(MOST_BYTES / sender.mss));
    this.#most = sender.mss * Math.max(1, segments);
    sender.scale = Math.max(0, syn.windowScale);
    this.#scales = syn.windowScale >= 0;
    sender.sackPermitted = syn.sackPermitted;
  }

  /** The shift that lets a window be as large as a ring. */
  get #shift(): number {
    let shift = 0;
    while (this.#host.rings.ringSize >>> shift > 0xffff) shift++;
    return shift;
  }

  #sendSyn(flags: number): void {
    const asked = (flags & ACK) !== 0;
    const ring = this.#receiveRing!;
    this.#startRepeat();
    this.#emitter.syn(
      this.#sender.una,
      asked ? this.#receiver.nxt : 0,
      flags,
      // The window of a SYN is never scaled.
      asked ? this.#receiver.advertiseUnscaled(ring) : Math.min(0xffff, ring.free),
      !asked || this.#scales ? this.#shift : -1,
      !asked || this.#sender.sackPermitted,
    );
  }

  /** Sends a segment without data. */
  #send(seq: number, ack: number, flags: number, window: number): void {
    const tells = flags === ACK && this.state === State.open && this.#sender.sackPermitted;
    this.#emitter.bare(seq, ack, flags, window, tells ? this.#receiver : null);
  }

  #acknowledge(): void {
    this.#acknowledgeNow = false;
    this.#times[At.acknowledge] = Infinity;
    const ring = this.#receiveRing;
    const window = ring === null ? 0 : this.#receiver.advertise(ring);
    // While what was lost is sent again, `nxt` is behind what the guest has: it would not look at the segment.
    this.#send(this.#sender.max, this.#receiver.nxt, ACK, window);
  }

  #reset(): void {
    if (this.state === State.synSent) return;
    this.#host.counts[Count.resets]!++;
    if (this.state === State.asked) this.#send(0, this.#receiver.nxt, RST | ACK, 0);
    else this.#send(this.#sender.max, this.#receiver.nxt, RST | ACK, 0);
  }

  #close(reason: CloseReason): void {
    if (this.state === State.closed) return;
    const waited = this.state === State.timeWait;
    this.state = State.closed;
    this.#deadlines.clear();
    this.#host.remove(this);
    if (!waited) this.#tell(reason);
    this.#giveBack();
  }

  #tell(reason: CloseReason): void {
    if (this.#told) return;
    this.#told = true;
    const { handler } = this;
    if (handler === null) this.#released = true;
    handler?.closed(reason);
  }

  /** Milliseconds. */
  get #now(): number {
    this.#host.tick();
    return this.#host.clock[0]!;
  }

  /** Nothing that is out may wait longer than this for its answer. */
  #startRepeat(): void {
    const { clock } = this.#host;
    this.#host.tick();
    this.#times[At.repeat] = clock[0]! + this.#roundTrip.timeout;
    this.#deadlines.arm(At.repeat);
  }

  /** A segment of the guest's for this connection (RFC 9293, 3.10.7). For `TcpEngine`. @returns Whether a new one may begin. */
  take(segment: Segment): boolean {
    this.#host.tick();
    this.#times[At.heard] = this.#host.clock[0]!;
    this.#probes = 0;
    switch (this.state) {
      case State.asked:
        if ((segment.flags & RST) !== 0) this.#close("reset");
        // Another one: the guest has begun anew.
        else if ((segment.flags & (SYN | ACK)) === SYN) this.ask(segment);
        return false;
      case State.synSent:
        this.#takeSyn(segment);
        return false;
      default:
        return this.#takeAny(segment);
    }
  }

  #takeSyn(segment: Segment): void {
    const { flags } = segment;
    const acked = (flags & ACK) !== 0;
    if (acked && segment.ack !== this.#sender.nxt) {
      if ((flags & RST) === 0) this.#send(segment.ack, 0, RST, 0);
      return;
    }
    if ((flags & RST) !== 0) {
      if (acked) this.#close("refused");
      return;
    }
    if ((flags & SYN) === 0) return;
    this.ask(segment);
    this.#receiver.scale = this.#scales ? this.#shift : 0;
    if (acked) {
      this.#open(segment);
      this.#acknowledgeNow = true;
      this.#host.touch(this);
    } else {
      // Both asked at the same time.
      this.state = State.synReceived;
      this.#sendSyn(SYN | ACK);
    }
  }

  #open(segment: Segment): void {
    this.state = State.open;
    this.#times[At.repeat] = Infinity;
    this.#sender.retries = 0;
    this.#roundTrip.settle();
    this.#receiver.scale = this.#scales ? this.#shift : 0;
    this.#sender.open(segment);
    this.#opened = true;
    this.#deadlines.set(At.life, this.#now + this.#host.times.keepAliveIdle);
    this.#host.touch(this);
  }

  #takeAny(segment: Segment): boolean {
    const receiver = this.#receiver;
    const { flags, space } = segment;
    const window = this.#receiveRing?.free ?? 0;
    const offset = ahead(segment.seq, receiver.nxt);
    const acceptable = offset <= window && offset >= 0 && (space === 0 || offset < window) ||
      space > 0 && window > 0 && offset < 0 && offset + space > 0;
    if (!acceptable) {
      if ((flags & RST) !== 0) return false;
      if ((flags & (SYN | ACK)) === SYN) {
        if (this.state === State.timeWait && offset > 0) return true;
        if (this.state === State.synReceived && segment.seq === this.#irs) {
          this.#sendSyn(SYN | ACK);
          return false;
        }
      }
      if (space === 0) this.#challenge();
      else {
        this.#acknowledgeNow = true;
        this.#host.touch(this);
      }
      return false;
    }
    if ((flags & RST) !== 0) {
      // Only the very next number is believed (RFC 5961, 3.2).
      if (offset === 0) this.#close("reset");
      else this.#challenge();
      return false;
    }
    if ((flags & SYN) !== 0) {
      if (this.state === State.timeWait && (flags & ACK) === 0) return true;
      // Never a reason to end anything (RFC 5961, 4.2).
      this.#challenge();
      return false;
    }
    if ((flags & ACK) !== 0) this.#takeAck(segment);
    return false;
  }

  /** Says where we are, but not so often that two who disagree talk for ever (RFC 5961, 7). */
  #challenge(): void {
    const now = this.#now;
    if (now - this.#times[At.challenged]! < CHALLENGE_INTERVAL) return;
    this.#times[At.challenged] = now;
    this.#acknowledgeNow = true;
    this.#host.touch(this);
  }

  #takeAck(segment: Segment): void {
    const sender = this.#sender;
    const beyond = ahead(segment.ack, sender.max);
    if (this.state === State.synReceived) {
      if (segment.ack !== sender.nxt) {
        this.#send(segment.ack, 0, RST, 0);
        return;
      }
      this.#open(segment);
    }
    if (this.state === State.timeWait) {
      if (segment.space > 0) this.#challenge();
      return;
    }
    // Neither what was never sent nor what is long past (RFC 5961, 5.2).
    if (beyond > 0 || ahead(segment.ack, sender.una) < -Math.max(0x1_0000, sender.maxWindow)) {
      this.#challenge();
      return;
    }
    const ring = this.#sendRing!;
    const before = sender.window;
    const updated = sender.updateWindow(segment);
    const duplicate = segment.space === 0 && updated && sender.window === before;
    const acked = sender.acknowledge(segment, ring, duplicate);
    if (acked > 0) this.#progress(acked);
    else if (sender.window === 0 || sender.window !== before) this.#answered();
    if (sender.outstanding || sender.unsent(ring) > 0 || sender.ending) this.#host.touch(this);
    const space = segment.space;
    if (space > 0) this.#takeData(segment);
    if (sender.ended && this.#receiver.finished) this.#finish();
  }

  #progress(acked: number): void {
    const times = this.#times;
    if (this.#timing && ahead(this.#sender.una, this.#timed) >= 0) {
      this.#timing = false;
      this.#roundTrip.sample(Math.max(0, this.#now - times[At.timed]!));
    } else if (!this.#timing) this.#roundTrip.settle();
    times[At.persist] = Infinity;
    times[At.repeat] = Infinity;
    if (this.#sender.outstanding) this.#startRepeat();
    this.#host.counts[Count.bytesOut]! += acked;
    this.#roomCame = true;
    this.#host.touch(this);
  }

  /** The guest is there, though it takes nothing. */
  #answered(): void {
    if (this.#times[At.persist]! < Infinity) this.#sender.retries = 0;
  }

  #takeData(segment: Segment): void {
    const receiver = this.#receiver;
    const ring = this.#receiveRing!;
    const used = ring.used;
    const taken = receiver.take(segment, ring);
    this.#host.counts[Count.bytesIn]! += ring.used - used;
    if (ring.used > used || receiver.finished) this.#dataCame = true;
    if (this.#released) {
      // Nobody reads it.
      this.#reset();
      this.#close("aborted");
      return;
    }
    if (taken === Taken.odd) this.#oddData();
    else if (taken === Taken.next) {
      if (this.#quick > 0) {
        this.#quick--;
        this.#acknowledgeNow = true;
      } else if (receiver.unacknowledged >= 2 * this.#sender.mss) this.#acknowledgeNow = true;
      else if (this.#times[At.acknowledge] === Infinity) {
        this.#deadlines.set(At.acknowledge, this.#now + DELAY);
      }
    }
    if (receiver.finished && !this.#active) this.#active = this.#finSent;
    this.#host.touch(this);
  }

  /** Each such segment is answered by itself, so that the sender can count. */
  #oddData(): void {
    if (this.state === State.open && !this.#receiver.finished) this.#acknowledge();
    else this.#acknowledgeNow = true;
  }

  #finish(): void {
    if (this.state !== State.open) return;
    if (!this.#active) {
      // The guest closed first: it remembers, we need not, but for its last acknowledgement.
      if (this.#acknowledgeNow) this.#acknowledge();
      this.#flushData();
      this.#close("finished");
      return;
    }
    this.#acknowledge();
    this.state = State.timeWait;
    this.#deadlines.clear();
    this.#deadlines.set(At.life, this.#now + this.#host.times.timeWait);
    this.#host.waits(this);
    this.#flushData();
    this.#tell("finished");
    this.#giveBack();
  }

  #flushData(): void {
    if (this.#opened) {
      this.#opened = false;
      this.handler?.opened?.();
    }
    if (!this.#dataCame) return;
    this.#dataCame = false;
    this.handler?.readable();
  }

  /** Tells of what came, and sends what is to be sent. For `TcpEngine`, when a batch was handled. */
  flush(): void {
    if (this.state === State.closed) return;
    this.#flushData();
    if (this.#roomCame) {
      this.#roomCame = false;
      if (!this.over) this.handler?.writable();
    }
    // Whoever was told may have ended it.
    if (this.state === State.open) this.#output();
    if (this.#acknowledgeNow && this.state !== State.closed) this.#acknowledge();
  }

  #output(): void {
    const sender = this.#sender;
    const ring = this.#sendRing!;
    while (sender.choose(ring, this.#most)) {
      if (!this.#transmit(ring)) break;
    }
    const rest = sender.unsent(ring);
    if (rest === 0 && sender.ending && !sender.ended) {
      sender.from = sender.nxt;
      sender.length = 0;
      this.#transmit(ring);
    }
    if (sender.outstanding) {
      this.#times[At.persist] = Infinity;
      if (this.#times[At.repeat] === Infinity) {
        this.#startRepeat();
      }
    } else if (rest > 0) {
      if (this.#times[At.persist] === Infinity) {
        this.#deadlines.set(At.persist, this.#now + this.#roundTrip.timeout);
      }
    }
  }

  /** Sends what the sender chose. @returns Whether there may be more. */
  #transmit(ring: Ring): boolean {
    const sender = this.#sender;
    const { from, length } = sender;
    const at = ahead(from, sender.una);
    const last = at + length === ring.used;
    const fin = sender.ending && last;
    const window = this.#receiveRing === null ? 0 : this.#receiver.advertise(this.#receiveRing);
    const flags = ACK | (last ? PSH : 0) | (fin ? FIN : 0);
    const { nxt } = this.#receiver;
    if (!this.#emitter.data(from, nxt, flags, window, ring, at, length, sender.mss)) {
      // As if it were lost on the way.
      if (this.#times[At.repeat] === Infinity) this.#startRepeat();
      return false;
    }
    this.#acknowledgeNow = false;
    this.#times[At.acknowledge] = Infinity;
    if (fin) this.#finSent = true;
    if (!sender.sent(fin)) {
      this.#host.counts[Count.repeated]!++;
      // What was sent twice tells nothing (Karn).
      this.#timing = false;
    } else if (!this.#timing) {
      this.#timing = true;
      this.#timed = sender.max;
      this.#host.tick();
      this.#times[At.timed] = this.#host.clock[0]!;
    }
    return true;
  }

  #due(now: number): void {
    const times = this.#times;
    if (times[At.life]! <= now && this.#live(now)) return;
    if (times[At.repeat]! <= now && this.#repeat(now)) return;
    if (times[At.persist]! <= now && this.#persist(now)) return;
    if (times[At.acknowledge]! <= now) {
      times[At.acknowledge] = Infinity;
      this.#acknowledge();
    }
    this.#deadlines.next();
  }

  /** @returns Whether it is over. */
  #live(now: number): boolean {
    const times = this.#times;
    if (this.state === State.timeWait) {
      this.#close("finished");
      return true;
    }
    const { keepAliveIdle, keepAliveInterval, keepAliveProbes } = this.#host.times;
    const asked = times[At.heard]! + keepAliveIdle;
    if (this.#probes === 0 && asked > now) {
      times[At.life] = asked;
      return false;
    }
    if (this.#probes >= keepAliveProbes) return this.#lost();
    this.#probes++;
    this.#probe();
    times[At.life] = now + keepAliveInterval;
    return false;
  }

  #lost(): boolean {
    this.#reset();
    this.#close("timeout");
    return true;
  }

  /** A number that was acknowledged long ago makes the guest say where it is. */
  #probe(): void {
    const ring = this.#receiveRing;
    const window = ring === null ? 0 : this.#receiver.advertise(ring);
    this.#send(advance(this.#sender.una, -1), this.#receiver.nxt, ACK, window);
  }

  /** @returns Whether it is over. */
  #repeat(now: number): boolean {
    const times = this.#times;
    times[At.repeat] = Infinity;
    const sender = this.#sender;
    if (this.state === State.synSent || this.state === State.synReceived) {
      if (sender.retries >= MAX_SYN_RETRIES) return this.#lost();
      sender.retries++;
      this.#roundTrip.backOff();
      this.#sendSyn(this.state === State.synSent ? SYN : SYN | ACK);
      return false;
    }
    if (this.state !== State.open) return false;
    if (!sender.outstanding && sender.unsent(this.#sendRing!) <= 0 && !sender.ending) return false;
    if (sender.retries >= MAX_RETRIES) return this.#lost();
    sender.expire();
    this.#timing = false;
    this.#roundTrip.backOff();
    this.#deadlines.set(At.repeat, now + this.#roundTrip.timeout);
    this.#output();
    return false;
  }

  /** @returns Whether it is over. */
  #persist(now: number): boolean {
    this.#times[At.persist] = Infinity;
    const sender = this.#sender;
    const ring = this.#sendRing;
    if (this.state !== State.open || ring === null || sender.unsent(ring) <= 0) return false;
    if (sender.retries >= MAX_RETRIES) return this.#lost();
    if (sender.force(ring)) {
      this.#transmit(ring);
      this.#output();
      return false;
    }
    sender.retries++;
    this.#roundTrip.backOff();
    this.#deadlines.set(At.persist, now + this.#roundTrip.timeout);
    this.#probe();
    return false;
  }
}

const EMPTY = new Uint8Array(0);
