/**
 * Where the headers of a frame are: Ethernet with up to two tags, IPv4, IPv6 with its extension headers, TCP, UDP, ICMP.
 *
 * A frame is what a driver, a network or a file says it is, so every length in it is checked against the bytes that are
 * there before anything behind it is looked at. What does not fit is not an error: it is simply not found.
 */

/** IP protocol number (also that of a next header): ICMP. */
export const IPPROTO_ICMP = 1;
/** IP protocol number: TCP. */
export const IPPROTO_TCP = 6;
/** IP protocol number: UDP. */
export const IPPROTO_UDP = 17;
/** IP protocol number: ICMPv6. */
export const IPPROTO_ICMPV6 = 58;
/** Next header: options for every node on the way. */
export const IPPROTO_HOPOPTS = 0;
/** Next header: routing. */
export const IPPROTO_ROUTING = 43;
/** Next header: this is a fragment. */
export const IPPROTO_FRAGMENT = 44;
/** Next header: options for the destination. */
export const IPPROTO_DSTOPTS = 60;

/** EtherType: IPv4. */
export const ETH_P_IP = 0x0800;
/** EtherType: IPv6. */
export const ETH_P_IPV6 = 0x86dd;
/** EtherType of a tag (802.1Q). */
export const ETH_P_8021Q = 0x8100;
/** EtherType of an outer tag (802.1ad). */
export const ETH_P_8021AD = 0x88a8;

const ETHERNET_SIZE = 14;
const TAG_SIZE = 4;
const IPV4_SIZE = 20;
const IPV6_SIZE = 40;
const TCP_SIZE = 20;
const UDP_SIZE = 8;
const ICMP_SIZE = 8;
const ICMPV6_SIZE = 4;
/** More extension headers than this are not followed: no sender makes them, and a chain of empty ones costs only us. */
const MAX_EXTENSIONS = 8;
/** Options of one destination options header that are looked at for a home address. */
const MAX_OPTIONS = 16;

/** Type of the home address option (RFC 6275, 6.3). */
const HOME_ADDRESS_OPTION = 0xc9;
/** Type of the routing header with a home address (RFC 6275, 6.4). */
const ROUTING_TYPE_2 = 2;

/**
 * The layout of one frame. One object serves any number of frames: `parse` overwrites all of it, and allocates nothing.
 *
 * Offsets count from the first byte of the frame. Only headers that are whole, and lie within the bytes that were given,
 * are reported.
 *
 * @example
 * ```ts
 * import { FrameLayout, IPPROTO_UDP } from "./parse.ts";
 * import { buildFrame } from "./testing.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const frame = buildFrame({ ip: 4, transport: "udp", payload: new Uint8Array(100), tags: [7] });
 * const layout = new FrameLayout();
 * layout.parse(new DataView(frame.buffer), frame.length);
 * assertEquals(layout.networkOffset, 18);
 * assertEquals(layout.transport, IPPROTO_UDP);
 * assertEquals(layout.payloadOffset, 18 + 20 + 8);
 * ```
 */
export class FrameLayout {
  /** Bytes of the frame. */
  length = 0;
  /** Tags that were passed, 0 to 2. A third is left standing as `etherType`. */
  tags = 0;
  /** VLAN of the outer tag, 0 to 4095; 0 without one. */
  vlan = 0;
  /** EtherType behind the tags; values below 1536 are lengths (802.3). -1 if the frame is too short for one. */
  etherType = -1;
  /** First byte behind the Ethernet header and its tags. */
  networkOffset = 0;
  /** 4 or 6 if there is a whole, plausible IP header; 0 if not. */
  ipVersion = 0;
  /** What the IP header says about the packet's length: of IPv4 with the header, of IPv6 without. */
  ipLength = 0;
  /** First byte behind the IP packet: at most `length`, less if there is padding. 0 if not IP. */
  end = 0;
  /** The packet goes on behind the end of the frame: its IP header promises more bytes than there are. */
  truncated = false;
  /** IP protocol behind IPv6 extension headers; -1 if not IP, or if they could not be followed to their end. */
  protocol = -1;
  /** It is one of several fragments, or has the header of one. */
  fragment = false;
  /** IPv6 with at least one extension header. */
  extensions = false;
  /** Where the IP headers end that stand in every fragment, and of IPv6 a fragment header goes. 0 if not IP. */
  fragmentOffset = 0;
  /** Where the number of the header at `fragmentOffset` is. 0 if not IPv6. */
  nextHeaderOffset = 0;
  /** Home address in a destination options header; 0 if there is none. */
  homeAddressOffset = 0;
  /** Home address in a routing header of type 2; 0 if there is none. */
  routingAddressOffset = 0;
  /** IPv6 on a detour: the packet's last destination is in a routing header, not in the IP header. */
  routed = false;
  /** IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP or IPPROTO_ICMPV6 if the whole header is there; else -1, as in later fragments. */
  transport = -1;
  /** First byte behind the IP headers. 0 if not IP, or if they could not be followed to their end. */
  transportOffset = 0;
  /** First byte behind the transport header; 0 if there is none. */
  payloadOffset = 0;

  /**
   * Finds the headers.
   *
   * @param view Holds at least `available` bytes.
   * @param available How many bytes of the frame may be looked at: its head, or all of it.
   * @param length Bytes of the whole frame, where `available` is only its head.
   * @returns Itself. Never throws for what is in the frame.
   */
  parse(view: DataView, available: number, length: number = available): this {
    this.#clear(length);
    if (available < ETHERNET_SIZE) return this;
    let at = 12;
    let type = view.getUint16(at);
    while (this.tags < 2 && (type === ETH_P_8021Q || type === ETH_P_8021AD)) {
      if (at + TAG_SIZE + 2 > available) return this;
      if (this.tags === 0) this.vlan = view.getUint16(at + 2) & 0xfff;
      this.tags++;
      at += TAG_SIZE;
      type = view.getUint16(at);
    }
    this.etherType = type;
    this.networkOffset = at + 2;
    if (type === ETH_P_IP) this.#ipv4(view, available);
    else if (type === ETH_P_IPV6) this.#ipv6(view, available);
    return this;
  }

