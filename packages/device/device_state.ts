/**
 * The only status machine (virtio 1.4, 2.1, 2.2, 2.4, 2.6.1 and 3). Transports are maps of registers, or of messages, over
 * it. Every value that reaches a method here is driver-controlled; no method throws for what a driver does.
 */
import { asError, type DeviceStateOptions, makeActivation } from "./activation.ts";
import type { Activation, Device } from "./device.ts";
import { type FeatureSet, VIRTIO_F_RING_RESET, VIRTIO_F_SUSPEND } from "./features.ts";
import { DeviceQueues } from "./device_queues.ts";
import { featureWord, Negotiation } from "./negotiation.ts";
import type { QueueSetup } from "./queue_setup.ts";
import { Rest } from "./rest.ts";
import { checkPosition, checkSaved, hasQueues, type SavedDevice } from "./saved_device.ts";
import {
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
  VIRTIO_STATUS_SUSPEND,
} from "./status.ts";

export type { DeviceStateOptions } from "./activation.ts";

/** A device, from the transport's side. */
export class DeviceState {
  /** The device. */
  readonly device: Device;
  /** The registers of each queue. */
  readonly queues: readonly QueueSetup[];
  readonly #options: DeviceStateOptions;
  #status = 0;
  readonly #negotiation: Negotiation;
  /** While live: what the device was started with. Its interrupts are dead once it is replaced. */
  #activation: Activation | null = null;
  readonly #queues: DeviceQueues;
  readonly #rest: Rest;
  #resetting: Promise<void> | null = null;
  /** The last status that was written while a reset was draining. */
  #deferredStatus = 0;

