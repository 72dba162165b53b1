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

/**
 * In `flags` and `gso_type` together: what asks for something, or may not be there. All other flags are ignored (5.1.9.2.2),
 * and ECN alone asks for nothing.
 */
const MEANT = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM |
  (0xff & ~VIRTIO_NET_HDR_GSO_ECN) << 8;
// To the compiler names of this module are constants; imported names are looked up at every use.
const SHORTEST = ETHERNET_HEADER_SIZE;
const LONGEST = MAX_FRAME_SIZE;

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
    if (chain.readable < headerSize) throw noHeader(chain.readable, headerSize);
    const length = chain.readable - headerSize;
    // One that lies in one place with its header needs no cursor.
    const together = chain.readableCount === 1;
    const region = chain.regions[0]!;
    const at = together ? chain.offsets[0]! : reader.struct(headerSize);
    const view = together ? region.view : reader.view;
    // Each field is read once. Most frames ask for nothing, and then no other counts.
    const asked = view.getUint16(at, true);
    if (length < SHORTEST || length > LONGEST) {
      return this.#malformed(stats, `A frame of ${length} bytes is none`);
    }
    const { frame } = this;
    if (together) frame.fromPlace(region, at + headerSize, length);
    else frame.fromChain(reader);
    if ((asked & MEANT) !== 0 && !this.#check(asked, view, at, stats)) return false;
    return this.#mtu === 0 || length <= this.#mtu + SHORTEST || this.#fits(frame, stats);
  }

  /** The frame asks for something: is it allowed, and can it be done? */
  #check(asked: number, view: DataView, at: number, stats: TransmitStats): boolean {
    const { frame } = this;
    frame.flags = asked & 0xff;
    frame.gsoType = asked >>> 8;
    frame.headerLength = view.getUint16(at + NetHeaderOffset.hdr_len, true);
    frame.gsoSize = view.getUint16(at + NetHeaderOffset.gso_size, true);
    frame.csumStart = view.getUint16(at + NetHeaderOffset.csum_start, true);
    frame.csumOffset = view.getUint16(at + NetHeaderOffset.csum_offset, true);
    const layout = this.#layout.parse(frame.view, frame.headLength, frame.length);
    const reason = checkHeader(frame, layout, this.#allowed);
    return reason === null || this.#malformed(stats, reason);
  }

  /** The frame is longer than the MTU and an Ethernet header: it may have tags, or is to be segmented. */
  #fits(frame: Frame, stats: TransmitStats): boolean {
    if (frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) return true;
    if (frame.length <= this.#mtu + ethernetSize(frame)) return true;
    stats.tooLong++;
    this.reason = `A frame of ${frame.length} bytes is too long for an MTU of ${this.#mtu}`;
    this.clause = "5.1.4.2";
    return false;
  }

  #malformed(stats: TransmitStats, reason: string): false {
    stats.malformed++;
    this.reason = reason;
    this.clause = "5.1.9.2";
    return false;
  }
}

function noHeader(bytes: number, size: number): VirtqueueError {
  return new VirtqueueError(
    "5.1.9.2",
    `A frame to be sent has ${bytes} bytes: too few for its header of ${size}`,
  );
}
