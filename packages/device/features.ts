/**
 * Feature bits that belong to no device type (virtio 1.4, 2.2 and 6), and sets of them.
 *
 * A set is a bigint of 128 bits: it is negotiated once, off the hot path, and bits 64 to 127 exist since 1.4.
 */
export {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "@virtio/vring";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "@virtio/vring";

/** A set of feature bits 0 to 127. */
export type FeatureSet = bigint;

/** VIRTIO_F_VERSION_1 (6). */
export const VIRTIO_F_VERSION_1: bigint = 1n << 32n;
/** VIRTIO_F_ACCESS_PLATFORM (6). */
export const VIRTIO_F_ACCESS_PLATFORM: bigint = 1n << 33n;
/** VIRTIO_F_ORDER_PLATFORM (6). */
export const VIRTIO_F_ORDER_PLATFORM: bigint = 1n << 36n;
/** VIRTIO_F_SR_IOV (6). */
export const VIRTIO_F_SR_IOV: bigint = 1n << 37n;
/** VIRTIO_F_NOTIFICATION_DATA (6, 2.9). */
export const VIRTIO_F_NOTIFICATION_DATA: bigint = 1n << 38n;
/** VIRTIO_F_NOTIF_CONFIG_DATA (6, 4.1.5.2); PCI only. */
export const VIRTIO_F_NOTIF_CONFIG_DATA: bigint = 1n << 39n;
/** VIRTIO_F_RING_RESET (6, 2.6.1). */
export const VIRTIO_F_RING_RESET: bigint = 1n << 40n;
/** VIRTIO_F_ADMIN_VQ (6, 2.12); PCI only. */
export const VIRTIO_F_ADMIN_VQ: bigint = 1n << 41n;
/** VIRTIO_F_SUSPEND (6, 3.4). */
export const VIRTIO_F_SUSPEND: bigint = 1n << 43n;

/** Bits that a device type defines for itself: 0 to 23, 41, 42 and 50 to 127 (2.2). */
export const DEVICE_TYPE_FEATURES: FeatureSet = ((1n << 24n) - 1n) | (1n << 41n) | (1n << 42n) |
  (((1n << 78n) - 1n) << 50n);

/** What the core can do for every device. IN_ORDER, NOTIFICATION_DATA and NOTIF_CONFIG_DATA are offered only on request. */
export const CORE_FEATURES: FeatureSet = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
  VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER | VIRTIO_F_NOTIFICATION_DATA |
  VIRTIO_F_NOTIF_CONFIG_DATA | VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND;

/** What is offered when the embedder does not choose. */
export const DEFAULT_FEATURES: FeatureSet = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
  VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED | VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND;

/** A feature, and what else must be there with it (2.2). */
export type FeatureRequirement = readonly [feature: FeatureSet, needed: FeatureSet];

/** The first feature of a set that lacks what it needs, or null. */
export function unmetRequirement(
  set: FeatureSet,
  requires: readonly FeatureRequirement[],
): FeatureSet | null {
  for (const [feature, needed] of requires) {
    if (hasFeature(set, feature) && !hasFeature(set, needed)) return feature;
  }
  return null;
}

/** Whether `set` has every bit of `bits`. */
export function hasFeature(set: FeatureSet, bits: FeatureSet): boolean {
  return (set & bits) === bits;
}
