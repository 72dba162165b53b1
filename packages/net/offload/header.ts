/**
 * What a `struct virtio_net_hdr` may say about a frame (virtio 1.4, 5.1.9.2). It comes from a driver, or from whoever is at
 * the other end of a cable, and everything behind it does arithmetic with it: so it is checked once, against the frame, and
 * what is left of it afterwards is true.
 */
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../constants.ts";
import { Offload } from "../sink.ts";
import { checksumOffset } from "./checksum.ts";
import { type FrameLayout, IPPROTO_TCP, IPPROTO_UDP } from "./parse.ts";

/** Flag of a header: the checksum of an outer UDP header is to be completed (5.1.9). Tunnels are not built. */
export const VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM = 8;

/**
 * The most segments that one frame may ask for. What a frame costs is what it is cut into, and `gso_size` is a driver's
 * choice: 64 KiB at a byte each would be 65,535 frames of 55 bytes. Linux cuts UDP into 128 at most; its smallest TCP
 * segment at the smallest MSS that it accepts (48, of which 12 are time stamps) makes 1,821 of 64 KiB.
 */
export const MAX_SEGMENTS = 2048;
/** Fragments lie at multiples of this (RFC 791, 3.1). */
export const FRAGMENT_UNIT = 8;

/** The fields of a `struct virtio_net_hdr` that say what is to be done with a frame. A `Frame` is one. */
export interface FrameHeader {
  /** `flags`. */
  flags: number;
  /** `gso_type`. */
  gsoType: number;
  /** `hdr_len`. */
  headerLength: number;
  /** `gso_size`. */
  gsoSize: number;
  /** `csum_start`. */
  csumStart: number;
  /** `csum_offset`. */
  csumOffset: number;
}

/**
 * Checks a header against its frame, of either direction, and leaves in it only what was checked: other flags are gone, fields that do not count
 * are 0, and `headerLength` is the true one. So a receiver is told nothing that the sender made up.
 *
 * `hdr_len` is never used, not even with VIRTIO_NET_F_GUEST_HDRLEN, where the device MAY (5.1.9.2.2): the frame says the
 * same, and there are drivers that negotiate the feature and fill in something else.
 *
 * A reason means that the frame has to be dropped; the header is then as it was.
 *
 * @param header What the sender says.
 * @param layout The frame's layout.
 * @param allowed What was negotiated for this direction: bits of `Offload`.
 * @param believed Whether the sender may say that it found the checksum right (VIRTIO_NET_HDR_F_DATA_VALID): a device and a
 *   back end of the host may, a driver may not.
 * @returns Null if all is well, else what is wrong, with the clause of virtio 1.4.
 *
 * @example
 * ```ts
 * import { checkHeader } from "./header.ts";
 * import { FrameLayout } from "./parse.ts";
 * import { buildFrame } from "./testing.ts";
 * import { Offload } from "../sink.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const frame = buildFrame({ ip: 4, transport: "tcp", payload: new Uint8Array(4000) });
 * const layout = new FrameLayout().parse(new DataView(frame.buffer), frame.length);
 * const header = {
 *   flags: 1, gsoType: 1, headerLength: 0, gsoSize: 1448, csumStart: 34, csumOffset: 16,
 * };
 * assertEquals(checkHeader(header, layout, Offload.csum | Offload.tso4), null);
 * assertEquals(header.headerLength, 54);
 * assertEquals(
 *   checkHeader(header, layout, Offload.csum),
 *   "VIRTIO_NET_HDR_GSO_TCPV4 was not negotiated (5.1.9.2.1, 5.1.9.4.1)",
 * );
 * ```
 */
