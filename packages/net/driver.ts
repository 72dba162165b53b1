/**
 * A driver for virtio network devices (virtio 1.4, 5.1), over any transport.
 *
 * This module is browser compatible.
 *
 * @module
 */
export { NetDriver } from "./driver/net_driver.ts";
export type { FrameHandler } from "./driver/receive_pump.ts";
export { NET_DRIVER_FEATURES, type NetDriverOptions } from "./driver/options.ts";
export type { Coalescing, HashConfig, ReceiveMode, RssConfig } from "./driver/command_data.ts";
export { NetControl, type NetControlSetup } from "./driver/control.ts";
export { ControlQueue, NetControlError } from "./driver/control_queue.ts";
export type { NetInfo } from "./driver/info.ts";
export { type ReceiveCounters, ReceiveQueue, type ReceiveSetup } from "./driver/receive_queue.ts";
export {
  type TransmitCounters,
  TransmitQueue,
  type TransmitSetup,
} from "./driver/transmit_queue.ts";
export type { QueueStatistics } from "./driver/statistics.ts";
export * from "./constants.ts";
export { Frame } from "./frame.ts";
export { type FrameSink, type NetBackend, Offload } from "./sink.ts";
