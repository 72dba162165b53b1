import {
  CORE_FEATURES,
  type FeatureSet,
  hasFeature,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
} from "@virtio/device";
import type { DriverInterrupts, DriverTransport } from "@virtio/device/driver";
import type { QueueConfig } from "@virtio/vring";
import { checkQueueConfig, highHalf, lowHalf } from "../driver_queue.ts";
import { ProbeError } from "../probe_error.ts";
import type { Width } from "../width.ts";
import * as reg from "./registers.ts";

/** How a driver reaches the registers: a device itself, or a bus that leads to it. Offsets are from the device's base. */
export interface MmioAccess {
  /** Reads 1, 2 or 4 bytes. */
  read(offset: number, size: Width): number;
  /** Writes 1, 2 or 4 bytes. */
  write(offset: number, size: Width, value: number): void;
}

/** A shared memory region as MMIO shows it. */
export interface MmioSharedMemory {
  /** Guest-physical address. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
}

const DEFINED_INTERRUPTS = reg.VIRTIO_MMIO_INT_VRING | reg.VIRTIO_MMIO_INT_CONFIG;

/** The driver half of virtio over MMIO (virtio 1.4, 4.2): 32-bit accesses to control registers, and no others. */
export class MmioDriverTransport implements DriverTransport {
  /** Device type (5). */
  readonly deviceType: number;
  /** VendorID. */
  readonly vendorId: number;
  /** Everything of the core but NOTIF_CONFIG_DATA, which MMIO has no register for. */
  readonly carries: FeatureSet = CORE_FEATURES & ~VIRTIO_F_NOTIF_CONFIG_DATA;
  /** MMIO has no register for the number of queues. */
  readonly queueCount = null;
  /** Where interrupts go; null drops them. */
  interrupts: DriverInterrupts | null = null;
  readonly #access: MmioAccess;
  #features: FeatureSet = 0n;
  #notificationData = false;

  private constructor(access: MmioAccess, deviceType: number) {
    this.#access = access;
    this.deviceType = deviceType;
    this.vendorId = this.#read(reg.VIRTIO_MMIO_VENDOR_ID);
  }

  /**
   * Looks for a device (4.2.3.1.1).
   *
   * @returns Null for a slot without a device (DeviceID 0), which is not an error.
   * @throws {ProbeError} If these are not the registers of a virtio device of version 2.
   */
  static probe(access: MmioAccess): MmioDriverTransport | null {
    const magic = access.read(reg.VIRTIO_MMIO_MAGIC_VALUE, 4) >>> 0;
    if (magic !== reg.VIRTIO_MMIO_MAGIC) {
      throw new ProbeError("4.2.2.2", `MagicValue is 0x${magic.toString(16)}: no virtio device`);
    }
    const version = access.read(reg.VIRTIO_MMIO_VERSION, 4) >>> 0;
    if (version !== 2) {
      throw new ProbeError("4.2.2.2", `Version is ${version}: only version 2 is supported`);
    }
    const deviceType = access.read(reg.VIRTIO_MMIO_DEVICE_ID, 4) >>> 0;
    // Nothing else may be read then.
    return deviceType === 0 ? null : new MmioDriverTransport(access, deviceType);
  }

  /** Reads the device status. */
  readStatus(): number {
    return this.#read(reg.VIRTIO_MMIO_STATUS) & 0xff;
  }

  /** Writes the device status; 0 resets. */
  writeStatus(status: number): void {
    if (status === 0) this.negotiated(0n);
    this.#write(reg.VIRTIO_MMIO_STATUS, status);
  }

  /** All feature bits that the device offers. */
  readDeviceFeatures(): FeatureSet {
    let features = 0n;
    for (let word = 0; word < 4; word++) {
      this.#write(reg.VIRTIO_MMIO_DEVICE_FEATURES_SEL, word);
      features |= BigInt(this.#read(reg.VIRTIO_MMIO_DEVICE_FEATURES)) << BigInt(32 * word);
    }
    return features;
  }

  /** Writes the accepted feature bits. */
  writeDriverFeatures(features: FeatureSet): void {
    for (let word = 0; word < 4; word++) {
      this.#write(reg.VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
      this.#write(
        reg.VIRTIO_MMIO_DRIVER_FEATURES,
        Number((features >> BigInt(32 * word)) & 0xffff_ffffn),
      );
    }
  }

  /** Tells the transport which features were negotiated. */
  negotiated(features: FeatureSet): void {
    this.#features = features;
    this.#notificationData = hasFeature(features, VIRTIO_F_NOTIFICATION_DATA);
  }

  /** The configuration's generation. */
  configGeneration(): number {
    return this.#read(reg.VIRTIO_MMIO_CONFIG_GENERATION);
  }

  /** Reads a field of the device's configuration. */
  readConfig(offset: number, size: Width): number {
    return this.#access.read(reg.VIRTIO_MMIO_CONFIG + offset, size) >>> 0;
  }

  /** Writes a field of the device's configuration. */
  writeConfig(offset: number, size: Width, value: number): void {
    this.#access.write(reg.VIRTIO_MMIO_CONFIG + offset, size, value);
  }

  /** Largest size of a queue; 0 if there is no such queue. */
  queueMaxSize(index: number): number {
    this.#write(reg.VIRTIO_MMIO_QUEUE_SEL, index);
    return this.#read(reg.VIRTIO_MMIO_QUEUE_SIZE_MAX);
  }

