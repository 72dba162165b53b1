import { Count, State } from "./connection_types.ts";
import type { Core } from "./core.ts";
import { At } from "./deadlines.ts";
import type { Departures } from "./departures.ts";
import type { Opening } from "./opening.ts";
import { Taken } from "./receiver.ts";
import { ACK, RST, type Segment, SYN } from "./segment.ts";
import { ahead } from "./sequence.ts";

/** Most that an acknowledgement waits for company. */
const DELAY = 40;
/** Least time between answers to segments that make no sense. */
const CHALLENGE_INTERVAL = 10;

/** What arrives on a connection: the guest's segments, and what they mean. */
export class Arrivals {
  readonly #core: Core;
  readonly #opening: Opening;
  readonly #departures: Departures;

  /** A part of a connection. */
  constructor(core: Core, opening: Opening, departures: Departures) {
    this.#core = core;
    this.#opening = opening;
    this.#departures = departures;
  }

  /** A segment of the guest's for this connection (RFC 9293, 3.10.7). For `TcpEngine`. @returns Whether a new one may begin. */
  take(segment: Segment): boolean {
    const core = this.#core;
    core.host.tick();
    core.times[At.heard] = core.host.clock[0]!;
    core.probes = 0;
    switch (core.state) {
      case State.asked:
        if ((segment.flags & RST) !== 0) core.close("reset");
        // Another one: the guest has begun anew.
        else if ((segment.flags & (SYN | ACK)) === SYN) this.#opening.ask(segment);
        return false;
      case State.synSent:
        this.#opening.takeSyn(segment);
        return false;
      default:
        return this.#takeAny(segment);
    }
  }

  #takeAny(segment: Segment): boolean {
    const core = this.#core;
    const { receiver } = core;
    const { flags, space } = segment;
    const window = core.receiveRing?.free ?? 0;
    const offset = ahead(segment.seq, receiver.nxt);
    const acceptable = offset <= window && offset >= 0 && (space === 0 || offset < window) ||
      space > 0 && window > 0 && offset < 0 && offset + space > 0;
    if (!acceptable) {
      if ((flags & RST) !== 0) return false;
      if ((flags & (SYN | ACK)) === SYN) {
        if (core.state === State.timeWait && offset > 0) return true;
        if (core.state === State.synReceived && segment.seq === core.irs) {
          this.#opening.sendSyn(SYN | ACK);
          return false;
        }
      }
      if (space === 0) this.#challenge();
      else {
        core.acknowledgeNow = true;
        core.touch();
      }
      return false;
    }
    if ((flags & RST) !== 0) {
      // Only the very next number is believed (RFC 5961, 3.2).
      if (offset === 0) core.close("reset");
      else this.#challenge();
      return false;
    }
    if ((flags & SYN) !== 0) {
      if (core.state === State.timeWait && (flags & ACK) === 0) return true;
      // Never a reason to end anything (RFC 5961, 4.2).
      this.#challenge();
      return false;
    }
    if ((flags & ACK) !== 0) this.#takeAck(segment);
    return false;
  }

  /** Says where we are, but not so often that two who disagree talk for ever (RFC 5961, 7). */
  #challenge(): void {
    const core = this.#core;
    const now = core.now;
    if (now - core.times[At.challenged]! < CHALLENGE_INTERVAL) return;
    core.times[At.challenged] = now;
    core.acknowledgeNow = true;
    core.touch();
  }

  #takeAck(segment: Segment): void {
    const core = this.#core;
    const { sender } = core;
    const beyond = ahead(segment.ack, sender.max);
    if (core.state === State.synReceived) {
      if (segment.ack !== sender.nxt) {
        core.send(segment.ack, 0, RST, 0);
        return;
      }
      this.#opening.open(segment);
    }
    if (core.state === State.timeWait) {
      if (segment.space > 0) this.#challenge();
      return;
    }
    // Neither what was never sent nor what is long past (RFC 5961, 5.2).
    if (beyond > 0 || ahead(segment.ack, sender.una) < -Math.max(0x1_0000, sender.maxWindow)) {
      this.#challenge();
      return;
    }
    const ring = core.sendRing!;
    const before = sender.window;
    const updated = sender.updateWindow(segment);
    const duplicate = segment.space === 0 && updated && sender.window === before;
    const acked = sender.acknowledge(segment, ring, duplicate);
    if (acked > 0) this.#progress(acked);
    else if (sender.window === 0 || sender.window !== before) this.#answered();
    if (sender.outstanding || sender.unsent(ring) > 0 || sender.ending) core.touch();
    const space = segment.space;
    if (space > 0) this.#takeData(segment);
    if (sender.ended && core.receiver.finished) this.#finish();
  }

  #progress(acked: number): void {
    const core = this.#core;
    const { times } = core;
    if (core.timing && ahead(core.sender.una, core.timed) >= 0) {
      core.timing = false;
      core.roundTrip.sample(Math.max(0, core.now - times[At.timed]!));
    } else if (!core.timing) core.roundTrip.settle();
    times[At.persist] = Infinity;
    times[At.repeat] = Infinity;
    if (core.sender.outstanding) core.startRepeat();
    core.host.counts[Count.bytesOut]! += acked;
    core.roomCame = true;
    core.touch();
  }

  /** The guest is there, though it takes nothing. */
  #answered(): void {
    if (this.#core.times[At.persist]! < Infinity) this.#core.sender.retries = 0;
  }

  #takeData(segment: Segment): void {
    const core = this.#core;
    const { receiver } = core;
    const ring = core.receiveRing!;
    const used = ring.used;
    const taken = receiver.take(segment, ring);
    core.host.counts[Count.bytesIn]! += ring.used - used;
    if (ring.used > used || receiver.finished) core.dataCame = true;
    if (core.released) {
      // Nobody reads it.
      core.reset();
      core.close("aborted");
      return;
    }
    if (taken === Taken.odd) this.#oddData();
    else if (taken === Taken.next) {
      if (core.quick > 0) {
        core.quick--;
        core.acknowledgeNow = true;
      } else if (receiver.unacknowledged >= 2 * core.sender.mss) {
        core.acknowledgeNow = true;
      } else if (core.times[At.acknowledge] === Infinity) {
        core.deadlines.set(At.acknowledge, core.now + DELAY);
      }
    }
    if (receiver.finished && !core.active) core.active = core.finSent;
    core.touch();
  }

  /** Each such segment is answered by itself, so that the sender can count. */
  #oddData(): void {
    const core = this.#core;
    if (core.state === State.open && !core.receiver.finished) core.acknowledge();
    else core.acknowledgeNow = true;
  }

  #finish(): void {
    const core = this.#core;
    if (core.state !== State.open) return;
    if (!core.active) {
      // The guest closed first: it remembers, we need not, but for its last acknowledgement.
      if (core.acknowledgeNow) core.acknowledge();
      this.#departures.flushData();
      core.close("finished");
      return;
    }
    core.acknowledge();
    core.state = State.timeWait;
    core.deadlines.clear();
    core.deadlines.set(At.life, core.now + core.host.times.timeWait);
    core.host.waits(core.connection);
    this.#departures.flushData();
    core.tell("finished");
    core.giveBack();
  }
}
