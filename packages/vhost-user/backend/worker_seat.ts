/** The place of one worker among those of a device: when the worker dies another gets it, and goes on with all that it had. */
import type { SharedMemory } from "@virtio/memory";
import type { FeatureSet } from "@virtio/device";
import type { DirtyLogPlace } from "./dirty_log.ts";
import type { QueueStart } from "./device_runner.ts";
import { OneWorker, WorkerDeath, type WorkerOptions } from "./one_worker.ts";
import type { FromVhostWorker, WorkerCall, WorkerDescription } from "./worker_messages.ts";

/** Calls that a seat without a worker need not make: nothing is touched any more. */
const DONE_BY_DEATH: ReadonlySet<WorkerCall["what"]> = new Set(
  ["stop", "stopQueue", "log", "setCall", "kick", "close"],
);
/** Calls of one life of the device, which are of no meaning once that is over. */
const OF_A_LIFE: ReadonlySet<WorkerCall["what"]> = new Set(
  ["start", "move", "startQueue", ...DONE_BY_DEATH],
);
/** Milliseconds for which a death counts. */
const WINDOW = 60_000;

/** How many workers that die are replaced, so that a request that ends every one of them does not do so for ever. */
export class RestartBudget {
  readonly #most: number;
  #deaths: number[] = [];

  /** @param most Within a minute. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Whether there is one left. */
  get left(): boolean {
    const begin = performance.now() - WINDOW;
    this.#deaths = this.#deaths.filter((death) => death > begin);
    return this.#deaths.length < this.#most;
  }

  /** Takes one. @returns Whether there was one left. */
  take(): boolean {
    if (!this.left) return false;
    this.#deaths.push(performance.now());
    return true;
  }
}

/** What a seat tells. */
export interface SeatListener {
  /** What its worker says by itself. */
  heard(message: FromVhostWorker): void;
  /** Its worker died, and another is on its way. */
  died(error: Error): void;
  /** The other took over, and has this configuration. */
  replaced(config: Uint8Array): void;
  /** Its worker died with chains that nobody noted; another is on its way, and has no queues. */
  lost(error: Error): void;
  /** Its worker died, and there is no other. */
  broken(error: Error): void;
}

/** Used by `VhostUserWorkers`. */
export class WorkerSeat {
  /** What the device is. @throws {Error} If it could not be made. */
  readonly ready: Promise<WorkerDescription>;
  readonly #make: () => OneWorker;
  readonly #budget: RestartBudget;
  readonly #listener: SeatListener;
  #worker: OneWorker;
  /** While another worker takes over. */
  #replacing: Promise<void> | null = null;
  #begun = false;
  /** Why the last one died. */
  #death: Error | null = null;
  #broken: Error | null = null;
  #closed = false;
  /** Counts what ended without being handed over. */
  #life = 0;
  /** What a worker has to be told to be as this one is. */
  #started: { readonly memory: SharedMemory; readonly features: FeatureSet } | null = null;
  #log: DirtyLogPlace | null = null;
  readonly #calls: Map<number, number> = new Map();
  readonly #queues: Map<number, QueueStart> = new Map();
  /** What the driver wrote to the configuration before the device was started, and after; by offset. */
  readonly #before: Map<number, WorkerCall> = new Map();
  readonly #written: Map<number, WorkerCall> = new Map();

