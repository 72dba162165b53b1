import { State } from "./connection_types.ts";
import type { Core } from "./core.ts";
import { At } from "./deadlines.ts";
import type { Departures } from "./departures.ts";
import type { Opening } from "./opening.ts";
import { ACK, SYN } from "./segment.ts";

const MAX_RETRIES = 12;
const MAX_SYN_RETRIES = 7;

/** What time brings to a connection: what got no answer is sent again, and who is silent for too long is given up. */
export class Due {
  readonly #core: Core;
  readonly #opening: Opening;
  readonly #departures: Departures;

  /** A part of a connection. */
  constructor(core: Core, opening: Opening, departures: Departures) {
    this.#core = core;
    this.#opening = opening;
    this.#departures = departures;
  }

  /** Does what is due by now. */
  run(now: number): void {
    const core = this.#core;
    const { times } = core;
    if (times[At.life]! <= now && this.#live(now)) return;
    if (times[At.repeat]! <= now && this.#repeat(now)) return;
    if (times[At.persist]! <= now && this.#persist(now)) return;
    if (times[At.acknowledge]! <= now) {
      times[At.acknowledge] = Infinity;
      core.acknowledge();
    }
    core.deadlines.next();
  }

  /** @returns Whether it is over. */
  #live(now: number): boolean {
    const core = this.#core;
    const { times } = core;
    if (core.state === State.timeWait) {
      core.close("finished");
      return true;
    }
    const { keepAliveIdle, keepAliveInterval, keepAliveProbes } = core.host.times;
    const asked = times[At.heard]! + keepAliveIdle;
    if (core.probes === 0 && asked > now) {
      times[At.life] = asked;
      return false;
    }
    if (core.probes >= keepAliveProbes) return this.#lost();
    core.probes++;
    this.#departures.probe();
    times[At.life] = now + keepAliveInterval;
    return false;
  }

  #lost(): boolean {
    this.#core.reset();
    this.#core.close("timeout");
    return true;
  }

  /** @returns Whether it is over. */
  #repeat(now: number): boolean {
    const core = this.#core;
    const { times } = core;
    times[At.repeat] = Infinity;
    const { sender } = core;
    if (core.state === State.synSent || core.state === State.synReceived) {
      if (sender.retries >= MAX_SYN_RETRIES) return this.#lost();
      sender.retries++;
      core.roundTrip.backOff();
      this.#opening.sendSyn(core.state === State.synSent ? SYN : SYN | ACK);
      return false;
    }
    if (core.state !== State.open) return false;
    if (!sender.outstanding && sender.unsent(core.sendRing!) <= 0 && !sender.ending) {
      return false;
    }
    if (sender.retries >= MAX_RETRIES) return this.#lost();
    sender.expire();
    core.timing = false;
    core.roundTrip.backOff();
    core.deadlines.set(At.repeat, now + core.roundTrip.timeout);
    this.#departures.output();
    return false;
  }

  /** @returns Whether it is over. */
  #persist(now: number): boolean {
    const core = this.#core;
    core.times[At.persist] = Infinity;
    const { sender } = core;
    const ring = core.sendRing;
    if (core.state !== State.open || ring === null || sender.unsent(ring) <= 0) return false;
    if (sender.retries >= MAX_RETRIES) return this.#lost();
    if (sender.force(ring)) {
      this.#departures.transmit(ring);
      this.#departures.output();
      return false;
    }
    sender.retries++;
    core.roundTrip.backOff();
    core.deadlines.set(At.persist, now + core.roundTrip.timeout);
    this.#departures.probe();
    return false;
  }
}
