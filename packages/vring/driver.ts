/**
 * Virtqueues, driver side: what an operating system's driver does with a ring, split or packed (virtio 1.4, 2.7 and 2.8).
 *
 * This module is browser compatible.
 *
 * @module
 */
export { BufferList } from "./driver/buffer_list.ts";
export { DmaPool } from "./driver/dma_pool.ts";
export type { DriverQueue } from "./driver/driver_queue.ts";
export { openDriverQueue } from "./driver/open_driver_queue.ts";
export { PackedDriverQueue } from "./driver/packed_driver_queue.ts";
export { SplitDriverQueue } from "./driver/split_driver_queue.ts";
