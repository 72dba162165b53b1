/** Drives a device for a front end: what `DeviceState` does for registers, for one whose queues come and go one by one. */
import { closeDescriptor, EventFd, EventSignal, PollEvent } from "@virtio/linux";
import type { GuestMemory } from "@virtio/memory";
import type { Activation, Device, FeatureSet, PollSource, QueueCounters } from "@virtio/device";
import type { QueueConfig, QueuePosition } from "@virtio/vring";
import { type InflightPlace, openInflight } from "./inflight.ts";
import type { Watch, Watcher } from "./reactor.ts";
import { ServedQueue } from "./served_queue.ts";

/** What a device is told by, besides its queues. */
export interface RunnerListener {
  /** An interrupt of a queue that has no descriptor for it. */
  interrupt(index: number): void;
  /** The configuration changed. */
  configChanged(): void;
  /** The device asks for a reset; it is stopped already. */
  failed(error: Error): void;
}

/** A queue that is to go live. */
export interface QueueStart {
  /** Where it is. */
  readonly config: QueueConfig;
  /** The descriptor of kicks, or -1. The caller closes it once the queue is stopped. */
  readonly kick: number;
  /** Whether there are no kicks: the queue is looked at all the time. */
  readonly polled: boolean;
  /** Where chains in flight are written down, or null. */
  readonly inflight: InflightPlace | null;
}

/** A started queue. */
export interface LiveQueue {
  /** Which. */
  readonly index: number;
  /** The queue. */
  readonly queue: ServedQueue;
  /** The descriptor of kicks, or -1. */
  readonly kick: number;
  /** Whether there are no kicks. */
  readonly polled: boolean;
}

/** Events of a descriptor that nobody writes any more. */
export const GONE: number = PollEvent.error | PollEvent.hangUp | PollEvent.invalid;
/** Milliseconds between looks at a queue without kicks, where the event loop has other things to do. */
const POLL_INTERVAL = 1;

/** A device, its queues, and the descriptors that belong to them. Works in any thread. */
export class DeviceRunner {
  /** The device. */
  readonly device: Device;
  /** Queues that are started, by index; null where one is not. */
  readonly live: (LiveQueue | null)[];
  readonly #watcher: Watcher | null;
  readonly #listener: RunnerListener;
  /** Who is told of used buffers, by queue: a descriptor, or -1 for the listener. */
  readonly #calls: EventSignal[];
  readonly #watches: (Watch | null)[];
  #sources: Watch[] = [];
  #timer: ReturnType<typeof setInterval> | undefined;
  #activation: Activation | null = null;
  #features: FeatureSet = 0n;

  /**
   * @param watcher Who waits for kicks; null if whoever made this looks at `live`, and waits itself.
   */
  constructor(device: Device, watcher: Watcher | null, listener: RunnerListener) {
    this.device = device;
    this.#watcher = watcher;
    this.#listener = listener;
    const none = new EventSignal(-1);
    this.live = device.queueSizes.map(() => null);
    this.#calls = device.queueSizes.map(() => none);
    this.#watches = device.queueSizes.map(() => null);
    device.config.listener = () => listener.configChanged();
  }

  /** Whether the device is set going. */
  get started(): boolean {
    return this.#activation !== null;
  }

  /** What each queue did; null if the device does not count. */
  get counters(): readonly QueueCounters[] | null {
    return (this.device as { queueCounters?: readonly QueueCounters[] }).queueCounters ?? null;
  }

  /** Sets the device going. Queues follow. @throws Whatever it throws. */
  start(memory: GuestMemory, features: FeatureSet): void {
    const isLive = (): boolean => this.#activation === activation;
    const activation: Activation = {
      memory,
      features,
      interrupt: {
        queue: (index) => {
          if (!isLive()) return;
          const call = this.#calls[index]!;
          if (call.descriptor >= 0) call.signal();
          else this.#listener.interrupt(index);
        },
        config: () => {
          if (isLive()) this.#listener.configChanged();
        },
      },
      fail: (error) => {
        if (isLive()) this.#failed(error);
      },
    };
    this.#features = features;
    this.#activation = activation;
    this.device.start(activation);
    if (this.#watcher === null) return;
    const sources: readonly PollSource[] = this.device.pollSources?.() ?? [];
    this.#sources = sources.map((source) =>
      this.#watcher!.watch(source.descriptor, () => void source.ready())
    );
  }