  /**
   * @throws {TypeError} If the device offers bits that are not its own, or the options a bit that the core cannot do.
   */
  constructor(device: Device, options: DeviceStateOptions) {
    this.device = device;
    this.#options = options;
    this.#negotiation = new Negotiation(device, options.features, options.carries);
    this.#queues = new DeviceQueues(device, options.memory, (error) => this.fail(error));
    this.queues = this.#queues.setups;
    this.#rest = new Rest(this.#queues, device.config, {
      configChanged: () => this.#activation?.interrupt.config(),
      notifyAll: () => this.#notifyAll(),
      fail: (error) => this.fail(error),
    });
    device.config.listener = () => {
      this.#rest.configUpdated((this.#status & VIRTIO_STATUS_SUSPEND) !== 0);
    };
  }

  /** All feature bits that are offered: the device's, and those of the ring and the transport. */
  get offered(): FeatureSet {
    return this.#negotiation.offered;
  }

  /** The negotiated features; none before FEATURES_OK. */
  get features(): FeatureSet {
    return this.#negotiation.agreed;
  }

  /** The device status. While a reset or a suspend drains it is what it was before (2.4.1, 3.4.2). */
  get status(): number {
    return this.#status;
  }

  /** Whether the driver has set the device going and it is neither suspended nor paused nor broken. */
  get live(): boolean {
    return this.#activation !== null && !this.#rest.any &&
      (this.#status & VIRTIO_STATUS_DRIVER_OK) !== 0;
  }

  /** The driver writes the status. 0 resets; new bits take effect in their order, whichever arrive together. */
  writeStatus(value: number): void {
    value &= 0xff;
    if (value === 0) {
      this.#reset();
      return;
    }
    if (this.#resetting !== null) {
      this.#deferredStatus = value;
      return;
    }
    // 2.1.1: a driver does not clear bits; one that does, only says nothing about them.
    let fresh = value & ~this.#status;
    // DEVICE_NEEDS_RESET is the device's to set.
    this.#status |= fresh &
      (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED);
    if ((fresh & VIRTIO_STATUS_FEATURES_OK) !== 0) this.#finishNegotiation();
    if ((this.#status & (VIRTIO_STATUS_DEVICE_NEEDS_RESET | VIRTIO_STATUS_FAILED)) !== 0) return;
    if ((fresh & VIRTIO_STATUS_DRIVER_OK) !== 0) {
      if ((this.#status & VIRTIO_STATUS_SUSPEND) !== 0) {
        this.#resume();
        return;
      }
      this.#start();
      // Both at once: the device runs first, so the bits are still in order.
      fresh &= ~VIRTIO_STATUS_DRIVER_OK;
    }
    if ((fresh & VIRTIO_STATUS_SUSPEND) !== 0) this.#suspend();
  }

  /** 32 of the feature bits that the device offers: word 0 to 3. */
  readDeviceFeatures(word: number): number {
    return featureWord(this.offered, word);
  }

  /** 32 of the feature bits that the driver wrote. */
  readDriverFeatures(word: number): number {
    return featureWord(this.#negotiation.accepted, word);
  }

  /** The driver writes 32 feature bits. Ignored after FEATURES_OK (3.1.1). */
  writeDriverFeatures(word: number, value: number): void {
    if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) this.#negotiation.write(word, value);
  }

  #finishNegotiation(): void {
    try {
      if (this.#negotiation.finish()) this.#status |= VIRTIO_STATUS_FEATURES_OK;
    } catch (error) {
      this.fail(error);
    }
  }

  #start(): void {
    if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) return;
    this.#status |= VIRTIO_STATUS_DRIVER_OK;
    const activation = this.#activate();
    try {
      this.#options.memory.refresh();
      this.device.start(activation);
      for (let index = 0; index < this.queues.length; index++) {
        if (this.queues[index]!.enabled) this.#queues.start(index, this.features);
        if (this.#activation !== activation) return;
      }
    } catch (error) {
      this.fail(error);
      return;
    }
    // A kick may have come early.
    this.#notifyAll();
  }

  #activate(): Activation {
    return this.#activation = makeActivation(this.#options, this.features, {
      isCurrent: (activation) => this.#activation === activation,
      fail: (error) => this.fail(error),
    });
  }

  /** The driver enables a queue. After DRIVER_OK only with VIRTIO_F_RING_RESET (2.6.1.2). */
  enableQueue(index: number): void {
    const setup = this.queues[index];
    if (setup === undefined || setup.enabled || setup.resetting || this.#resetting !== null) return;
    if ((this.#status & VIRTIO_STATUS_DRIVER_OK) === 0) {
      setup.enabled = (this.#status & VIRTIO_STATUS_SUSPEND) === 0;
      return;
    }
    if (!this.#negotiation.has(VIRTIO_F_RING_RESET)) return;
    if (this.#activation === null || this.#rest.suspending) return;
    setup.enabled = true;
    try {
      if (this.#rest.paused) this.#queues.park(index, this.features);
      else this.#queues.start(index, this.features);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.notify(index);
  }

  /** The driver takes a queue away (MMIO QueueReady = 0). It stays enabled until it is drained. */
  disableQueue(index: number): void {
    this.#queues.end(index, this.#activation !== null);
  }

  /** The driver resets a queue (2.6.1.1); `resetting` is true until it is drained. Needs VIRTIO_F_RING_RESET. */
  resetQueue(index: number): void {
    if (!this.#negotiation.has(VIRTIO_F_RING_RESET)) return;
    const setup = this.queues[index];
    if (setup === undefined || setup.resetting) return;
    setup.resetting = true;
    this.#queues.end(index, this.#activation !== null);
  }

  /** The driver kicked a queue. An index beyond the queues, and a kick before DRIVER_OK, are ignored. */
  notify(index: number): void {
    if (!this.live || !(this.queues[index]?.enabled)) return;
    try {
      this.device.notify(index);
    } catch (error) {
      this.fail(error);
    }
  }

  #notifyAll(): void {
    for (let index = 0; index < this.queues.length; index++) this.notify(index);
  }

  /** The driver reads the device's configuration. Allowed at any time (2.5.2). */
  readConfig(offset: number, size: 1 | 2 | 4): number {
    return this.device.config.read(offset, size);
  }

  /**
   * The driver writes the device's configuration. Ignored before FEATURES_OK (3.1.1) and while suspended (3.4.2), but where
   * the device type has a field for any time (5.3.5.1).
   */
  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    const { config } = this.device;
    if (!config.writableAnytime(offset, size)) {
      if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) return;
      if ((this.#status & VIRTIO_STATUS_SUSPEND) !== 0 || this.#resetting !== null) return;
    }
    try {
      config.write(offset, size, value);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Changes with the configuration. */
  get configGeneration(): number {
    return this.device.config.generation;
  }

  /**
   * Asks for a reset: DEVICE_NEEDS_RESET, and a configuration change notification if the device is live (2.1.2). The device
   * is stopped, so that nothing of what went wrong goes on.
   */
  fail(error: unknown): void {
    if ((this.#status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0 || this.#resetting !== null) return;
    const activation = this.#activation;
    const reason = asError(error);
    this.#status |= VIRTIO_STATUS_DEVICE_NEEDS_RESET;
    if ((this.#status & VIRTIO_STATUS_DRIVER_OK) !== 0) activation?.interrupt.config();
    // The interrupt may have got the device reset, and even started again.
    if (activation !== null && this.#activation === activation) this.#stopDevice();
    this.#options.onError?.(reason);
  }

  /** Stops the device for good, in this life. What it still drains, a reset waits for. */
  #stopDevice(): void {
    this.#activation = null;
    this.#rest.end();
    this.#queues.forget();
    let stopped: void | Promise<void> = undefined;
    try {
      stopped = this.device.stop();
    } catch (error) {
      this.#options.onError?.(asError(error));
    }
    if (stopped !== undefined) {
      this.#queues.track(stopped.catch((error) => this.#options.onError?.(error)));
    }
  }

  #reset(): void {
    if (this.#resetting !== null) {
      this.#deferredStatus = 0;
      return;
    }
    if (this.#activation !== null) this.#stopDevice();
    const finish = (): void => {
      this.#resetting = null;
      this.#status = 0;
      this.#negotiation.reset();
      this.#rest.forget();
      this.#queues.reset();
      this.#options.onReset?.();
      const deferred = this.#deferredStatus;
      this.#deferredStatus = 0;
      if (deferred !== 0) this.writeStatus(deferred);
    };
    if (!this.#queues.draining) {
      finish();
      return;
    }
    // 2.4.1: the status reads 0 only when nothing of the old life can touch memory.
    this.#resetting = this.#queues.drained().then(finish);
  }

  #suspend(): void {
    if (!this.#negotiation.has(VIRTIO_F_SUSPEND)) return;
    if (this.#activation === null || this.#rest.suspending) return;
    this.#rest.suspend(() => {
      this.#status = (this.#status & ~VIRTIO_STATUS_DRIVER_OK) | VIRTIO_STATUS_SUSPEND;
    });
  }

  #resume(): void {
    this.#status = (this.#status & ~VIRTIO_STATUS_SUSPEND) | VIRTIO_STATUS_DRIVER_OK;
    this.#rest.resume();
  }

  /** Resolves when no reset, suspend or queue reset is draining. */
  async settled(): Promise<void> {
    while (this.#queues.draining || this.#resetting !== null) {
      await Promise.all([this.#queues.drained(), this.#resetting]);
    }
  }

  /**
   * Stops the device without the driver seeing it, for `save`: resolves when nothing is in flight. Kicks are remembered.
   */
  async pause(): Promise<void> {
    await this.settled();
    if (this.#rest.paused) return;
    if (!this.live) {
      this.#rest.paused = this.#activation !== null;
      return;
    }
    this.#rest.pause();
    await this.settled();
  }

  /** Goes on after `pause` or `restore`. */
  unpause(): void {
    if (!this.#rest.paused) return;
    this.#rest.paused = false;
    if (this.live) this.#rest.wake();
  }

  /**
   * The device's state as plain data: save guest memory at the same moment.
   *
   * @throws {TypeError} If the device is live: `await pause()` first.
   */
  save(): SavedDevice {
    if (this.live || this.#resetting !== null || this.#queues.draining) {
      throw new TypeError("Cannot save a device that is running: await pause() first");
    }
    return {
      version: 1,
      type: this.device.type,
      status: this.#status,
      accepted: this.#negotiation.accepted,
      configChanged: this.#rest.configChanged || this.device.config.pending,
      queues: this.queues.map((setup, index) => setup.save(this.#queues.position(index))),
      device: this.device.save?.() ?? null,
    };
  }

  /**
   * Takes over a state that `save` gave, in a fresh `DeviceState` of the same device; the device is paused afterwards. Saved
   * state is as hostile as a driver: it goes through the same checks.
   *
   * @throws {TypeError} If the state is malformed, of another device type, or this device was used already.
   * @throws {RangeError} If it says something that a driver could not have brought about, or a queue is not in guest memory.
   */
  restore(saved: SavedDevice): void {
    if (this.#status !== 0 || this.#activation !== null) {
      throw new TypeError("Cannot restore into a device that was used: make a fresh one");
    }
    checkSaved(saved, this.device.type, this.queues.length);
    const setups = this.queues;
    try {
      saved.queues.forEach((queue, index) => setups[index]!.restore(queue));
      this.#negotiation.accepted = saved.accepted;
      if ((saved.status & VIRTIO_STATUS_FEATURES_OK) !== 0) {
        this.#finishNegotiation();
        if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) {
          throw new RangeError("Cannot restore a device: its features could not be negotiated");
        }
      }
      if (saved.device !== null) this.device.restore?.(saved.device);
      this.#restoreQueues(saved);
    } catch (error) {
      if (this.#activation !== null) this.#stopDevice();
      this.#negotiation.reset();
      this.#status = 0;
      this.#queues.reset();
      throw error;
    }
    this.#status = saved.status;
    this.#rest.configChanged = saved.configChanged;
    this.#rest.paused = this.#activation !== null;
    if ((saved.status & VIRTIO_STATUS_SUSPEND) !== 0) this.device.config.hold();
  }

  #restoreQueues(saved: SavedDevice): void {
    for (const queue of saved.queues) checkPosition(queue, saved.status);
    if (!hasQueues(saved.status)) return;
    this.#options.memory.refresh();
    this.device.start(this.#activate());
    saved.queues.forEach((queue, index) => {
      if (queue.position !== null) this.#queues.park(index, this.features, queue.position);
    });
  }
}
