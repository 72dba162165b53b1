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
import { DriverMsix, type MessageAllocator } from "./driver_msix.ts";
import type { PciAccess } from "./function.ts";
import { deviceTypeOf, findStructures, type PciSharedMemory, type PciStructures } from "./probe.ts";
import * as reg from "./registers.ts";

const { CommonCfg, VIRTIO_MSI_NO_VECTOR } = reg;

/** Options of `PciDriverTransport.probe`. */
export interface PciProbeOptions {
  /** Gives messages for MSI-X; without it, or if the device has no MSI-X, interrupts are INTx. */
  readonly messages?: MessageAllocator;
  /** Whether the driver can reach a BAR: every one unless given. */
  readonly usableBar?: (bar: number) => boolean;
}

/** Where a queue's kicks go, kept from when it was enabled. */
interface Doorbell {
  readonly offset: number;
  readonly value: number;
}

/**
 * The driver half of virtio over PCI (virtio 1.4, 4.1), for modern devices and the modern half of transitional ones: each
 * field is accessed in its own width.
 *
 * With MSI-X, vector 0 is for configuration changes and vector i + 1 for queue i; with fewer vectors, all queues share the
 * last one; with only one, everything does.
 */
export class PciDriverTransport implements DriverTransport {
  /** Device type (5). */
  readonly deviceType: number;
  /** Everything of the core. */
  readonly carries: FeatureSet = CORE_FEATURES;
  /** num_queues. */
  readonly queueCount: number;
  /** Where virtio's structures are. */
  readonly structures: PciStructures;
  /** Where interrupts go; null drops them. */
  interrupts: DriverInterrupts | null = null;
  readonly #access: PciAccess;
  readonly #common: number;
  readonly #commonBar: number;
  readonly #notifyBar: number;
  readonly #msix: DriverMsix | null;
  readonly #doorbells: (Doorbell | undefined)[] = [];
  /** Queue of each vector; -1 none yet, -2 several. */
  readonly #queueOf: Int32Array;
  #configVector: number = VIRTIO_MSI_NO_VECTOR;
  #features: FeatureSet = 0n;
  #notificationData = false;

  private constructor(
    access: PciAccess,
    deviceType: number,
    structures: PciStructures,
    messages: MessageAllocator | undefined,
  ) {
    this.#access = access;
    this.deviceType = deviceType;
    this.structures = structures;
    this.#common = structures.common.offset;
    this.#commonBar = structures.common.bar;
    this.#notifyBar = structures.notify.bar;
    this.queueCount = this.#read(CommonCfg.numQueues, 2);
    const msix = messages === undefined || structures.msix === null
      ? null
      : new DriverMsix(access, structures.msix, this.queueCount + 1, messages);
    this.#msix = msix === null || msix.count === 0 ? null : msix;
    this.#queueOf = new Int32Array(this.#msix?.count ?? 0).fill(-1);
  }

  /**
   * Looks for a device: matches the IDs, switches decoding and bus mastering on, finds the structures (4.1.2.2, 4.1.4.1).
   *
   * @throws {ProbeError} If this is no virtio device, or a legacy one.
   */
  static probe(access: PciAccess, options: PciProbeOptions = {}): PciDriverTransport {
    const vendorId = access.configRead(reg.PCI_VENDOR_ID, 2);
    const deviceId = access.configRead(reg.PCI_DEVICE_ID, 2);
    const type = deviceTypeOf(vendorId, deviceId);
    if (type === null) {
      throw new ProbeError(
        "4.1.2.2",
        `${vendorId.toString(16)}:${deviceId.toString(16)} is no virtio device`,
      );
    }
    const structures = findStructures(access, options.usableBar ?? (() => true));
    const command = access.configRead(reg.PCI_COMMAND, 2);
    access.configWrite(
      reg.PCI_COMMAND,
      2,
      (command | reg.PCI_COMMAND_IO | reg.PCI_COMMAND_MEMORY | reg.PCI_COMMAND_MASTER) &
        ~reg.PCI_COMMAND_INTX_DISABLE,
    );
    return new PciDriverTransport(access, type, structures, options.messages);
  }

  /** Whether interrupts are messages; INTx otherwise. */
  get usesMessages(): boolean {
    return this.#msix !== null;
  }

  /** Reads the device status. */
  readStatus(): number {
    return this.#read(CommonCfg.deviceStatus, 1);
  }

