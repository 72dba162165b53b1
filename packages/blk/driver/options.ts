import { checkInteger, type FeatureSet } from "@virtio/device";
import type { DmaPool } from "@virtio/vring/driver";
import {
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SECURE_ERASE,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from "../constants.ts";
import type { BlkInfo } from "./limits.ts";

/** Every feature of 5.2.3 that the driver understands; all but zones. */
export const BLK_DRIVER_FEATURES: FeatureSet = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX |
  VIRTIO_BLK_F_GEOMETRY | VIRTIO_BLK_F_RO | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH |
  VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_CONFIG_WCE | VIRTIO_BLK_F_MQ | VIRTIO_BLK_F_DISCARD |
  VIRTIO_BLK_F_WRITE_ZEROES | VIRTIO_BLK_F_LIFETIME | VIRTIO_BLK_F_SECURE_ERASE;

/** Options of `BlkDriver.open`. */
export interface BlkDriverOptions {
  /** Guest memory for rings, requests and data. */
  readonly dma: DmaPool;
  /** Feature bits of 5.2.3 to accept where offered; all that the driver understands unless given. RO is always accepted. */
  readonly features?: FeatureSet;
  /** Feature bits 24 to 43 to accept where offered; all that are built unless given. */
  readonly core?: FeatureSet;
  /** Queues to use at most, 1 or more; as many as the device has, up to 4, unless given. */
  readonly queues?: number;
  /** Size of each queue at most; 128 unless given. */
  readonly queueSize?: number;
  /** Bytes of data of one request at most, a multiple of 512; 128 KiB unless given. Larger transfers are split. */
  readonly transferSize?: number;
  /** Requests with data that run at once at most; 32 unless given. Their buffers are taken from `dma` when first needed. */
  readonly buffers?: number;
  /**
   * Milliseconds that a request may go unanswered: after that, and before twice that, the device is given up. 30,000 unless
   * given, 0 for never.
   */
  readonly timeout?: number;
  /** Milliseconds to wait for a reset; see `DriverSessionOptions`. */
  readonly patience?: number;
}

/** How many queues to use. @throws {RangeError} If the option is out of range. */
export function queueCount(info: BlkInfo, options: BlkDriverOptions): number {
  return Math.min(checkInteger("queues", options.queues, 1, Infinity, 4), info.queues);
}
