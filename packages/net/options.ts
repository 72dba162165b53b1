import type { FeatureSet } from "@virtio/device";
import type { CoalescingClock } from "./control/coalescing.ts";
import type { Frame } from "./frame.ts";
import type { NetBackend } from "./sink.ts";

/** Which way a frame goes: "sent" by the driver, or "received" by it. */
export type Direction = "sent" | "received";

/** Sees frames on their way; see `NetDeviceOptions.tap`. */
export type FrameTap = (frame: Frame, direction: Direction, queue: number) => void;

/** How much may wait for a driver that has no buffers to receive into. */
export interface WaitingLimits {
  /** Frames of one receive queue; 1024 unless given. 0: nothing waits. */
  readonly frames?: number;
  /** Bytes of one receive queue, with 16 for each frame; 4 MiB unless given. The memory is taken when a frame waits. */
  readonly bytes?: number;
}

/** Options of a `NetDevice`. Only the back end is needed. */
export interface NetDeviceOptions {
  /** The other end of the cable. */
  readonly backend: NetBackend;
  /** MAC address, 6 bytes or "02:00:00:00:00:01"; a random locally administered one unless given. */
  readonly mac?: Uint8Array | string;
  /**
   * `mtu`: bytes of a packet without its Ethernet header, 68 to 65535. VIRTIO_NET_F_MTU is offered if it is given, or if the
   * back end has a limit.
   */
  readonly mtu?: number;
  /** Pairs of queues, 1 to 1024; 1 unless given. More than one offers VIRTIO_NET_F_MQ and VIRTIO_NET_F_RSS. */
  readonly queuePairs?: number;
  /** Largest size of each receive and transmit queue, 1 to 32768; 256 unless given. */
  readonly queueSize?: number;
  /** Whether the cable is plugged in; yes unless given. See `NetDevice.setLink`. */
  readonly linkUp?: boolean;
  /** `speed` in Mbit/s, 0 to 0x7fffffff; unknown unless given. */
  readonly speed?: number;
  /** `duplex`; unknown unless given. */
  readonly duplex?: "full" | "half";
  /**
   * Features of 5.1.3 to offer, of those that are built; all unless given. What depends on one that is not among them is not
   * offered either.
   */
  readonly features?: FeatureSet;
  /** How much may wait for a driver without buffers. */
  readonly waiting?: WaitingLimits;
  /**
   * Sees every frame that the driver sent or received, with its queue, for captures. The frame is valid during the call;
   * its `bytes` may be looked at, not changed.
   */
  readonly tap?: FrameTap;
  /** Told why a frame of the driver's was dropped. */
  readonly onError?: (error: Error) => void;
  /** The clock for notification coalescing; the host's unless given. */
  readonly clock?: CoalescingClock;
}
