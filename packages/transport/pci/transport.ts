import {
  CORE_FEATURES,
  type Device,
  DeviceState,
  type FeatureSet,
  hasFeature,
  type SavedDevice,
  VIRTIO_F_NOTIF_CONFIG_DATA,
} from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import { savedInteger, savedIntegers, savedObject } from "../saved.ts";
import { readBytes, type Width, writeBytes } from "../width.ts";
import { addCapabilities, type VendorData } from "./capabilities.ts";
import { CommonConfig, type SavedCommonConfig } from "./common_config.ts";
import { PciConfigSpace } from "./config_space.ts";
import { ConfigWindow } from "./config_window.ts";
import type { PciBar, PciFunction, PciHost } from "./function.ts";
import { identityOf, type IdentityOptions } from "./identity.ts";
import { MsixTable, type SavedMsix } from "./msix.ts";
import * as reg from "./registers.ts";
import * as st from "./structures.ts";

/** Options of `PciTransport`. */
export interface PciTransportOptions extends st.StructureOptions, IdentityOptions {
  /** Guest memory, where the queues lie. */
  readonly memory: GuestMemory;
  /** The machine. */
  readonly host: PciHost;
  /** Feature bits of rings and transport to offer; the core's default unless given. */
  readonly features?: FeatureSet;
  /** Vendor data capabilities (4.1.4.8). */
  readonly vendorData?: readonly VendorData[];
  /**
   * queue_notif_config_data of each queue, all different (4.1.4.3): what a driver that negotiated
   * VIRTIO_F_NOTIF_CONFIG_DATA kicks with. The queue's index unless given.
   */
  readonly notifyData?: (queue: number) => number;
  /** Told why a device asked for a reset. */
  readonly onError?: (error: Error) => void;
}

/** A stopped or running PCI device as plain data. */
export interface SavedPci {
  /** Which layout this object has. */
  readonly version: 1;
  /** Status, features and queues. */
  readonly device: SavedDevice;
  /** Selectors and vectors. */
  readonly common: SavedCommonConfig;
  /** The bits of configuration space that the driver can write, a byte each. */
  readonly configSpace: readonly number[];
  /** ISR status. */
  readonly isr: number;
  /** The MSI-X table; null for a device without it. */
  readonly msix: SavedMsix | null;
}

/**
 * A virtio device as a PCI function, modern only (virtio 1.4, 4.1).
 *
 * BAR 0 is the I/O BAR, BAR 1 has the MSI-X table, BAR 2 the structures in memory, BAR 4 shared memory; which of them
 * there are depends on the options. Any access is fine at any time, whatever its width or offset: what the standard does
 * not define reads 0 and does nothing.
 *
 * Messages need bus mastering, as PCI demands. Guest memory is reached whether it is on or not: the standard's drivers may
 * leave a device to its own paths to memory unless VIRTIO_F_ACCESS_PLATFORM is negotiated, which is not offered.
 *
 * @example A function that a PCI bus, or a driver, can use
 * ```ts
 * import { DeviceId, QueueDevice } from "@virtio/device";
 * import { GuestMemory } from "@virtio/memory";
 * import { PCI_DEVICE_ID, PciTransport } from "@virtio/transport/pci";
 * import { PciDriverTransport } from "@virtio/transport/pci/driver";
 * import { assertEquals } from "@std/assert";
 *
 * class SilentDevice extends QueueDevice {
 *   protected override handle(): void {}
 * }
 * const device = new SilentDevice({ type: DeviceId.entropy, queueSizes: [64] });
 * const messages: number[] = [];
 * const pci = new PciTransport(device, {
 *   memory: GuestMemory.allocate(0x10000),
 *   host: {
 *     setInterruptLine: () => {},
 *     sendMessage: (_low, _high, data) => messages.push(data),
 *   },
 * });
 * assertEquals(pci.configRead(PCI_DEVICE_ID, 2), 0x1044);
 * assertEquals(pci.bars[2], { kind: "memory", size: 0x4000, is64: true });
 * const driver = PciDriverTransport.probe(pci);
 * assertEquals(driver.queueMaxSize(0), 64);
 * ```
 */
export class PciTransport implements PciFunction {
  /** Status, features and queues. */
  readonly state: DeviceState;
  /** The six Base Address registers. */
  readonly bars: readonly (PciBar | null)[];
  /** Where shared memory regions are in their BAR, for an embedder that can map them. */
  readonly sharedMemory: readonly st.SharedMemoryPlacement[];
  readonly #host: PciHost;
  readonly #structures: st.Structures;
  readonly #placements: readonly (st.Placement | null)[];
  readonly #config: PciConfigSpace;
  readonly #common: CommonConfig;
  readonly #msix: MsixTable | null;
  readonly #msixCap: number;
  readonly #window: ConfigWindow;
  readonly #queueByNotifyData: ReadonlyMap<number, number>;
  #notifConfigData = false;
  #isr = 0;
  #line = false;

