import {
  type DeviceState,
  hasFeature,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
} from "@virtio/device";
import { savedInteger, savedIntegers } from "../saved.ts";
import { partOf, type Width } from "../width.ts";
import { CommonCfg, VIRTIO_MSI_NO_VECTOR } from "./registers.ts";

/** The registers of the common configuration structure that `DeviceState` does not hold, as plain data. */
export interface SavedCommonConfig {
  /** device_feature_select. */
  readonly deviceFeatureSelect: number;
  /** driver_feature_select. */
  readonly driverFeatureSelect: number;
  /** queue_select. */
  readonly queueSelect: number;
  /** config_msix_vector. */
  readonly configVector: number;
  /** queue_msix_vector of each queue. */
  readonly queueVectors: readonly number[];
  /** config_generation. */
  readonly generation: number;
}

const NO_VECTOR = VIRTIO_MSI_NO_VECTOR;

/**
 * The common configuration structure (virtio 1.4, 4.1.4.3).
 *
 * Aligned reads of any width see the bytes that are there. A write has to have the field's own width (4.1.3.1), else it is
 * ignored; so is one to a read-only field. For a queue that does not exist everything reads 0, but its vector NO_VECTOR,
 * since 0 would be a mapping.
 */
export class CommonConfig {
  readonly #state: DeviceState;
  readonly #vectorCount: number;
  readonly #notifyData: readonly number[];
  readonly #queueVectors: Uint16Array;
  #configVector = NO_VECTOR;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #queueSelect = 0;
  #generation = 0;
  #generationSeen: number;

  /** @param notifyData queue_notif_config_data of each queue. */
  constructor(state: DeviceState, vectorCount: number, notifyData: readonly number[]) {
    this.#state = state;
    this.#vectorCount = vectorCount;
    this.#notifyData = notifyData;
    this.#queueVectors = new Uint16Array(state.queues.length).fill(NO_VECTOR);
    this.#generationSeen = state.configGeneration;
  }

  /** config_msix_vector. */
  get configVector(): number {
    return this.#configVector;
  }

  /** queue_msix_vector of a queue. */
  queueVector(index: number): number {
    return this.#queueVectors[index] ?? NO_VECTOR;
  }

