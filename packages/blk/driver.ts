/**
 * A driver for virtio block devices (virtio 1.4, 5.2), over any transport.
 *
 * This module is browser compatible.
 *
 * @module
 */
export { BlkDriver } from "./driver/blk_driver.ts";
export { BLK_DRIVER_FEATURES, type BlkDriverOptions } from "./driver/options.ts";
export type { BlkRange } from "./driver/ranges.ts";
export { BlkError } from "./driver/error.ts";
export type { BlkInfo, BlkRangeInfo } from "./driver/limits.ts";
export {
  BlkRequestQueue,
  type RequestNote,
  type RequestQueueLimits,
} from "./driver/request_queue.ts";
export * from "./constants.ts";
export type { BlkLifetime } from "./backend.ts";
export type { BlkGeometry, BlkTopology } from "./options.ts";
