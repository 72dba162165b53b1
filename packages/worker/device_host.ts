import type { Activation, Device, QueueCounters } from "@virtio/device";
import { DirtyBitmap, GuestMemory, type SharedMemory } from "@virtio/memory";
import { openQueue, type Queue, type QueueState } from "@virtio/vring";
import { type Call, CallTaker, describeError } from "./call.ts";
import type { DeviceDescription, FromWorker, News } from "./messages.ts";
import { Journal } from "./journal.ts";
import { JournaledQueue } from "./journaled_queue.ts";
import type { ServeOptions } from "./serve.ts";
import { type Bell, BellWord, type Link, MAX_QUEUES, Word } from "./words.ts";

/** Milliseconds after which the event loop turns, whatever the load; and turns of the worker's loop between two looks at the clock. */
const TURN = 10;
const LOOKS = 64;

/**
 * What `DeviceState` is to a device in process, for one in a worker: it does what calls say, passes kicks on, and sends what
 * the device says.
 */
export class DeviceHost {
  readonly #device: Device;
  readonly #link: Link;
  readonly #bell: Bell;
  readonly #post: (message: FromWorker) => void;
  readonly #options: ServeOptions;
  readonly #journals: SharedArrayBuffer | null;
  readonly #calls: CallTaker;
  /** The one that is under way: it waits for memory. */
  #waiting: Call | null = null;
  #memory: { readonly id: number; readonly memory: GuestMemory } | null = null;
  #features = 0n;
  /** As the other side counts starts, so that it knows of which life a message speaks. */
  #life = 0;
  #started = false;
  readonly #queues: (Queue | null)[];
  readonly #kicks: Int32Array;
  #configChanged = false;
  #failure: News["failure"] = null;
  #turns = 0;
  #turned = 0;
  /** Whether guest memory was written since the last interrupt, where somebody wants to know. */
  #written = false;
  /** Tells so after the batch that wrote it: if it ends with an interrupt, that tells it. */
  readonly #tellSoon = (): void => queueMicrotask(this.#tell);
  readonly #tell = (): void => this.tellWritten();

  /** @param post Sends to the other side. @throws {RangeError} If the device has too many queues. */
  constructor(
    device: Device,
    link: Link,
    bell: Bell,
    post: (message: FromWorker) => void,
    journals: SharedArrayBuffer | null,
    options: ServeOptions,
  ) {
    const count = device.queueSizes.length;
    if (count > MAX_QUEUES) {
      throw new RangeError(`A device in a worker has up to ${MAX_QUEUES} queues, not ${count}`);
    }
    this.#device = device;
    this.#link = link;
    this.#bell = bell;
    this.#post = post;
    this.#options = options;
    this.#journals = options.repeatable ? journals : null;
    this.#calls = new CallTaker(link);
    this.#queues = device.queueSizes.map(() => null);
    this.#kicks = new Int32Array(device.queueSizes.length);
    device.config.listener = () => {
      this.#configChanged = true;
      this.#announce();
    };
  }

  /** What the other side shows of it. @throws {TypeError} If memory that it shows cannot be shared. */
  describe(): DeviceDescription {
    const device = this.#device;
    const sharedMemory = device.sharedMemory ?? [];
    for (const { id, bytes } of sharedMemory) {
      if (!(bytes.buffer instanceof SharedArrayBuffer)) {
        throw new TypeError(
          `Region ${id} of a device in a worker must be in a SharedArrayBuffer: the other side shows it`,
        );
      }
    }
    return {
      type: device.type,
      features: device.features,
      requires: [...device.requires ?? []],
      queueSizes: [...device.queueSizes],
      config: device.config.bytes.slice(),
      anytime: device.config.anytime,
      sharedMemory: sharedMemory.map(({ id, bytes, address }) => ({ id, bytes, address })),
      repeatable: this.#options.repeatable ?? false,
    };
  }

  /** Stops the device for good, whatever it is doing. A promise if it touches guest memory until that resolves. */
  abandon(): void | Promise<void> {
    this.#started = false;
    this.#queues.fill(null);
    try {
      return this.#device.stop()?.catch(() => {});
    } catch {
      // It is given up anyway, and whoever gave it up knows why.
    }
  }