  /**
   * To be called before each read of the device-specific configuration. config_generation has 8 bits, so counting every
   * change could bring it back to the value that the driver knows; it counts reads of changed configurations instead
   * (the note in 4.1.4.3.1).
   */
  configRead(): void {
    if (this.#generationSeen === this.#state.configGeneration) return;
    this.#generationSeen = this.#state.configGeneration;
    this.#generation = (this.#generation + 1) & 0xff;
  }

  /** A read of the structure. */
  read(offset: number, size: Width): number {
    return partOf(this.#readWord(offset & ~3), offset, size);
  }

  /** A write to the structure. */
  write(offset: number, size: Width, value: number): void {
    if (size === 4) this.#write32(offset, value >>> 0);
    else if (size === 2) this.#write16(offset, value & 0xffff);
    else if (offset === CommonCfg.deviceStatus) this.#state.writeStatus(value & 0xff);
  }

  /** What a device reset does to the registers. */
  reset(): void {
    this.#deviceFeatureSelect = 0;
    this.#driverFeatureSelect = 0;
    this.#queueSelect = 0;
    this.#configVector = NO_VECTOR;
    this.#queueVectors.fill(NO_VECTOR);
  }

  /** The registers. */
  save(): SavedCommonConfig {
    // What the driver would see if it looked now (see `#presentedGeneration`).
    return {
      deviceFeatureSelect: this.#deviceFeatureSelect,
      driverFeatureSelect: this.#driverFeatureSelect,
      queueSelect: this.#queueSelect,
      configVector: this.#configVector,
      queueVectors: Array.from(this.#queueVectors),
      generation: this.#presentedGeneration,
    };
  }

  /**
   * @returns A function that takes what `save` gave: everything is checked before anything is changed.
   * @throws {TypeError} If the state is not of this shape.
   * @throws {RangeError} If a field is out of range.
   */
  prepareRestore(saved: unknown): () => void {
    if (typeof saved !== "object" || saved === null) {
      throw new TypeError("Saved state: common has to be an object");
    }
    const fields = saved as Record<string, unknown>;
    const integer = (name: keyof SavedCommonConfig, max: number) =>
      savedInteger(fields[name], `common.${name}`, 0, max);
    const deviceFeatureSelect = integer("deviceFeatureSelect", 0xffff_ffff);
    const driverFeatureSelect = integer("driverFeatureSelect", 0xffff_ffff);
    const queueSelect = integer("queueSelect", 0xffff);
    const generation = integer("generation", 0xff);
    const configVector = this.#checkVector(integer("configVector", 0xffff), "configVector");
    const count = this.#queueVectors.length;
    const queueVectors = savedIntegers(fields["queueVectors"], "common.queueVectors", count, 0xffff)
      .map((vector, i) => this.#checkVector(vector, `queueVectors[${i}]`));
    return () => {
      this.#deviceFeatureSelect = deviceFeatureSelect;
      this.#driverFeatureSelect = driverFeatureSelect;
      this.#queueSelect = queueSelect;
      this.#configVector = configVector;
      this.#queueVectors.set(queueVectors);
      // The configuration's bytes are the new device's: the driver has to look again if it was about to.
      this.#generation = (generation + 1) & 0xff;
      this.#generationSeen = this.#state.configGeneration;
    };
  }

  #checkVector(vector: number, name: string): number {
    if (vector !== NO_VECTOR && vector >= this.#vectorCount) {
      throw new RangeError(
        `Saved state: common.${name} is ${vector}, but the table has ${this.#vectorCount} vectors`,
      );
    }
    return vector;
  }

  // Already the next value if the configuration changed since it was last read: a driver that looks at the generation
  // first, then at the configuration, need not read it twice.
  get #presentedGeneration(): number {
    const changed = this.#generationSeen !== this.#state.configGeneration;
    return changed ? (this.#generation + 1) & 0xff : this.#generation;
  }

  get #queue(): DeviceState["queues"][number] | undefined {
    return this.#state.queues[this.#queueSelect];
  }

  #readWord(offset: number): number {
    const state = this.#state;
    switch (offset) {
      case CommonCfg.deviceFeatureSelect:
        return this.#deviceFeatureSelect;
      case CommonCfg.deviceFeature:
        return state.readDeviceFeatures(this.#deviceFeatureSelect);
      case CommonCfg.driverFeatureSelect:
        return this.#driverFeatureSelect;
      case CommonCfg.driverFeature:
        return state.readDriverFeatures(this.#driverFeatureSelect);
      case CommonCfg.configMsixVector:
        return this.#configVector | state.queues.length << 16;
      case CommonCfg.deviceStatus:
        return state.status | this.#presentedGeneration << 8 | this.#queueSelect << 16;
      case CommonCfg.queueSize:
        return this.#queueSize() | this.queueVector(this.#queueSelect) << 16;
      case CommonCfg.queueEnable:
        return this.#queue === undefined
          ? 0
          : (this.#queue.enabled ? 1 : 0) | this.#queueSelect << 16;
      case CommonCfg.queueDesc:
        return this.#queue?.readAddress(0, 0) ?? 0;
      case CommonCfg.queueDesc + 4:
        return this.#queue?.readAddress(0, 1) ?? 0;
      case CommonCfg.queueDriver:
        return this.#queue?.readAddress(1, 0) ?? 0;
      case CommonCfg.queueDriver + 4:
        return this.#queue?.readAddress(1, 1) ?? 0;
      case CommonCfg.queueDevice:
        return this.#queue?.readAddress(2, 0) ?? 0;
      case CommonCfg.queueDevice + 4:
        return this.#queue?.readAddress(2, 1) ?? 0;
      case CommonCfg.queueNotifConfigData:
        return this.#readNotifConfigData() | (this.#queue?.resetting ? 0x1_0000 : 0);
      default:
        // admin_queue_index and admin_queue_num too: there are no administration virtqueues.
        return 0;
    }
  }

  // The field exists only if the feature was negotiated (4.1.4.3).
  #readNotifConfigData(): number {
    if (!hasFeature(this.#state.features, VIRTIO_F_NOTIF_CONFIG_DATA)) return 0;
    return this.#notifyData[this.#queueSelect] ?? 0;
  }

  #write32(offset: number, value: number): void {
    switch (offset) {
      case CommonCfg.deviceFeatureSelect:
        this.#deviceFeatureSelect = value;
        break;
      case CommonCfg.driverFeatureSelect:
        this.#driverFeatureSelect = value;
        break;
      case CommonCfg.driverFeature:
        this.#state.writeDriverFeatures(this.#driverFeatureSelect, value);
        break;
      case CommonCfg.queueDesc:
        this.#queue?.writeAddress(0, 0, value);
        break;
      case CommonCfg.queueDesc + 4:
        this.#queue?.writeAddress(0, 1, value);
        break;
      case CommonCfg.queueDriver:
        this.#queue?.writeAddress(1, 0, value);
        break;
      case CommonCfg.queueDriver + 4:
        this.#queue?.writeAddress(1, 1, value);
        break;
      case CommonCfg.queueDevice:
        this.#queue?.writeAddress(2, 0, value);
        break;
      case CommonCfg.queueDevice + 4:
        this.#queue?.writeAddress(2, 1, value);
        break;
    }
  }

  #write16(offset: number, value: number): void {
    const index = this.#queueSelect;
    switch (offset) {
      case CommonCfg.configMsixVector:
        this.#configVector = this.#map(value);
        break;
      case CommonCfg.queueSelect:
        this.#queueSelect = value;
        break;
      case CommonCfg.queueSize:
        if (this.#isSize(value)) this.#queue?.setSize(value);
        break;
      case CommonCfg.queueMsixVector:
        if (index < this.#queueVectors.length) this.#queueVectors[index] = this.#map(value);
        break;
      case CommonCfg.queueEnable:
        // Writing 0 is forbidden (4.1.4.3.2); a queue is stopped through queue_reset.
        if (value === 1) this.#enableQueue(index);
        break;
      case CommonCfg.queueReset:
        if (value === 1) this.#resetQueue(index);
        break;
    }
  }

  // Only powers of two are presented, unless the ring is packed (4.1.4.3.1).
  #queueSize(): number {
    const size = this.#queue?.size ?? 0;
    if (size === 0 || this.#isSize(size)) return size;
    return 1 << (31 - Math.clz32(size));
  }

  // A driver may not write 0 for a packed ring, nor anything but a power of two for a split one (4.1.4.3.2).
  #isSize(value: number): boolean {
    return value !== 0 &&
      ((value & (value - 1)) === 0 || hasFeature(this.#state.features, VIRTIO_F_RING_PACKED));
  }

  #enableQueue(index: number): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    // The driver may have taken the size that it was shown, without writing any.
    queue.setSize(this.#queueSize());
    this.#state.enableQueue(index);
  }

  // The field exists only if the feature was negotiated (4.1.4.3).
  #resetQueue(index: number): void {
    if (this.#queue === undefined || !hasFeature(this.#state.features, VIRTIO_F_RING_RESET)) return;
    // Part of the queue's default state (2.6.1.1.1); and nothing is to be told about it from here on.
    this.#queueVectors[index] = NO_VECTOR;
    this.#state.resetQueue(index);
  }

  // A vector that does not exist cannot be mapped, which reads back as NO_VECTOR (4.1.5.1.2.1).
  #map(vector: number): number {
    return vector < this.#vectorCount ? vector : NO_VECTOR;
  }
}