export function checkHeader(
  header: FrameHeader,
  layout: FrameLayout,
  allowed: number,
  believed: boolean = false,
): string | null {
  const { flags, gsoType } = header;
  // Tunnels are never offered: their types are unknown below, and this flag needs one of them.
  if ((flags & VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM) !== 0) {
    return "VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM without a tunnel (5.1.9.2.2)";
  }
  const needsChecksum = (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
  if (needsChecksum) {
    const reason = checkChecksum(header, layout, allowed);
    if (reason !== null) return reason;
  }
  // ECN alone asks for nothing: 5.1.4.1 names it beside NONE.
  const isGso = (gsoType & ~VIRTIO_NET_HDR_GSO_ECN) !== VIRTIO_NET_HDR_GSO_NONE;
  if (isGso) {
    const reason = checkType(gsoType, layout, allowed) ?? checkGso(header, layout);
    if (reason !== null) return reason;
  }
  if (needsChecksum) {
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.headerLength = layout.payloadOffset;
  } else {
    header.flags = believed ? flags & VIRTIO_NET_HDR_F_DATA_VALID : 0;
    header.headerLength = 0;
    header.csumStart = 0;
    header.csumOffset = 0;
  }
  if (!isGso) {
    header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
    header.gsoSize = 0;
  }
  return null;
}

/** How many segments a frame becomes: at least 1. */
export function segmentCount(gsoType: number, gsoSize: number, layout: FrameLayout): number {
  if (gsoType === VIRTIO_NET_HDR_GSO_UDP) {
    // Of fragments, `gso_size` is what follows the IP headers, in units that a fragment's offset can say.
    const size = layout.length - layout.fragmentOffset;
    return size <= gsoSize ? 1 : Math.ceil(size / (gsoSize & -FRAGMENT_UNIT));
  }
  const size = layout.length - layout.payloadOffset;
  return size <= gsoSize ? 1 : Math.ceil(size / gsoSize);
}

function checkChecksum(header: FrameHeader, layout: FrameLayout, allowed: number): string | null {
  if ((allowed & Offload.csum) === 0) {
    return "VIRTIO_NET_HDR_F_NEEDS_CSUM was not negotiated (5.1.9.2.1, 5.1.9.4.1)";
  }
  const { csumStart, csumOffset } = header;
  if (csumStart + csumOffset + 2 > layout.length) {
    return "csum_start and csum_offset name a place behind the end of the frame (5.1.9.2.1)";
  }
  // Addresses have been looked at by whoever filters and switches: no checksum is written over them.
  const lowest = layout.transportOffset || layout.fragmentOffset || layout.networkOffset;
  if (lowest === 0 || csumStart < lowest) {
    return "csum_start is within the headers before the transport's (5.1.9.2.1)";
  }
  return null;
}

function checkType(gsoType: number, layout: FrameLayout, allowed: number): string | null {
  const { ipVersion, transport } = layout;
  if ((gsoType & VIRTIO_NET_HDR_GSO_ECN) !== 0 && (allowed & Offload.ecn) === 0) {
    return "VIRTIO_NET_HDR_GSO_ECN was not negotiated (5.1.9.2.1, 5.1.9.4.1)";
  }
  switch (gsoType) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN:
      if ((allowed & Offload.tso4) === 0) {
        return "VIRTIO_NET_HDR_GSO_TCPV4 was not negotiated (5.1.9.2.1, 5.1.9.4.1)";
      }
      return ipVersion === 4 && transport === IPPROTO_TCP
        ? null
        : "VIRTIO_NET_HDR_GSO_TCPV4 on a frame that is not TCP over IPv4 (5.1.9.2)";
    case VIRTIO_NET_HDR_GSO_TCPV6:
    case VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN:
      if ((allowed & Offload.tso6) === 0) {
        return "VIRTIO_NET_HDR_GSO_TCPV6 was not negotiated (5.1.9.2.1, 5.1.9.4.1)";
      }
      return ipVersion === 6 && transport === IPPROTO_TCP
        ? null
        : "VIRTIO_NET_HDR_GSO_TCPV6 on a frame that is not TCP over IPv6 (5.1.9.2)";
    case VIRTIO_NET_HDR_GSO_UDP:
      if ((allowed & Offload.ufo) === 0) {
        return "VIRTIO_NET_HDR_GSO_UDP was not negotiated (5.1.9.2.1, 5.1.9.4.1)";
      }
      return transport === IPPROTO_UDP
        ? null
        : "VIRTIO_NET_HDR_GSO_UDP on a frame that is not UDP (5.1.9.2)";
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      if ((allowed & (ipVersion === 6 ? Offload.uso6 : Offload.uso4)) === 0) {
        return "VIRTIO_NET_HDR_GSO_UDP_L4 was not negotiated (5.1.9.2.1, 5.1.9.4.1)";
      }
      return transport === IPPROTO_UDP
        ? null
        : "VIRTIO_NET_HDR_GSO_UDP_L4 on a frame that is not UDP (5.1.9.2)";
    default:
      return "gso_type is none that was negotiated (5.1.9.2.1)";
  }
}

function checkGso(header: FrameHeader, layout: FrameLayout): string | null {
  const { flags, gsoSize, csumStart, csumOffset } = header;
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0) {
    return "gso_type without VIRTIO_NET_HDR_F_NEEDS_CSUM (5.1.9.2.1)";
  }
  if (layout.fragment) return "gso_type on a fragment (5.1.9.2)";
  if (
    csumStart !== layout.transportOffset || csumOffset !== checksumOffset(layout.transport)
  ) {
    return "gso_type, but csum_start and csum_offset are not those of the transport (5.1.9.2.1)";
  }
  const least = header.gsoType === VIRTIO_NET_HDR_GSO_UDP ? FRAGMENT_UNIT : 1;
  if (gsoSize < least) return "gso_size is too small (5.1.9.2.1)";
  const fixed = layout.ipVersion === 6 ? layout.networkOffset + 40 : layout.networkOffset;
  if (layout.length - fixed > 0xffff) {
    return "the frame is longer than an IP packet can be (5.1.9.2)";
  }
  if (segmentCount(header.gsoType, gsoSize, layout) > MAX_SEGMENTS) {
    return "gso_size is too small: too many segments (5.1.9.2)";
  }
  return null;
}
