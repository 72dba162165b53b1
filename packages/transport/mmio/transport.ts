import {
  CORE_FEATURES,
  type Device,
  DeviceState,
  type FeatureSet,
  hasFeature,
  type SavedDevice,
  type SharedMemoryRegion,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
} from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import { savedInteger, savedObject } from "../saved.ts";
import type { Width } from "../width.ts";
import * as reg from "./registers.ts";

/** What an MMIO device needs from the machine around it. */
export interface MmioHost {
  /**
   * Drives the device's interrupt signal (4.2.3.4). Called only when the level changes; also from inside `read` and `write`.
   */
  setInterruptLine(asserted: boolean): void;
}

/** Something that decodes accesses at offsets from its base address. */
export interface MmioFunction {
  /** Reads 1, 2 or 4 bytes. */
  read(offset: number, size: Width): number;
  /** Writes 1, 2 or 4 bytes. */
  write(offset: number, size: Width, value: number): void;
}

/** Options of `MmioTransport`. */
export interface MmioTransportOptions {
  /** Guest memory, where the queues lie. */
  readonly memory: GuestMemory;
  /** The machine. */
  readonly host: MmioHost;
  /** Feature bits of rings and transport to offer; the core's default unless given. Bits that MMIO cannot carry are dropped. */
  readonly features?: FeatureSet;
  /** What VendorID reads. */
  readonly vendorId?: number;
  /** Told why a device asked for a reset. */
  readonly onError?: (error: Error) => void;
}

/** A stopped or running MMIO device as plain data. */
export interface SavedMmio {
  /** Which layout this object has. */
  readonly version: 1;
  /** Status, features and queues. */
  readonly device: SavedDevice;
  /** DeviceFeaturesSel. */
  readonly deviceFeaturesSelect: number;
  /** DriverFeaturesSel. */
  readonly driverFeaturesSelect: number;
  /** QueueSel. */
  readonly queueSelect: number;
  /** SHMSel. */
  readonly sharedMemorySelect: number;
  /** InterruptStatus. */
  readonly interruptStatus: number;
}

const MMIO_FEATURES: FeatureSet = CORE_FEATURES & ~VIRTIO_F_NOTIF_CONFIG_DATA;
const DEFAULT_VENDOR = 0x1af4;

/**
 * A virtio device behind MMIO registers, version 2 (virtio 1.4, 4.2.2).
 *
 * Control registers answer aligned 32-bit accesses only, as 4.2.2.2 demands of drivers: a read of another width, from a
 * write-only register or from between registers gives 0, and such a write does nothing. The configuration space takes
 * accesses of 1, 2 and 4 bytes at any offset.
 *
 * @example A device on a bus of one's own, and a driver that finds it
 * ```ts
 * import { DeviceId, QueueDevice } from "@virtio/device";
 * import { GuestMemory } from "@virtio/memory";
 * import { MmioTransport, VIRTIO_MMIO_DEVICE_ID } from "@virtio/transport/mmio";
 * import { MmioDriverTransport } from "@virtio/transport/mmio/driver";
 * import { assertEquals } from "@std/assert";
 *
 * class SilentDevice extends QueueDevice {
 *   protected override handle(): void {}
 * }
 * const device = new SilentDevice({ type: DeviceId.entropy, queueSizes: [64] });
 * let line = false;
 * const transport = new MmioTransport(device, {
 *   memory: GuestMemory.allocate(0x10000),
 *   host: { setInterruptLine: (asserted) => line = asserted },
 * });
 * // The bus passes accesses on, with offsets from where it mapped the device.
 * assertEquals(transport.read(VIRTIO_MMIO_DEVICE_ID, 4), 4);
 * const driver = MmioDriverTransport.probe(transport);
 * assertEquals(driver?.queueMaxSize(0), 64);
 * assertEquals(line, false);
 * ```
 */
export class MmioTransport implements MmioFunction {
  /** Status, features and queues. */
  readonly state: DeviceState;
  readonly #device: Device;
  readonly #host: MmioHost;
  readonly #vendorId: number;
  #notificationData = false;
  #deviceFeaturesSelect = 0;
  #driverFeaturesSelect = 0;
  #queueSelect = 0;
  #sharedMemorySelect = 0;
  #interruptStatus = 0;
  #line = false;

  /** Puts a device behind registers; the embedder maps `read` and `write` somewhere, 0x100 bytes and the configuration. */
  constructor(device: Device, options: MmioTransportOptions) {
    this.#device = device;
    this.#host = options.host;
    this.#vendorId = (options.vendorId ?? DEFAULT_VENDOR) >>> 0;
    this.state = new DeviceState(device, {
      memory: options.memory,
      carries: MMIO_FEATURES,
      interrupt: {
        queue: () => this.#raise(reg.VIRTIO_MMIO_INT_VRING),
        config: () => this.#raise(reg.VIRTIO_MMIO_INT_CONFIG),
      },
      onReset: () => this.#onReset(),
      ...(options.features === undefined ? {} : { features: options.features }),
      ...(options.onError === undefined ? {} : { onError: options.onError }),
    });
  }

