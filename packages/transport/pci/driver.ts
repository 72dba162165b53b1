/**
 * Virtio over PCI, driver side: probing, and the registers behind `DriverTransport` (virtio 1.4, 4.1).
 *
 * This module is browser compatible.
 *
 * @module
 */
export type { Delivery } from "../delivery.ts";
export { ProbeError } from "../probe_error.ts";
export type { Width } from "../width.ts";
export type { Message, MessageAllocator } from "./driver_msix.ts";
export { PciDriverTransport, type PciProbeOptions } from "./driver_transport.ts";
export { PciConfigWindow } from "./driver_window.ts";
export type { PciAccess, PciBar, PciFunction, PciHost } from "./function.ts";
export {
  connectPci,
  type PciCounters,
  type PciLoopback,
  type PciLoopbackOptions,
} from "./loopback.ts";
export {
  deviceTypeOf,
  findStructures,
  listCapabilities,
  type NotifyLocation,
  type PciCapability,
  type PciSharedMemory,
  type PciStructures,
  type StructureLocation,
} from "./probe.ts";
