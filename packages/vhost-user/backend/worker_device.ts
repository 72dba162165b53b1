/** The server's side of a device whose code runs in workers. */
import { checkInteger, type FeatureRequirement, type FeatureSet } from "@virtio/device";
import { EventFd } from "@virtio/linux";
import type { GuestMemory } from "@virtio/memory";
import type { QueuePosition } from "@virtio/vring";
import type { DirtyLogPlace } from "./dirty_log.ts";
import type { QueueStart, RunnerListener } from "./device_runner.ts";
import type { QueueCount, Served } from "./served.ts";
import type {
  FromVhostWorker,
  ToVhostWorker,
  WorkerCall,
  WorkerDescription,
} from "./worker_messages.ts";

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
}

/** What a dead worker has done: it touches nothing any more. */
const DONE_BY_DEATH: ReadonlySet<WorkerCall["what"]> = new Set(["stop", "log", "setCall", "close"]);

interface Waiting {
  readonly what: WorkerCall["what"] | null;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** One worker. */
class OneWorker {
  readonly #worker: Worker;
  readonly #wake: EventFd = EventFd.create();
  readonly #sent: Int32Array = new Int32Array(new SharedArrayBuffer(4));
  readonly #waiting: Map<number, Waiting> = new Map();
  readonly #heard: (message: FromVhostWorker) => void;
  readonly ready: Promise<WorkerDescription>;
  #settle: Waiting | null = null;
  #next = 1;
  #dead: Error | null = null;

  constructor(
    options: VhostUserWorkersOptions,
    index: number,
    spin: number,
    heard: (message: FromVhostWorker) => void,
  ) {
    this.#heard = heard;
    this.#worker = options.worker();
    this.#worker.addEventListener("message", ({ data }) => this.#message(data as FromVhostWorker));
    this.#worker.addEventListener("error", (event) => {
      // Deno ends the whole program for an uncaught error in a worker unless told otherwise.
      event.preventDefault();
      this.#died(new Error(`The device's worker died: ${event.message}`));
    });
    this.ready = new Promise((resolve, reject) => {
      this.#settle = { what: null, resolve: resolve as (value: unknown) => void, reject };
    });
    this.ready.catch(() => {});
    this.#post({
      vhost: "open",
      data: options.data,
      sent: this.#sent.buffer as unknown as SharedArrayBuffer,
      wake: this.#wake.descriptor,
      pin: options.pin?.[index] ?? null,
      spin,
    });
  }

  #post(message: ToVhostWorker): void {
    this.#worker.postMessage(message);
    Atomics.add(this.#sent, 0, 1);
    this.#wake.signal();
  }

  #message(message: FromVhostWorker): void {
    switch (message.vhost) {
      case "ready":
        return this.#settle?.resolve(message.device);
      case "refused":
        return this.#died(new Error(message.error));
      case "answer":
      case "error": {
        const waiting = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        if (message.vhost === "answer") waiting?.resolve(message.value);
        else waiting?.reject(new Error(message.error));
        return;
      }
    }
    this.#heard(message);
  }

  #died(error: Error): void {
    if (this.#dead !== null) return;
    this.#dead = error;
    this.#settle?.reject(error);
    for (const { what, resolve, reject } of this.#waiting.values()) {
      if (what !== null && DONE_BY_DEATH.has(what)) resolve(null);
      else reject(error);
    }
    this.#waiting.clear();
    this.#heard({ vhost: "failed", error: error.message });
  }

  call(call: WorkerCall): Promise<unknown> {
    if (this.#dead !== null) {
      return DONE_BY_DEATH.has(call.what) ? Promise.resolve(null) : Promise.reject(this.#dead);
    }
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { what: call.what, resolve, reject });
      this.#post({ vhost: "call", id, call });
    });
  }

  async close(): Promise<void> {
    // One that is dead sleeps nowhere; another must not be ended while it does, or the program would not end either.
    if (this.#dead === null) await this.call({ what: "close" }).catch(() => {});
    this.#worker.terminate();
    this.#wake.close();
  }
}

/**
 * A device whose code runs in one worker or several, for `VhostUserServer`: kicks and interrupts go between them and the front
 * end, and the server's thread stays free.
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
  listener: RunnerListener | null = null;
  readonly #workers: OneWorker[] = [];
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
    const device = new VhostUserWorkers();
    for (let index = 0; index < count; index++) {
      device.#workers.push(
        new OneWorker(options, index, spin, (message) => device.#heard(index, message)),
      );
    }
    try {
      const descriptions = await Promise.all(device.#workers.map(({ ready }) => ready));
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
    else if (message.vhost === "config" && worker === 0) {
      this.#config = message.bytes;
      this.listener?.configChanged();
    } else if (message.vhost === "failed" && !this.#failed) {
      this.#failed = true;
      const error = new Error(message.error);
      // What the other workers have goes on no more either.
      this.stop().then(() => this.listener?.failed(error), () => this.listener?.failed(error));
    }
  }

  async #all(call: WorkerCall): Promise<unknown[]> {
    return await Promise.all(this.#workers.map((worker) => worker.call(call)));
  }

  #of(index: number): OneWorker {
    return this.#workers[index % this.#workers.length]!;
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
    await this.#of(index).call({ what: "setCall", index, descriptor });
  }

  /** See `Served.startQueue`. */
  async startQueue(index: number, start: QueueStart): Promise<void> {
    await this.#of(index).call({ what: "startQueue", index, start });
  }

  /** See `Served.kick`. */
  kick(index: number): void {
    this.#of(index).call({ what: "kick", index }).catch(() => {});
  }

  /** See `Served.stopQueue`. */
  async stopQueue(index: number): Promise<QueuePosition | null> {
    return await this.#of(index).call({ what: "stopQueue", index }) as QueuePosition | null;
  }

  /** See `Served.stop`. */
  async stop(): Promise<void> {
    await this.#all({ what: "stop" });
  }

  /** See `Served.counters`: the sum of all workers. */
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
    await Promise.all(this.#workers.map((worker) => worker.close()));
  }
}
