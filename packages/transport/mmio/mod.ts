/**
 * Virtio over MMIO, version 2, device side (virtio 1.4, 4.2): a map of registers over `DeviceState`.
 *
 * This module is browser compatible. The driver side is `@virtio/transport/mmio/driver`.
 *
 * @module
 */
export type { Width } from "../width.ts";
export {
  type MmioFunction,
  type MmioHost,
  MmioPlaceholder,
  MmioTransport,
  type MmioTransportOptions,
  type SavedMmio,
} from "./transport.ts";
export * from "./registers.ts";
