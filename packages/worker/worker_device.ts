import {
  type Activation,
  ConfigSpace,
  type Device,
  type FeatureRequirement,
  type FeatureSet,
  type QueueCounters,
  type SharedMemoryRegion,
} from "@virtio/device";
import type { Queue, QueueState } from "@virtio/vring";
import { errorFrom, WorkerError } from "./call.ts";
import { Crew } from "./crew.ts";
import type { DeviceWorker } from "./device_worker.ts";
import { Drains } from "./drains.ts";
import type { FromWorker } from "./messages.ts";
import type { WorkerDeviceOptions } from "./options.ts";
import { replaceAll } from "./replace.ts";
import { Takeovers } from "./takeover.ts";
import { Tidings } from "./tidings.ts";
import { Watch } from "./watch.ts";
import { BellWord, Word } from "./words.ts";

/**
 * A device that runs in a worker, over the same guest memory. To a transport it is a `Device` like any other.
 *
 * Kicks and interrupts are words in shared memory. Everything else is a call that waits for its answer, so that a register
 * can be read right after it was written, and so that after a reset nothing touches guest memory any more.
 *
 * `await device.ready` before a transport gets it: what it is, the worker tells.
 */
export class WorkerDevice implements Device {
  /** Resolves when the device can be given to a transport. @throws {Error} As the function that makes the device. */
  readonly ready: Promise<void>;
  readonly #crew: Crew;
  readonly #watch: Watch;
  readonly #drains: Drains = new Drains();
  readonly #takeovers: Takeovers;
  #config: ConfigSpace | null = null;
  /** How many queues it has. */
  #queues = 0;
  readonly #tidings: Tidings;
  /** Workers that still settle what a reset left. */
  #settling: { left: number; readonly resolve: () => void } | null = null;

