import type { Activation } from "@virtio/device";
import { DirtyBitmap, type GuestMemory } from "@virtio/memory";
import { openQueue, type Queue, type QueueState } from "@virtio/vring";
import { WorkerError } from "./call.ts";
import { DeviceWorker, type WorkerPort } from "./device_worker.ts";
import type { DeviceDescription, FromWorker } from "./messages.ts";
import type { WorkerDeviceOptions } from "./options.ts";
import { Bell } from "./words.ts";

/** Guest memory goes by message and is named in a call: they take different ways. */
let memories = 0;

/** What a crew tells. */
export interface CrewListener {
  /** A worker sent something unasked. */
  message(message: FromWorker): void;
  /** One is dead. */
  died(worker: DeviceWorker, error: Error): void;
}

/** The workers of one device, and all that must be told to one that comes later. */
export class Crew {
  /** What all of them ring. */
  readonly bell: Bell = new Bell();
  /** They, one after the other: queues are dealt out in this order. */
  workers: DeviceWorker[] = [];
  /** What the transport said when it started the device; null while it is not. */
  activation: Activation | null = null;
  /** Counts starts. */
  life = 0;
  /** How each started queue was given to its worker. */
  readonly live: Map<number, QueueState> = new Map();
  /** What the device saved, for one that takes over. */
  saved: unknown = null;
  readonly #source: URL | string;
  /** As the embedder gave them. */
  readonly options: WorkerDeviceOptions;
  readonly #listener: CrewListener;
  #description: DeviceDescription | null = null;
  /** What the workers mark for the memory's tracker; null if it has none. */
  #dirty: DirtyBitmap | null = null;

  /** @param source The workers' module. */
  constructor(
    source: URL | string,
    options: WorkerDeviceOptions,
    listener: CrewListener,
  ) {
    this.#source = source;
    this.options = options;
    this.#listener = listener;
  }

  /** Starts a worker, which has no place yet. */
  spawn(source: URL | string = this.#source, data: unknown = this.options.data): DeviceWorker {
    const { spawn, patience, onDeath } = this.options;
    const make = spawn ??
      ((source) => new Worker(source, { type: "module" }) as unknown as WorkerPort);
    const worker: DeviceWorker = new DeviceWorker(
      make(source),
      data,
      patience ?? 10_000,
      {
        message: (message) => this.#listener.message(message),
        died: (error) => this.#listener.died(worker, error),
      },
      this.bell.buffer,
      onDeath === "replace",
    );
    return worker;
  }

  /** What the device is. @throws {TypeError} Before a worker said it. */
  get description(): DeviceDescription {
    if (this.#description === null) {
      throw new TypeError(
        "The worker has not said yet what its device is: await device.ready first",
      );
    }
    return this.#description;
  }

  /** What the first worker says. */
  introduce(description: DeviceDescription): void {
    this.#description = description;
  }

  /** @throws {TypeError} If a worker's device is not like the one that is there. */
  checkLike(other: DeviceDescription): void {
    const mine = this.description;
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

  /** The worker that serves a queue. */
  of(queue: number): DeviceWorker {
    return this.workers[queue % this.workers.length]!;
  }

  /** Calls all workers; the first one's answer. @throws {WorkerError} As `DeviceWorker.call`. */
  callAll(what: string, data?: unknown): unknown {
    const answers = this.workers.map((worker) => worker.call(what, data));
    return answers[0];
  }

  /** A life begins. @throws {TypeError} If the guest's memory cannot be shared. */
  start(activation: Activation): void {
    const { memory } = activation;
    this.#dirty = memory.tracker === null ? null : dirtyBitmapFor(memory);
    this.life++;
    this.startWorkers(this.workers, activation);
    this.activation = activation;
  }

  /** Starts the devices of some workers in the life that is now. */
  startWorkers(
    workers: readonly DeviceWorker[],
    { memory, features }: Pick<Activation, "memory" | "features">,
  ): void {
    const id = ++memories;
    const shared = memory.share();
    const dirty = this.#dirty?.buffer ?? null;
    for (const worker of workers) {
      worker.post({ virtio: "memory", id, memory: shared, dirty });
      worker.call("start", { memory: id, features, life: this.life });
    }
  }

  /** Gives a queue to its worker. */
  startQueue(index: number, state: QueueState): void {
    this.of(index).call("startQueue", { index, state });
    this.live.set(index, state);
  }

  /** A queue that a worker had. @throws {WorkerError} If the device was stopped. */
  reopen(state: QueueState): Queue {
    if (this.activation === null) throw new WorkerError("The device was stopped meanwhile");
    return openQueue(this.activation.memory, state, this.activation.features);
  }

  /** Tells the memory's tracker what the workers wrote. */
  tellWritten(memory: GuestMemory): void {
    this.#dirty?.drain((address, length) => memory.tracker?.mark(address, length));
  }
}

function dirtyBitmapFor(memory: GuestMemory): DirtyBitmap {
  const last = memory.regions[memory.regions.length - 1]!;
  return new DirtyBitmap(last.base + last.size);
}
