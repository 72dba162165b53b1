/** The server's side of a device whose code runs in workers. */
import { checkInteger, type FeatureRequirement, type FeatureSet } from "@virtio/device";
import { descriptorTarget } from "@virtio/linux";
import type { GuestMemory } from "@virtio/memory";
import type { QueuePosition } from "@virtio/vring";
import type { DirtyLogPlace } from "./dirty_log.ts";
import type { QueueStart } from "./device_runner.ts";
import type { QueueCount, Served, ServedListener } from "./served.ts";
import type { FromVhostWorker, WorkerCall, WorkerDescription } from "./worker_messages.ts";
import { RestartBudget, WorkerSeat } from "./worker_seat.ts";

/** Options of `VhostUserWorkers.open`. */
export interface VhostUserWorkersOptions {
  /** Makes a worker; its module calls `serveVhostUser`. */
  readonly worker: () => Worker;
  /** For the function of the module that makes the device. */
  readonly data?: unknown;
  /** Number of workers; 1 unless given. Each has a device of its own, and every so many of the queues. */
  readonly workers?: number;
  /** Processors that each worker may run on, worker by worker; all unless given. */
  readonly pin?: readonly (readonly number[])[];
  /** Microseconds that a worker looks for buffers before it sleeps, at most: it adapts. 50 unless given. */
  readonly spin?: number;
  /**
   * How many workers that die within a minute are replaced; 5 unless given. Beyond, the device asks for a reset, which is
   * answered by others once the minute is over.
   */
  readonly restarts?: number;
}

/**
 * A device whose code runs in one worker or several, for `VhostUserServer`: kicks and interrupts go between them and the front
 * end, and the server's thread stays free.
 *
 * When a worker dies, another is made, and is told all that the one before was told: features, memory, queues, what the driver
 * wrote to the configuration. What was in flight is done again, as after a crash of the whole process, if the front end keeps
 * notes of it (INFLIGHT_SHMFD); if not, the front end is disconnected, and finds the fresh worker when it connects again. Files
 * that a dead worker had open stay open until the process ends.
 *
 * ```ts ignore
 * import { VhostUserServer, VhostUserWorkers } from "@virtio/vhost-user";
 *
 * const device = await VhostUserWorkers.open({
 *   worker: () => new Worker(import.meta.resolve("./disk_worker.ts"), { type: "module" }),
 *   data: { path: "disk.raw" },
 * });
 * await using server = new VhostUserServer({ socket: "/run/vm/disk.sock", device });
 * ```
 */
export class VhostUserWorkers implements Served {
  /** See `Served.listener`. */
  listener: ServedListener | null = null;
  /** See `Served.trouble`. */
  trouble: ((error: Error) => void) | null = null;
  readonly #seats: WorkerSeat[] = [];
  /** Queues that are elsewhere than where they belong. */
  readonly #away: Map<number, WorkerSeat> = new Map();
  /** Where kicks of started queues come from. */
  readonly #kicks: Map<number, string | null> = new Map();
  readonly #calls: Map<number, number> = new Map();
  #description: WorkerDescription | null = null;
  #config: Uint8Array = new Uint8Array(0);
  #failed = false;

  private constructor() {}

  /**
   * Starts the workers.
   *
   * @throws {RangeError} If an option is out of its range.
   * @throws {Error} If the device could not be made.
   */
  static async open(options: VhostUserWorkersOptions): Promise<VhostUserWorkers> {
    const count = checkInteger("workers", options.workers, 1, 1024, 1);
    const spin = checkInteger("spin", options.spin, 0, 1_000_000, 50);
    const restarts = checkInteger("restarts", options.restarts, 0, 1_000_000, 5);
    const device = new VhostUserWorkers();
    const budget = new RestartBudget(restarts);
    for (let index = 0; index < count; index++) {
      device.#seats.push(
        new WorkerSeat(options, index, spin, budget, {
          heard: (message) => device.#heard(index, message),
          died: (error) => device.trouble?.(error),
          replaced: (config) => index === 0 && device.#setConfig(config),
          lost: (error) => device.#lost(error),
          broken: (error) => device.#broken(error),
        }),
      );
    }
    try {
      const descriptions = await Promise.all(device.#seats.map(({ ready }) => ready));
      device.#description = descriptions[0]!;
      device.#config = descriptions[0]!.config;
    } catch (error) {
      await device.close();
      throw error;
    }
    return device;
  }

  /** Device type (5). */
  get type(): number {
    return this.#description!.type;
  }

  /** Feature bits of the device type. */
  get features(): FeatureSet {
    return this.#description!.features;
  }

  /** Pairs of features. */
  get requires(): readonly FeatureRequirement[] {
    return this.#description!.requires;
  }

  /** Largest size of each queue. */
  get queueSizes(): readonly number[] {
    return this.#description!.queueSizes;
  }