  /**
   * Puts a device behind PCI.
   *
   * @throws {RangeError} If an option is out of its range, or the capabilities do not fit into configuration space.
   */
  constructor(device: Device, options: PciTransportOptions) {
    this.#host = options.host;
    this.state = new DeviceState(device, {
      memory: options.memory,
      carries: CORE_FEATURES,
      interrupt: {
        queue: (index) => this.#queueInterrupt(index),
        config: () => this.#configInterrupt(),
      },
      onReset: () => this.#onReset(),
      ...(options.features === undefined ? {} : { features: options.features }),
      ...(options.onError === undefined ? {} : { onError: options.onError }),
    });
    const structures = st.planStructures(device, this.state.offered, options);
    this.#structures = structures;
    this.#placements = structures.placements;
    this.bars = structures.bars;
    this.sharedMemory = structures.sharedMemory;
    const notifyData = checkNotifyData(device.queueSizes.length, options.notifyData);
    this.#queueByNotifyData = new Map(notifyData.map((data, queue) => [data, queue]));
    this.#common = new CommonConfig(this.state, structures.vectors, notifyData);
    this.#msix = structures.vectors === 0 ? null : new MsixTable(
      structures.vectors,
      (low, high, data) => this.#host.sendMessage(low, high, data),
    );
    this.#config = new PciConfigSpace(
      identityOf(device, options),
      structures.bars,
      structures.sharedMemory.length > 0 ? [st.SHARED_MEMORY_BAR] : [],
    );
    const caps = addCapabilities(this.#config, structures, options.vendorData ?? []);
    this.#msixCap = caps.msix;
    this.#window = new ConfigWindow(this.#config, caps.window, this);
  }

  /** A read of configuration space. */
  configRead(offset: number, size: Width): number {
    this.#window.beforeRead(offset, size);
    return this.#config.read(offset, size);
  }

  /** A write to configuration space. */
  configWrite(offset: number, size: Width, value: number): void {
    this.#config.write(offset, size, value);
    this.#window.afterWrite(offset, size);
    const end = offset + size;
    const control = this.#msixCap + 2;
    if (
      (offset < reg.PCI_COMMAND + 2 && end > reg.PCI_COMMAND) ||
      (this.#msix !== null && offset < control + 2 && end > control)
    ) {
      this.#updateControl();
    }
  }

  /** Where a BAR decodes now, or null. */
  barAddress(index: number): number | null {
    return this.#config.barAddress(index);
  }

  /** A read in a BAR. */
  barRead(index: number, offset: number, size: Width): number {
    const placement = this.#placements[index];
    if (placement === null || placement === undefined) {
      return this.#readOther(index, offset, size);
    }
    let at = offset - placement.isr;
    if (at >= 0 && at < placement.isrLength) return this.#readIsr();
    at = offset - placement.common;
    if (at >= 0 && at < placement.commonLength) return this.#common.read(at, size);
    at = offset - placement.device;
    if (at >= 0 && at < placement.deviceLength) {
      this.#common.configRead();
      return this.state.readConfig(at, size);
    }
    return 0;
  }

  /** A write in a BAR. */
  barWrite(index: number, offset: number, size: Width, value: number): void {
    const placement = this.#placements[index];
    if (placement === null || placement === undefined) {
      this.#writeOther(index, offset, size, value);
      return;
    }
    // First, since it comes with every batch of requests.
    let at = offset - placement.notify;
    if (at >= 0 && at < placement.notifyLength) {
      if (size !== 1) this.#notify(value & 0xffff);
      return;
    }
    at = offset - placement.common;
    if (at >= 0 && at < placement.commonLength) {
      this.#common.write(at, size, value);
      if (at === reg.CommonCfg.deviceStatus && size === 1) this.#statusWritten(value);
      return;
    }
    at = offset - placement.device;
    if (at >= 0 && at < placement.deviceLength) this.state.writeConfig(at, size, value);
  }

  /**
   * The reset of the bus: the device is reset, and configuration space and MSI-X table are as at power-on. Resolves when
   * nothing touches guest memory any more.
   */
  async reset(): Promise<void> {
    this.state.writeStatus(0);
    this.#statusWritten(0);
    this.#config.reset();
    this.#msix?.reset();
    this.#updateControl();
    await this.state.settled();
  }

  /**
   * The device and its registers as plain data. Nothing is in flight then, and the device is paused: save guest memory too
   * before `state.unpause()`.
   */
  async save(): Promise<SavedPci> {
    await this.state.pause();
    return {
      version: 1,
      device: this.state.save(),
      common: this.#common.save(),
      configSpace: this.#config.save(),
      isr: this.#isr,
      msix: this.#msix?.save() ?? null,
    };
  }

  /**
   * Takes over a saved state; for a fresh transport made with the same options. The device is paused afterwards: call
   * `state.unpause()`.
   *
   * @throws {TypeError} If the state is not of this shape.
   * @throws {RangeError} If a field is out of range. Nothing of the transport has changed then.
   */
  restore(saved: SavedPci): void {
    const fields = savedObject(saved, "the PCI transport");
    const isr = savedInteger(fields["isr"], "isr", 0, 3);
    const configSpace = savedIntegers(
      fields["configSpace"],
      "configSpace",
      reg.PCI_CONFIG_SIZE,
      0xff,
    );
    if ((fields["msix"] === null) !== (this.#msix === null)) {
      throw new TypeError("Saved state: one device has MSI-X, the other has not");
    }
    const restoreMsix = this.#msix?.prepareRestore(fields["msix"]);
    const restoreCommon = this.#common.prepareRestore(fields["common"]);
    this.state.restore(saved.device);
    this.#config.restore(configSpace);
    restoreCommon();
    restoreMsix?.();
    // Restoring may already have used buffers.
    this.#isr |= isr;
    this.#updateFeatures();
    this.#updateControl();
  }

  #notify(value: number): void {
    const queue = this.#notifConfigData ? this.#queueByNotifyData.get(value) : value;
    if (queue !== undefined) this.state.notify(queue);
  }

  #statusWritten(value: number): void {
    if ((value & 0xff) === 0) this.#clearInterrupts();
    this.#updateFeatures();
  }

  // When the reset is complete, which may be later than the driver's write.
  #onReset(): void {
    this.#common.reset();
    this.#clearInterrupts();
    this.#updateFeatures();
  }

  #clearInterrupts(): void {
    this.#msix?.clearPending();
    this.#isr = 0;
    this.#updateLine();
  }

  #updateFeatures(): void {
    this.#notifConfigData = hasFeature(this.state.features, VIRTIO_F_NOTIF_CONFIG_DATA);
  }

  #readIsr(): number {
    const isr = this.#isr;
    this.#isr = 0;
    this.#updateLine();
    return isr;
  }

  #queueInterrupt(index: number): void {
    if (this.#msix !== null && this.#msix.enabled) {
      this.#msix.signal(this.#common.queueVector(index));
    } else {
      this.#isr |= reg.VIRTIO_PCI_ISR_QUEUE;
      this.#updateLine();
    }
  }

  #configInterrupt(): void {
    // Also with MSI-X (4.1.4.5.1).
    this.#isr |= reg.VIRTIO_PCI_ISR_CONFIG;
    if (this.#msix !== null && this.#msix.enabled) this.#msix.signal(this.#common.configVector);
    else this.#updateLine();
  }

  // After a write to Command or Message Control, which reach into each other's business.
  #updateControl(): void {
    if (this.#msix !== null) {
      const control = this.#config.view.getUint16(this.#msixCap + 2, true);
      this.#msix.control(
        (control & reg.PCI_MSIX_FLAGS_ENABLE) !== 0,
        (control & reg.PCI_MSIX_FLAGS_MASKALL) === 0 &&
          (this.#config.command & reg.PCI_COMMAND_MASTER) !== 0,
      );
    }
    this.#updateLine();
  }

  #updateLine(): void {
    const pending = this.#isr !== 0 && !(this.#msix !== null && this.#msix.enabled);
    const config = this.#config;
    const status = config.bytes[reg.PCI_STATUS]!;
    config.bytes[reg.PCI_STATUS] = pending
      ? status | reg.PCI_STATUS_INTERRUPT
      : status & ~reg.PCI_STATUS_INTERRUPT;
    const asserted = pending && (config.command & reg.PCI_COMMAND_INTX_DISABLE) === 0;
    if (asserted === this.#line) return;
    this.#line = asserted;
    this.#host.setInterruptLine(asserted);
  }

  #readOther(index: number, offset: number, size: Width): number {
    if (index === st.MSIX_BAR && this.#msix !== null) {
      const pending = offset - this.#structures.pendingOffset;
      return pending >= 0
        ? this.#msix.readPending(pending, size)
        : this.#msix.readTable(offset, size);
    }
    const shared = this.#sharedMemoryAt(index, offset);
    return shared === undefined ? 0 : readBytes(shared.region.bytes, offset - shared.offset, size);
  }

  #writeOther(index: number, offset: number, size: Width, value: number): void {
    if (index === st.MSIX_BAR && this.#msix !== null) {
      this.#msix.writeTable(offset, size, value);
      return;
    }
    const shared = this.#sharedMemoryAt(index, offset);
    if (shared !== undefined) {
      writeBytes(shared.region.bytes, offset - shared.offset, size, value);
    }
  }

  #sharedMemoryAt(index: number, offset: number): st.SharedMemoryPlacement | undefined {
    return this.sharedMemory.find((placement) =>
      placement.bar === index && offset >= placement.offset &&
      offset < placement.offset + placement.region.bytes.length
    );
  }
}

function checkNotifyData(queues: number, notifyData?: (queue: number) => number): number[] {
  const data = Array.from({ length: queues }, (_, queue) => notifyData?.(queue) ?? queue);
  const valid = data.every((value) => Number.isInteger(value) && value >= 0 && value <= 0xffff);
  if (!valid || new Set(data).size !== queues) {
    throw new RangeError("notifyData has to give each queue a 16-bit number of its own");
  }
  return data;
}
