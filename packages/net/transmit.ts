import { type FeatureSet, hasFeature } from "@virtio/device";
import { type Chain, VirtqueueError } from "@virtio/vring";
import {
  ETHERNET_HEADER_SIZE,
  MAX_FRAME_SIZE,
  NET_HEADER_HASH_SIZE,
  NET_HEADER_SIZE,
  NetHeaderOffset,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
} from "./constants.ts";
import { ethernetSize } from "./ethernet.ts";
import { Frame } from "./frame.ts";
import { checkHeader, VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM } from "./offload/header.ts";
import { FrameLayout } from "./offload/parse.ts";
import { hostOffloads } from "./settings.ts";
import type { TransmitStats } from "./stats.ts";

/** Flags that ask for something, or that may not be there. All others are ignored (5.1.9.2.2). */
const MEANT = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM;
/** As a constant of this module, which the compiler knows. */
const CSUM_OFFSET = NetHeaderOffset.csum_offset;

/**
 * Makes frames of what the driver puts into transmit queues (virtio 1.4, 5.1.9.2), however it cut them into descriptors.
 *
 * Hot path: nothing is allocated for a frame, and its bytes behind the head stay where they are.
 */
export class Transmitter {
  /** The frame that `read` found. */
  readonly frame: Frame = new Frame();
  /** Why `read` found none. */
  reason = "";
  /** The clause of virtio 1.4 that says so. */
  clause = "";
  readonly #layout: FrameLayout = new FrameLayout();
  #headerSize = NET_HEADER_SIZE;
  #allowed = 0;
  #mtu = 0;

  /** What the driver negotiated. */
  start(features: FeatureSet, mtu: number): void {
    const hashed = hasFeature(features, VIRTIO_NET_F_HASH_REPORT);
    // The driver uses one size of header for both directions (5.1.9.2.1).
    this.#headerSize = hashed ? NET_HEADER_HASH_SIZE : NET_HEADER_SIZE;
    this.#allowed = hostOffloads(features);
    this.#mtu = hasFeature(features, VIRTIO_NET_F_MTU) ? mtu : 0;
  }

  /**
   * Takes a frame, and checks all that its header says. What is wrong is counted.
   *
   * @returns Whether `frame` is to be sent.
   * @throws {VirtqueueError} If there is no header.
   */
  read(chain: Chain, stats: TransmitStats): boolean {
    const { reader } = chain;
    const headerSize = this.#headerSize;
    if (chain.readable < headerSize) {
      throw new VirtqueueError(
        "5.1.9.2",
        `A frame to be sent has ${chain.readable} bytes: too few for its header of ${headerSize}`,
      );
    }
    const at = reader.struct(headerSize);
    const { view } = reader;
    // Three words, each read once: little endian, as the fields are.
    const first = view.getUint32(at, true);
    const second = view.getUint32(at + 4, true);
    const csumOffset = view.getUint16(at + CSUM_OFFSET, true);
    const flags = first & 0xff;
    const gsoType = (first >>> 8) & 0xff;
    const length = reader.remaining;
    if (length < ETHERNET_HEADER_SIZE || length > MAX_FRAME_SIZE) {
      return this.#malformed(stats, `A frame of ${length} bytes is none`);
    }
    const frame = this.frame.fromChain(reader);
    if ((flags & MEANT) !== 0 || (gsoType & ~VIRTIO_NET_HDR_GSO_ECN) !== VIRTIO_NET_HDR_GSO_NONE) {
      frame.flags = flags;
      frame.gsoType = gsoType;
      frame.headerLength = first >>> 16;
      frame.gsoSize = second & 0xffff;
      frame.csumStart = second >>> 16;
      frame.csumOffset = csumOffset;
      const layout = this.#layout.parse(frame.view, frame.headLength, length);
      const reason = checkHeader(frame, layout, this.#allowed);
      if (reason !== null) return this.#malformed(stats, reason);
    }
    if (
      this.#mtu !== 0 && length > this.#mtu + ETHERNET_HEADER_SIZE &&
      frame.gsoType === VIRTIO_NET_HDR_GSO_NONE && length > this.#mtu + ethernetSize(frame)
    ) {
      stats.tooLong++;
      this.reason = `A frame of ${length} bytes is too long for an MTU of ${this.#mtu}`;
      this.clause = "5.1.4.2";
      return false;
    }
    return true;
  }

  #malformed(stats: TransmitStats, reason: string): false {
    stats.malformed++;
    this.reason = reason;
    this.clause = "5.1.9.2";
    return false;
  }
}
