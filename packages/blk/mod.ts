/**
 * A virtio block device (virtio 1.4, 5.2), over memory, an image file, or any back end of your own.
 *
 * This module is browser compatible. Back ends are `@virtio/blk/memory`, `@virtio/blk/file`, `@virtio/blk/linux`,
 * `@virtio/blk/nbd`, `@virtio/blk/opfs` and `@virtio/blk/overlay`; the driver is `@virtio/blk/driver`.
 *
 * @module
 */
export {
  BackendRangeError,
  type BackendResult,
  type BlkBackend,
  type BlkLifetime,
  checkCapacity,
  checkRange,
} from "./backend.ts";
export * from "./constants.ts";
export { BlkDevice, type SavedBlk } from "./device.ts";
export type { BlkDeviceOptions, BlkGeometry, BlkTopology, RangeLimits } from "./options.ts";
export { type BlkEngine, type EngineClient, LATER, type MemoryPieces } from "./engine.ts";
export { BlkStats } from "./stats.ts";
