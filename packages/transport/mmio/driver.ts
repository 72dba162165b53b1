/**
 * Virtio over MMIO, driver side: probing, and the registers behind `DriverTransport` (virtio 1.4, 4.2).
 *
 * This module is browser compatible.
 *
 * @module
 */
export type { Delivery } from "../delivery.ts";
export { ProbeError } from "../probe_error.ts";
export type { Width } from "../width.ts";
export { type MmioAccess, MmioDriverTransport, type MmioSharedMemory } from "./driver_transport.ts";
export {
  connectMmio,
  type MmioCounters,
  type MmioLoopback,
  type MmioLoopbackOptions,
} from "./loopback.ts";
