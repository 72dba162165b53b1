/** Which offloads the driver takes with received frames (virtio 1.4, 5.1.9.5.9). */
import type { FeatureSet } from "@virtio/device";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_UFO,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
} from "../constants.ts";
import { Offload } from "../sink.ts";

const OFFLOADS: readonly (readonly [feature: bigint, offload: number])[] = [
  [VIRTIO_NET_F_GUEST_CSUM, Offload.csum],
  [VIRTIO_NET_F_GUEST_TSO4, Offload.tso4],
  [VIRTIO_NET_F_GUEST_TSO6, Offload.tso6],
  [VIRTIO_NET_F_GUEST_ECN, Offload.ecn],
  [VIRTIO_NET_F_GUEST_UFO, Offload.ufo],
  [VIRTIO_NET_F_GUEST_USO4, Offload.uso4],
  [VIRTIO_NET_F_GUEST_USO6, Offload.uso6],
];

/** The feature bits that stand for an offload. */
export const GUEST_OFFLOADS: FeatureSet = OFFLOADS.reduce((set, [feature]) => set | feature, 0n);

/**
 * What feature bits mean for frames, as bits of `Offload`. The driver may switch off what another offload needs (5.1.3.1):
 * then that one is of no use, and off too.
 */
export function offloadsOf(features: FeatureSet): number {
  let offloads = 0;
  for (const [feature, offload] of OFFLOADS) {
    if ((features & feature) !== 0n) offloads |= offload;
  }
  if ((offloads & Offload.csum) === 0) return 0;
  if ((offloads & (Offload.tso4 | Offload.tso6)) === 0) offloads &= ~Offload.ecn;
  return offloads;
}
