/**
 * A virtio console device (virtio 1.4, 5.3) with any number of ports, over a terminal, files, sockets, memory, or any back
 * end of your own.
 *
 * This module is browser compatible. Back ends are `@virtio/console/memory`, `@virtio/console/file`, `@virtio/console/unix`
 * and `@virtio/console/terminal`; the driver is `@virtio/console/driver`.
 *
 * @module
 */
export type { ConsoleBackend, ConsoleSize } from "./backend.ts";
export * from "./constants.ts";
export { ConsoleDevice } from "./device.ts";
export type { ConsoleDeviceOptions, ConsolePortOptions, ResizeOrder } from "./options.ts";
export { ConsolePort, type PortHost } from "./port.ts";
export type { SavedConsole, SavedInput, SavedPort } from "./saved.ts";
export { ConsoleStats } from "./stats.ts";
