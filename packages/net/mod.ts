/**
 * A virtio network device (virtio 1.4, 5.1), with any back end at the other end of its cable.
 *
 * This module is browser compatible. Back ends are `@virtio/net/switch`, `@virtio/net/loopback`, `@virtio/net/broadcast`,
 * `@virtio/net/stream` and `@virtio/net/tap`; `@virtio/net/pcapng` captures what passes, `@virtio/net/wire` has
 * parts for programs that read and make frames themselves; the driver is `@virtio/net/driver`.
 *
 * @module
 */
export * from "./constants.ts";
export type { CoalescingClock } from "./control/coalescing.ts";
export { NetDevice } from "./device.ts";
export { Frame, HEAD_SIZE } from "./frame.ts";
export type { Direction, FrameTap, NetDeviceOptions, WaitingLimits } from "./options.ts";
export { type FrameTally, pass } from "./pass.ts";
export type { SavedNet } from "./saved_net.ts";
export { type FrameSink, type NetBackend, Offload } from "./sink.ts";
export { NetStats, ReceiveStats, TransmitStats } from "./stats.ts";
