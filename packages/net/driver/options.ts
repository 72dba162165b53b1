import { checkInteger, type FeatureRequirement, type FeatureSet } from "@virtio/device";
import type { DmaPool } from "@virtio/vring/driver";
import {
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_DEVICE_STATS,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_STATUS,
} from "../constants.ts";
import { BUILT, REQUIRES } from "../settings.ts";

/** Every feature of 5.1.3 that the driver understands. */
export const NET_DRIVER_FEATURES: FeatureSet = BUILT;

/** Options of `NetDriver.open`. */
export interface NetDriverOptions {
  /** Guest memory for rings and frames. */
  readonly dma: DmaPool;
  /** Feature bits of 5.1.3 to accept where offered; all that the driver understands unless given. */
  readonly features?: FeatureSet;
  /** Feature bits 24 to 43 to accept where offered; all that are built unless given. */
  readonly core?: FeatureSet;
  /**
   * Pairs of queues to set up and to use from the start, as many as the device has at most; 1 unless given. More than one
   * needs VIRTIO_NET_F_MQ; with VIRTIO_NET_F_RSS alone, only the first is used until `control.setRss`.
   */
  readonly queuePairs?: number;
  /** Size of each receive and transmit queue at most; 256 unless given. */
  readonly queueSize?: number;
  /**
   * Bytes of each receive buffer with VIRTIO_NET_F_MRG_RXBUF, 64 or more; 4096 unless given. Without that feature each
   * buffer holds the longest frame that may come.
   */
  readonly receiveBufferSize?: number;
  /**
   * Receive buffers of each queue at most; as many as the queue has entries unless given, but 32 where each holds a frame of
   * 64 KiB.
   */
  readonly receiveBuffers?: number;
  /** Bytes of guest memory for frames to be sent, of each transmit queue; what the queue's entries can hold, or 1 MiB. */
  readonly transmitMemory?: number;
  /**
   * MAC address to use instead of the device's, 6 bytes. The device is told, if VIRTIO_NET_F_CTRL_MAC_ADDR and
   * VIRTIO_NET_F_CTRL_RX were negotiated.
   */
  readonly mac?: Uint8Array;
  /**
   * Whether `onFrame` gets finished frames only: with whole checksums, and none longer than its `gso_size` says. Off unless
   * given: frames come as the device gave them.
   */
  readonly finished?: boolean;
  /**
   * Milliseconds that a command, or a transmit queue that somebody waits for, may stand still: after that the device is given
   * up. 30,000 unless given, 0 for never.
   */
  readonly timeout?: number;
  /** Milliseconds to wait for a reset; see `DriverSessionOptions`. */
  readonly patience?: number;
}

/** Options with everything filled in. */
export interface NetDriverSettings {
  /** See `NetDriverOptions`. */
  readonly queuePairs: number;
  /** See `NetDriverOptions`. */
  readonly queueSize: number;
  /** See `NetDriverOptions`. */
  readonly receiveBufferSize: number;
  /** See `NetDriverOptions`; 0: not given. */
  readonly receiveBuffers: number;
  /** See `NetDriverOptions`; 0: not given. */
  readonly transmitMemory: number;
  /** See `NetDriverOptions`. */
  readonly timeout: number;
}

/** Checks options. @throws {RangeError} If one is out of range. */
export function settleDriver(options: NetDriverOptions): NetDriverSettings {
  if (options.mac !== undefined) checkStation("mac", options.mac);
  return {
    queuePairs: checkInteger("queuePairs", options.queuePairs, 1, 0x8000, 1),
    queueSize: checkInteger("queueSize", options.queueSize, 1, 32768, 256),
    receiveBufferSize: checkInteger(
      "receiveBufferSize",
      options.receiveBufferSize,
      64,
      2 ** 20,
      4096,
    ),
    receiveBuffers: checkInteger("receiveBuffers", options.receiveBuffers, 1, 32768, 0),
    transmitMemory: checkInteger("transmitMemory", options.transmitMemory, 2048, 2 ** 30, 0),
    timeout: checkInteger("timeout", options.timeout, 0, 2 ** 31 - 1, 30_000),
  };
}

/** Checks that an address is that of one station. */
export function checkStation(name: string, mac: Uint8Array): void {
  if (mac.length !== 6 || (mac[0]! & 1) !== 0) {
    throw new RangeError(`${name} must be the address of one station, 6 bytes: it is ${mac}`);
  }
}

/** What is not accepted without the other: 5.1.3.1, 5.1.4.2, and what has no use without. */
const NEEDED: readonly FeatureRequirement[] = [
  ...REQUIRES,
  [VIRTIO_NET_F_HASH_REPORT, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_DEVICE_STATS, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_STATUS],
];

/**
 * The requirements for a set of wanted features. Those of 5.1.3.1 with an "or" become plain ones: ECN needs the one TSO that
 * is to be accepted, and version 4 where both are.
 */
export function requirements(wanted: FeatureSet): FeatureRequirement[] {
  const either = (four: FeatureSet, six: FeatureSet) => (wanted & four) !== 0n ? four : six;
  return [
    ...NEEDED,
    [VIRTIO_NET_F_GUEST_ECN, either(VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6)],
    [VIRTIO_NET_F_HOST_ECN, either(VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6)],
  ];
}
