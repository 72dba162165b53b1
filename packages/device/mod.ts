/**
 * The device core: what every virtio device and every transport share (virtio 1.4, 2 and 3). A device implements `Device`
 * (most extend `QueueDevice`); a transport is a map of registers over `DeviceState`.
 *
 * This module is browser compatible. The driver side is `@virtio/device/driver`.
 *
 * @module
 */
export { checkInteger } from "./check_integer.ts";
export { type ConfigRange, ConfigSpace } from "./config_space.ts";
export { defer, deferring } from "./defer.ts";
export {
  type Activation,
  type Device,
  DeviceId,
  type Interrupt,
  type PollSource,
  type SharedMemoryRegion,
} from "./device.ts";
export { DeviceState, type DeviceStateOptions } from "./device_state.ts";
export * from "./features.ts";
export { type Negotiable, Negotiation } from "./negotiation.ts";
export { QueueDevice, type QueueDeviceInit } from "./queue_device.ts";
export { type LazyQueue, QueueCounters, type QueueHook } from "./queue_hook.ts";
export { BUSY, type Handled, HOLD } from "./queue_server.ts";
export { type QueueArea, QueueSetup, type SavedQueue } from "./queue_setup.ts";
export type { SavedDevice } from "./saved_device.ts";
export * from "./status.ts";