  /**
   * Starts the worker.
   *
   * @param source The worker's module, which calls `serveDevice`.
   * @throws {RangeError} If the number of workers is not positive.
   */
  constructor(source: URL | string, options: WorkerDeviceOptions = {}) {
    const count = options.workers ?? 1;
    if (!Number.isSafeInteger(count) || count < 1) {
      throw new RangeError(`The number of workers must be positive: it is ${count}`);
    }
    this.#crew = new Crew(source, options, {
      message: (message) => this.#heard(message),
      died: (worker, error) => this.#died(worker, error),
    });
    this.#tidings = new Tidings(this.#crew);
    this.#watch = new Watch(this.#crew.bell, options.spin ?? 50, () => this.#tidings.pass());
    this.#takeovers = new Takeovers(
      this.#crew,
      this.#drains,
      (worker, error) => this.#giveUp(worker, error),
    );
    this.#crew.workers = Array.from({ length: count }, () => this.#crew.spawn());
    this.ready = this.#introduce(this.#crew.workers);
    this.ready.catch(() => {});
  }

  async #introduce(workers: readonly DeviceWorker[]): Promise<void> {
    const descriptions = await Promise.all(workers.map((worker) => worker.ready));
    const description = descriptions[0]!;
    this.#crew.introduce(description);
    this.#config = new ConfigSpace(
      description.config.length,
      (offset, bytes) => this.#configWritten(offset, bytes),
      description.anytime ?? undefined,
    );
    this.#config.bytes.set(description.config);
    this.#queues = description.queueSizes.length;
    this.#tidings.introduce(this.#queues, this.#config);
    this.#watch.run();
  }

  /** Device type (5). @throws {TypeError} Before `ready`, as the following. */
  get type(): number {
    return this.#crew.description.type;
  }

  /** Feature bits of the device type that it offers. */
  get features(): FeatureSet {
    return this.#crew.description.features;
  }

  /** Pairs of features of which the first needs the second. */
  get requires(): readonly FeatureRequirement[] {
    return this.#crew.description.requires;
  }

  /** Largest size of each queue. */
  get queueSizes(): readonly number[] {
    return this.#crew.description.queueSizes;
  }

  /**
   * Memory that it shows beside its queues; the same on both sides. Where there are several workers, or one may be replaced,
   * it must come with `WorkerDeviceOptions.data`, so that all of them have the same.
   */
  get sharedMemory(): readonly SharedMemoryRegion[] {
    return this.#crew.description.sharedMemory;
  }

  /**
   * The configuration space: the worker's. A driver that found a used buffer by itself finds here what the device had changed
   * before it used that.
   */
  get config(): ConfigSpace {
    // So that it throws the same.
    void this.#crew.description;
    this.#tidings.ask();
    return this.#config!;
  }

  /** Notifications that woke either side so far: what kicks and interrupts cost. */
  get notifications(): number {
    const { workers, bell } = this.#crew;
    return workers.reduce(
      (sum, { link }) => sum + Atomics.load(link.words, Word.notifications),
      Atomics.load(bell.words, BellWord.notifications),
    );
  }

  /**
   * What each queue did, as its worker counts; zeroes if the device there is no `QueueDevice`.
   *
   * @throws {WorkerError} If a worker is dead.
   */
  get queueCounters(): readonly Readonly<QueueCounters>[] {
    const counted = this.#crew.workers.map((worker) =>
      worker.call("counters") as QueueCounters[] | null
    );
    return this.queueSizes.map((_, queue) =>
      counted[queue % counted.length]?.[queue] ??
        { kicks: 0, interrupts: 0, chains: 0, descriptors: 0 }
    );
  }

  /**
   * What each worker says of itself: `ServeOptions.report`; null where it has none.
   *
   * @throws {WorkerError} If a worker is dead.
   */
  reports(): unknown[] {
    return this.#crew.workers.map((worker) => worker.call("report"));
  }

  /** Whether all workers live. */
  get alive(): boolean {
    return this.#crew.workers.every((worker) => !worker.dead);
  }

  /** See `Device.accepts`. */
  accepts(features: FeatureSet): boolean {
    const { accepted, config } = this.#crew.callAll("accepts", features) as {
      accepted: boolean;
      config: Uint8Array;
    };
    this.#config!.bytes.set(config);
    return accepted;
  }

  /** See `Device.start`. @throws {TypeError} If the guest's memory cannot be shared. */
  start(activation: Activation): void {
    this.#crew.start(activation);
    this.#begin();
  }

  #begin(): void {
    this.#keepState();
    this.#tidings.begin();
  }

  #keepState(): void {
    if (this.#crew.options.onDeath === "replace") this.#crew.saved = this.save();
  }

  /** See `Device.startQueue`. */
  startQueue(index: number, queue: Queue): void {
    const worker = this.#crew.of(index);
    if (this.#takeovers.pending(worker)) {
      this.#takeovers.startQueue(worker, index, queue.snapshot());
    } else this.#crew.startQueue(index, queue.snapshot());
  }

  /** See `Device.stopQueue`. */
  stopQueue(index: number): Queue | Promise<Queue> {
    const crew = this.#crew;
    const worker = crew.of(index);
    if (!this.#takeovers.pending(worker)) {
      const state = worker.call("stopQueue", index) as QueueState | null;
      // What was used while it stopped is told before it counts as stopped.
      this.poll();
      if (state !== null) {
        crew.live.delete(index);
        this.#tidings.tellWritten();
        return crew.reopen(state);
      }
    }
    return this.#drains.wait(index, crew.life);
  }

  /** See `Device.notify`. */
  notify(index: number): void {
    if (index < this.#queues) this.#crew.of(index).link.kick(index);
  }

  /** See `Device.stop`. */
  stop(): void | Promise<void> {
    const crew = this.#crew;
    const { activation } = crew;
    if (activation === null) return;
    crew.activation = null;
    crew.live.clear();
    this.#drains.reject(new WorkerError("The device was stopped"));
    let left = 0;
    for (const worker of crew.workers) {
      if (!worker.dead && worker.call("stop") === false) left++;
    }
    const tell = (): void => crew.tellWritten(activation.memory);
    tell();
    // A thread that was ended may run on for a while.
    const going = crew.workers.map(({ gone }) => gone).filter((gone) => gone instanceof Promise);
    if (left > 0) going.push(new Promise((resolve) => this.#settling = { left, resolve }));
    if (going.length > 0) return Promise.all(going).then(tell);
  }

  /** See `Device.save`: what the device in the worker saves. */
  save(): unknown {
    return (this.#crew.workers[0]!.call("save") as { device: unknown }).device;
  }

  /** See `Device.restore`. */
  restore(saved: unknown): void {
    const { config } = this.#crew.callAll("restore", saved) as { config: Uint8Array };
    this.#config!.bytes.set(config);
  }

  /**
   * Passes on the interrupts that are there, changes of the configuration, and that the device asks for a reset. Called by
   * itself in later turns; an emulator that has a good moment between two slices of guest code calls it there.
   *
   * @returns Whether there was anything.
   */
  poll(): boolean {
    return this.#watch.poll();
  }

  /**
   * Sleeps until there is something to pass on, and does so: for a guest that runs in a worker itself.
   *
   * @param milliseconds At most.
   * @returns Whether there was anything.
   * @throws {TypeError} If this thread may not sleep (a browser's main thread).
   */
  wait(milliseconds: number): boolean {
    return this.#watch.wait(milliseconds);
  }

  /**
   * Puts new code in the workers' place while the guest runs: the queues are drained, the device's state is handed over, and
   * the new one goes on where the old one stopped. Kicks that come meanwhile are not lost.
   *
   * @param source The new worker's module; the same again unless given.
   * @param data For the function that makes the new device; as before unless given.
   * @throws {TypeError} If the new device is not like the old one; the old one goes on then.
   */
  async replace(source?: URL | string, data?: unknown): Promise<void> {
    await replaceAll(
      this.#crew,
      {
        stopQueue: (index) => this.stopQueue(index),
        save: () => this.save(),
        restore: (saved) => this.restore(saved),
        begin: () => this.#begin(),
      },
      source,
      data,
    );
  }

  /** Ends the workers. The device cannot be used again. */
  close(): void {
    this.#crew.activation = null;
    this.#watch.close();
    for (const worker of this.#crew.workers) worker.end();
  }

  #configWritten(offset: number, bytes: Uint8Array): boolean {
    const { config } = this.#crew.callAll("write", { offset, bytes }) as { config: Uint8Array };
    // What else changed is the device's own change: it comes as such, and not while the device is suspended (3.4.2).
    this.#config!.bytes.set(config.subarray(offset, offset + bytes.length), offset);
    this.#keepState();
    return false;
  }

  #heard(message: FromWorker): void {
    if (message.virtio === "drained") this.#drained(message);
    else if (message.virtio === "stopped" && this.#settling !== null) {
      if (--this.#settling.left === 0) this.#settle();
    }
  }

  #settle(): void {
    this.#settling?.resolve();
    this.#settling = null;
  }

  #drained(message: FromWorker & { virtio: "drained" }): void {
    const drain = this.#drains.take(message.queue, message.life);
    if (drain === undefined) return;
    this.#crew.live.delete(message.queue);
    this.poll();
    this.#tidings.tellWritten();
    try {
      if (message.error !== null) throw errorFrom(message.error);
      if (message.state === null) throw new WorkerError("The queue was dropped by a reset");
      drain.resolve(this.#crew.reopen(message.state));
    } catch (error) {
      drain.reject(error as Error);
    }
  }

  #died(worker: DeviceWorker, error: Error): void {
    const crew = this.#crew;
    crew.options.onError?.(error);
    if (!crew.workers.includes(worker)) return;
    // What it had done and told is told before.
    this.poll();
    if (crew.options.onDeath === "replace" && crew.activation !== null) {
      this.#takeovers.begin(worker, error);
    } else {
      this.#giveUp(worker, error);
    }
  }

  /** Nobody takes a dead worker's place. */
  #giveUp(worker: DeviceWorker, error: Error): void {
    this.#drains.reject(error, (queue) => this.#crew.of(queue) === worker);
    this.#settle();
    this.#crew.activation?.fail(error);
  }
}
