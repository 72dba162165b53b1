/** A device behind MMIO or PCI, for fuzzing: registers by name, and any access at all. */
import { assert } from "@std/assert";
import { CORE_FEATURES, type DeviceState } from "@virtio/device";
import { MmioTransport } from "@virtio/transport/mmio";
import { PciTransport } from "@virtio/transport/pci";
import * as mmio from "../../packages/transport/mmio/registers.ts";
import { CommonCfg } from "../../packages/transport/pci/registers.ts";
import type { EchoDevice } from "../../packages/transport/testing/echo_device.ts";
import type { GuardedMemory } from "./harness.ts";

/** Bytes of an access. */
export type Width = 1 | 2 | 4;

/** What the two buses have in common. */
export interface Bus {
  readonly state: DeviceState;
  readonly host: Host;
  read(space: number, offset: number, width: Width): number;
  write(space: number, offset: number, width: Width, value: number): void;
  /** Offset, space and width of each register that means something. */
  readonly registers: readonly (readonly [number, number, Width])[];
  /** By name, for an initialisation that keeps the rules. */
  set(name: RegisterName, value: number): void;
  kick(queue: number): void;
  save(): Promise<unknown>;
  restore(saved: unknown): void;
  reset(): Promise<void>;
}

/** Registers by name. */
export type RegisterName =
  | "status"
  | "featureSelect"
  | "feature"
  | "select"
  | "size"
  | "enable"
  | `area${0 | 1 | 2}${0 | 1}`;

/** Entries of each queue. */
export const SIZE = 8;
/** Queues of the device. */
export const QUEUES = 2;

/** What tells the machine of interrupts, with the rules that it relies on. */
export class Host {
  line = false;
  setInterruptLine(asserted: boolean): void {
    assert(asserted !== this.line, "the line is set to what it is already");
    this.line = asserted;
  }
  sendMessage(low: number, high: number, data: number): void {
    for (const word of [low, high, data]) {
      assert(Number.isInteger(word) && word >= 0 && word <= 0xffff_ffff, `a message of ${word}`);
    }
  }
}

/** A device behind MMIO. */
export function onMmio(device: EchoDevice, guard: GuardedMemory, errors: Error[]): Bus {
  const host = new Host();
  const transport = new MmioTransport(device, {
    memory: guard.memory,
    host,
    features: CORE_FEATURES,
    onError: (error) => errors.push(error),
  });
  const offsets: Record<RegisterName, number> = {
    status: mmio.VIRTIO_MMIO_STATUS,
    featureSelect: mmio.VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    feature: mmio.VIRTIO_MMIO_DRIVER_FEATURES,
    select: mmio.VIRTIO_MMIO_QUEUE_SEL,
    size: mmio.VIRTIO_MMIO_QUEUE_SIZE,
    enable: mmio.VIRTIO_MMIO_QUEUE_READY,
    area00: mmio.VIRTIO_MMIO_QUEUE_DESC_LOW,
    area01: mmio.VIRTIO_MMIO_QUEUE_DESC_HIGH,
    area10: mmio.VIRTIO_MMIO_QUEUE_DRIVER_LOW,
    area11: mmio.VIRTIO_MMIO_QUEUE_DRIVER_HIGH,
    area20: mmio.VIRTIO_MMIO_QUEUE_DEVICE_LOW,
    area21: mmio.VIRTIO_MMIO_QUEUE_DEVICE_HIGH,
  };
  const all = Object.values(mmio).filter((offset) => offset <= mmio.VIRTIO_MMIO_CONFIG);
  return {
    state: transport.state,
    host,
    read: (_space, offset, width) => transport.read(offset, width),
    write: (_space, offset, width, value) => transport.write(offset, width, value),
    registers: all.map((offset) => [0, offset, 4]),
    set: (name, value) => transport.write(offsets[name], 4, value),
    kick: (queue) => transport.write(mmio.VIRTIO_MMIO_QUEUE_NOTIFY, 4, queue),
    save: () => transport.save(),
    restore: (saved) => transport.restore(saved as never),
    reset: () => transport.reset(),
  };
}

