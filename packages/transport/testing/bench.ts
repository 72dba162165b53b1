/** Devices on a bare register interface, with everything that they tell the machine written down. */
import {
  type Device,
  type FeatureSet,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import * as mmio from "../mmio/mod.ts";
import * as pci from "../pci/mod.ts";
import { EchoDevice, type EchoOptions } from "./echo_device.ts";

/** ACKNOWLEDGE and DRIVER. */
export const FOUND = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
/** The status of a device that runs. */
export const LIVE = FOUND | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK;

const RING_SIZE = 8;

/** Where the tests put the rings of a queue; 4 KiB for each. */
export function ringAddress(queue: number): number {
  return 0x1000 * (queue + 1);
}

/** Lets everything that is due in microtasks and the turns after them happen. */
export async function turns(count = 3): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

/** The device of a bench: an `EchoDevice` of these options, or one that is given. */
export type BenchOptions<D extends Device> = EchoOptions & { readonly device?: D };

abstract class Bench<D extends Device> {
  readonly memory = GuestMemory.allocate(0x10000);
  readonly device: D;
  /** The interrupt line now. */
  line = false;
  /** Every level that was set. */
  readonly levels: boolean[] = [];
  /** Why the device asked for a reset. */
  readonly errors: Error[] = [];
  readonly #queues: (DriverQueue | undefined)[] = [];

  constructor(options: BenchOptions<D>) {
    this.device = options.device ?? new EchoDevice(options) as unknown as D;
  }

  protected setLine(asserted: boolean): void {
    this.line = asserted;
    this.levels.push(asserted);
  }

  abstract status: number;
  abstract writeFeatures(features: FeatureSet): void;
  abstract enable(queue: number): void;
  abstract kick(queue: number): void;

  /** Up to FEATURES_OK. */
  negotiate(features: FeatureSet = 0n): void {
    this.status = FOUND;
    this.writeFeatures(features | VIRTIO_F_VERSION_1);
    this.status = FOUND | VIRTIO_STATUS_FEATURES_OK;
  }

  /** A driver's ring for a queue, in memory that is cleared before. */
  ring(queue: number, features: FeatureSet = 0n): DriverQueue {
    const base = ringAddress(queue);
    this.memory.fill(base, 0x1000, 0);
    const ring = openDriverQueue(this.memory, {
      size: RING_SIZE,
      descriptorArea: base,
      driverArea: base + 0x400,
      deviceArea: base + 0x800,
    }, features | VIRTIO_F_VERSION_1);
    this.#queues[queue] = ring;
    return ring;
  }

  /** Negotiates, sets all queues up and sets DRIVER_OK. */
  start(features: FeatureSet = 0n): void {
    this.negotiate(features);
    this.device.queueSizes.forEach((_, queue) => {
      this.ring(queue, features);
      this.enable(queue);
    });
    this.status = LIVE;
  }

  /** Makes a buffer available without a kick: two bytes each way. */
  add(queue: number, token = 0): void {
    const at = 0x8000 + 0x100 * queue;
    this.#queues[queue]!.add(new BufferList().readable(at, 2).writable(at + 16, 2), token);
    this.#queues[queue]!.publish();
  }

  /** Makes a buffer available and kicks. */
  send(queue: number, token = 0): void {
    this.add(queue, token);
    this.kick(queue);
  }

  /** Token of the next used buffer, or -1. */
  take(queue: number): number {
    return this.#queues[queue]!.take();
  }
}

/** A device behind MMIO. */
export class MmioBench<D extends Device = EchoDevice> extends Bench<D> {
  readonly transport: mmio.MmioTransport;

  constructor(
    options: BenchOptions<D> & Omit<Partial<mmio.MmioTransportOptions>, "memory" | "host"> = {},
  ) {
    super(options);
    this.transport = new mmio.MmioTransport(this.device, {
      ...options,
      memory: this.memory,
      host: { setInterruptLine: (asserted) => this.setLine(asserted) },
      onError: (error) => this.errors.push(error),
    });
  }

  read(offset: number): number {
    return this.transport.read(offset, 4);
  }

  write(offset: number, value: number): void {
    this.transport.write(offset, 4, value);
  }

  override get status(): number {
    return this.read(mmio.VIRTIO_MMIO_STATUS);
  }

  override set status(value: number) {
    this.write(mmio.VIRTIO_MMIO_STATUS, value);
  }

  override writeFeatures(features: FeatureSet): void {
    for (let word = 0; word < 4; word++) {
      this.write(mmio.VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
      this.write(
        mmio.VIRTIO_MMIO_DRIVER_FEATURES,
        Number((features >> BigInt(32 * word)) & 0xffff_ffffn),
      );
    }
  }

  override enable(queue: number): void {
    this.write(mmio.VIRTIO_MMIO_QUEUE_SEL, queue);
    this.write(mmio.VIRTIO_MMIO_QUEUE_SIZE, RING_SIZE);
    this.write(mmio.VIRTIO_MMIO_QUEUE_DESC_LOW, ringAddress(queue));
    this.write(mmio.VIRTIO_MMIO_QUEUE_DRIVER_LOW, ringAddress(queue) + 0x400);
    this.write(mmio.VIRTIO_MMIO_QUEUE_DEVICE_LOW, ringAddress(queue) + 0x800);
    this.write(mmio.VIRTIO_MMIO_QUEUE_READY, 1);
  }

  override kick(queue: number): void {
    this.write(mmio.VIRTIO_MMIO_QUEUE_NOTIFY, queue);
  }
}

/** Where the structures of the "memory" layout are. */
export const MEMORY = { bar: 2, common: 0, isr: 0x1000, device: 0x2000, notify: 0x3000 } as const;
/** Where the structures of the "io" layout are. */
export const IO = { bar: 0, common: 0, isr: 0x40, notify: 0x44, device: 0x48 } as const;
/** Where the MSI-X table is. */
export const MSIX_BAR = 1;

/** A device behind PCI, decoding, bus master. */
export class PciBench<D extends Device = EchoDevice> extends Bench<D> {
  readonly transport: pci.PciTransport;
  readonly messages: [number, number, number][] = [];
  readonly #at: { bar: number; common: number; isr: number; device: number; notify: number };
  readonly #multiplier: number;

  constructor(
    options: BenchOptions<D> & Omit<Partial<pci.PciTransportOptions>, "memory" | "host"> = {},
  ) {
    super(options);
    this.transport = new pci.PciTransport(this.device, {
      ...options,
      memory: this.memory,
      host: {
        setInterruptLine: (asserted) => this.setLine(asserted),
        sendMessage: (low, high, data) => this.messages.push([low, high, data]),
      },
      onError: (error) => this.errors.push(error),
    });
    this.#at = options.layout === "io" ? IO : MEMORY;
    this.#multiplier = options.notifyOffMultiplier ?? (options.layout === "io" ? 0 : 4);
    this.transport.configWrite(pci.PCI_COMMAND, 2, 0x7);
  }

  common(offset: number, size: pci.Width): number {
    return this.transport.barRead(this.#at.bar, this.#at.common + offset, size);
  }

  setCommon(offset: number, size: pci.Width, value: number): void {
    this.transport.barWrite(this.#at.bar, this.#at.common + offset, size, value);
  }

  select(queue: number): void {
    this.setCommon(pci.CommonCfg.queueSelect, 2, queue);
  }

  readIsr(): number {
    return this.transport.barRead(this.#at.bar, this.#at.isr, 1);
  }

  readDevice(offset: number, size: pci.Width): number {
    return this.transport.barRead(this.#at.bar, this.#at.device + offset, size);
  }

  override get status(): number {
    return this.common(pci.CommonCfg.deviceStatus, 1);
  }

  override set status(value: number) {
    this.setCommon(pci.CommonCfg.deviceStatus, 1, value);
  }

  get pciStatus(): number {
    return this.transport.configRead(pci.PCI_STATUS, 2);
  }

  override writeFeatures(features: FeatureSet): void {
    for (let word = 0; word < 4; word++) {
      this.setCommon(pci.CommonCfg.driverFeatureSelect, 4, word);
      const bits = Number((features >> BigInt(32 * word)) & 0xffff_ffffn);
      this.setCommon(pci.CommonCfg.driverFeature, 4, bits);
    }
  }

  override enable(queue: number): void {
    this.select(queue);
    this.setCommon(pci.CommonCfg.queueSize, 2, RING_SIZE);
    this.setCommon(pci.CommonCfg.queueDesc, 4, ringAddress(queue));
    this.setCommon(pci.CommonCfg.queueDriver, 4, ringAddress(queue) + 0x400);
    this.setCommon(pci.CommonCfg.queueDevice, 4, ringAddress(queue) + 0x800);
    this.setCommon(pci.CommonCfg.queueEnable, 2, 1);
  }

  override kick(queue: number): void {
    const offset = this.#at.notify + queue * this.#multiplier;
    this.transport.barWrite(this.#at.bar, offset, 2, queue);
  }

  /** Offset of the capability with this ID, or of the structure capability with this cfg_type; -1 if there is none. */
  findCap(id: number, cfgType?: number): number {
    return this.findCaps(id, cfgType)[0] ?? -1;
  }

  findCaps(id: number, cfgType?: number): number[] {
    const found: number[] = [];
    let at = this.transport.configRead(pci.PCI_CAPABILITY_LIST, 1);
    while (at !== 0 && found.length < 64) {
      const matches = this.transport.configRead(at, 1) === id &&
        (cfgType === undefined || this.transport.configRead(at + 3, 1) === cfgType);
      if (matches) found.push(at);
      at = this.transport.configRead(at + 1, 1);
    }
    return found;
  }

  /** Message Control of MSI-X. */
  setMsix(control: number): void {
    this.transport.configWrite(this.findCap(pci.PCI_CAP_ID_MSIX) + 2, 2, control);
  }

  /** Gives a vector its message and unmasks it. */
  setVector(vector: number, data: number, masked = false): void {
    const entry = 16 * vector;
    this.transport.barWrite(MSIX_BAR, entry, 4, 0xfee0_0000);
    this.transport.barWrite(MSIX_BAR, entry + 4, 4, 0x1);
    this.transport.barWrite(MSIX_BAR, entry + 8, 4, data);
    this.transport.barWrite(MSIX_BAR, entry + 12, 4, masked ? 1 : 0);
  }

  /** Data of the messages so far; forgets them. */
  takeMessages(): number[] {
    return this.messages.splice(0).map(([, , data]) => data);
  }
}
