/**
 * Virtio over PCI, modern devices, device side (virtio 1.4, 4.1): a PCI function over `DeviceState`.
 *
 * This module is browser compatible. The driver side is `@virtio/transport/pci/driver`.
 *
 * @module
 */
export type { Width } from "../width.ts";
export type { VendorData } from "./capabilities.ts";
export type { SavedCommonConfig } from "./common_config.ts";
export type { PciAccess, PciBar, PciFunction, PciHost } from "./function.ts";
export type { IdentityOptions } from "./identity.ts";
export type { SavedMsix } from "./msix.ts";
export * from "./registers.ts";
export type { PciLayout, SharedMemoryPlacement, StructureOptions } from "./structures.ts";
export { PciTransport, type PciTransportOptions, type SavedPci } from "./transport.ts";
