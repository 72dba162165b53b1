import {
  type Device,
  type FeatureSet,
  hasFeature,
  type SharedMemoryRegion,
  VIRTIO_F_NOTIFICATION_DATA,
} from "@virtio/device";
import type { PciBar } from "./function.ts";
import * as reg from "./registers.ts";

/** Which spaces virtio's structures are in. */
export type PciLayout = "memory" | "io" | "memory+io-notify";

/** What shapes the BARs and the capabilities. */
export interface StructureOptions {
  /** Where the structures are; "memory" unless given. */
  readonly layout?: PciLayout;
  /** Whether memory BARs have 64-bit addresses; true unless given. */
  readonly bars64?: boolean;
  /**
   * notify_off_multiplier (4.1.4.4): 0, or a power of two of at least 2, or at least 4 where NOTIFICATION_DATA is offered.
   * 4 unless given, 0 in the "io" layout.
   */
  readonly notifyOffMultiplier?: number;
  /** Number of MSI-X vectors, 1 to 0x800, or false for none. One for each queue and one for configuration unless given. */
  readonly msix?: number | false;
}

/** Where one BAR has which structures. A structure that is not in it has length 0. */
export interface Placement {
  readonly notify: number;
  readonly notifyLength: number;
  readonly notifyMultiplier: number;
  readonly common: number;
  readonly commonLength: number;
  readonly isr: number;
  readonly isrLength: number;
  readonly device: number;
  readonly deviceLength: number;
}

/** Where one shared memory region is shown. */
export interface SharedMemoryPlacement {
  /** The region. */
  readonly region: SharedMemoryRegion;
  /** BAR. */
  readonly bar: number;
  /** Offset of its first byte in the BAR. */
  readonly offset: number;
}

/** Everything that is fixed when a device is put behind PCI. */
export interface Structures {
  readonly bars: readonly (PciBar | null)[];
  /** By BAR; null for BARs without virtio structures. */
  readonly placements: readonly (Placement | null)[];
  readonly sharedMemory: readonly SharedMemoryPlacement[];
  /** 0 for none. */
  readonly vectors: number;
  /** Offset of the pending bits in the MSI-X BAR. */
  readonly pendingOffset: number;
}

/** The I/O BAR, if there is one. */
export const IO_BAR = 0;
/** The MSI-X table and pending bits; always memory. */
export const MSIX_BAR = 1;
/** The structures in memory. */
export const MEMORY_BAR = 2;
/** The shared memory regions, one after another. */
export const SHARED_MEMORY_BAR = 4;

const PAGE = 0x1000;
// PCI allows a function no more in one I/O BAR (PCI Local Bus Specification 3.0, 6.2.5.1).
const MAX_IO_BAR = 0x100;
const ABSENT: Placement = {
  notify: 0,
  notifyLength: 0,
  notifyMultiplier: 0,
  common: 0,
  commonLength: 0,
  isr: 0,
  isrLength: 0,
  device: 0,
  deviceLength: 0,
};

/**
 * Decides what is where.
 *
 * @throws {RangeError} If an option is out of its range, or the device does not fit.
 */
