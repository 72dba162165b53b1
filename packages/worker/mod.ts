/**
 * A device whose code runs in a worker, over the same guest memory.
 *
 * @module
 */
export { WorkerError } from "./call.ts";
export type { Port } from "./messages.ts";
export type { WorkerPort } from "./device_worker.ts";
export type { WorkerDeviceOptions } from "./options.ts";
export { WorkerDevice } from "./worker_device.ts";
