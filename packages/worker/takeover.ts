import type { Activation } from "@virtio/device";
import type { QueueState } from "@virtio/vring";
import { WorkerError } from "./call.ts";
import type { Crew } from "./crew.ts";
import type { DeviceWorker } from "./device_worker.ts";
import type { Drains } from "./drains.ts";
import { Journal } from "./journal.ts";

/** Workers that may die one after the other without anything being published. */
const MOST_STRIKES = 3;

/** Has others go on where workers died. */
export class Takeovers {
  readonly #crew: Crew;
  readonly #drains: Drains;
  readonly #giveUp: (worker: DeviceWorker, error: Error) => void;
  /** Workers that died, whose place is being filled. */
  readonly #lost: Set<DeviceWorker> = new Set();
  /** Deaths since a worker published anything. */
  #strikes = 0;

  /** @param giveUp Told of a worker whose place nobody takes. */
  constructor(
    crew: Crew,
    drains: Drains,
    giveUp: (worker: DeviceWorker, error: Error) => void,
  ) {
    this.#crew = crew;
    this.#drains = drains;
    this.#giveUp = giveUp;
  }

  /** Whether a worker is dead and another will be there soon. */
  pending(worker: DeviceWorker): boolean {
    return this.#lost.has(worker);
  }

  /** The driver starts a queue whose worker is dead: the one that comes is given all that are live. */
  startQueue(worker: DeviceWorker, index: number, state: QueueState): void {
    const { nextUsed, usedWrap } = state.position;
    new Journal(worker.journals!, index).begin(nextUsed, usedWrap);
    this.#crew.live.set(index, state);
  }

  /** Has a new worker go on where one died. */
  begin(dead: DeviceWorker, error: Error): void {
    this.#lost.add(dead);
    void this.#takeOver(dead, error).finally(() => this.#lost.delete(dead));
  }

  async #takeOver(dead: DeviceWorker, error: Error): Promise<void> {
    const crew = this.#crew;
    const { life } = crew;
    const activation = crew.activation!;
    let fresh: DeviceWorker | null = null;
    try {
      if (!crew.description.repeatable) {
        throw new WorkerError("its module does not say that it is repeatable");
      }
      if (++this.#strikes > MOST_STRIKES) {
        throw new WorkerError(`the same requests have ended ${this.#strikes} workers`);
      }
      fresh = crew.spawn();
      crew.checkLike(await fresh.ready);
      await dead.gone;
      if (crew.activation !== activation || crew.life !== life) {
        // Reset meanwhile: the new one begins with the next life, unless that has begun without it.
        if (crew.activation !== null) throw new WorkerError("the device was started meanwhile");
        this.#fill(dead, fresh);
        return;
      }
      this.#fillStarted(dead, fresh, activation);
    } catch (reason) {
      fresh?.end();
      const why = reason instanceof Error ? reason.message : String(reason);
      this.#giveUp(dead, new WorkerError(`${error.message}. No other could take over: ${why}`));
    }
  }

  /** Puts a worker in another's place. */
  #fill(dead: DeviceWorker, fresh: DeviceWorker): void {
    const { workers } = this.#crew;
    const place = workers.indexOf(dead);
    // Closed, or replaced as a whole.
    if (place < 0) throw new WorkerError("it had been replaced already");
    workers[place] = fresh;
    this.#lost.delete(dead);
  }

  /** The same while the device runs: it gets the queues. */
  #fillStarted(dead: DeviceWorker, fresh: DeviceWorker, activation: Activation): void {
    const crew = this.#crew;
    const { memory, features } = activation;
    const queues = [...crew.live.keys()].filter((queue) => crew.of(queue) === dead);
    for (const queue of queues) {
      const given = crew.live.get(queue)!;
      const state = new Journal(dead.journals!, queue).recover(memory, given, features);
      if (state.position.nextUsed !== given.position.nextUsed) this.#strikes = 0;
      crew.live.set(queue, state);
    }
    fresh.call("accepts", features);
    if (crew.saved !== null) fresh.call("restore", crew.saved);
    crew.startWorkers([fresh], activation);
    this.#fill(dead, fresh);
    for (const queue of queues) {
      const state = crew.live.get(queue)!;
      const drain = this.#drains.take(queue, crew.life);
      if (drain === undefined) {
        crew.startQueue(queue, state);
        fresh.link.kick(queue);
      } else {
        // Nothing of it is in flight any more.
        crew.live.delete(queue);
        drain.resolve(crew.reopen(state));
      }
    }
    // It may have died between publishing and telling.
    for (const queue of queues) {
      if (crew.activation === activation) activation.interrupt.queue(queue);
    }
  }
}
