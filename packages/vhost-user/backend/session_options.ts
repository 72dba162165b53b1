/** What a session is held with. */
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";

/** Feature bits 24 to 43 that vhost-user can carry. */
export const VHOST_USER_CARRIES: bigint = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
  VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER;

/** What is offered unless the embedder chooses. */
export const VHOST_USER_FEATURES: bigint = VHOST_USER_CARRIES & ~VIRTIO_F_IN_ORDER;

/** How a session is held. */
export interface SessionOptions {
  /** Feature bits 24 to 43 to offer. */
  readonly features: bigint;
  /** Whether INBAND_NOTIFICATIONS is offered. */
  readonly inband: boolean;
  /** See `MemoryTableOptions.requireSeals`. */
  readonly requireSeals: boolean;
  /** Has a network device announce itself; null if it cannot. */
  readonly announce: ((mac: Uint8Array) => void) | null;
  /** Milliseconds that requests in flight may take to end when the front end is gone. */
  readonly patience: number;
  /** Something changed that a status line shows. */
  changed(): void;
  /** Told why the device asked for a reset, or why the connection was given up. */
  error(error: Error): void;
}
