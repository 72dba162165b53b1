import { Count, State } from "./connection_types.ts";
import type { Core } from "./core.ts";
import { At } from "./deadlines.ts";
import type { Ring } from "./ring.ts";
import { ACK, FIN, PSH } from "./segment.ts";
import { advance, ahead } from "./sequence.ts";

/** What leaves on a connection, for the guest and for whoever uses it. */
export class Departures {
  readonly #core: Core;

  /** A part of a connection. */
  constructor(core: Core) {
    this.#core = core;
  }

  /** Tells of what came, and sends what is to be sent. For `TcpEngine`, when a batch was handled. */
  flush(): void {
    const core = this.#core;
    if (core.state === State.closed) return;
    this.flushData();
    if (core.roomCame) {
      core.roomCame = false;
      if (!core.over) core.handler?.writable();
    }
    // Whoever was told may have ended it.
    if (core.state === State.open) this.output();
    if (core.acknowledgeNow && core.state !== State.closed) core.acknowledge();
  }

  /** Tells of what came. */
  flushData(): void {
    const core = this.#core;
    if (core.opened) {
      core.opened = false;
      core.handler?.opened?.();
    }
    if (!core.dataCame) return;
    core.dataCame = false;
    core.handler?.readable();
  }

  /** Sends what may be sent. */
  output(): void {
    const core = this.#core;
    const { sender } = core;
    const ring = core.sendRing!;
    while (sender.choose(ring, core.most)) {
      if (!this.transmit(ring)) break;
    }
    const rest = sender.unsent(ring);
    if (rest === 0 && sender.ending && !sender.ended) {
      sender.from = sender.nxt;
      sender.length = 0;
      this.transmit(ring);
    }
    if (sender.outstanding) {
      core.times[At.persist] = Infinity;
      if (core.times[At.repeat] === Infinity) {
        core.startRepeat();
      }
    } else if (rest > 0) {
      if (core.times[At.persist] === Infinity) {
        core.deadlines.set(At.persist, core.now + core.roundTrip.timeout);
      }
    }
  }

  /** Sends what the sender chose. @returns Whether there may be more. */
  transmit(ring: Ring): boolean {
    const core = this.#core;
    const { sender } = core;
    const { from, length } = sender;
    const at = ahead(from, sender.una);
    const last = at + length === ring.used;
    const fin = sender.ending && last;
    const window = core.receiveRing === null ? 0 : core.receiver.advertise(core.receiveRing);
    const flags = ACK | (last ? PSH : 0) | (fin ? FIN : 0);
    const { nxt } = core.receiver;
    if (!core.emitter.data(from, nxt, flags, window, ring, at, length, sender.mss)) {
      // As if it were lost on the way.
      if (core.times[At.repeat] === Infinity) core.startRepeat();
      return false;
    }
    core.acknowledgeNow = false;
    core.times[At.acknowledge] = Infinity;
    if (fin) core.finSent = true;
    if (!sender.sent(fin)) {
      core.host.counts[Count.repeated]!++;
      // What was sent twice tells nothing (Karn).
      core.timing = false;
    } else if (!core.timing) {
      core.timing = true;
      core.timed = sender.max;
      core.host.tick();
      core.times[At.timed] = core.host.clock[0]!;
    }
    return true;
  }

  /** A number that was acknowledged long ago makes the guest say where it is. */
  probe(): void {
    const core = this.#core;
    const ring = core.receiveRing;
    const window = ring === null ? 0 : core.receiver.advertise(ring);
    core.send(advance(core.sender.una, -1), core.receiver.nxt, ACK, window);
  }
}
