import { State } from "./connection_types.ts";
import type { Core } from "./core.ts";
import { At } from "./deadlines.ts";
import { ACK, RST, type Segment, SYN } from "./segment.ts";

/** Less than that is no path; a guest that asks for it would have frames cut into dust. */
const LEAST_MSS = 64;
/** Bytes of payload in a frame, and segments that it may be cut into. */
const MOST_BYTES = 65_400;
const MOST_SEGMENTS = 128;

const iss = new Int32Array(1);

/** How a connection begins: both SYNs, and what they agree on. */
export class Opening {
  readonly #core: Core;

  /** A part of a connection. */
  constructor(core: Core) {
    this.#core = core;
  }

  /** Takes the guest's SYN. For `TcpEngine`. */
  ask(segment: Segment): void {
    this.#core.irs = segment.seq;
    this.#core.receiver.begin(segment.seq);
    this.#negotiate(segment);
  }

  #negotiate(syn: Segment): void {
    const core = this.#core;
    const { sender } = core;
    const said = syn.mss === 0 ? (core.path.version === 4 ? 536 : 1220) : syn.mss;
    sender.mss = Math.max(LEAST_MSS, Math.min(said, core.emitter.mss));
    const segments = Math.min(MOST_SEGMENTS, Math.floor(MOST_BYTES / sender.mss));
    core.most = sender.mss * Math.max(1, segments);
    sender.scale = Math.max(0, syn.windowScale);
    core.scales = syn.windowScale >= 0;
    sender.sackPermitted = syn.sackPermitted;
  }

  /** The shift that lets a window be as large as a ring. */
  get shift(): number {
    let shift = 0;
    while (this.#core.host.rings.ringSize >>> shift > 0xffff) shift++;
    return shift;
  }

  /** Both sides are known: begins with a number that nobody can foresee. */
  begin(): void {
    const core = this.#core;
    crypto.getRandomValues(iss);
    core.sender.begin(iss[0]!);
    core.times[At.heard] = core.now;
  }

  /** Sends SYN, or SYN and ACK, and sends it again if there is no answer. */
  sendSyn(flags: number): void {
    const core = this.#core;
    const asked = (flags & ACK) !== 0;
    const ring = core.receiveRing!;
    core.startRepeat();
    core.emitter.syn(
      core.sender.una,
      asked ? core.receiver.nxt : 0,
      flags,
      // The window of a SYN is never scaled.
      asked ? core.receiver.advertiseUnscaled(ring) : Math.min(0xffff, ring.free),
      !asked || core.scales ? this.shift : -1,
      !asked || core.sender.sackPermitted,
    );
  }

  /** Takes what answers our SYN (RFC 9293, 3.10.7.3). */
  takeSyn(segment: Segment): void {
    const core = this.#core;
    const { flags } = segment;
    const acked = (flags & ACK) !== 0;
    if (acked && segment.ack !== core.sender.nxt) {
      if ((flags & RST) === 0) core.send(segment.ack, 0, RST, 0);
      return;
    }
    if ((flags & RST) !== 0) {
      if (acked) core.close("refused");
      return;
    }
    if ((flags & SYN) === 0) return;
    this.ask(segment);
    core.receiver.scale = core.scales ? this.shift : 0;
    if (acked) {
      this.open(segment);
      core.acknowledgeNow = true;
      core.touch();
    } else {
      // Both asked at the same time.
      core.state = State.synReceived;
      this.sendSyn(SYN | ACK);
    }
  }

  /** The guest acknowledged our SYN: bytes may flow. */
  open(segment: Segment): void {
    const core = this.#core;
    core.state = State.open;
    core.times[At.repeat] = Infinity;
    core.sender.retries = 0;
    core.roundTrip.settle();
    core.receiver.scale = core.scales ? this.shift : 0;
    core.sender.open(segment);
    core.opened = true;
    core.deadlines.set(At.life, core.now + core.host.times.keepAliveIdle);
    core.touch();
  }
}