  /** Starts the worker; await `ready`. */
  constructor(
    options: WorkerOptions,
    index: number,
    spin: number,
    budget: RestartBudget,
    listener: SeatListener,
  ) {
    this.#budget = budget;
    this.#listener = listener;
    this.#make = () => {
      const worker: OneWorker = new OneWorker(
        options,
        index,
        spin,
        (message) => this.#heard(message),
        (error) => this.#died(worker, error),
      );
      return worker;
    };
    this.#worker = this.#make();
    this.ready = this.#worker.ready.then((description) => {
      this.#begun = true;
      return description;
    });
    this.ready.catch(() => {});
  }

  #heard(message: FromVhostWorker): void {
    // Its device stopped itself.
    if (message.vhost === "failed") this.#forget();
    this.#listener.heard(message);
  }

  /** Nothing is started any more. */
  #forget(): void {
    this.#started = null;
    this.#queues.clear();
    this.#before.clear();
    this.#written.clear();
  }

  #died(worker: OneWorker, error: WorkerDeath): void {
    // One that never began is waited for where it was made.
    if (!this.#begun || this.#closed || this.#replacing !== null) return;
    this.#death = error;
    const lost = [...this.#queues.values()].some(({ inflight }) => inflight === null);
    if (!lost) return this.#replace(worker);
    this.#life++;
    this.#forget();
    this.#replace(worker, true);
    this.#listener.lost(
      new Error(`${error.message}. What it had is not noted: the front end is disconnected`),
    );
  }

  /** @param told Whether the listener knows of the death already. */
  #replace(dead: OneWorker, told = false): void {
    this.#broken = null;
    this.#replacing = this.#takeOver(dead, told).catch((reason: Error) => {
      if (this.#closed) return;
      const error = new Error(
        `${this.#death!.message}, and no other takes over: ${reason.message}`,
      );
      this.#broken = error;
      this.#life++;
      this.#forget();
      this.#listener.broken(error);
    }).finally(() => {
      this.#replacing = null;
      // It may have died when all was told to it, and nobody was there yet to hear of that.
      const { death } = this.#worker;
      if (death !== null && this.#broken === null) this.#died(this.#worker, death);
    });
  }

  async #takeOver(dead: OneWorker, told: boolean): Promise<void> {
    for (;; told = false) {
      if (!await dead.gone()) throw new Error("its thread does not end");
      if (this.#closed) return;
      if (!this.#budget.take()) throw new Error("too many died within a minute");
      if (!told) this.#listener.died(new Error(`${this.#death!.message}. Another takes over`));
      const fresh = this.#worker = this.#make();
      try {
        const { config } = await fresh.ready;
        const written = await this.#replay(fresh);
        if (!this.#closed) this.#listener.replaced(written ?? config);
        return;
      } catch (error) {
        if (!(error instanceof WorkerDeath)) {
          await fresh.close();
          throw error;
        }
        this.#death = error;
        dead = fresh;
      }
    }
  }

  /** Tells a fresh worker all that the one before was told. @returns The configuration, if the driver has written to it. */
  async #replay(fresh: OneWorker): Promise<Uint8Array | null> {
    await fresh.call({ what: "log", place: this.#log });
    for (const [index, descriptor] of this.#calls) {
      await fresh.call({ what: "setCall", index, descriptor });
    }
    let config: Uint8Array | null = null;
    for (const call of this.#before.values()) config = await fresh.call(call) as Uint8Array;
    const started = this.#started;
    if (started !== null) {
      await fresh.call({ what: "accepts", features: started.features });
      await fresh.call({ what: "start", ...started });
    }
    for (const call of this.#written.values()) config = await fresh.call(call) as Uint8Array;
    for (const [index, start] of this.#queues) {
      await fresh.call({ what: "startQueue", index, start });
    }
    return config;
  }

  /**
   * Has the worker do something; if it dies meanwhile, the next one.
   *
   * @throws {Error} What the device threw, or why there is no worker.
   */
  async call(call: WorkerCall): Promise<unknown> {
    const life = this.#life;
    // Whether the next worker, too, has to be told: a queue that was being started is among those that it gets.
    let again = true;
    for (;;) {
      if (this.#replacing !== null) await this.#replacing;
      if (this.#broken !== null) {
        if (DONE_BY_DEATH.has(call.what)) return null;
        if (this.#closed || !this.#budget.left) throw this.#broken;
        this.#replace(this.#worker, true);
        continue;
      }
      if (!again || this.#closed || (life !== this.#life && OF_A_LIFE.has(call.what))) return null;
      // Noted first: should the worker die of it, it may have taken something.
      if (call.what === "startQueue") this.#queues.set(call.index, call.start);
      try {
        const value = await this.#worker.call(call);
        this.#note(call);
        return value;
      } catch (error) {
        if (!(error instanceof WorkerDeath)) {
          if (call.what === "startQueue") this.#queues.delete(call.index);
          throw error;
        }
        again = call.what !== "startQueue" && call.what !== "kick";
      }
    }
  }

  /** Remembers what a worker that comes later must be told. */
  #note(call: WorkerCall): void {
    switch (call.what) {
      case "start":
        for (const [offset, written] of this.#written) this.#before.set(offset, written);
        this.#written.clear();
        this.#started = { memory: call.memory, features: call.features };
        return;
      case "move":
        if (this.#started !== null) this.#started = { ...this.#started, memory: call.memory };
        return;
      case "stop":
        return this.#forget();
      case "stopQueue":
        this.#queues.delete(call.index);
        return;
      case "log":
        this.#log = call.place;
        return;
      case "setCall":
        this.#calls.set(call.index, call.descriptor);
        return;
      case "writeConfig":
        // The last one comes last.
        this.#written.delete(call.offset);
        this.#written.set(call.offset, call);
        return;
    }
  }

  /** Ends the worker in good order. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#replacing;
    await this.#worker.close();
  }
}