/** A device behind PCI. */
export function onPci(
  device: EchoDevice,
  guard: GuardedMemory,
  errors: Error[],
  { layout, msix }: { readonly layout: number; readonly msix: boolean },
): Bus {
  const host = new Host();
  const transport = new PciTransport(device, {
    memory: guard.memory,
    host,
    features: CORE_FEATURES,
    layout: (["memory", "io", "memory+io-notify"] as const)[layout]!,
    onError: (error) => errors.push(error),
    ...(msix ? {} : { msix: false }),
  });
  const bar = layout === 1 ? 0 : 2;
  const offsets: Record<RegisterName, readonly [number, Width]> = {
    status: [CommonCfg.deviceStatus, 1],
    featureSelect: [CommonCfg.driverFeatureSelect, 4],
    feature: [CommonCfg.driverFeature, 4],
    select: [CommonCfg.queueSelect, 2],
    size: [CommonCfg.queueSize, 2],
    enable: [CommonCfg.queueEnable, 2],
    area00: [CommonCfg.queueDesc, 4],
    area01: [CommonCfg.queueDesc + 4, 4],
    area10: [CommonCfg.queueDriver, 4],
    area11: [CommonCfg.queueDriver + 4, 4],
    area20: [CommonCfg.queueDevice, 4],
    area21: [CommonCfg.queueDevice + 4, 4],
  };
  const CONFIG_SPACE = 6;
  const registers: (readonly [number, number, Width])[] = [];
  for (let offset = 0; offset < CommonCfg.size; offset += 2) registers.push([bar, offset, 2]);
  for (let offset = 0; offset < CommonCfg.size; offset += 4) registers.push([bar, offset, 4]);
  registers.push([bar, CommonCfg.deviceStatus, 1], [bar, 0x40, 1], [bar, 0x1000, 1]);
  // Command, BARs, and everything from the first capability on: MSI-X control and the access window among them.
  for (const offset of [0x04, 0x06, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 0x3c]) {
    registers.push([CONFIG_SPACE, offset, 4]);
  }
  for (let offset = 0x40; offset < 0x100; offset += 4) registers.push([CONFIG_SPACE, offset, 4]);
  for (let offset = 0; offset < 0x40; offset += 4) registers.push([1, offset, 4]);
  // Where the notification structure is, whatever the layout.
  const notify = notifyPlace(transport);
  return {
    state: transport.state,
    host,
    read: (space, offset, width) =>
      space >= CONFIG_SPACE
        ? transport.configRead(offset % 0x100 & -width, width)
        : transport.barRead(space, offset, width),
    write(space, offset, width, value) {
      if (space >= CONFIG_SPACE) transport.configWrite(offset % 0x100 & -width, width, value);
      else transport.barWrite(space, offset, width, value);
    },
    registers,
    set: (name, value) => transport.barWrite(bar, offsets[name][0], offsets[name][1], value),
    kick: (queue) =>
      transport.barWrite(notify.bar, notify.offset + queue % QUEUES * notify.multiplier, 2, queue),
    save: () => transport.save(),
    restore: (saved) => transport.restore(saved as never),
    reset: () => transport.reset(),
  };
}

/** Finds the notification capability, as a driver does. */
function notifyPlace(pci: PciTransport): { bar: number; offset: number; multiplier: number } {
  for (let at = pci.configRead(0x34, 1); at !== 0; at = pci.configRead(at + 1, 1)) {
    if (pci.configRead(at, 1) === 9 && pci.configRead(at + 3, 1) === 2) {
      return {
        bar: pci.configRead(at + 4, 1),
        offset: pci.configRead(at + 8, 4),
        multiplier: pci.configRead(at + 16, 4),
      };
    }
  }
  throw new Error("there is no notification capability");
}