  /** Bytes that the device decodes: the control registers and the configuration space. */
  get size(): number {
    return reg.VIRTIO_MMIO_CONFIG + this.#device.config.bytes.length;
  }

  /** A read by the driver. Never throws. */
  read(offset: number, size: Width): number {
    if (offset >= reg.VIRTIO_MMIO_CONFIG) {
      return this.state.readConfig(offset - reg.VIRTIO_MMIO_CONFIG, size);
    }
    if (size !== 4) return 0;
    switch (offset) {
      case reg.VIRTIO_MMIO_INTERRUPT_STATUS:
        return this.#interruptStatus;
      case reg.VIRTIO_MMIO_STATUS:
        return this.state.status;
      case reg.VIRTIO_MMIO_MAGIC_VALUE:
        return reg.VIRTIO_MMIO_MAGIC;
      case reg.VIRTIO_MMIO_VERSION:
        return 2;
      case reg.VIRTIO_MMIO_DEVICE_ID:
        return this.#device.type;
      case reg.VIRTIO_MMIO_VENDOR_ID:
        return this.#vendorId;
      case reg.VIRTIO_MMIO_DEVICE_FEATURES:
        return this.state.readDeviceFeatures(this.#deviceFeaturesSelect);
      case reg.VIRTIO_MMIO_QUEUE_SIZE_MAX:
        return this.#queue?.maxSize ?? 0;
      case reg.VIRTIO_MMIO_QUEUE_READY:
        return this.#queue?.enabled ? 1 : 0;
      case reg.VIRTIO_MMIO_QUEUE_RESET:
        return this.#queue?.resetting ? 1 : 0;
      case reg.VIRTIO_MMIO_SHM_LEN_LOW:
        return low(this.#region?.bytes.length);
      case reg.VIRTIO_MMIO_SHM_LEN_HIGH:
        return high(this.#region?.bytes.length);
      case reg.VIRTIO_MMIO_SHM_BASE_LOW:
        return low(this.#region?.address);
      case reg.VIRTIO_MMIO_SHM_BASE_HIGH:
        return high(this.#region?.address);
      case reg.VIRTIO_MMIO_CONFIG_GENERATION:
        return this.state.configGeneration >>> 0;
      default:
        return 0;
    }
  }

  /** A write by the driver. Never throws. */
  write(offset: number, size: Width, value: number): void {
    if (offset >= reg.VIRTIO_MMIO_CONFIG) {
      this.state.writeConfig(offset - reg.VIRTIO_MMIO_CONFIG, size, value);
      return;
    }
    if (size !== 4) return;
    switch (offset) {
      case reg.VIRTIO_MMIO_QUEUE_NOTIFY:
        // The upper half is next_off and next_wrap (2.9); without them it makes a queue number that does not exist.
        this.state.notify(this.#notificationData ? value & 0xffff : value >>> 0);
        break;
      case reg.VIRTIO_MMIO_INTERRUPT_ACK:
        this.#interruptStatus &= ~value;
        this.#updateLine();
        break;
      case reg.VIRTIO_MMIO_STATUS:
        this.#writeStatus(value & 0xff);
        break;
      case reg.VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        this.#deviceFeaturesSelect = value >>> 0;
        break;
      case reg.VIRTIO_MMIO_DRIVER_FEATURES:
        this.state.writeDriverFeatures(this.#driverFeaturesSelect, value >>> 0);
        break;
      case reg.VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        this.#driverFeaturesSelect = value >>> 0;
        break;
      case reg.VIRTIO_MMIO_QUEUE_SEL:
        this.#queueSelect = value >>> 0;
        break;
      case reg.VIRTIO_MMIO_QUEUE_SIZE:
        this.#queue?.setSize(value >>> 0);
        break;
      case reg.VIRTIO_MMIO_QUEUE_READY:
        this.#writeQueueReady(value);
        break;
      case reg.VIRTIO_MMIO_QUEUE_DESC_LOW:
        this.#queue?.writeAddress(0, 0, value >>> 0);
        break;
      case reg.VIRTIO_MMIO_QUEUE_DESC_HIGH:
        this.#queue?.writeAddress(0, 1, value >>> 0);
        break;
      case reg.VIRTIO_MMIO_QUEUE_DRIVER_LOW:
        this.#queue?.writeAddress(1, 0, value >>> 0);
        break;
      case reg.VIRTIO_MMIO_QUEUE_DRIVER_HIGH:
        this.#queue?.writeAddress(1, 1, value >>> 0);
        break;
      case reg.VIRTIO_MMIO_QUEUE_DEVICE_LOW:
        this.#queue?.writeAddress(2, 0, value >>> 0);
        break;
      case reg.VIRTIO_MMIO_QUEUE_DEVICE_HIGH:
        this.#queue?.writeAddress(2, 1, value >>> 0);
        break;
      case reg.VIRTIO_MMIO_SHM_SEL:
        this.#sharedMemorySelect = value >>> 0;
        break;
      case reg.VIRTIO_MMIO_QUEUE_RESET:
        if (value === 1 && this.#queue !== undefined) this.state.resetQueue(this.#queueSelect);
        break;
    }
  }

  /**
   * The reset of the whole machine: as if the driver had reset the device. Resolves when nothing touches guest memory
   * any more.
   */
  async reset(): Promise<void> {
    this.#writeStatus(0);
    await this.state.settled();
  }

  /**
   * The device and its registers as plain data. Nothing is in flight then, and the device is paused: save guest memory too
   * before `state.unpause()`.
   */
  async save(): Promise<SavedMmio> {
    await this.state.pause();
    return {
      version: 1,
      device: this.state.save(),
      deviceFeaturesSelect: this.#deviceFeaturesSelect,
      driverFeaturesSelect: this.#driverFeaturesSelect,
      queueSelect: this.#queueSelect,
      sharedMemorySelect: this.#sharedMemorySelect,
      interruptStatus: this.#interruptStatus,
    };
  }

  /**
   * Takes over a saved state; for a fresh transport. The device is paused afterwards: call `state.unpause()`.
   *
   * @throws {TypeError} If the state is not of this shape.
   * @throws {RangeError} If a field is out of range. Nothing of the transport has changed then.
   */
  restore(saved: SavedMmio): void {
    const fields = savedObject(saved, "the MMIO transport");
    const u32 = (name: keyof SavedMmio) => savedInteger(fields[name], name, 0, 0xffff_ffff);
    const deviceFeaturesSelect = u32("deviceFeaturesSelect");
    const driverFeaturesSelect = u32("driverFeaturesSelect");
    const queueSelect = u32("queueSelect");
    const sharedMemorySelect = u32("sharedMemorySelect");
    const interruptStatus = savedInteger(fields["interruptStatus"], "interruptStatus", 0, 3);
    this.state.restore(saved.device);
    this.#deviceFeaturesSelect = deviceFeaturesSelect;
    this.#driverFeaturesSelect = driverFeaturesSelect;
    this.#queueSelect = queueSelect;
    this.#sharedMemorySelect = sharedMemorySelect;
    // Restoring may already have used buffers.
    this.#interruptStatus |= interruptStatus;
    this.#updateFeatures();
    this.#updateLine();
  }

  get #queue(): DeviceState["queues"][number] | undefined {
    return this.state.queues[this.#queueSelect];
  }

  get #region(): SharedMemoryRegion | undefined {
    return this.#device.sharedMemory?.find((region) => region.id === this.#sharedMemorySelect);
  }

  #writeQueueReady(value: number): void {
    if (this.#queue === undefined) return;
    if (value === 1) this.state.enableQueue(this.#queueSelect);
    else if (value === 0) this.state.disableQueue(this.#queueSelect);
  }

  #writeStatus(value: number): void {
    this.state.writeStatus(value);
    if (value === 0) this.#clearInterrupts();
    this.#updateFeatures();
  }

  // When the reset is complete, which may be later than the driver's write.
  #onReset(): void {
    this.#deviceFeaturesSelect = 0;
    this.#driverFeaturesSelect = 0;
    this.#queueSelect = 0;
    this.#sharedMemorySelect = 0;
    this.#clearInterrupts();
    this.#updateFeatures();
  }

  #clearInterrupts(): void {
    this.#interruptStatus = 0;
    this.#updateLine();
  }

  #updateFeatures(): void {
    this.#notificationData = hasFeature(this.state.features, VIRTIO_F_NOTIFICATION_DATA);
  }

  #raise(bit: number): void {
    this.#interruptStatus |= bit;
    this.#updateLine();
  }

  #updateLine(): void {
    const asserted = this.#interruptStatus !== 0;
    if (asserted === this.#line) return;
    this.#line = asserted;
    this.#host.setInterruptLine(asserted);
  }
}

/**
 * An empty slot at a well-known address: DeviceID 0 tells drivers that no device is there (4.2.2, DeviceID), without it
 * being an error (4.2.2.2).
 */
export class MmioPlaceholder implements MmioFunction {
  /** A read by the driver. */
  read(offset: number, size: Width): number {
    if (size !== 4) return 0;
    if (offset === reg.VIRTIO_MMIO_MAGIC_VALUE) return reg.VIRTIO_MMIO_MAGIC;
    return offset === reg.VIRTIO_MMIO_VERSION ? 2 : 0;
  }

  /** A write by the driver; nothing takes it. */
  write(_offset: number, _size: Width, _value: number): void {}
}

// A shared memory region that does not exist has length and base -1 (4.2.2, SHMLenLow and SHMBaseLow).
function low(value: number | undefined): number {
  return value === undefined ? 0xffff_ffff : value >>> 0;
}

function high(value: number | undefined): number {
  return value === undefined ? 0xffff_ffff : Math.floor(value / 0x1_0000_0000) >>> 0;
}
