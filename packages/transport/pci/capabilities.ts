import type { PciConfigSpace } from "./config_space.ts";
import * as reg from "./registers.ts";
import {
  MSIX_BAR,
  type Placement,
  type SharedMemoryPlacement,
  type Structures,
} from "./structures.ts";

/** Bytes that the driver can read for debugging and reporting (virtio 1.4, 4.1.4.8). */
export interface VendorData {
  /** Who defines the bytes: an ID that the PCI-SIG assigned; not 0x1AF4. */
  readonly vendorId: number;
  /** The bytes; padded to a multiple of four with the header. */
  readonly bytes: Uint8Array;
}

/** Where the capabilities are that have registers; -1 for one that is not there. */
export interface CapabilityOffsets {
  /** PCI configuration access (4.1.4.9). */
  readonly window: number;
  /** MSI-X. */
  readonly msix: number;
}

const MSIX_CAP_SIZE = 12;

/**
 * Fills the capability list of a virtio device (4.1.4).
 *
 * @throws {RangeError} If it does not fit, or the vendor data is not valid.
 */
export function addCapabilities(
  config: PciConfigSpace,
  structures: Structures,
  vendorData: readonly VendorData[],
): CapabilityOffsets {
  structures.placements.forEach((placement, bar) => {
    if (placement === null || placement.commonLength === 0) return;
    const { common, commonLength, isr, isrLength, device, deviceLength } = placement;
    config.addCapability(structureCap(reg.VIRTIO_PCI_CAP_COMMON_CFG, bar, common, commonLength));
    config.addCapability(structureCap(reg.VIRTIO_PCI_CAP_ISR_CFG, bar, isr, isrLength));
    if (deviceLength > 0) {
      config.addCapability(structureCap(reg.VIRTIO_PCI_CAP_DEVICE_CFG, bar, device, deviceLength));
    }
  });
  // In the order of preference (4.1.4): an exit for a port costs less than one for memory, and the I/O BAR is the first.
  structures.placements.forEach((placement, bar) => {
    if (placement !== null) config.addCapability(notifyCap(bar, placement));
  });
  const window = addWindowCap(config);
  const msix = structures.vectors === 0 ? -1 : addMsixCap(config, structures);
  for (const placement of structures.sharedMemory) config.addCapability(sharedMemoryCap(placement));
  for (const data of vendorData) config.addCapability(vendorCap(data));
  return { window, msix };
}

function addWindowCap(config: PciConfigSpace): number {
  const cap = structureCap(reg.VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0, 4);
  const writable = new Uint8Array(cap.length);
  writable.fill(0xff, reg.PciCap.bar, reg.PciCap.bar + 1);
  writable.fill(0xff, reg.PciCap.offset, cap.length);
  return config.addCapability(cap, writable);
}

function addMsixCap(config: PciConfigSpace, structures: Structures): number {
  const cap = new Uint8Array(MSIX_CAP_SIZE);
  const view = new DataView(cap.buffer);
  cap[0] = reg.PCI_CAP_ID_MSIX;
  view.setUint16(2, structures.vectors - 1, true);
  // The lowest three bits of both offsets name the BAR.
  view.setUint32(4, MSIX_BAR, true);
  view.setUint32(8, structures.pendingOffset | MSIX_BAR, true);
  const writable = new Uint8Array(MSIX_CAP_SIZE);
  writable[3] = (reg.PCI_MSIX_FLAGS_ENABLE | reg.PCI_MSIX_FLAGS_MASKALL) >>> 8;
  return config.addCapability(cap, writable);
}

/** Bytes of a virtio structure capability (4.1.4). */
function structureCap(
  cfgType: number,
  bar: number,
  offset: number,
  length: number,
  extra = 0,
): Uint8Array {
  const bytes = new Uint8Array(reg.PciCap.size + extra);
  const view = new DataView(bytes.buffer);
  bytes[reg.PciCap.vndr] = reg.PCI_CAP_ID_VNDR;
  bytes[reg.PciCap.len] = bytes.length;
  bytes[reg.PciCap.cfgType] = cfgType;
  bytes[reg.PciCap.bar] = bar;
  view.setUint32(reg.PciCap.offset, offset, true);
  view.setUint32(reg.PciCap.length, length, true);
  return bytes;
}

/** Bytes of a notification capability (4.1.4.4). */
function notifyCap(bar: number, placement: Placement): Uint8Array {
  const { notify, notifyLength, notifyMultiplier } = placement;
  const bytes = structureCap(reg.VIRTIO_PCI_CAP_NOTIFY_CFG, bar, notify, notifyLength, 4);
  new DataView(bytes.buffer).setUint32(reg.PciCap.notifyOffMultiplier, notifyMultiplier, true);
  return bytes;
}

/** Bytes of a shared memory capability (4.1.4.7). */
function sharedMemoryCap(placement: SharedMemoryPlacement): Uint8Array {
  const { region, bar, offset } = placement;
  const length = region.bytes.length;
  const type = reg.VIRTIO_PCI_CAP_SHARED_MEMORY_CFG;
  const bytes = structureCap(type, bar, offset, length, 8);
  const view = new DataView(bytes.buffer);
  bytes[reg.PciCap.id] = region.id;
  view.setUint32(reg.PciCap.offsetHi, Math.floor(offset / 0x1_0000_0000), true);
  view.setUint32(reg.PciCap.lengthHi, Math.floor(length / 0x1_0000_0000), true);
  return bytes;
}

/**
 * Bytes of a vendor data capability (4.1.4.8).
 *
 * @throws {RangeError} If the vendor is virtio's, no 16-bit number, or there is more data than a capability can have.
 */
function vendorCap(data: VendorData): Uint8Array {
  const { vendorId } = data;
  if (!Number.isInteger(vendorId) || vendorId < 0 || vendorId > 0xffff) {
    throw new RangeError(`A vendor ID has 16 bits: ${vendorId} cannot be one`);
  }
  if (vendorId === reg.PCI_VENDOR_ID_VIRTIO) {
    throw new RangeError(
      "Vendor data cannot have the vendor ID 0x1AF4: use your own (virtio 1.4, 4.1.4.8.1)",
    );
  }
  const length = (reg.PciCap.vendorData + data.bytes.length + 3) & ~3;
  if (length > 0xfc) throw new RangeError(`${data.bytes.length} bytes of vendor data are too many`);
  const bytes = new Uint8Array(length);
  bytes[reg.PciCap.vndr] = reg.PCI_CAP_ID_VNDR;
  bytes[reg.PciCap.len] = length;
  bytes[reg.PciCap.cfgType] = reg.VIRTIO_PCI_CAP_VENDOR_CFG;
  new DataView(bytes.buffer).setUint16(reg.PciCap.vendorId, vendorId, true);
  bytes.set(data.bytes, reg.PciCap.vendorData);
  return bytes;
}
