/** A device as a session sees it, wherever it runs. What takes a promise in one place takes none in another. */
import type { GuestMemory } from "@virtio/memory";
import type { Device, FeatureRequirement, FeatureSet } from "@virtio/device";
import type { QueuePosition } from "@virtio/vring";
import type { DirtyLogPlace } from "./dirty_log.ts";
import { DirtyLog } from "./dirty_log.ts";
import { DeviceRunner, type QueueStart, type RunnerListener } from "./device_runner.ts";
import { reactor } from "./reactor.ts";

/** What one queue did since its device was made. */
export interface QueueCount {
  /** Kicks that reached the device. */
  readonly kicks: number;
  /** Used buffer notifications sent. */
  readonly interrupts: number;
  /** Chains handed to the device. */
  readonly chains: number;
  /** Descriptors of those chains. */
  readonly descriptors: number;
}

/** What a session is told by. */
export interface ServedListener extends RunnerListener {
  /** What was in flight is lost, and nobody knows what it was: the front end is to connect again. */
  lost(error: Error): void;
}

/** A device that sessions use, one after another. */
export interface Served {
  /** Device type (5). */
  readonly type: number;
  /** Feature bits of the device type. */
  readonly features: FeatureSet;
  /** Pairs of features of which the first needs the second. */
  readonly requires: readonly FeatureRequirement[];
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** Told of what the device does; a session sets it. */
  listener: ServedListener | null;
  /** Told what went wrong and was mended; the server sets it. */
  trouble?: ((error: Error) => void) | null;
  /** The configuration space. */
  config(): Uint8Array;
  /** The driver writes 1, 2 or 4 bytes of configuration. */
  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void | Promise<void>;
  /** Whether the device can work with these features. */
  accepts(features: FeatureSet): boolean | Promise<boolean>;
  /** See `DeviceRunner.start`. */
  start(memory: GuestMemory, features: FeatureSet): void | Promise<void>;
  /** See `DeviceRunner.move`. */
  move(memory: GuestMemory): void | Promise<void>;
  /** What the device writes is logged from now on, or not any more. */
  log(place: DirtyLogPlace | null): void | Promise<void>;
  /** See `DeviceRunner.setCall`. Once it is done, the descriptor before is used no more. */
  setCall(index: number, descriptor: number): void | Promise<void>;
  /** See `DeviceRunner.startQueue`. */
  startQueue(index: number, start: QueueStart): void | Promise<void>;
  /** See `DeviceRunner.kick`. */
  kick(index: number): void;
  /** See `DeviceRunner.stopQueue`. */
  stopQueue(index: number): QueuePosition | null | Promise<QueuePosition | null>;
  /** See `DeviceRunner.stop`. */
  stop(): void | Promise<void>;
  /** What each queue did; null if the device does not count. */
  counters(): readonly QueueCount[] | null | Promise<readonly QueueCount[] | null>;
  /** Ends it, for good. */
  close(): void | Promise<void>;
}

/** A device in the thread of its session. */
export class LocalDevice implements Served {
  readonly #runner: DeviceRunner;
  readonly #device: Device;
  #memory: GuestMemory | null = null;
  #log: DirtyLogPlace | null = null;
  /** See `Served.listener`. */
  listener: ServedListener | null = null;

  /** @param device No transport has it. */
  constructor(device: Device) {
    this.#device = device;
    this.#runner = new DeviceRunner(device, reactor(), {
      interrupt: (index) => this.listener?.interrupt(index),
      configChanged: () => this.listener?.configChanged(),
      failed: (error) => this.listener?.failed(error),
    });
  }

  /** Device type (5). */
  get type(): number {
    return this.#device.type;
  }

  /** Feature bits of the device type. */
  get features(): FeatureSet {
    return this.#device.features;
  }

  /** Pairs of features. */
  get requires(): readonly FeatureRequirement[] {
    return this.#device.requires ?? [];
  }

  /** Largest size of each queue. */
  get queueSizes(): readonly number[] {
    return this.#device.queueSizes;
  }

  /** See `Served.config`. */
  config(): Uint8Array {
    return this.#device.config.bytes;
  }

  /** See `Served.writeConfig`. */
  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    this.#device.config.write(offset, size, value);
  }

  /** See `Served.accepts`. */
  accepts(features: FeatureSet): boolean {
    return this.#device.accepts?.(features) ?? true;
  }

  /** See `Served.start`. */
  start(memory: GuestMemory, features: FeatureSet): void {
    this.#memory = memory;
    this.log(this.#log);
    this.#runner.start(memory, features);
  }

  /** See `Served.move`. */
  move(memory: GuestMemory): void | Promise<void> {
    this.#memory = memory;
    this.log(this.#log);
    return this.#runner.move(memory);
  }

  /** See `Served.log`. */
  log(place: DirtyLogPlace | null): void {
    this.#log = place;
    if (this.#memory !== null) {
      this.#memory.tracker = place === null ? null : new DirtyLog(place);
    }
  }

  /** See `Served.setCall`. */
  setCall(index: number, descriptor: number): void {
    this.#runner.setCall(index, descriptor);
  }

  /** See `Served.startQueue`. */
  startQueue(index: number, start: QueueStart): void {
    this.#runner.startQueue(index, start);
  }

  /** See `Served.kick`. */
  kick(index: number): void {
    this.#runner.kick(index);
  }

  /** See `Served.stopQueue`. */
  stopQueue(index: number): QueuePosition | null | Promise<QueuePosition | null> {
    return this.#runner.stopQueue(index);
  }

  /** See `Served.stop`. */
  stop(): void | Promise<void> {
    this.#memory = null;
    return this.#runner.stop();
  }

  /** See `Served.counters`. */
  counters(): readonly QueueCount[] | null {
    return this.#runner.counters;
  }

  /** See `Served.close`. */
  close(): void | Promise<void> {
    return this.stop();
  }
}
