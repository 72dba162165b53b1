/**
 * A driver for virtio console devices (virtio 1.4, 5.3), over any transport.
 *
 * This module is browser compatible.
 *
 * @module
 */
export { ConsoleDriver } from "./driver/console_driver.ts";
export { CONSOLE_DRIVER_FEATURES, type ConsoleDriverOptions } from "./driver/options.ts";
export { ConsoleDriverPort } from "./driver/port.ts";
export type { PortLink } from "./driver/port.ts";
export * from "./constants.ts";
export type { ConsoleSize } from "./backend.ts";