  /** Who is told of a queue's used buffers from now on: a descriptor, which stays the caller's, or -1. */
  setCall(index: number, descriptor: number): void {
    const call = this.#calls[index]!;
    // Made in the thread that signals.
    this.#calls[index] = new EventSignal(descriptor);
    call.close();
  }

  /**
   * Starts a queue, and looks at once whether there is something in it.
   *
   * @throws {VirtqueueError} If it cannot be.
   */
  startQueue(index: number, { config, kick, polled, inflight }: QueueStart): void {
    const activation = this.#activation;
    if (activation === null) throw new TypeError("Start the device first");
    const notes = inflight === null ? null : openInflight(inflight, this.#features);
    const queue = new ServedQueue(activation.memory, config, this.#features, notes);
    this.live[index] = { index, queue, kick, polled };
    this.device.startQueue(index, queue);
    if (this.#watcher !== null && kick >= 0) {
      const event = new EventFd(kick);
      this.#watches[index] = this.#watcher.watch(kick, (events) => {
        // One without a writer would keep this thread busy for ever. One that is ready without a count may be that of two rings.
        if (!event.take() && (events & GONE) !== 0) this.#watches[index]?.close();
        this.kick(index);
      });
    }
    this.#setTimer();
    // Whoever had it before may have died between using buffers and telling so.
    if (queue.recovered) activation.interrupt.queue(index);
    this.kick(index);
  }

  /** The queue may have buffers. */
  kick(index: number): void {
    if (this.live[index] === null || this.live[index] === undefined) return;
    try {
      this.device.notify(index);
    } catch (error) {
      this.#failed(error);
    }
  }

  /**
   * Stops a queue.
   *
   * @returns Where it is to go on, once nothing of it is in flight; null if it was reset meanwhile.
   */
  stopQueue(index: number): QueuePosition | null | Promise<QueuePosition | null> {
    const live = this.live[index];
    if (live === null || live === undefined) return null;
    this.#unwatch(index);
    const stopped = this.device.stopQueue(index);
    const done = (): QueuePosition | null => {
      if (this.live[index] !== live) return null;
      this.live[index] = null;
      this.#setTimer();
      live.queue.end();
      return live.queue.snapshot().position;
    };
    return stopped instanceof Promise ? stopped.then(done) : done();
  }

  /** Stops the device; what is in flight is dropped. @returns When nothing touches guest memory any more. */
  stop(): void | Promise<void> {
    if (this.#activation === null) return;
    this.#activation = null;
    for (let index = 0; index < this.live.length; index++) {
      this.#unwatch(index);
      this.live[index] = null;
    }
    this.#setTimer();
    for (const source of this.#sources) source.close();
    this.#sources = [];
    this.device.config.release();
    return this.device.stop();
  }

  /**
   * Goes on with other guest memory, while no queue is started.
   *
   * @returns When that is so.
   */
  move(memory: GuestMemory): void | Promise<void> {
    if (this.#activation === null) return;
    const saved = this.device.save?.();
    const start = (): void => {
      if (saved !== undefined && saved !== null) this.device.restore?.(saved);
      this.start(memory, this.#features);
    };
    const stopped = this.stop();
    return stopped === undefined ? start() : stopped.then(start);
  }

  #unwatch(index: number): void {
    this.#watches[index]?.close();
    this.#watches[index] = null;
  }

  #setTimer(): void {
    const wanted = this.#watcher !== null && this.live.some((live) => live?.polled);
    if (wanted === (this.#timer !== undefined)) return;
    clearInterval(this.#timer);
    this.#timer = wanted ? setInterval(() => this.#poll(), POLL_INTERVAL) : undefined;
  }

  #poll(): void {
    for (const live of this.live) {
      if (live?.polled) this.kick(live.index);
    }
  }

  #failed(error: unknown): void {
    if (this.#activation === null) return;
    let stopped: void | Promise<void> = undefined;
    try {
      stopped = this.stop();
    } catch {
      // The first error is the one to tell.
    }
    const told = error instanceof Error ? error : new Error(String(error));
    if (stopped === undefined) this.#listener.failed(told);
    else stopped.finally(() => this.#listener.failed(told)).catch(() => {});
  }
}

/** Closes a descriptor if there is one. */
export function closeIfOpen(descriptor: number): void {
  if (descriptor >= 0) closeDescriptor(descriptor);
}