  #heard(worker: number, message: FromVhostWorker): void {
    if (message.vhost === "interrupt") this.listener?.interrupt(message.index);
    else if (message.vhost === "config" && worker === 0) this.#setConfig(message.bytes);
    else if (message.vhost === "failed") this.#broken(new Error(message.error));
  }

  #setConfig(bytes: Uint8Array): void {
    const before = this.#config;
    this.#config = bytes;
    const same = bytes.length === before.length && bytes.every((byte, at) => byte === before[at]);
    if (!same) this.listener?.configChanged();
  }

  #broken(error: Error): void {
    if (this.#failed) return;
    this.#failed = true;
    // What the other workers have goes on no more either.
    this.stop().then(() => this.listener?.failed(error), () => this.listener?.failed(error));
  }

  #lost(error: Error): void {
    if (this.listener === null) this.trouble?.(error);
    else this.listener.lost(error);
  }

  async #all(call: WorkerCall): Promise<unknown[]> {
    return await Promise.all(this.#seats.map((seat) => seat.call(call)));
  }

  #home(index: number): WorkerSeat {
    return this.#seats[index % this.#seats.length]!;
  }

  #of(index: number): WorkerSeat {
    return this.#away.get(index) ?? this.#home(index);
  }

  /**
   * Where a queue is to be started. Two workers that wait for one event file would take kicks away from each other, so queues
   * with one for their kicks are in one worker, whichever has the first of them.
   */
  #choose(index: number, kick: number): WorkerSeat {
    if (kick < 0 || this.#seats.length === 1) return this.#home(index);
    const target = descriptorTarget(kick);
    this.#kicks.set(index, target);
    if (target === null) return this.#seats[0]!;
    for (const [other, its] of this.#kicks) {
      if (other !== index && its === target) return this.#of(other);
    }
    return this.#home(index);
  }

  /** See `Served.config`. */
  config(): Uint8Array {
    return this.#config;
  }

  /** See `Served.writeConfig`. */
  async writeConfig(offset: number, size: 1 | 2 | 4, value: number): Promise<void> {
    const [config] = await this.#all({ what: "writeConfig", offset, size, value });
    this.#config = config as Uint8Array;
  }

  /** See `Served.accepts`. */
  async accepts(features: FeatureSet): Promise<boolean> {
    return (await this.#all({ what: "accepts", features })).every((accepted) => accepted === true);
  }

  /** See `Served.start`. */
  async start(memory: GuestMemory, features: FeatureSet): Promise<void> {
    this.#failed = false;
    await this.#all({ what: "start", memory: memory.share(), features });
  }

  /** See `Served.move`. */
  async move(memory: GuestMemory): Promise<void> {
    await this.#all({ what: "move", memory: memory.share() });
  }

  /** See `Served.log`. */
  async log(place: DirtyLogPlace | null): Promise<void> {
    await this.#all({ what: "log", place });
  }

  /** See `Served.setCall`. */
  async setCall(index: number, descriptor: number): Promise<void> {
    this.#calls.set(index, descriptor);
    await this.#of(index).call({ what: "setCall", index, descriptor });
  }

  /** See `Served.startQueue`. */
  async startQueue(index: number, start: QueueStart): Promise<void> {
    const before = this.#of(index);
    const seat = this.#choose(index, start.kick);
    if (seat !== before) {
      await before.call({ what: "setCall", index, descriptor: -1 });
      this.#away.set(index, seat);
      await seat.call({ what: "setCall", index, descriptor: this.#calls.get(index) ?? -1 });
    }
    await seat.call({ what: "startQueue", index, start });
  }

  /** See `Served.kick`. */
  kick(index: number): void {
    this.#of(index).call({ what: "kick", index }).catch(() => {});
  }

  /** See `Served.stopQueue`. */
  async stopQueue(index: number): Promise<QueuePosition | null> {
    const position = await this.#of(index).call({ what: "stopQueue", index });
    this.#kicks.delete(index);
    return position as QueuePosition | null;
  }

  /** See `Served.stop`. */
  async stop(): Promise<void> {
    await this.#all({ what: "stop" });
    this.#kicks.clear();
  }

  /** See `Served.counters`: the sum of all workers. Without what those did that died. */
  async counters(): Promise<readonly QueueCount[] | null> {
    const all = await this.#all({ what: "counters" }) as (QueueCount[] | null)[];
    if (all.some((each) => each === null)) return null;
    return this.queueSizes.map((_, index) =>
      all.reduce((sum, each) => {
        const { kicks, interrupts, chains, descriptors } = each![index]!;
        return {
          kicks: sum.kicks + kicks,
          interrupts: sum.interrupts + interrupts,
          chains: sum.chains + chains,
          descriptors: sum.descriptors + descriptors,
        };
      }, { kicks: 0, interrupts: 0, chains: 0, descriptors: 0 })
    );
  }

  /** See `Served.close`. */
  async close(): Promise<void> {
    await Promise.all(this.#seats.map((seat) => seat.close()));
  }
}
