/**
 * Virtio devices served to virtual machines of other processes by vhost-user: QEMU, User Mode Linux, Cloud Hypervisor, and
 * whatever else is a front end. A device written for the packages works unchanged.
 *
 * Needs Deno on Linux, as `@virtio/linux` does.
 *
 * @module
 */
export { ProtocolError } from "./protocol/errors.ts";
export { rarpFrame } from "./backend/net_messages.ts";
export type { QueueStart, RunnerListener } from "./backend/device_runner.ts";
export type { DirtyLogPlace, LogShift } from "./backend/dirty_log.ts";
export type { InflightPlace } from "./backend/inflight.ts";
export type { QueueCount, Served, ServedListener } from "./backend/served.ts";
export {
  type RingStatus,
  VhostUserServer,
  type VhostUserServerOptions,
  type VhostUserStatus,
} from "./backend/server.ts";
export { VHOST_USER_CARRIES, VHOST_USER_FEATURES } from "./backend/session_options.ts";
export { VhostUserWorkers, type VhostUserWorkersOptions } from "./backend/worker_device.ts";
