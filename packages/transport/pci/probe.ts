import { ProbeError } from "../probe_error.ts";
import type { PciAccess } from "./function.ts";
import * as reg from "./registers.ts";

/** A capability of the list in configuration space. */
export interface PciCapability {
  /** Capability ID. */
  readonly id: number;
  /** Offset in configuration space. */
  readonly offset: number;
}

/** Where a virtio structure is. */
export interface StructureLocation {
  /** BAR, 0 to 5. */
  readonly bar: number;
  /** Offset in the BAR. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** Where notifications go. */
export interface NotifyLocation extends StructureLocation {
  /** notify_off_multiplier. */
  readonly multiplier: number;
}

/** A shared memory region as PCI shows it. */
export interface PciSharedMemory extends StructureLocation {
  /** The shmid. */
  readonly id: number;
}

/** What the capability list of a virtio device says. */
export interface PciStructures {
  /** Common configuration. */
  readonly common: StructureLocation;
  /** Notifications. */
  readonly notify: NotifyLocation;
  /** ISR status. */
  readonly isr: StructureLocation;
  /** Device-specific configuration; null if the device type has none. */
  readonly device: StructureLocation | null;
  /** Shared memory regions. */
  readonly sharedMemory: readonly PciSharedMemory[];
  /** Offsets of the vendor data capabilities. */
  readonly vendorData: readonly number[];
  /** Offset of the MSI-X capability, or null. */
  readonly msix: number | null;
}

/** Device types by Transitional PCI Device ID (4.1.2.1). */
const TRANSITIONAL_TYPES: ReadonlyMap<number, number> = new Map([
  [0x1000, 1],
  [0x1001, 2],
  [0x1002, 5],
  [0x1003, 3],
  [0x1004, 8],
  [0x1005, 4],
  [0x1009, 9],
]);

/**
 * The device type of a PCI function, from its Vendor and Device ID (4.1.2.2); the revision and the subsystem do not matter.
 * Null if it is no virtio device that a modern driver can know.
 */
export function deviceTypeOf(vendorId: number, deviceId: number): number | null {
  if (vendorId !== reg.PCI_VENDOR_ID_VIRTIO) return null;
  if (deviceId > reg.PCI_DEVICE_ID_VIRTIO_BASE && deviceId <= 0x107f) {
    return deviceId - reg.PCI_DEVICE_ID_VIRTIO_BASE;
  }
  return TRANSITIONAL_TYPES.get(deviceId) ?? null;
}

/** The capability list; a list that runs in a circle or out of the space ends there. */
export function listCapabilities(access: Pick<PciAccess, "configRead">): PciCapability[] {
  const found: PciCapability[] = [];
  if ((access.configRead(reg.PCI_STATUS, 2) & reg.PCI_STATUS_CAP_LIST) === 0) return found;
  // The two lowest bits are reserved, and the first 64 bytes are the header.
  let offset = access.configRead(reg.PCI_CAPABILITY_LIST, 1) & 0xfc;
  const seen = new Set<number>();
  while (offset >= 0x40 && !seen.has(offset)) {
    seen.add(offset);
    const id = access.configRead(offset, 1);
    if (id === 0xff) break;
    found.push({ id, offset });
    offset = access.configRead(offset + 1, 1) & 0xfc;
  }
  return found;
}

/**
 * Reads the capability list of a virtio device (4.1.4): the first usable structure of each type.
 *
 * @param usable Whether the driver can reach a BAR; one without resources is passed over (4.1.4, the note on I/O).
 * @throws {ProbeError} If a structure that a modern device has to present is missing.
 */
export function findStructures(
  access: Pick<PciAccess, "configRead">,
  usable: (bar: number) => boolean,
): PciStructures {
  let common: StructureLocation | null = null;
  let notify: NotifyLocation | null = null;
  let isr: StructureLocation | null = null;
  let device: StructureLocation | null = null;
  let msix: number | null = null;
  const sharedMemory: PciSharedMemory[] = [];
  const vendorData: number[] = [];
  for (const { id, offset } of listCapabilities(access)) {
    if (id === reg.PCI_CAP_ID_MSIX && offset + 12 <= reg.PCI_CONFIG_SIZE) msix ??= offset;
    if (id !== reg.PCI_CAP_ID_VNDR) continue;
    const cap = readCapability(access, offset);
    if (cap.cfgType === reg.VIRTIO_PCI_CAP_VENDOR_CFG && cap.size >= 8) vendorData.push(offset);
    // Larger than specified is fine, smaller cannot be read (4.1.4.1). Other values of `bar` are reserved.
    if (cap.size < reg.PciCap.size || cap.bar > 5 || !usable(cap.bar)) continue;
    switch (cap.cfgType) {
      case reg.VIRTIO_PCI_CAP_COMMON_CFG:
        if (cap.length >= reg.CommonCfg.minSize && cap.offset % 4 === 0) common ??= cap;
        break;
      case reg.VIRTIO_PCI_CAP_NOTIFY_CFG:
        if (cap.size >= reg.PciCap.size + 4 && cap.length >= 2 && cap.offset % 2 === 0) {
          const at = offset + reg.PciCap.notifyOffMultiplier;
          notify ??= { ...cap, multiplier: access.configRead(at, 4) >>> 0 };
        }
        break;
      case reg.VIRTIO_PCI_CAP_ISR_CFG:
        if (cap.length >= 1) isr ??= cap;
        break;
      case reg.VIRTIO_PCI_CAP_DEVICE_CFG:
        if (cap.offset % 4 === 0) device ??= cap;
        break;
      case reg.VIRTIO_PCI_CAP_SHARED_MEMORY_CFG:
        if (cap.size >= reg.PciCap.size + 8) sharedMemory.push(withHighHalves(access, offset, cap));
        break;
    }
  }
  if (common === null || notify === null || isr === null) {
    const missing = common === null ? "common configuration" : notify === null ? "notify" : "ISR";
    throw new ProbeError(
      "4.1.5.1.1",
      `The function has no usable ${missing} structure: it may be a legacy device`,
    );
  }
  return { common, notify, isr, device, sharedMemory, vendorData, msix };
}

/** A structure capability as it stands in configuration space. */
interface StructureCapability extends StructureLocation {
  readonly cfgType: number;
  readonly id: number;
  /** Bytes of the capability itself that are in configuration space. */
  readonly size: number;
}

function readCapability(
  access: Pick<PciAccess, "configRead">,
  offset: number,
): StructureCapability {
  const cap = reg.PciCap;
  const size = Math.min(
    access.configRead(offset + cap.len, 1),
    reg.PCI_CONFIG_SIZE - offset,
  );
  const cfgType = access.configRead(offset + cap.cfgType, 1);
  // No field is read that the capability does not have: vendor data is laid out otherwise, and nobody's business here.
  const whole = size >= cap.size && cfgType !== reg.VIRTIO_PCI_CAP_VENDOR_CFG;
  return {
    size,
    cfgType,
    bar: whole ? access.configRead(offset + cap.bar, 1) : 0xff,
    id: whole ? access.configRead(offset + cap.id, 1) : 0,
    offset: whole ? access.configRead(offset + cap.offset, 4) >>> 0 : 0,
    length: whole ? access.configRead(offset + cap.length, 4) >>> 0 : 0,
  };
}

function withHighHalves(
  access: Pick<PciAccess, "configRead">,
  at: number,
  cap: StructureCapability,
): PciSharedMemory {
  const offsetHi = access.configRead(at + reg.PciCap.offsetHi, 4) >>> 0;
  const lengthHi = access.configRead(at + reg.PciCap.lengthHi, 4) >>> 0;
  return {
    id: cap.id,
    bar: cap.bar,
    offset: cap.offset + offsetHi * 0x1_0000_0000,
    length: cap.length + lengthHi * 0x1_0000_0000,
  };
}
