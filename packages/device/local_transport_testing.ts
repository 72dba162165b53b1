/** A driver's transport right on a `DeviceState`. Not published. */
import type { GuestMemory } from "@virtio/memory";
import type { QueueConfig } from "@virtio/vring";
import type { DriverInterrupts, DriverTransport } from "./driver.ts";
import {
  CORE_FEATURES,
  type Device,
  DeviceState,
  type FeatureSet,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "./mod.ts";

/** Options of `LocalTransport`. */
export interface LocalTransportOptions {
  /** Whether interrupts reach the driver in a later microtask, as if by a processor (the default), or inside the device's call. */
  readonly delivery?: "microtask" | "inside";
  readonly carries?: FeatureSet;
}

/** A driver's transport right on a `DeviceState`, with a log of what passed. */
export class LocalTransport implements DriverTransport {
  readonly state: DeviceState;
  readonly carries: FeatureSet;
  readonly queueCount: number;
  readonly errors: Error[] = [];
  interrupts: DriverInterrupts | null = null;
  configInterrupts = 0;
  queueInterrupts = 0;
  kicks = 0;
  /** What the driver did, in its order, such as "status 1" or "kick 0". Reads of the status are in it too. */
  readonly log: string[] = [];
  /** Data of the last kick. */
  lastKick = -1;
  /** Called with each access of the configuration. */
  onConfigAccess: ((offset: number, size: number, status: number) => void) | null = null;

  constructor(
    device: Device,
    memory: GuestMemory,
    features: FeatureSet = CORE_FEATURES,
    options: LocalTransportOptions = {},
  ) {
    this.queueCount = device.queueSizes.length;
    this.carries = options.carries ?? CORE_FEATURES;
    const deliver = options.delivery === "inside"
      ? (run: () => void) => run()
      : (run: () => void) => queueMicrotask(run);
    this.state = new DeviceState(device, {
      memory,
      carries: this.carries,
      features,
      interrupt: {
        queue: (index) => {
          this.queueInterrupts++;
          deliver(() => this.interrupts?.queue(index));
        },
        config: () => {
          this.configInterrupts++;
          deliver(() => this.interrupts?.config());
        },
      },
      onError: (error) => this.errors.push(error),
    });
  }

  get deviceType(): number {
    return this.state.device.type;
  }

  get needsReset(): boolean {
    return (this.state.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0;
  }

  readStatus(): number {
    const status = this.state.status;
    this.log.push(`status is ${status}`);
    return status;
  }

  writeStatus(status: number): void {
    this.log.push(`status ${status}`);
    this.state.writeStatus(status);
  }

  readDeviceFeatures(): FeatureSet {
    this.log.push("features?");
    let features = 0n;
    for (let word = 3; word >= 0; word--) {
      features = features << 32n | BigInt(this.state.readDeviceFeatures(word));
    }
    return features;
  }

  writeDriverFeatures(features: FeatureSet): void {
    this.log.push(`features ${features.toString(16)}`);
    for (let word = 0; word < 4; word++) {
      this.state.writeDriverFeatures(word, Number(features >> BigInt(32 * word) & 0xffffffffn));
    }
  }

  configGeneration(): number {
    return this.state.configGeneration;
  }

  readConfig(offset: number, size: 1 | 2 | 4): number {
    this.log.push(`config ${offset}?`);
    this.onConfigAccess?.(offset, size, this.state.status);
    return this.state.readConfig(offset, size);
  }

  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    this.log.push(`config ${offset} ${value}`);
    this.onConfigAccess?.(offset, size, this.state.status);
    this.state.writeConfig(offset, size, value);
  }

  queueMaxSize(index: number): number {
    this.log.push(`queue ${index}?`);
    return this.state.queues[index]?.maxSize ?? 0;
  }

  enableQueue(index: number, config: QueueConfig): void {
    this.log.push(`queue ${index} of ${config.size}`);
    const setup = this.state.queues[index]!;
    setup.setSize(config.size);
    const areas = [config.descriptorArea, config.driverArea, config.deviceArea] as const;
    for (const area of [0, 1, 2] as const) {
      setup.writeAddress(area, 0, areas[area] % 2 ** 32);
      setup.writeAddress(area, 1, Math.floor(areas[area] / 2 ** 32));
    }
    this.state.enableQueue(index);
  }

  resetQueue(index: number): void {
    this.log.push(`reset queue ${index}`);
    this.state.resetQueue(index);
  }

  queueResetDone(index: number): boolean {
    const done = !this.state.queues[index]!.resetting;
    this.log.push(`queue ${index} is ${done ? "reset" : "resetting"}`);
    return done;
  }

  kick(index: number, data: number): void {
    this.log.push(`kick ${index}`);
    this.kicks++;
    this.lastKick = data;
    this.state.notify(index);
  }

  negotiated(_features: FeatureSet): void {}
}
