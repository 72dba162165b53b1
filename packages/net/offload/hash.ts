/**
 * The hash of incoming packets (virtio 1.4, 5.1.9.4.3): which fields of a packet it takes, and the Toeplitz hash over them.
 * VIRTIO_NET_F_RSS steers by it, VIRTIO_NET_F_HASH_REPORT reports it.
 */
import { type FrameLayout, IPPROTO_TCP, IPPROTO_UDP } from "./parse.ts";

/** Hash type: addresses of IPv4 (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_IPv4: number = 1 << 0;
/** Hash type: addresses and ports of TCP over IPv4 (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_TCPv4: number = 1 << 1;
/** Hash type: addresses and ports of UDP over IPv4 (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_UDPv4: number = 1 << 2;
/** Hash type: addresses of IPv6 (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_IPv6: number = 1 << 3;
/** Hash type: addresses and ports of TCP over IPv6 (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_TCPv6: number = 1 << 4;
/** Hash type: addresses and ports of UDP over IPv6 (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_UDPv6: number = 1 << 5;
/** Hash type: addresses of IPv6 with extension headers, home addresses first (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_IP_EX: number = 1 << 6;
/** Hash type: the same with the ports of TCP (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_TCP_EX: number = 1 << 7;
/** Hash type: the same with the ports of UDP (5.1.9.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_UDP_EX: number = 1 << 8;
/** All hash types that `PacketHash` knows: `supported_hash_types`. */
export const HASH_TYPES = 0x1ff;

/** `hash_report`: no hash was calculated (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_NONE = 0;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_IPv4 = 1;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_TCPv4 = 2;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_UDPv4 = 3;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_IPv6 = 4;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_TCPv6 = 5;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_UDPv6 = 6;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_IPv6_EX = 7;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_TCPv6_EX = 8;
/** `hash_report` (5.1.9.4.5). */
export const VIRTIO_NET_HASH_REPORT_UDPv6_EX = 9;

/** The longest input: two IPv6 addresses and two ports. */
const MAX_INPUT = 36;
/** Bytes of a key that count: each bit of input meets 32 bits of it. Also what a device must take at least (5.1.4.1). */
export const HASH_KEY_SIZE = 40;

/**
 * Calculates hashes with one key and a set of enabled types. Setting a key costs some tens of microseconds; a hash costs a
 * table look-up for each byte that goes into it, and nothing is allocated.
 *
 * @example A published test vector
 * ```ts
 * import { PacketHash, VIRTIO_NET_HASH_REPORT_TCPv4, VIRTIO_NET_HASH_TYPE_TCPv4 } from "./hash.ts";
 * import { FrameLayout } from "./parse.ts";
 * import { buildFrame } from "./testing.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const key = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";
 * const hash = new PacketHash();
 * hash.setKey(Uint8Array.from(key.match(/../g)!, (pair) => parseInt(pair, 16)));
 * hash.types = VIRTIO_NET_HASH_TYPE_TCPv4;
 * const frame = buildFrame({
 *   ip: 4, transport: "tcp",
 *   source: [66, 9, 149, 187], sourcePort: 2794,
 *   destination: [161, 142, 100, 80], destinationPort: 1766,
 * });
 * const view = new DataView(frame.buffer);
 * const report = hash.calculate(view, new FrameLayout().parse(view, frame.length));
 * assertEquals(report, VIRTIO_NET_HASH_REPORT_TCPv4);
 * assertEquals(hash.value, 0x51ccc178);
 * ```
 */
export class PacketHash {
  /** Enabled hash types. Types that are not known are as if they were not set. */
  types = 0;
  /** `hash_value` of the last packet; 0 if none was calculated. */
  value = 0;
  /** `hash_report` of the last packet. */
  report = VIRTIO_NET_HASH_REPORT_NONE;
  /** What each value of each byte of the input adds to the hash. */
  readonly #table: Int32Array<ArrayBuffer> = new Int32Array(MAX_INPUT * 256);

  /**
   * Sets the key. Bytes behind the first 40 never meet a bit of input; a shorter key counts as if zeros followed.
   */
  setKey(key: Uint8Array): void {
    const table = this.#table;
    for (let i = 0; i < MAX_INPUT; i++) {
      const base = i * 256;
      const high = ((key[i] ?? 0) << 24) | ((key[i + 1] ?? 0) << 16) | ((key[i + 2] ?? 0) << 8) |
        (key[i + 3] ?? 0);
      const low = key[i + 4] ?? 0;
      for (let byte = 1; byte < 256; byte++) {
        // The place of the lowest 1 from the left: there begin the 32 bits of the key that it adds.
        const bit = Math.clz32(byte & -byte) - 24;
        const window = (high << bit) | (low >> (8 - bit));
        table[base + byte] = table[base + (byte & (byte - 1))]! ^ window;
      }
    }
  }

