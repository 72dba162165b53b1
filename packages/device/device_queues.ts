/**
 * The queues of one device, from `DeviceState`'s side: which are set up, which the device holds, which wait parked while it is
 * suspended or paused, and what still drains. A device is asked once to stop a queue, whoever wants it stopped.
 */
import type { GuestMemory } from "@virtio/memory";
import { openQueue, type Queue, type QueuePosition, VirtqueueError } from "@virtio/vring";
import type { Device } from "./device.ts";
import type { FeatureSet } from "./features.ts";
import { QueueSetup } from "./queue_setup.ts";

/** Made by `DeviceState`. */
export class DeviceQueues {
  /** The registers of each queue. */
  readonly setups: readonly QueueSetup[];
  readonly #device: Device;
  readonly #memory: GuestMemory;
  readonly #fail: (error: unknown) => void;
  /** Queues of a suspended or paused device. */
  readonly #parked: (Queue | null)[];
  /** Counts resets, so that what a drain promised before one has no effect after it. */
  #life = 0;
  /** Queues that are draining, whatever for. */
  readonly #stopping: Set<number> = new Set();
  /** Those that the driver disabled or reset. */
  readonly #ending: Set<number> = new Set();
  /** Drains under way. */
  readonly #draining: Set<Promise<unknown>> = new Set();

  /** @param fail Told when the device cannot stop a queue. */
  constructor(device: Device, memory: GuestMemory, fail: (error: unknown) => void) {
    this.#device = device;
    this.#memory = memory;
    this.#fail = fail;
    this.setups = device.queueSizes.map((size) => new QueueSetup(size));
    this.#parked = device.queueSizes.map(() => null);
  }

  /** Whether something drains. */
  get draining(): boolean {
    return this.#draining.size > 0;
  }

  /** Resolves when what drains now has drained. */
  async drained(): Promise<void> {
    await Promise.all(this.#draining);
  }

  /** Counts work that a reset has to wait for. */
  track(work: Promise<unknown>): void {
    this.#draining.add(work);
    work.then(() => this.#draining.delete(work));
  }

  /**
   * Hands a queue to the device.
   *
   * @throws {VirtqueueError} If what the driver set up is no queue.
   */
  start(index: number, features: FeatureSet): void {
    this.#device.startQueue(index, this.#open(index, features));
  }

  /** Opens a queue, and keeps it until `unpark`. @throws {VirtqueueError} As `start`. */
  park(index: number, features: FeatureSet, position?: QueuePosition): void {
    this.#parked[index] = this.#open(index, features, position);
  }

  #open(index: number, features: FeatureSet, position?: QueuePosition): Queue {
    const setup = this.setups[index]!;
    if (setup.size > setup.maxSize) {
      throw new VirtqueueError(
        "2.7",
        `Queue ${index} was given ${setup.size} entries; it can have ${setup.maxSize}`,
      );
    }
    return openQueue(this.#memory, setup.config(position), features);
  }

  /** How far a parked queue is; null if it is not parked. */
  position(index: number): QueuePosition | null {
    return this.#parked[index]?.snapshot().position ?? null;
  }

  /**
   * The driver disabled or reset a queue: it is so when it is drained.
   *
   * @param started Whether the device was set going.
   */
  end(index: number, started: boolean): void {
    const setup = this.setups[index];
    if (setup === undefined || this.#ending.has(index)) return;
    if (!setup.enabled || !started || this.#parked[index] !== null) {
      this.#parked[index] = null;
      this.#ended(index);
      return;
    }
    this.#ending.add(index);
    // One that drains for a suspend ends with that.
    if (!this.#stopping.has(index)) this.#drain([index], () => this.#ended(index));
  }

  #ended(index: number): void {
    this.#ending.delete(index);
    const setup = this.setups[index]!;
    if (setup.resetting) setup.reset();
    else setup.enabled = false;
  }

  /** Takes all queues back. Those that the driver disables or resets meanwhile are not kept. */
  parkAll(done: () => void): void {
    const indexes = [...this.setups.keys()].filter((index) =>
      this.setups[index]!.enabled && !this.#stopping.has(index) && this.#parked[index] === null
    );
    this.#drain(indexes, (queues) => {
      indexes.forEach((index, i) => {
        if (this.#ending.has(index)) this.#ended(index);
        else this.#parked[index] = queues[i]!;
      });
      done();
    }, [...this.#draining]);
  }

  /** Hands the parked queues to the device again. */
  unpark(): void {
    for (let index = 0; index < this.setups.length; index++) {
      const queue = this.#parked[index] ?? null;
      this.#parked[index] = null;
      if (queue !== null) this.#device.startQueue(index, queue);
    }
  }

  /** The device is stopped: nothing is parked, and no drain has an effect any more. A reset still waits for those. */
  forget(): void {
    this.#life++;
    this.#parked.fill(null);
    this.#stopping.clear();
    this.#ending.clear();
  }

  /** All registers as after a reset. */
  reset(): void {
    for (const setup of this.setups) setup.reset();
  }

  /**
   * Takes queues back from the device, and calls `done` when all are drained, unless a reset came first.
   *
   * @param others Drains to wait for as well.
   */
  #drain(
    indexes: readonly number[],
    done: (queues: Queue[]) => void,
    others: readonly Promise<unknown>[] = [],
  ): void {
    const life = this.#life;
    let stopped: (Queue | Promise<Queue>)[];
    try {
      stopped = indexes.map((index) => this.#device.stopQueue(index));
    } catch (error) {
      if (life === this.#life) this.#fail(error);
      return;
    }
    if (others.length === 0 && stopped.every((queue) => !(queue instanceof Promise))) {
      // Stopping flushes, which interrupts, and an interrupt may reset.
      if (life === this.#life) done(stopped as Queue[]);
      return;
    }
    if (life === this.#life) { for (const index of indexes) this.#stopping.add(index); }
    const all = Promise.all([Promise.all(stopped), ...others]).then(
      ([queues]) => {
        if (life !== this.#life) return;
        for (const index of indexes) this.#stopping.delete(index);
        done(queues);
      },
      (error) => {
        if (life === this.#life) this.#fail(error);
      },
    );
    this.track(all);
  }
}