  /**
   * Tells where a queue lies and enables it (4.2.3.2).
   *
   * @throws {RangeError} If there is no such queue, or it cannot have this size.
   * @throws {TypeError} If it is enabled: stop or reset it first.
   */
  enableQueue(index: number, config: QueueConfig): void {
    this.#write(reg.VIRTIO_MMIO_QUEUE_SEL, index);
    if (this.#read(reg.VIRTIO_MMIO_QUEUE_READY) !== 0) {
      throw new TypeError(`Queue ${index} is in use: stop or reset it before it is set up again`);
    }
    checkQueueConfig(index, config, this.#read(reg.VIRTIO_MMIO_QUEUE_SIZE_MAX), this.#features);
    this.#write(reg.VIRTIO_MMIO_QUEUE_SIZE, config.size);
    this.#writeAddress(reg.VIRTIO_MMIO_QUEUE_DESC_LOW, config.descriptorArea);
    this.#writeAddress(reg.VIRTIO_MMIO_QUEUE_DRIVER_LOW, config.driverArea);
    this.#writeAddress(reg.VIRTIO_MMIO_QUEUE_DEVICE_LOW, config.deviceArea);
    this.#write(reg.VIRTIO_MMIO_QUEUE_READY, 1);
  }

  /**
   * Stops using a queue (4.2.2.2).
   *
   * @returns Whether the device has stopped; if not, ask again with `queueStopped`.
   */
  disableQueue(index: number): boolean {
    this.#write(reg.VIRTIO_MMIO_QUEUE_SEL, index);
    this.#write(reg.VIRTIO_MMIO_QUEUE_READY, 0);
    return this.#read(reg.VIRTIO_MMIO_QUEUE_READY) === 0;
  }

  /** Whether a queue is not ready. */
  queueStopped(index: number): boolean {
    this.#write(reg.VIRTIO_MMIO_QUEUE_SEL, index);
    return this.#read(reg.VIRTIO_MMIO_QUEUE_READY) === 0;
  }

  /** Starts a queue reset; needs VIRTIO_F_RING_RESET. */
  resetQueue(index: number): void {
    this.#write(reg.VIRTIO_MMIO_QUEUE_SEL, index);
    this.#write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
  }

  /** Whether the queue reset is complete. */
  queueResetDone(index: number): boolean {
    this.#write(reg.VIRTIO_MMIO_QUEUE_SEL, index);
    return this.#read(reg.VIRTIO_MMIO_QUEUE_RESET) === 0;
  }

  /** Sends an available buffer notification (4.2.3.3). */
  kick(index: number, data: number): void {
    this.#access.write(
      reg.VIRTIO_MMIO_QUEUE_NOTIFY,
      4,
      this.#notificationData ? (index | data << 16) >>> 0 : index,
    );
  }

  /** A shared memory region, or null if the device has none with this shmid. Only for devices that define one. */
  sharedMemory(id: number): MmioSharedMemory | null {
    this.#write(reg.VIRTIO_MMIO_SHM_SEL, id);
    const lengthHigh = this.#read(reg.VIRTIO_MMIO_SHM_LEN_HIGH);
    const lengthLow = this.#read(reg.VIRTIO_MMIO_SHM_LEN_LOW);
    if (lengthHigh === 0xffff_ffff && lengthLow === 0xffff_ffff) return null;
    const baseHigh = this.#read(reg.VIRTIO_MMIO_SHM_BASE_HIGH);
    const baseLow = this.#read(reg.VIRTIO_MMIO_SHM_BASE_LOW);
    return {
      address: baseLow + baseHigh * 0x1_0000_0000,
      length: lengthLow + lengthHigh * 0x1_0000_0000,
    };
  }

  /**
   * To be called when the interrupt signal is asserted (4.2.3.4).
   *
   * @returns Whether this device caused it.
   */
  handleInterrupt(): boolean {
    const events = this.#read(reg.VIRTIO_MMIO_INTERRUPT_STATUS) & DEFINED_INTERRUPTS;
    if (events === 0) return false;
    const queue = (events & reg.VIRTIO_MMIO_INT_VRING) !== 0;
    const config = (events & reg.VIRTIO_MMIO_INT_CONFIG) !== 0;
    const generation = config ? this.configGeneration() : 0;
    const status = config ? this.readStatus() : 0;
    if (queue) this.interrupts?.queue(null);
    if (config) this.interrupts?.config();
    this.#write(reg.VIRTIO_MMIO_INTERRUPT_ACK, events);
    // Acknowledging after handling, as the standard demands, also wipes out an event that came in between: while its bit was
    // still set, it made no new interrupt. So look once more.
    if (queue) this.interrupts?.queue(null);
    if (config && (generation !== this.configGeneration() || status !== this.readStatus())) {
      this.interrupts?.config();
    }
    return true;
  }

  #writeAddress(low: number, address: number): void {
    this.#write(low, lowHalf(address));
    this.#write(low + 4, highHalf(address));
  }

  #read(offset: number): number {
    return this.#access.read(offset, 4) >>> 0;
  }

  #write(offset: number, value: number): void {
    this.#access.write(offset, 4, value);
  }
}