  /**
   * The hash of a packet (5.1.9.4.3), left in `value` and `report`.
   *
   * A fragment has no ports, not even the first, so that all of a datagram goes the same way.
   *
   * @param view The frame, or its head.
   * @param layout Its layout.
   * @returns `report`.
   */
  calculate(view: DataView, layout: FrameLayout): number {
    this.value = 0;
    this.report = VIRTIO_NET_HASH_REPORT_NONE;
    const { ipVersion, transport, fragment } = layout;
    const types = this.types;
    const isTcp = transport === IPPROTO_TCP && !fragment;
    const isUdp = transport === IPPROTO_UDP && !fragment;
    const at = layout.networkOffset;
    if (ipVersion === 4) {
      if (isTcp && (types & VIRTIO_NET_HASH_TYPE_TCPv4) !== 0) {
        this.report = VIRTIO_NET_HASH_REPORT_TCPv4;
      } else if (isUdp && (types & VIRTIO_NET_HASH_TYPE_UDPv4) !== 0) {
        this.report = VIRTIO_NET_HASH_REPORT_UDPv4;
      } else if ((types & VIRTIO_NET_HASH_TYPE_IPv4) !== 0) {
        this.value = this.#add(view, at + 12, 8, 0, 0) >>> 0;
        return this.report = VIRTIO_NET_HASH_REPORT_IPv4;
      } else {
        return VIRTIO_NET_HASH_REPORT_NONE;
      }
      const addresses = this.#add(view, at + 12, 8, 0, 0);
      this.value = this.#add(view, layout.transportOffset, 4, 8, addresses) >>> 0;
      return this.report;
    }
    if (ipVersion !== 6) return VIRTIO_NET_HASH_REPORT_NONE;
    let source = at + 8;
    let destination = at + 24;
    let ports = isTcp || isUdp;
    this.report = layout.extensions ? this.#extended(isTcp, isUdp) : VIRTIO_NET_HASH_REPORT_NONE;
    if (this.report !== VIRTIO_NET_HASH_REPORT_NONE) {
      if (layout.homeAddressOffset !== 0) source = layout.homeAddressOffset;
      if (layout.routingAddressOffset !== 0) destination = layout.routingAddressOffset;
      ports = this.report !== VIRTIO_NET_HASH_REPORT_IPv6_EX;
    } else if (isTcp && (types & VIRTIO_NET_HASH_TYPE_TCPv6) !== 0) {
      this.report = VIRTIO_NET_HASH_REPORT_TCPv6;
    } else if (isUdp && (types & VIRTIO_NET_HASH_TYPE_UDPv6) !== 0) {
      this.report = VIRTIO_NET_HASH_REPORT_UDPv6;
    } else if ((types & VIRTIO_NET_HASH_TYPE_IPv6) !== 0) {
      this.report = VIRTIO_NET_HASH_REPORT_IPv6;
      ports = false;
    } else {
      return VIRTIO_NET_HASH_REPORT_NONE;
    }
    let value = this.#add(view, source, 16, 0, 0);
    value = this.#add(view, destination, 16, 16, value);
    if (ports) value = this.#add(view, layout.transportOffset, 4, 32, value);
    this.value = value >>> 0;
    return this.report;
  }

  /** The report of a packet with extension headers, or none: then it is as if it had none. */
  #extended(isTcp: boolean, isUdp: boolean): number {
    const types = this.types;
    if (isTcp && (types & VIRTIO_NET_HASH_TYPE_TCP_EX) !== 0) {
      return VIRTIO_NET_HASH_REPORT_TCPv6_EX;
    }
    if (isUdp && (types & VIRTIO_NET_HASH_TYPE_UDP_EX) !== 0) {
      return VIRTIO_NET_HASH_REPORT_UDPv6_EX;
    }
    return (types & VIRTIO_NET_HASH_TYPE_IP_EX) !== 0
      ? VIRTIO_NET_HASH_REPORT_IPv6_EX
      : VIRTIO_NET_HASH_REPORT_NONE;
  }

  /** Adds bytes of the frame, which are the input's from `place` on. */
  #add(view: DataView, at: number, size: number, place: number, value: number): number {
    const table = this.#table;
    let sum = value;
    for (let i = 0; i < size; i++) sum ^= table[(place + i) << 8 | view.getUint8(at + i)]!;
    return sum;
  }
}
