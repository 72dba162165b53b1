import {
  type Activation,
  ConfigSpace,
  defer,
  type Device,
  type FeatureRequirement,
  type FeatureSet,
  type QueueCounters,
} from "@virtio/device";
import { DirtyBitmap, type GuestMemory } from "@virtio/memory";
import { openQueue, type Queue, type QueueState } from "@virtio/vring";
import { errorFrom, WorkerError } from "./call.ts";
import { DeviceWorker, type WorkerPort } from "./device_worker.ts";
import { Journal } from "./journal.ts";
import type { DeviceDescription, FromWorker, News } from "./messages.ts";
import { Bell, BellWord, Word } from "./words.ts";

/** Options of a `WorkerDevice`. */
export interface WorkerDeviceOptions {
  /** For the function that makes the device in the worker; anything that `postMessage` can carry. */
  readonly data?: unknown;
  /**
   * Number of workers; 1 unless given. Each makes a device of its own from the same data, and the queues are dealt out to
   * them: for devices whose queues are independent of each other, such as a block device with several.
   */
  readonly workers?: number;
  /** Milliseconds to wait for a worker's answer before it counts as dead; 10,000 unless given. */
  readonly patience?: number;
  /**
   * What is to happen when a worker dies. "reset", unless given: the device asks its driver for a reset. "replace": a new
   * worker of the same module takes over while the guest runs. What was not yet told to the driver is handled again, so
   * the module must say that its device is `repeatable`; chains are completed in the order in which they came, so that it is
   * known what that is. Where it cannot be done the device asks for a reset, and the error says why.
   */
  readonly onDeath?: "reset" | "replace";
  /** Told when a worker dies, and what a device reports that no driver listens to. */
  readonly onError?: (error: Error) => void;
  /** Makes a worker; the platform's `Worker` unless given. */
  readonly spawn?: (source: URL | string) => WorkerPort;
}

/** Workers that may die one after the other without anything being published. */
const MOST_STRIKES = 3;

/** Times that interrupts are passed on before the event loop gets its turn. */
const MOST_ROUNDS = 32;

/** A queue that is being stopped. */
interface Stopping {
  readonly life: number;
  readonly resolve: (queue: Queue) => void;
  readonly reject: (error: Error) => void;
}