  /** Writes the device status; 0 resets. */
  writeStatus(status: number): void {
    if (status === 0) this.#forget();
    // A reset unmaps every event (4.1.5.1.2.1), so the mapping is done where initialisation begins.
    if (status !== 0 && this.#configVector === VIRTIO_MSI_NO_VECTOR) this.#mapConfig();
    this.#write(CommonCfg.deviceStatus, 1, status);
  }

  /** All feature bits that the device offers. */
  readDeviceFeatures(): FeatureSet {
    let features = 0n;
    for (let word = 0; word < 4; word++) {
      this.#write(CommonCfg.deviceFeatureSelect, 4, word);
      features |= BigInt(this.#read(CommonCfg.deviceFeature, 4)) << BigInt(32 * word);
    }
    return features;
  }

  /** Writes the accepted feature bits. */
  writeDriverFeatures(features: FeatureSet): void {
    for (let word = 0; word < 4; word++) {
      this.#write(CommonCfg.driverFeatureSelect, 4, word);
      const bits = Number((features >> BigInt(32 * word)) & 0xffff_ffffn);
      this.#write(CommonCfg.driverFeature, 4, bits);
    }
  }

  /** Tells the transport which features were negotiated. */
  negotiated(features: FeatureSet): void {
    this.#features = features;
    this.#notificationData = hasFeature(features, VIRTIO_F_NOTIFICATION_DATA);
  }

  /** The configuration's generation. */
  configGeneration(): number {
    return this.#read(CommonCfg.configGeneration, 1);
  }

  /** Reads a field of the device's configuration; 0 for a device that has none there. */
  readConfig(offset: number, size: Width): number {
    const device = this.structures.device;
    if (device === null || offset + size > device.length) return 0;
    return this.#access.barRead(device.bar, device.offset + offset, size) >>> 0;
  }

  /** Writes a field of the device's configuration. */
  writeConfig(offset: number, size: Width, value: number): void {
    const device = this.structures.device;
    if (device === null || offset + size > device.length) return;
    this.#access.barWrite(device.bar, device.offset + offset, size, value);
  }

  /** Largest size of a queue; 0 if there is no such queue. */
  queueMaxSize(index: number): number {
    if (index >= this.queueCount) return 0;
    this.#write(CommonCfg.queueSelect, 2, index);
    return this.#read(CommonCfg.queueSize, 2);
  }

  /**
   * Tells where a queue lies, gives it a vector and enables it (4.1.5.1.3).
   *
   * @throws {RangeError} If there is no such queue, or it cannot have this size.
   * @throws {TypeError} If it is enabled: reset it first.
   * @throws {ProbeError} If the device does not map the vector, or names a place for kicks outside of its structure.
   */
  enableQueue(index: number, config: QueueConfig): void {
    const maxSize = this.queueMaxSize(index);
    if (maxSize !== 0 && this.#read(CommonCfg.queueEnable, 2) !== 0) {
      throw new TypeError(`Queue ${index} is in use: reset it before it is set up again`);
    }
    checkQueueConfig(index, config, maxSize, this.#features);
    this.#doorbells[index] = this.#findDoorbell(index);
    this.#write(CommonCfg.queueSize, 2, config.size);
    this.#writeAddress(CommonCfg.queueDesc, config.descriptorArea);
    this.#writeAddress(CommonCfg.queueDriver, config.driverArea);
    this.#writeAddress(CommonCfg.queueDevice, config.deviceArea);
    if (this.#msix !== null) this.#mapQueue(index, this.#msix.count);
    this.#write(CommonCfg.queueEnable, 2, 1);
  }

  /** Starts a queue reset; needs VIRTIO_F_RING_RESET. */
  resetQueue(index: number): void {
    this.#write(CommonCfg.queueSelect, 2, index);
    this.#write(CommonCfg.queueReset, 2, 1);
  }

  /** Whether the queue reset is complete. */
  queueResetDone(index: number): boolean {
    this.#write(CommonCfg.queueSelect, 2, index);
    return this.#read(CommonCfg.queueReset, 2) === 0;
  }

  /** Sends an available buffer notification (4.1.5.2). Nothing for a queue that was not enabled. */
  kick(index: number, data: number): void {
    const doorbell = this.#doorbells[index];
    if (doorbell === undefined) return;
    if (this.#notificationData) {
      const value = (doorbell.value | data << 16) >>> 0;
      this.#access.barWrite(this.#notifyBar, doorbell.offset, 4, value);
    } else {
      this.#access.barWrite(this.#notifyBar, doorbell.offset, 2, doorbell.value);
    }
  }

  /** A shared memory region, or null if the device has none with this shmid. Only for devices that define one. */
  sharedMemory(id: number): PciSharedMemory | null {
    return this.structures.sharedMemory.find((region) => region.id === id) ?? null;
  }

  /**
   * What a vendor data capability holds after its header, for debugging and reporting only (4.1.4.8.2); null if there is
   * none of this vendor.
   */
  vendorData(vendorId: number): Uint8Array | null {
    for (const offset of this.structures.vendorData) {
      if (this.#access.configRead(offset + reg.PciCap.vendorId, 2) !== vendorId) continue;
      const end = Math.min(
        offset + this.#access.configRead(offset + reg.PciCap.len, 1),
        reg.PCI_CONFIG_SIZE,
      );
      const start = offset + reg.PciCap.vendorData;
      return Uint8Array.from(
        { length: end - start },
        (_, i) => this.#access.configRead(start + i, 1),
      );
    }
    return null;
  }

  /**
   * To be called when INTx is asserted. Reading ISR status takes the interrupt back (4.1.4.5).
   *
   * @returns Whether this device caused it; always false with MSI-X, without touching the device (4.1.4.5.2).
   */
  handleInterrupt(): boolean {
    if (this.#msix !== null) return false;
    const { bar, offset } = this.structures.isr;
    const isr = this.#access.barRead(bar, offset, 1);
    if ((isr & reg.VIRTIO_PCI_ISR_QUEUE) !== 0) this.interrupts?.queue(null);
    if ((isr & reg.VIRTIO_PCI_ISR_CONFIG) !== 0) this.interrupts?.config();
    return isr !== 0;
  }

  /** To be called when the message of a vector comes. One vector may mean queues and configuration (4.1.5.4.2). */
  handleMessage(vector: number): void {
    const queue = this.#queueOf[vector];
    if (queue === undefined) return;
    if (queue !== -1) this.interrupts?.queue(queue === -2 ? null : queue);
    if (vector === this.#configVector) this.interrupts?.config();
  }

  #forget(): void {
    this.negotiated(0n);
    this.#doorbells.length = 0;
    this.#queueOf.fill(-1);
    this.#configVector = VIRTIO_MSI_NO_VECTOR;
  }

  #mapConfig(): void {
    if (this.#msix === null) return;
    this.#write(CommonCfg.configMsixVector, 2, 0);
    // A device that cannot map it has no configuration interrupts; status is still there to be read.
    if (this.#read(CommonCfg.configMsixVector, 2) === 0) this.#configVector = 0;
  }

  #mapQueue(index: number, vectors: number): void {
    const own = index + 1;
    const shared = vectors - 1;
    // A queue of its own where there are enough vectors for all; failing that, or if the device refuses, the last one.
    const choices = this.queueCount < vectors ? [own, shared] : [shared];
    for (const vector of choices) {
      this.#write(CommonCfg.queueMsixVector, 2, vector);
      if (this.#read(CommonCfg.queueMsixVector, 2) !== vector) continue;
      const before = this.#queueOf[vector]!;
      this.#queueOf[vector] = before === -1 || before === index ? index : -2;
      return;
    }
    throw new ProbeError("4.1.5.1.2.2", `The device maps no MSI-X vector to queue ${index}`);
  }

  #findDoorbell(index: number): Doorbell {
    const { offset, length, multiplier } = this.structures.notify;
    const at = this.#read(CommonCfg.queueNotifyOff, 2) * multiplier;
    const width = this.#notificationData ? 4 : 2;
    if (at + width > length) {
      throw new ProbeError(
        "4.1.4.4.1",
        `Queue ${index} is kicked at offset ${at}, but the notification structure has ${length} bytes`,
      );
    }
    return { offset: offset + at, value: this.#notifyValue(index) };
  }

  #notifyValue(index: number): number {
    if (!hasFeature(this.#features, VIRTIO_F_NOTIF_CONFIG_DATA)) return index;
    return this.#read(CommonCfg.queueNotifConfigData, 2);
  }

  #writeAddress(offset: number, address: number): void {
    this.#write(offset, 4, lowHalf(address));
    this.#write(offset + 4, 4, highHalf(address));
  }

  #read(offset: number, size: Width): number {
    return this.#access.barRead(this.#commonBar, this.#common + offset, size) >>> 0;
  }

  #write(offset: number, size: Width, value: number): void {
    this.#access.barWrite(this.#commonBar, this.#common + offset, size, value);
  }
}
