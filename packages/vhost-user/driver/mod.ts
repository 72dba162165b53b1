/**
 * vhost-user, the side that has the memory: drivers for devices in other processes, and devices of other processes for virtual
 * machines in this one.
 *
 * Needs Deno on Linux, as `@virtio/linux` does.
 *
 * @module
 */
export { type FileRegion, FrontEndMemory, type MemoryUser } from "./memory.ts";
export type { CheckedOptions, FrontEndOptions, ReconnectOptions } from "./options.ts";
export { FrontEnd, type FrontEndHandlers } from "./front_end.ts";
export { BackEndError } from "./connection.ts";
export type { DirtyLog } from "./dirty_log.ts";
export { RemoteDevice } from "./remote_device.ts";
export { VhostUserTransport } from "./transport.ts";
export { ProtocolError } from "../protocol/errors.ts";
export { ProtocolFeature, protocolFeatureNames } from "../protocol/features.ts";
