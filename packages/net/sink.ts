import type { Frame } from "./frame.ts";

/**
 * What a receiver of frames can do with those that are not finished. Bits, to be combined; they mirror the features of
 * virtio 1.4, 5.1.3, for either direction.
 */
export const Offload = {
  /** Takes frames whose checksum is to be completed (VIRTIO_NET_HDR_F_NEEDS_CSUM). */
  csum: 1,
  /** Takes TCP over IPv4 unsegmented. */
  tso4: 2,
  /** Takes TCP over IPv6 unsegmented. */
  tso6: 4,
  /** Takes unsegmented TCP with ECN set. */
  ecn: 8,
  /** Takes UDP that is to be cut into IP fragments. */
  ufo: 16,
  /** Takes UDP over IPv4 that is to be cut into UDP packets. */
  uso4: 32,
  /** Takes UDP over IPv6 that is to be cut into UDP packets. */
  uso6: 64,
  /** All of them. */
  all: 127,
} as const;

/**
 * Takes frames: one end of a cable. A network device is one, a port of a switch, a tap, a file of captured packets.
 *
 * Call `pass` rather than `deliver`: it finishes in software what the receiver cannot.
 */
export interface FrameSink {
  /** Which unfinished frames it takes, bits of `Offload`. May change at any time (5.1.9.5.9). */
  readonly offloads: number;
  /**
   * Takes a frame that needs no more than `offloads`. The frame is the caller's again when this returns; who needs it
   * longer copies it. Never throws for what is in the frame; a frame that there is no room for is dropped and counted.
   */
  deliver(frame: Frame): void;
}

/**
 * Where a network device's frames go and come from: the other end of its cable. `NetDevice` connects it when it is made.
 *
 * ```text
 *  driver --transmitq--> NetDevice --deliver--> back end --> ...
 *  driver <--receiveq--- NetDevice <--deliver-- back end <-- ...
 * ```
 */
export interface NetBackend extends FrameSink {
  /** Plugs the cable in: frames for the device go to `peer` from now on. Null unplugs. */
  connect(peer: FrameSink | null): void;
  /** Whether the cable leads anywhere; yes unless given. The driver sees it as VIRTIO_NET_S_LINK_UP. */
  readonly linkUp?: boolean;
  /** Largest MTU that it can carry; 65,535 unless given. */
  readonly maxMtu?: number;
  /** Called by the back end when `linkUp` changed. The device sets it. */
  onLinkChange?: (() => void) | null;
  /** Gives sockets and files back. For whoever made the back end; the device never calls it. */
  close?(): void | Promise<void>;
}