  /** Nothing is in flight: nobody waits for the event loop. */
  get idle(): boolean {
    if (this.#waiting !== null) return false;
    for (const queue of this.#queues) {
      if (queue !== null && queue.inFlight > 0) return false;
    }
    return true;
  }

  /** Whether the event loop should turn now, though nothing is in flight: messages, timers and sockets get their time. */
  turnDue(): boolean {
    if (++this.#turns % LOOKS !== 0) return false;
    const now = performance.now();
    if (now - this.#turned < TURN) return false;
    this.#turned = now;
    return true;
  }

  /** Guest memory that a call will name. */
  addMemory(id: number, shared: SharedMemory, dirty: SharedArrayBuffer | null): void {
    const memory = GuestMemory.from(shared, this.#options.openMemory);
    if (dirty !== null) {
      const bitmap = new DirtyBitmap(dirty);
      memory.tracker = {
        mark: (address, length) => {
          bitmap.mark(address, length);
          if (this.#written) return;
          this.#written = true;
          queueMicrotask(this.#tellSoon);
        },
      };
    }
    this.#memory = { id, memory };
    const waiting = this.#waiting;
    if (waiting === null) return;
    this.#waiting = null;
    this.#handle(waiting);
  }

  /** Tells that guest memory was written, if no interrupt did: the driver may not want any, and look by itself. */
  tellWritten(): void {
    if (!this.#written) return;
    this.#written = false;
    Atomics.add(this.#bell.words, BellWord.written, 1);
    this.#bell.ring();
  }

  /** Does what calls say, and passes on the kicks that came since. */
  look(): void {
    const kicks = this.#kicks;
    for (let queue = 0; queue < kicks.length; queue++) {
      const count = this.#link.kicks(queue);
      if (count === kicks[queue]) continue;
      kicks[queue] = count;
      if (this.#queues[queue] !== null) this.#device.notify(queue);
    }
    const call = this.#calls.take();
    if (call !== null) this.#handle(call);
  }

  #handle(call: Call): void {
    try {
      if (call.what === "start" && this.#memory?.id !== (call.with as StartCall).memory) {
        // The message is on its way.
        this.#waiting = call;
        return;
      }
      this.#calls.answer(this.#do(call));
    } catch (error) {
      this.#calls.refuse(error);
    }
  }

  #do({ what, with: data }: Call): unknown {
    const device = this.#device;
    switch (what) {
      case "accepts":
        return { accepted: device.accepts?.(data as bigint) ?? true, config: device.config.bytes };
      case "start":
        return this.#start(data as StartCall);
      case "startQueue":
        return this.#startQueue(data as { index: number; state: QueueState });
      case "stopQueue":
        return this.#stopQueue(data as number);
      case "has":
        return this.#queues[data as number] !== null;
      case "stop":
        return this.#stop();
      case "write":
        return this.#writeConfig(data as { offset: number; bytes: Uint8Array });
      case "news":
        return this.#news();
      case "counters":
        return (device as Partial<Counted>).queueCounters?.map((each) => ({ ...each })) ?? null;
      case "report":
        return this.#options.report?.() ?? null;
      case "save":
        return { device: device.save?.() ?? null };
      case "restore":
        device.restore?.(data);
        return { config: device.config.bytes };
      default:
        throw new TypeError(`A device's worker does not know how to "${what}"`);
    }
  }

  #start({ features, life }: StartCall): void {
    this.#life = life;
    this.#features = features;
    this.#started = true;
    const isLive = (): boolean => this.#started && this.#life === life;
    const activation: Activation = {
      memory: this.#memory!.memory,
      features,
      interrupt: {
        queue: (index) => {
          if (!isLive()) return;
          this.#written = false;
          this.#bell.interrupt(index);
        },
        // Configuration changes are the other side's to tell: it has the generation.
        config: () => {},
      },
      fail: (error) => {
        if (!isLive()) return;
        this.#failure = { life, error: describeError(error) };
        this.#announce();
      },
    };
    this.#device.start(activation);
  }

  #startQueue({ index, state }: { index: number; state: QueueState }): void {
    const { memory } = this.#memory!;
    const queue = this.#journals === null
      ? openQueue(memory, state, this.#features)
      : new JournaledQueue(memory, state, this.#features, new Journal(this.#journals, index));
    this.#queues[index] = queue;
    this.#kicks[index] = this.#link.kicks(index);
    this.#device.startQueue(index, queue);
  }

  /** The queue's state if it is drained at once; else null, and a message follows. */
  #stopQueue(index: number): QueueState | null {
    const life = this.#life;
    const stopped = this.#device.stopQueue(index);
    const drained = (queue: Queue): QueueState => {
      if (this.#queues[index] === queue) this.#queues[index] = null;
      return queue.snapshot();
    };
    if (!(stopped instanceof Promise)) return drained(stopped);
    stopped.then(
      (queue) =>
        this.#post({
          virtio: "drained",
          life,
          queue: index,
          // After a reset the chains in flight were dropped, and there is no state worth having.
          state: this.#started && this.#life === life ? drained(queue) : null,
          error: null,
        }),
      (error) =>
        this.#post({
          virtio: "drained",
          life,
          queue: index,
          state: null,
          error: describeError(error),
        }),
    );
    return null;
  }

  /** Whether all is done; else a message follows. */
  #stop(): boolean {
    const life = this.#life;
    this.#started = false;
    this.#queues.fill(null);
    const stopped = this.#device.stop();
    if (stopped === undefined) return true;
    const done = (): void => this.#post({ virtio: "stopped", life });
    stopped.then(done, done);
    return false;
  }

  #writeConfig({ offset, bytes }: { offset: number; bytes: Uint8Array }): {
    config: Uint8Array;
  } {
    const { config } = this.#device;
    // A write of the driver is of so many bytes.
    const size = bytes.length;
    if (size === 1 || size === 2 || size === 4) {
      let value = 0;
      for (let i = 0; i < size; i++) value |= bytes[i]! << (8 * i);
      config.write(offset, size, value);
    }
    return { config: config.bytes };
  }

  /** By shared memory, not by message: a driver that never gives its event loop a turn must hear it too. */
  #announce(): void {
    Atomics.add(this.#link.words, Word.news, 1);
    Atomics.add(this.#bell.words, BellWord.news, 1);
    this.#bell.ring();
  }

  #news(): News {
    const news = {
      config: this.#configChanged ? this.#device.config.bytes.slice() : null,
      failure: this.#failure,
    };
    this.#configChanged = false;
    this.#failure = null;
    return news;
  }
}

/** A device that counts, as `QueueDevice` does. */
interface Counted {
  readonly queueCounters: readonly QueueCounters[];
}

/** What a start needs. */
interface StartCall {
  readonly memory: number;
  readonly features: bigint;
  readonly life: number;
}