export function planStructures(
  device: Device,
  offered: FeatureSet,
  options: StructureOptions,
): Structures {
  const layout = options.layout ?? "memory";
  if (layout !== "memory" && layout !== "io" && layout !== "memory+io-notify") {
    throw new RangeError(
      `There is no layout "${layout}": use "memory", "io" or "memory+io-notify"`,
    );
  }
  const queues = device.queueSizes.length;
  if (queues > 0xffff) throw new RangeError("A PCI device has no more than 65535 queues");
  const multiplier = options.notifyOffMultiplier ?? (layout === "io" ? 0 : 4);
  checkMultiplier(multiplier, hasFeature(offered, VIRTIO_F_NOTIFICATION_DATA));
  const is64 = options.bars64 ?? true;
  const configSize = device.config.bytes.length;
  const bars: (PciBar | null)[] = [null, null, null, null, null, null];
  const placements: (Placement | null)[] = [null, null, null, null, null, null];

  if (layout === "io") {
    const placement = packed(configSize, notifyLength(queues, multiplier), multiplier);
    const end = placement.device + placement.deviceLength;
    if (end > MAX_IO_BAR) {
      throw new RangeError(
        `The structures take ${end} bytes, an I/O BAR has ${MAX_IO_BAR}: use the layout "memory", or a notifyOffMultiplier of 0`,
      );
    }
    bars[IO_BAR] = { kind: "io", size: MAX_IO_BAR, is64: false };
    placements[IO_BAR] = placement;
  } else {
    const placement = paged(configSize, notifyLength(queues, multiplier), multiplier);
    bars[MEMORY_BAR] = {
      kind: "memory",
      size: powerOfTwo(placement.notify + placement.notifyLength),
      is64,
    };
    placements[MEMORY_BAR] = placement;
  }
  if (layout === "memory+io-notify") {
    // All queues share an address where one each would take too many ports.
    const ioMultiplier = notifyLength(queues, multiplier) <= MAX_IO_BAR ? multiplier : 0;
    const length = notifyLength(queues, ioMultiplier);
    placements[IO_BAR] = { ...ABSENT, notifyLength: length, notifyMultiplier: ioMultiplier };
    bars[IO_BAR] = { kind: "io", size: powerOfTwo(length), is64: false };
  }

  const vectors = vectorCount(options.msix, queues);
  // The table has pages of its own, whatever its size.
  const pendingOffset = Math.ceil(vectors * reg.PCI_MSIX_ENTRY_SIZE / PAGE) * PAGE;
  if (vectors > 0) {
    bars[MSIX_BAR] = { kind: "memory", size: powerOfTwo(pendingOffset + PAGE), is64: false };
  }

  const sharedMemory: SharedMemoryPlacement[] = [];
  let end = 0;
  for (const region of device.sharedMemory ?? []) {
    if (sharedMemory.some((other) => other.region.id === region.id)) {
      throw new RangeError(`Two shared memory regions have the shmid ${region.id}`);
    }
    sharedMemory.push({ region, bar: SHARED_MEMORY_BAR, offset: end });
    end += Math.ceil(region.bytes.length / PAGE) * PAGE;
  }
  if (sharedMemory.length > 0) {
    bars[SHARED_MEMORY_BAR] = { kind: "memory", size: powerOfTwo(Math.max(end, PAGE)), is64 };
  }
  return { bars, placements, sharedMemory, vectors, pendingOffset };
}

// In memory each structure has pages of its own, so that an embedder can map them differently.
function paged(configSize: number, notifyLength: number, notifyMultiplier: number): Placement {
  return {
    common: 0,
    commonLength: reg.CommonCfg.size,
    isr: PAGE,
    isrLength: 1,
    device: 2 * PAGE,
    deviceLength: configSize,
    notify: 2 * PAGE + Math.max(1, Math.ceil(configSize / PAGE)) * PAGE,
    notifyLength,
    notifyMultiplier,
  };
}

// Ports are scarce: everything at its alignment, one after another.
function packed(configSize: number, notifyLength: number, notifyMultiplier: number): Placement {
  const notify = reg.CommonCfg.size + 4;
  return {
    common: 0,
    commonLength: reg.CommonCfg.size,
    isr: reg.CommonCfg.size,
    isrLength: 1,
    notify,
    notifyLength,
    notifyMultiplier,
    device: (notify + notifyLength + 3) & ~3,
    deviceLength: configSize,
  };
}

// 4 bytes at the last queue's offset, enough for either format of a kick (4.1.4.4.1).
function notifyLength(queues: number, multiplier: number): number {
  return Math.max(0, queues - 1) * multiplier + 4;
}

function checkMultiplier(multiplier: number, notificationData: boolean): void {
  const smallest = notificationData ? 4 : 2;
  const power = Number.isInteger(multiplier) && multiplier >= smallest &&
    multiplier <= 0x1_0000 && (multiplier & (multiplier - 1)) === 0;
  if (multiplier !== 0 && !power) {
    throw new RangeError(
      `A notifyOffMultiplier of ${multiplier} is not allowed: use 0, or a power of two from ${smallest} to 65536 (virtio 1.4, 4.1.4.4.1)`,
    );
  }
}

function vectorCount(msix: number | false | undefined, queues: number): number {
  if (msix === false) return 0;
  if (msix === undefined) return Math.min(Math.max(queues + 1, 2), reg.PCI_MSIX_MAX_VECTORS);
  if (!Number.isInteger(msix) || msix < 1 || msix > reg.PCI_MSIX_MAX_VECTORS) {
    throw new RangeError(`A device cannot have ${msix} MSI-X vectors: use 1 to 2048, or false`);
  }
  return msix;
}

function powerOfTwo(size: number): number {
  let power = 16;
  while (power < size) power *= 2;
  return power;
}
