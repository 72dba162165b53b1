import { type DmaPool, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { isQueueSize, MAX_QUEUE_SIZE, type QueueConfig, ringLayout } from "@virtio/vring";
import { defer } from "./defer.ts";
import type { DriverTransport } from "./driver_transport.ts";
import {
  CORE_FEATURES,
  DEVICE_TYPE_FEATURES,
  type FeatureRequirement,
  type FeatureSet,
  unmetRequirement,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
} from "./features.ts";
import {
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
  VIRTIO_STATUS_SUSPEND,
} from "./status.ts";

/** The device could not be initialised, or asked for a reset. */
export class DriverError extends Error {
  override readonly name = "DriverError";
}

/** What a driver brings to `DriverSession.open`. */
export interface DriverSessionOptions {
  /** Where rings are allocated. */
  readonly dma: DmaPool;
  /** Device type that the driver drives (5). */
  readonly type: number;
  /** Feature bits of the device type that the driver understands. */
  readonly wanted: FeatureSet;
  /** Feature bits 24 to 43 to accept where offered; all that are built unless given. VERSION_1 always (6.1). */
  readonly core?: FeatureSet;
  /** Pairs of features of which the first needs the second; it is not accepted without (2.2.1). */
  readonly requires?: readonly FeatureRequirement[];
  /** The queues to set up, once features are known: index and wanted size (less if the device has less). */
  readonly queues: (session: DriverSession) => readonly { index: number; size: number }[];
  /** The rest of the device-specific set-up, before DRIVER_OK (3.1.1, step 7). */
  readonly setup?: (session: DriverSession) => void;
  /** Milliseconds to wait for a reset, a suspend, a queue reset; 10,000 unless given. */
  readonly patience?: number;
}

/** What a session calls when the device interrupts. */
export interface DriverHandlers {
  /** Look for used buffers in this queue. */
  used(index: number): void;
  /** The configuration changed. */
  config(): void;
  /** DEVICE_NEEDS_RESET: nothing in flight may be relied on (2.1.1). */
  needsReset(): void;
}

/**
 * A driver's hold on a device: initialisation in the order of virtio 1.4, 3.1.1, then its queues, until `reset`.
 */
export class DriverSession {
  /** The transport. */
  readonly transport: DriverTransport;
  /** Who is told of interrupts. */
  handlers: DriverHandlers | null = null;
  readonly #options: DriverSessionOptions;
  readonly #queues: Map<number, DriverQueue> = new Map();
  readonly #areas: Map<number, number[]> = new Map();
  #features: FeatureSet = 0n;
  #live = false;
  /** From SUSPEND on until the device runs again (3.4.1). */
  #suspended = false;
  /** Queues that are being reset. */
  readonly #resetting: Set<number> = new Set();

  private constructor(transport: DriverTransport, options: DriverSessionOptions) {
    this.transport = transport;
    this.#options = options;
  }

  /**
   * Initialises a device.
   *
   * @throws {DriverError} If it is of another type, does not offer VERSION_1, refuses the features, has no such queue, or
   * does not finish a reset. The device is left with FAILED set.
   */
  static async open(
    transport: DriverTransport,
    options: DriverSessionOptions,
  ): Promise<DriverSession> {
    const session = new DriverSession(transport, options);
    if (transport.deviceType !== options.type) {
      throw new DriverError(
        `Expected a device of type ${options.type}: this one is of type ${transport.deviceType}`,
      );
    }
    try {
      await session.#resetDevice();
      transport.interrupts = {
        queue: (index) => session.#interrupted(index),
        config: () => session.#configInterrupt(),
      };
      session.#addStatus(VIRTIO_STATUS_ACKNOWLEDGE);
      session.#addStatus(VIRTIO_STATUS_DRIVER);
      session.#negotiate();
      for (const { index, size } of options.queues(session)) session.#openQueue(index, size);
      options.setup?.(session);
      session.#addStatus(VIRTIO_STATUS_DRIVER_OK);
    } catch (error) {
      session.#addStatus(VIRTIO_STATUS_FAILED);
      // Without DRIVER_OK the device does not touch its rings.
      for (const index of [...session.#areas.keys()]) session.#freeAreas(index);
      throw error;
    }
    session.#live = true;
    // What `setup` put into queues could not be notified of before (3.1.1).
    for (const [index, queue] of session.#queues) if (queue.inFlight > 0) session.#kick(index);
    return session;
  }

  /** The negotiated features. */
  get features(): FeatureSet {
    return this.#features;
  }

  /** Whether all of `bits` were negotiated. */
  has(bits: FeatureSet): boolean {
    return (this.#features & bits) === bits;
  }

  /** The pool that rings and buffers come from. */
  get dma(): DmaPool {
    return this.#options.dma;
  }

  /** A queue that `queues` asked for. @throws {RangeError} If it did not. */
  queue(index: number): DriverQueue {
    const queue = this.#queues.get(index);
    if (queue === undefined) throw new RangeError(`Queue ${index} was not set up`);
    return queue;
  }

  /**
   * Publishes what was added to a queue, and kicks if the device wants it. While the device is suspended, or the queue is
   * being reset, nothing is published: what was added waits until it runs again, or is given back.
   *
   * @returns Whether the device was kicked.
   */
  publish(index: number): boolean {
    const queue = this.queue(index);
    if (this.#suspended || this.#resetting.has(index)) return false;
    if (!queue.publish() || !this.#live) return false;
    this.#kick(index);
    return true;
  }

  #kick(index: number): void {
    this.transport.kick(index, this.queue(index).notificationData());
  }

  /**
   * Reads the device's configuration consistently: again, if it changed meanwhile (2.5.1).
   *
   * @param read Reads through the given transport; may be called several times.
   */
  readConfig<T>(read: (transport: DriverTransport) => T): T {
    for (let tries = 0; tries < 1000; tries++) {
      const before = this.transport.configGeneration();
      const value = read(this.transport);
      if (this.transport.configGeneration() === before) return value;
    }
    throw new DriverError("The device's configuration never stands still");
  }

  /**
   * Writes to the device's configuration.
   *
   * @throws {DriverError} While the device is suspended (3.4.1).
   */
  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    if (this.#suspended) {
      throw new DriverError(
        "Cannot write the configuration of a suspended device: resume it first",
      );
    }
    this.transport.writeConfig(offset, size, value);
  }

  #addStatus(bit: number): void {
    this.transport.writeStatus(this.transport.readStatus() | bit);
  }

  async #resetDevice(): Promise<void> {
    this.#live = false;
    this.#suspended = false;
    this.transport.writeStatus(0);
    await this.#until("finish a reset", () => this.transport.readStatus() === 0);
  }

  async #until(what: string, done: () => boolean): Promise<void> {
    const end = performance.now() + (this.#options.patience ?? 10_000);
    for (let turns = 0; !done(); turns++) {
      if (performance.now() > end) throw new DriverError(`The device does not ${what}`);
      // A device that is slow is waited for without burning a processor.
      await new Promise<void>((resolve) => turns < 100 ? defer(resolve) : setTimeout(resolve, 1));
    }
  }

  #negotiate(): void {
    const { transport } = this;
    const { wanted, requires } = this.#options;
    const offered = transport.readDeviceFeatures();
    if ((offered & VIRTIO_F_VERSION_1) === 0n) {
      throw new DriverError("The device does not offer VIRTIO_F_VERSION_1: it is a legacy device");
    }
    const core = ((this.#options.core ?? CORE_FEATURES) & CORE_FEATURES & transport.carries) |
      VIRTIO_F_VERSION_1;
    let accepted = offered & ((wanted & DEVICE_TYPE_FEATURES) | core);
    for (;;) {
      const unmet = unmetRequirement(accepted, requires ?? []);
      if (unmet === null) break;
      accepted &= ~unmet;
    }
    transport.writeDriverFeatures(accepted);
    this.#addStatus(VIRTIO_STATUS_FEATURES_OK);
    if ((transport.readStatus() & VIRTIO_STATUS_FEATURES_OK) === 0) {
      throw new DriverError(`The device refused the features 0x${accepted.toString(16)}`);
    }
    this.#features = accepted;
    transport.negotiated(accepted);
  }

  #openQueue(index: number, wanted: number): void {
    const format = this.has(VIRTIO_F_RING_PACKED) ? "packed" : "split";
    const max = this.transport.queueMaxSize(index);
    if (max === 0) throw new DriverError(`The device has no queue ${index}`);
    let size = Math.min(wanted, max, MAX_QUEUE_SIZE);
    while (!isQueueSize(format, size) && size > 1) size--;
    const layout = ringLayout(format, size);
    const { dma } = this.#options;
    this.#freeAreas(index);
    const areas = [layout.descriptorArea, layout.driverArea, layout.deviceArea].map((area) =>
      dma.allocate(area.size, Math.max(area.align, 64))
    );
    this.#areas.set(index, areas);
    const config: QueueConfig = {
      size,
      descriptorArea: areas[0]!,
      driverArea: areas[1]!,
      deviceArea: areas[2]!,
    };
    this.#queues.set(index, openDriverQueue(dma.memory, config, this.#features));
    this.transport.enableQueue(index, config);
  }

  #freeAreas(index: number): void {
    for (const address of this.#areas.get(index) ?? []) this.#options.dma.free(address);
    this.#areas.delete(index);
  }

  #interrupted(index: number | null): void {
    if (!this.#live || this.handlers === null) return;
    if (index === null) {
      for (const each of this.#queues.keys()) this.handlers.used(each);
    } else if (this.#queues.has(index)) {
      this.handlers.used(index);
    }
  }

  #configInterrupt(): void {
    if (!this.#live || this.handlers === null) return;
    if ((this.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      this.handlers.needsReset();
    } else {
      this.handlers.config();
    }
  }

  /**
   * Resets one queue and sets it up again, with another size if given (2.6.1).
   *
   * @returns The tokens that were in flight.
   * @throws {DriverError} If VIRTIO_F_RING_RESET was not negotiated, or the device does not finish.
   */
  async resetQueue(index: number, size?: number): Promise<number[]> {
    if (!this.has(VIRTIO_F_RING_RESET)) {
      throw new DriverError("Cannot reset a queue: VIRTIO_F_RING_RESET was not negotiated");
    }
    const old = this.queue(index);
    if (this.#suspended) {
      throw new DriverError("Cannot reset a queue of a suspended device: resume it first");
    }
    this.#resetting.add(index);
    try {
      this.transport.resetQueue(index);
      await this.#until(`reset queue ${index}`, () => this.transport.queueResetDone(index));
    } finally {
      this.#resetting.delete(index);
    }
    // What was used before the reset was complete is no loss.
    this.handlers?.used(index);
    const tokens = old.drain();
    this.#openQueue(index, size ?? old.size);
    return tokens;
  }

  /** Suspends the device (3.4). @throws {DriverError} If it cannot be, or asks for a reset instead. */
  async suspend(): Promise<void> {
    if (!this.has(VIRTIO_F_SUSPEND)) {
      throw new DriverError("Cannot suspend the device: VIRTIO_F_SUSPEND was not negotiated");
    }
    if (!this.#live) throw new DriverError("Cannot suspend the device: it does not run");
    this.#suspended = true;
    this.#addStatus(VIRTIO_STATUS_SUSPEND);
    await this.#until("suspend", () => {
      const status = this.transport.readStatus();
      return (status & VIRTIO_STATUS_SUSPEND) !== 0 && (status & VIRTIO_STATUS_DRIVER_OK) === 0 ||
        (status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0;
    });
    if ((this.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      throw new DriverError("The device failed to suspend and asks for a reset");
    }
  }

  /** Resumes the device after `suspend`. @throws {DriverError} If it asks for a reset instead. */
  async resume(): Promise<void> {
    this.#addStatus(VIRTIO_STATUS_DRIVER_OK);
    await this.#until("resume", () => {
      const status = this.transport.readStatus();
      return (status & VIRTIO_STATUS_SUSPEND) === 0 && (status & VIRTIO_STATUS_DRIVER_OK) !== 0 ||
        (status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0;
    });
    if ((this.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      throw new DriverError("The device failed to resume and asks for a reset");
    }
    this.#suspended = false;
    for (const index of this.#queues.keys()) this.publish(index);
  }

  /**
   * Resets the device and gives its rings back to the pool (3.3).
   *
   * @returns The tokens that were in flight, by queue.
   */
  async reset(): Promise<Map<number, number[]>> {
    await this.#resetDevice();
    const tokens = new Map<number, number[]>();
    for (const [index, queue] of this.#queues) {
      tokens.set(index, queue.drain());
      this.#freeAreas(index);
    }
    this.#queues.clear();
    this.transport.interrupts = null;
    return tokens;
  }
}
