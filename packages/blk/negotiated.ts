import { type FeatureSet, hasFeature } from "@virtio/device";
import {
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_SECURE_ERASE,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from "./constants.ts";

/** When a completed write must be durable (5.2.6.2). */
export const Durability = {
  /** After a flush. */
  flush: 0,
  /** When it completes. */
  always: 1,
  /** As the `writeback` field says. */
  field: 2,
} as const;

/** What the negotiated features mean for requests, as plain booleans for the hot path. */
export class Negotiated {
  /** Whether flush requests are taken. */
  readonly flush: boolean;
  /** Whether discard requests are taken. */
  readonly discard: boolean;
  /** Whether write zeroes requests are taken. */
  readonly writeZeroes: boolean;
  /** Whether secure erase requests are taken. */
  readonly secureErase: boolean;
  /** Whether lifetime requests are taken. */
  readonly lifetime: boolean;
  /** One of `Durability`. */
  readonly durability: number;

  /**
   * @param offered By the device.
   * @param accepted By the driver.
   * @param writeback The cache mode that the embedder chose.
   */
  constructor(offered: FeatureSet, accepted: FeatureSet, writeback: boolean) {
    this.flush = hasFeature(accepted, VIRTIO_BLK_F_FLUSH);
    this.discard = hasFeature(accepted, VIRTIO_BLK_F_DISCARD);
    this.writeZeroes = hasFeature(accepted, VIRTIO_BLK_F_WRITE_ZEROES);
    this.secureErase = hasFeature(accepted, VIRTIO_BLK_F_SECURE_ERASE);
    this.lifetime = hasFeature(accepted, VIRTIO_BLK_F_LIFETIME);
    if (!hasFeature(offered, VIRTIO_BLK_F_FLUSH)) this.durability = Durability.flush;
    else if (hasFeature(accepted, VIRTIO_BLK_F_CONFIG_WCE)) this.durability = Durability.field;
    else if (!this.flush || !writeback) this.durability = Durability.always;
    else this.durability = Durability.flush;
  }
}
