/**
 * The internet checksum (RFC 1071), and what virtio asks to be done with it: complete one that a driver left to the device
 * (VIRTIO_NET_HDR_F_NEEDS_CSUM), and find out whether a received one is right (VIRTIO_NET_HDR_F_DATA_VALID).
 *
 * A partial sum is a number of 0 to 0xffff that stands for the ones' complement sum of some 16-bit words: partial sums may be
 * added up in any order.
 */
import {
  type FrameLayout,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
} from "./parse.ts";

/** Folds a sum of many 16-bit words, below 2^48, into 16 bits. */
export function fold(sum: number): number {
  let folded = sum;
  if (folded > 0xffff_ffff) folded = (folded % 0x1_0000_0000) + Math.floor(folded / 0x1_0000_0000);
  if (folded > 0xffff_ffff) folded -= 0xffff_ffff;
  folded = (folded & 0xffff) + (folded >>> 16);
  return (folded & 0xffff) + (folded >>> 16);
}

/**
 * The partial sum of bytes, which begin at an even place of what is summed; a last odd byte counts as if a zero followed.
 *
 * @param view Where they are.
 * @param from First byte.
 * @param to Behind the last; less than 128 MiB behind the first.
 * @throws {RangeError} If they are not all in `view`.
 */
export function sumBytes(view: DataView, from: number, to: number): number {
  let at = from;
  // Halves of 32-bit words apart, so that both sums remain small integers up to 128 KiB; four words at a time.
  let high = 0;
  let low = 0;
  while (to - at >= 16) {
    const stop = to - at > 0x1_0000 ? at + 0x1_0000 : to - ((to - at) & 15);
    let highPart = 0;
    let lowPart = 0;
    for (; at < stop; at += 16) {
      const a = view.getInt32(at, true);
      const b = view.getInt32(at + 4, true);
      const c = view.getInt32(at + 8, true);
      const d = view.getInt32(at + 12, true);
      highPart = (highPart + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
      lowPart = (lowPart + (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff)) | 0;
    }
    high += highPart;
    low += lowPart;
  }
  let rest = 0;
  for (; to - at >= 2; at += 2) rest += view.getUint16(at, true);
  if (at < to) rest += view.getUint8(at);
  // Summed as little endian, where adding carries is the same but for the order of the two bytes.
  const sum = fold(high + low + rest);
  return ((sum & 0xff) << 8) | (sum >>> 8);
}

/**
 * Copies bytes and sums them on the way, which is faster than doing one after the other, and allocates nothing.
 *
 * @returns The partial sum of the bytes.
 * @throws {RangeError} If they are not all in `source`, or do not fit into `target`.
 */
export function copyAndSum(
  source: DataView,
  from: number,
  target: DataView,
  to: number,
  length: number,
): number {
  let at = from;
  let put = to;
  let left = length;
  let sum = 0;
  while (left >= 16) {
    // As in `sumBytes`: pieces in which the halves cannot overflow.
    const size = left > 0x1_0000 ? 0x1_0000 : left & -16;
    const stop = (at + size) | 0;
    let high = 0;
    let low = 0;
    for (; at < stop; at = (at + 16) | 0, put = (put + 16) | 0) {
      const a = source.getInt32(at, true);
      const b = source.getInt32(at + 4, true);
      const c = source.getInt32(at + 8, true);
      const d = source.getInt32(at + 12, true);
      target.setInt32(put, a, true);
      target.setInt32(put + 4, b, true);
      target.setInt32(put + 8, c, true);
      target.setInt32(put + 12, d, true);
      high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
      low = (low + (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff)) | 0;
    }
    left = (left - size) | 0;
    sum += high + low;
  }
  for (; left >= 2; left -= 2, at += 2, put += 2) {
    const word = source.getUint16(at, true);
    target.setUint16(put, word, true);
    sum += word;
  }
  if (left > 0) {
    const byte = source.getUint8(at);
    target.setUint8(put, byte);
    sum += byte;
  }
  const folded = fold(sum);
  return ((folded & 0xff) << 8) | (folded >>> 8);
}

/** The checksum to be written for a partial sum: its ones' complement. */
export function finish(sum: number): number {
  return ~sum & 0xffff;
}

/** The same of UDP, whose checksum is never 0, since 0 says that there is none (RFC 768). */
export function finishUdp(sum: number): number {
  const checksum = ~sum & 0xffff;
  return checksum === 0 ? 0xffff : checksum;
}

/** The checksum of the IPv4 header at `at`, taking its checksum field for 0. */
export function ipv4HeaderChecksum(view: DataView, at: number, headerSize: number): number {
  // Ones' complement: leaving a word out is leaving out what it adds.
  return finish(fold(sumBytes(view, at, at + 10) + sumBytes(view, at + 12, at + headerSize)));
}

/**
 * The partial sum of the pseudo header of TCP (RFC 9293, 3.1), UDP or ICMPv6 (RFC 8200, 8.1), with the addresses of the IP
 * header: right for all but packets on a detour (`routed`, `homeAddressOffset`).
 *
 * @param view The frame.
 * @param layout Its layout; `ipVersion` is 4 or 6.
 * @param protocol Of the upper layer.
 * @param length Bytes of the upper layer, its header included.
 */
export function pseudoHeaderSum(
  view: DataView,
  layout: FrameLayout,
  protocol: number,
  length: number,
): number {
  const at = layout.networkOffset;
  if (layout.ipVersion === 4) {
    return fold(sumBytes(view, at + 12, at + 20) + protocol + length);
  }
  return fold(sumBytes(view, at + 8, at + 40) + protocol + length);
}

/**
 * Completes a checksum as VIRTIO_NET_HDR_F_NEEDS_CSUM asks (virtio 1.4, 5.1.9.2): the checksum of everything from `csumStart`
 * on, which includes the sum of the pseudo header that the sender left in the field, goes into the field.
 *
 * @param view The frame.
 * @param length Its bytes.
 * @param csumStart `csum_start`.
 * @param csumOffset `csum_offset`.
 * @param udp Whether it is a checksum of UDP, in which 0 is written as 0xffff.
 * @returns Whether the field is within the frame; nothing was written if not.
 */
export function completeChecksum(
  view: DataView,
  length: number,
  csumStart: number,
  csumOffset: number,
  udp: boolean,
): boolean {
  const at = csumStart + csumOffset;
  if (!(csumStart >= 0 && csumOffset >= 0 && at + 2 <= length)) return false;
  const sum = sumBytes(view, csumStart, length);
  view.setUint16(at, udp ? finishUdp(sum) : finish(sum));
  return true;
}

/** Where the checksum is in the header of a transport; -1 if it has none that is known here. */
export function checksumOffset(transport: number): number {
  switch (transport) {
    case IPPROTO_TCP:
      return 16;
    case IPPROTO_UDP:
      return 6;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
      return 2;
    default:
      return -1;
  }
}

/**
 * Whether the checksum of the frame's transport is there and right, so that VIRTIO_NET_HDR_F_DATA_VALID may be set (5.1.9.4);
 * of IPv4 the header's own too.
 *
 * False for everything that cannot be said: fragments, packets that are cut off or on a detour, UDP without a checksum, other
 * protocols.
 *
 * @param view The whole frame.
 * @param layout Its layout.
 */
export function verifyChecksum(view: DataView, layout: FrameLayout): boolean {
  const { transport, transportOffset: at, end } = layout;
  if (transport < 0 || layout.fragment || layout.truncated || layout.ipLength === 0) return false;
  if (layout.routed || layout.homeAddressOffset !== 0) return false;
  if (layout.ipVersion === 4) {
    const network = layout.networkOffset;
    if (sumBytes(view, network, at) !== 0xffff) return false;
  }
  if (transport === IPPROTO_ICMP) return sumBytes(view, at, end) === 0xffff;
  let length = end - at;
  if (transport === IPPROTO_UDP) {
    const inHeader = view.getUint16(at + 4);
    if (inHeader < 8 || inHeader > length || view.getUint16(at + 6) === 0) return false;
    length = inHeader;
  }
  const sum = sumBytes(view, at, at + length) + pseudoHeaderSum(view, layout, transport, length);
  return fold(sum) === 0xffff;
}