/** What is sent by message has a number, by which the call that needs it names it: they go different ways. */
let memories = 0;

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
  readonly #source: URL | string;
  readonly #options: WorkerDeviceOptions;
  #workers: DeviceWorker[];
  #description: DeviceDescription | null = null;
  #config: ConfigSpace | null = null;
  #activation: Activation | null = null;
  /** What the workers mark for the memory's tracker; null if it has none. */
  #dirty: DirtyBitmap | null = null;
  /** Counts starts. */
  #life = 0;
  /** How each started queue was given to its worker. */
  readonly #live: Map<number, QueueState> = new Map();
  /** Workers that died, whose place is being filled. */
  readonly #lost: Set<DeviceWorker> = new Set();
  /** Deaths since a worker published anything. */
  #strikes = 0;
  /** What the device saved when it was started, or when its configuration was written last. */
  #state: unknown = null;
  /** Interrupts that were passed on, by queue. */
  #seen: Int32Array = new Int32Array(0);
  readonly #stopping: Map<number, Stopping> = new Map();
  /** Workers that still settle what a reset left. */
  #settling: { left: number; readonly resolve: () => void } | null = null;
  /** What all workers ring. */
  readonly #bell: Bell = new Bell();
  /** What its word was when it was last looked at. */
  #polled = 0;
  #closed = false;
  #rounds = 0;

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
    this.#source = source;
    this.#options = options;
    this.#workers = Array.from({ length: count }, () => this.#spawn(source, options.data));
    this.ready = this.#introduce(this.#workers);
    this.ready.catch(() => {});
  }

  #spawn(source: URL | string, data: unknown): DeviceWorker {
    const spawn = this.#options.spawn ??
      ((source) => new Worker(source, { type: "module" }) as unknown as WorkerPort);
    const worker: DeviceWorker = new DeviceWorker(
      spawn(source),
      data,
      this.#options.patience ?? 10_000,
      {
        message: (message) => this.#heard(message),
        died: (error) => this.#died(worker, error),
      },
      this.#bell.buffer,
      this.#options.onDeath === "replace",
    );
    return worker;
  }

  async #introduce(workers: readonly DeviceWorker[]): Promise<void> {
    const descriptions = await Promise.all(workers.map((worker) => worker.ready));
    const description = descriptions[0]!;
    this.#description = description;
    this.#seen = new Int32Array(description.queueSizes.length);
    this.#config = new ConfigSpace(
      description.config.length,
      (offset, bytes) => this.#configWritten(offset, bytes),
    );
    this.#config.bytes.set(description.config);
    this.#watch();
  }

  #told(): DeviceDescription {
    if (this.#description === null) {
      throw new TypeError(
        "The worker has not said yet what its device is: await device.ready first",
      );
    }
    return this.#description;
  }

  /** Device type (5). @throws {TypeError} Before `ready`, as the following. */
  get type(): number {
    return this.#told().type;
  }

  /** Feature bits of the device type that it offers. */
  get features(): FeatureSet {
    return this.#told().features;
  }

  /** Pairs of features of which the first needs the second. */
  get requires(): readonly FeatureRequirement[] {
    return this.#told().requires;
  }

  /** Largest size of each queue. */
  get queueSizes(): readonly number[] {
    return this.#told().queueSizes;
  }

  /** The configuration space: the worker's, as it was last told. */
  get config(): ConfigSpace {
    this.#told();
    return this.#config!;
  }

  /** Notifications that woke either side so far: what kicks and interrupts cost. */
  get notifications(): number {
    return this.#workers.reduce(
      (sum, { link }) => sum + Atomics.load(link.words, Word.notifications),
      Atomics.load(this.#bell.words, BellWord.notifications),
    );
  }

  /**
   * What each queue did, as its worker counts; zeroes if the device there is no `QueueDevice`.
   *
   * @throws {WorkerError} If a worker is dead.
   */
  get queueCounters(): readonly Readonly<QueueCounters>[] {
    const counted = this.#workers.map((worker) =>
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
    return this.#workers.map((worker) => worker.call("report"));
  }

  /** Whether all workers live. */
  get alive(): boolean {
    return this.#workers.every((worker) => !worker.dead);
  }

  /** The worker that serves a queue. */
  #worker(queue: number): DeviceWorker {
    return this.#workers[queue % this.#workers.length]!;
  }

  /** Calls all workers; the first one's answer. */
  #callAll(what: string, data?: unknown): unknown {
    const answers = this.#workers.map((worker) => worker.call(what, data));
    return answers[0];
  }

  /** See `Device.accepts`. */
  accepts(features: FeatureSet): boolean {
    const { accepted, config } = this.#callAll("accepts", features) as {
      accepted: boolean;
      config: Uint8Array;
    };
    this.config.bytes.set(config);
    return accepted;
  }

  /** See `Device.start`. @throws {TypeError} If the guest's memory cannot be shared. */
  start(activation: Activation): void {
    const { memory, features } = activation;
    const id = ++memories;
    const shared = memory.share();
    this.#dirty = memory.tracker === null ? null : dirtyBitmapFor(memory);
    const dirty = this.#dirty?.buffer ?? null;
    for (const worker of this.#workers) {
      worker.post({ virtio: "memory", id, memory: shared, dirty });
    }
    this.#callAll("start", { memory: id, features, life: ++this.#life });
    this.#activation = activation;
    this.#keepState();
    this.#passOver();
  }

  /** Interrupts of the past are nobody's. */
  #passOver(): void {
    for (let queue = 0; queue < this.#seen.length; queue++) {
      this.#seen[queue] = this.#bell.interrupts(queue);
    }
  }

  #keepState(): void {
    if (this.#options.onDeath === "replace") this.#state = this.save();
  }

  /** See `Device.startQueue`. */
  startQueue(index: number, queue: Queue): void {
    const state = queue.snapshot();
    const worker = this.#worker(index);
    // One that takes over is given all that are live.
    if (!this.#lost.has(worker)) worker.call("startQueue", { index, state });
    else {new Journal(worker.journals!, index).begin(
        state.position.nextUsed,
        state.position.usedWrap,
      );}
    this.#live.set(index, state);
  }

  /** See `Device.stopQueue`. */
  stopQueue(index: number): Queue | Promise<Queue> {
    const worker = this.#worker(index);
    if (!this.#lost.has(worker)) {
      const state = worker.call("stopQueue", index) as QueueState | null;
      // What was used while it stopped is told before it counts as stopped.
      this.poll();
      if (state !== null) {
        this.#live.delete(index);
        return this.#reopen(state);
      }
    }
    return new Promise((resolve, reject) => {
      this.#stopping.set(index, { life: this.#life, resolve, reject });
    });
  }

  #reopen(state: QueueState): Queue {
    const activation = this.#activation;
    if (activation === null) throw new WorkerError("The device was stopped meanwhile");
    return openQueue(activation.memory, state, activation.features);
  }

  /** See `Device.notify`. */
  notify(index: number): void {
    if (index < this.#seen.length) this.#worker(index).link.kick(index);
  }

  /** See `Device.stop`. */
  stop(): void | Promise<void> {
    if (this.#activation === null) return;
    this.#activation = null;
    this.#live.clear();
    const lost = new WorkerError("The device was stopped");
    for (const stopping of this.#stopping.values()) stopping.reject(lost);
    this.#stopping.clear();
    let left = 0;
    for (const worker of this.#workers) {
      if (!worker.dead && worker.call("stop") === false) left++;
    }
    // A thread that was ended may run on for a while.
    const going = this.#workers.map(({ gone }) => gone).filter((gone) => gone instanceof Promise);
    if (left > 0) going.push(new Promise((resolve) => this.#settling = { left, resolve }));
    if (going.length > 0) return Promise.all(going).then(() => {});
  }

  /** See `Device.save`: what the device in the worker saves. */
  save(): unknown {
    return (this.#workers[0]!.call("save") as { device: unknown }).device;
  }

  /** See `Device.restore`. */
  restore(saved: unknown): void {
    const { config } = this.#callAll("restore", saved) as { config: Uint8Array };
    this.config.bytes.set(config);
  }

  /**
   * Passes on the interrupts that are there, changes of the configuration, and that the device asks for a reset. Called by
   * itself in later turns; an emulator that has a good moment between two slices of guest code calls it there.
   *
   * @returns Whether there was anything.
   */
  poll(): boolean {
    const event = Atomics.load(this.#bell.words, BellWord.event);
    if (event === this.#polled) return false;
    this.#polled = event;
    let any = this.#passInterrupts();
    for (const worker of this.#workers) {
      if (this.#passNews(worker)) any = true;
    }
    return any;
  }

  #passInterrupts(): boolean {
    const activation = this.#activation;
    if (activation === null) return false;
    let any = false;
    for (let queue = 0; queue < this.#seen.length; queue++) {
      const count = this.#bell.interrupts(queue);
      if (count === this.#seen[queue]) continue;
      this.#seen[queue] = count;
      // What was written is told before the driver is told to look at it.
      if (!any) this.#tellWritten(activation.memory);
      any = true;
      activation.interrupt.queue(queue);
      if (this.#activation !== activation) return true;
    }
    return any;
  }

  #passNews(worker: DeviceWorker): boolean {
    let news: News | null;
    try {
      news = worker.news();
    } catch {
      // It is dead, and that was told.
      return false;
    }
    if (news === null) return false;
    const { config, failure } = news;
    if (config !== null && worker === this.#workers[0]) {
      this.#config?.update((view) => new Uint8Array(view.buffer).set(config));
    }
    if (failure?.life === this.#life) this.#activation?.fail(errorFrom(failure.error));
    return true;
  }

  #tellWritten({ tracker }: GuestMemory): void {
    this.#dirty?.drain((address, length) => tracker?.mark(address, length));
  }

  /**
   * Sleeps until there is something to pass on, and does so: for a guest that runs in a worker itself.
   *
   * @param milliseconds At most.
   * @returns Whether there was anything.
   * @throws {TypeError} If this thread may not sleep (a browser's main thread).
   */
  wait(milliseconds: number): boolean {
    const { words } = this.#bell;
    const seen = Atomics.load(words, BellWord.event);
    if (this.poll()) return true;
    Atomics.store(words, BellWord.asleep, 1);
    Atomics.wait(words, BellWord.event, seen, milliseconds);
    return this.poll();
  }

  /**
   * Puts new code in the workers' place while the guest runs: the queues are drained, the device's state is handed over, and
   * the new one goes on where the old one stopped. Kicks that come meanwhile are not lost.
   *
   * @param source The new worker's module; the same again unless given.
   * @param data For the function that makes the new device; as before unless given.
   * @throws {TypeError} If the new device is not like the old one; the old one goes on then.
   */
  async replace(source: URL | string = this.#source, data?: unknown): Promise<void> {
    const old = this.#workers;
    const fresh = old.map(() => this.#spawn(source, data ?? this.#options.data));
    try {
      const [description] = await Promise.all(fresh.map((worker) => worker.ready));
      this.#checkLike(description!);
    } catch (error) {
      for (const worker of fresh) worker.end();
      throw error;
    }
    const activation = this.#activation;
    if (activation === null) {
      this.#handOver(old, fresh);
      return;
    }
    const states = await this.#takeBack(old);
    if (this.#activation !== activation) {
      // Reset meanwhile: nothing to hand over.
      this.#handOver(old, fresh);
      return;
    }
    const saved = this.save();
    for (const worker of old) if (!worker.dead) worker.call("stop");
    this.#activation = null;
    this.#handOver(old, fresh);
    this.#callAll("accepts", activation.features);
    // After that: a block device's cache mode is what it saved, not what it has at first.
    if (saved !== null) this.restore(saved);
    this.start(activation);
    for (const [index, state] of states) {
      this.#worker(index).call("startQueue", { index, state });
      this.#live.set(index, state);
      this.notify(index);
    }
  }

  /** Stops all queues that the old workers have. */
  async #takeBack(old: readonly DeviceWorker[]): Promise<Map<number, QueueState>> {
    const states = new Map<number, QueueState>();
    for (let index = 0; index < this.#seen.length; index++) {
      const worker = old[index % old.length]!;
      if (worker.call("has", index) !== true) continue;
      const stopped = await this.stopQueue(index);
      states.set(index, stopped.snapshot());
    }
    return states;
  }

  #handOver(old: readonly DeviceWorker[], fresh: DeviceWorker[]): void {
    this.#workers = fresh;
    for (const worker of old) worker.end();
  }

  #checkLike(other: DeviceDescription): void {
    const mine = this.#told();
    const same = mine.type === other.type && mine.features === other.features &&
      mine.config.length === other.config.length &&
      mine.queueSizes.length === other.queueSizes.length &&
      mine.queueSizes.every((size, i) => size === other.queueSizes[i]);
    if (!same) {
      throw new TypeError(
        "Cannot replace a device by another kind: type, features, queues and configuration size must be the same",
      );
    }
  }

  /** Ends the workers. The device cannot be used again. */
  close(): void {
    this.#activation = null;
    this.#closed = true;
    for (const worker of this.#workers) worker.end();
    // Nobody sleeps on it any more.
    this.#bell.ring();
  }

  #configWritten(offset: number, bytes: Uint8Array): boolean {
    const { config } = this.#callAll("write", { offset, bytes }) as { config: Uint8Array };
    this.config.bytes.set(config);
    this.#keepState();
    return false;
  }

  #heard(message: FromWorker): void {
    switch (message.virtio) {
      case "drained":
        this.#drained(message);
        break;
      case "stopped":
        if (this.#settling !== null && --this.#settling.left === 0) {
          this.#settling.resolve();
          this.#settling = null;
        }
        break;
    }
  }

  #drained(message: FromWorker & { virtio: "drained" }): void {
    const stopping = this.#stopping.get(message.queue);
    if (stopping === undefined || stopping.life !== message.life) return;
    this.#stopping.delete(message.queue);
    this.#live.delete(message.queue);
    this.poll();
    try {
      if (message.error !== null) throw errorFrom(message.error);
      if (message.state === null) throw new WorkerError("The queue was dropped by a reset");
      stopping.resolve(this.#reopen(message.state));
    } catch (error) {
      stopping.reject(error as Error);
    }
  }

  #died(worker: DeviceWorker, error: Error): void {
    this.#options.onError?.(error);
    if (!this.#workers.includes(worker)) return;
    // What it had done and told is told before.
    this.poll();
    if (this.#options.onDeath === "replace" && this.#activation !== null) {
      this.#lost.add(worker);
      void this.#takeOver(worker, error).finally(() => this.#lost.delete(worker));
      return;
    }
    this.#giveUp(worker, error);
  }

  /** Nobody takes a dead worker's place. */
  #giveUp(worker: DeviceWorker, error: Error): void {
    for (const [queue, stopping] of this.#stopping) {
      if (this.#worker(queue) !== worker) continue;
      this.#stopping.delete(queue);
      stopping.reject(error);
    }
    if (this.#settling !== null) {
      this.#settling.resolve();
      this.#settling = null;
    }
    this.#activation?.fail(error);
  }

  /** Has a new worker go on where one died. */
  async #takeOver(dead: DeviceWorker, error: Error): Promise<void> {
    const activation = this.#activation!;
    const life = this.#life;
    let fresh: DeviceWorker | null = null;
    try {
      if (!this.#told().repeatable) {
        throw new WorkerError("its module does not say that it is repeatable");
      }
      if (++this.#strikes > MOST_STRIKES) {
        throw new WorkerError(`the same requests have ended ${this.#strikes} workers`);
      }
      fresh = this.#spawn(this.#source, this.#options.data);
      this.#checkLike(await fresh.ready);
      await dead.gone;
      if (this.#activation !== activation || this.#life !== life) {
        // Reset meanwhile: the new one begins with the next life, unless that has begun without it.
        if (this.#activation !== null) throw new WorkerError("the device was started meanwhile");
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
    const place = this.#workers.indexOf(dead);
    // Closed, or replaced as a whole.
    if (place < 0) throw new WorkerError("it had been replaced already");
    this.#workers[place] = fresh;
    this.#lost.delete(dead);
  }

  /** The same while the device runs: it gets the queues. */
  #fillStarted(dead: DeviceWorker, fresh: DeviceWorker, { memory, features }: Activation): void {
    const queues = [...this.#live.keys()].filter((queue) => this.#worker(queue) === dead);
    for (const queue of queues) {
      const given = this.#live.get(queue)!;
      const state = new Journal(dead.journals!, queue).recover(memory, given, features);
      if (state.position.nextUsed !== given.position.nextUsed) this.#strikes = 0;
      this.#live.set(queue, state);
    }
    const id = ++memories;
    fresh.post({
      virtio: "memory",
      id,
      memory: memory.share(),
      dirty: this.#dirty?.buffer ?? null,
    });
    fresh.call("accepts", features);
    if (this.#state !== null) fresh.call("restore", this.#state);
    fresh.call("start", { memory: id, features, life: this.#life });
    this.#fill(dead, fresh);
    for (const queue of queues) {
      const state = this.#live.get(queue)!;
      const stopping = this.#stopping.get(queue);
      if (stopping === undefined) {
        fresh.call("startQueue", { index: queue, state });
        fresh.link.kick(queue);
      } else {
        // Nothing of it is in flight any more.
        this.#stopping.delete(queue);
        this.#live.delete(queue);
        stopping.resolve(this.#reopen(state));
      }
    }
    // It may have died between publishing and telling.
    const activation = this.#activation;
    for (const queue of queues) {
      if (this.#activation === activation) activation?.interrupt.queue(queue);
    }
  }

  /** Passes on what there is, sleeps, and again. */
  #watch(): void {
    if (this.#closed) return;
    const { words } = this.#bell;
    const seen = Atomics.load(words, BellWord.event);
    this.poll();
    Atomics.store(words, BellWord.asleep, 1);
    const waiting = Atomics.waitAsync(words, BellWord.event, seen);
    const again = (): void => {
      Atomics.store(words, BellWord.asleep, 0);
      this.#watch();
    };
    if (waiting.async) waiting.value.then(again);
    // Something came already. Under a load that never ends the event loop gets its turn all the same.
    else if (++this.#rounds % MOST_ROUNDS !== 0) queueMicrotask(again);
    else defer(again);
  }
}

function dirtyBitmapFor(memory: GuestMemory): DirtyBitmap {
  const last = memory.regions[memory.regions.length - 1]!;
  return new DirtyBitmap(last.base + last.size);
}
