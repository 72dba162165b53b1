/**
 * The driver side of the device core: initialisation in the order of virtio 1.4, 3.1, over any transport.
 *
 * This module is browser compatible.
 *
 * @module
 */
export type { DriverInterrupts, DriverTransport } from "./driver_transport.ts";
export {
  DriverError,
  type DriverHandlers,
  DriverSession,
  type DriverSessionOptions,
} from "./driver_session.ts";
