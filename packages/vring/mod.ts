/**
 * Virtqueues, device side: the split and the packed ring behind one interface, and one class of descriptor chain for both
 * (virtio 1.4, 2.6 to 2.9).
 *
 * This module is browser compatible. The driver side is `@virtio/vring/driver`.
 *
 * @module
 */
export { Chain, ChainOwner } from "./chain.ts";
export { ChainReader, ChainWriter } from "./cursor.ts";
export { VirtqueueError } from "./errors.ts";
export * from "./layout.ts";
export { needEvent } from "./need_event.ts";
export { openQueue } from "./open_queue.ts";
export { PackedQueue } from "./packed_queue.ts";
export type { Queue, QueueConfig, QueuePosition, QueueState } from "./queue.ts";
export type { ChainLook, QueueLook } from "./queue_look.ts";
export { SplitQueue } from "./split_queue.ts";