  #clear(length: number): void {
    this.length = length;
    this.tags = 0;
    this.vlan = 0;
    this.etherType = -1;
    this.networkOffset = 0;
    this.ipVersion = 0;
    this.ipLength = 0;
    this.end = 0;
    this.truncated = false;
    this.protocol = -1;
    this.fragment = false;
    this.extensions = false;
    this.fragmentOffset = 0;
    this.nextHeaderOffset = 0;
    this.homeAddressOffset = 0;
    this.routingAddressOffset = 0;
    this.routed = false;
    this.transport = -1;
    this.transportOffset = 0;
    this.payloadOffset = 0;
  }

  #ipv4(view: DataView, available: number): void {
    const at = this.networkOffset;
    if (at + IPV4_SIZE > available) return;
    const first = view.getUint8(at);
    const headerSize = (first & 15) * 4;
    const total = view.getUint16(at + 2);
    if (first >> 4 !== 4 || headerSize < IPV4_SIZE || at + headerSize > available) return;
    // Drivers that have a packet segmented may leave the length 0, since every segment has another.
    if (total !== 0 && total < headerSize) return;
    this.ipVersion = 4;
    this.ipLength = total;
    this.#ends(total === 0 ? this.length : at + total);
    const flags = view.getUint16(at + 6);
    this.fragment = (flags & 0x3fff) !== 0;
    this.protocol = view.getUint8(at + 9);
    this.transportOffset = at + headerSize;
    this.fragmentOffset = this.transportOffset;
    if ((flags & 0x1fff) === 0) this.#transport(view, available);
  }

  #ipv6(view: DataView, available: number): void {
    let at = this.networkOffset;
    if (at + IPV6_SIZE > available || view.getUint8(at) >> 4 !== 6) return;
    this.ipVersion = 6;
    this.ipLength = view.getUint16(at + 4);
    this.#ends(this.ipLength === 0 ? this.length : at + IPV6_SIZE + this.ipLength);
    const limit = Math.min(available, this.end);
    let next = at + 6;
    at += IPV6_SIZE;
    this.nextHeaderOffset = next;
    this.fragmentOffset = at;
    for (let count = 0;; count++) {
      const protocol = view.getUint8(next);
      if (
        protocol !== IPPROTO_HOPOPTS && protocol !== IPPROTO_ROUTING &&
        protocol !== IPPROTO_FRAGMENT && protocol !== IPPROTO_DSTOPTS
      ) {
        this.protocol = protocol;
        break;
      }
      this.extensions = true;
      if (count === MAX_EXTENSIONS || at + 8 > limit) return;
      if (protocol === IPPROTO_FRAGMENT) {
        const place = view.getUint16(at + 2);
        this.fragment = true;
        if (place >> 3 !== 0) {
          this.protocol = view.getUint8(at);
          this.transportOffset = at + 8;
          return;
        }
        next = at;
        at += 8;
        continue;
      }
      const size = (view.getUint8(at + 1) + 1) * 8;
      if (at + size > limit) return;
      if (protocol === IPPROTO_ROUTING) {
        if (view.getUint8(at + 3) !== 0) this.routed = true;
        if (view.getUint8(at + 2) === ROUTING_TYPE_2 && size === 24) {
          this.routingAddressOffset = at + 8;
        }
      } else if (protocol === IPPROTO_DSTOPTS) {
        this.#homeAddress(view, at + 2, at + size);
      }
      next = at;
      at += size;
      if (protocol !== IPPROTO_DSTOPTS && !this.fragment) {
        this.nextHeaderOffset = next;
        this.fragmentOffset = at;
      }
    }
    this.transportOffset = at;
    this.#transport(view, available);
  }

  #ends(end: number): void {
    this.truncated = end > this.length;
    this.end = this.truncated ? this.length : end;
  }

  /** Looks for a home address among the options of a destination options header. */
  #homeAddress(view: DataView, from: number, to: number): void {
    let at = from;
    for (let count = 0; count < MAX_OPTIONS && at < to; count++) {
      const type = view.getUint8(at);
      if (type === 0) {
        at++;
        continue;
      }
      if (at + 2 > to) return;
      const size = view.getUint8(at + 1);
      if (type === HOME_ADDRESS_OPTION && size === 16 && at + 18 <= to) {
        this.homeAddressOffset = at + 2;
        return;
      }
      at += 2 + size;
    }
  }

  #transport(view: DataView, available: number): void {
    const at = this.transportOffset;
    const limit = available < this.end ? available : this.end;
    let size: number;
    switch (this.protocol) {
      case IPPROTO_TCP:
        if (at + TCP_SIZE > limit) return;
        size = (view.getUint8(at + 12) >> 4) * 4;
        if (size < TCP_SIZE) return;
        break;
      case IPPROTO_UDP:
        size = UDP_SIZE;
        break;
      case IPPROTO_ICMP:
        if (this.ipVersion !== 4) return;
        size = ICMP_SIZE;
        break;
      case IPPROTO_ICMPV6:
        if (this.ipVersion !== 6) return;
        size = ICMPV6_SIZE;
        break;
      default:
        return;
    }
    if (at + size > limit) return;
    this.transport = this.protocol;
    this.payloadOffset = at + size;
  }
}
