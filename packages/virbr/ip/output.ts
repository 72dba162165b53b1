/** Makes the frames of packets to guests, in one buffer that is used again and again. */
import {
  Frame,
  Offload,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "@virtio/net";
import { completeChecksum, fold, ipv4HeaderChecksum, type MacAddress } from "@virtio/net/wire";
import { EtherType } from "../wire/guard.ts";
import type { GuestPort } from "../wire/port.ts";
import type { Station } from "../wire/station.ts";
import { isGroup, isIpv4, writeIpv6 } from "./address.ts";
import { Fragmenter } from "./fragmenter.ts";
import { type AddressWords, type Guest, IpProtocol, type Path } from "./packet.ts";

const ETHERNET = 14;
const IPV4 = 20;
const IPV6 = 40;
const MOST = 65_535;

/** A way to a guest, with what is the same for each of its packets. */
export class StationPath implements Path {
  readonly guest: Station;
  readonly version: number;
  readonly protocol: number;
  readonly source: AddressWords;
  readonly destination: AddressWords;
  readonly mtu: number;
  readonly ipHeaderSize: number;
  trafficClass = 0;
  hopLimit = 64;
  dontFragment: boolean;
  /** The partial sum of the pseudo header but for the length. */
  readonly pseudo: number;
  /** The MAC address of the receiver, or of its group. */
  readonly high: number;
  /** The last three bytes. */
  readonly low: number;

  constructor(
    guest: Station,
    source: AddressWords,
    destination: AddressWords,
    protocol: number,
    mtu: number,
  ) {
    const version4 = isIpv4(destination);
    if (isIpv4(source) !== version4) {
      throw new TypeError("A path leads from an address to one of the same version");
    }
    this.guest = guest;
    this.version = version4 ? 4 : 6;
    this.protocol = protocol;
    this.source = source.slice();
    this.destination = destination.slice();
    this.mtu = mtu;
    this.ipHeaderSize = version4 ? IPV4 : IPV6;
    this.dontFragment = protocol === IpProtocol.tcp;
    let sum = protocol;
    for (let i = version4 ? 3 : 0; i < 4; i++) {
      for (const word of [source[i]!, destination[i]!]) sum += (word >>> 16) + (word & 0xffff);
    }
    this.pseudo = fold(sum);
    this.high = guest.high;
    this.low = guest.low;
    if (!isGroup(destination)) return;
    const last = destination[3]!;
    if (!version4) {
      this.high = 0x33_3300 | last >>> 24;
      this.low = last & 0xff_ffff;
    } else if (last === 0xffff_ffff) {
      this.high = 0xff_ffff;
      this.low = 0xff_ffff;
    } else {
      this.high = 0x01_005e;
      this.low = last & 0x7f_ffff;
    }
  }
}

/** Writes packets and sends them. Used by one sender at a time. */
export class Output {
  readonly buffer: Uint8Array;
  readonly view: DataView;
  start = 0;
  room = 0;
  /** Packets sent. */
  sent = 0;
  readonly #frame: Frame = new Frame();
  readonly #mac: MacAddress;
  readonly #send: (frame: Frame, to: GuestPort) => void;
  readonly #fragmenter: Fragmenter = new Fragmenter();
  #path: StationPath | null = null;
  #identification = Math.floor(Math.random() * 0x1_0000);

  /**
   * @param mac The gateway's.
   * @param send Takes each frame.
   */
  constructor(mac: MacAddress, send: (frame: Frame, to: GuestPort) => void) {
    this.#mac = mac;
    this.#send = send;
    this.buffer = this.#frame.buffer;
    this.view = this.#frame.view;
  }

  /** See `IpOutput.begin`. */
  begin(path: StationPath): boolean {
    const { guest } = path;
    if (guest.gone || !guest.at.reachable) {
      this.#path = null;
      return false;
    }
    this.#path = path;
    this.start = ETHERNET + path.ipHeaderSize;
    // The length field of IPv6 does not count its header; a guest's own limit is the same for both.
    this.room = MOST - path.ipHeaderSize;
    return true;
  }

  /** See `IpOutput.finish`. */
  finish(length: number, checksumOffset: number, gsoSize: number): void {
    const path = this.#path;
    if (path === null) throw new TypeError("begin() a packet before you finish it");
    if (!(length >= 0 && length <= this.room)) {
      throw new RangeError(`A packet has room for ${this.room} bytes: these are ${length}`);
    }
    this.#path = null;
    this.sent++;
    const { start } = this;
    const frame = this.#frame;
    this.#ethernet(path);
    frame.plain();
    frame.setLength(start + length);
    const cut = path.ipHeaderSize + length > path.mtu;
    const segmented = gsoSize > 0 && this.#segmented(path, length, gsoSize);
    if (path.version === 4) this.#ipv4(path, length, cut && !segmented);
    else this.#ipv6(path, length);
    if (checksumOffset >= 0) this.#checksum(path, length, checksumOffset, segmented);
    if (!cut || segmented) this.#send(frame, path.guest.at);
    else {
      this.#fragmenter.start(frame, path.version, path.mtu, this.#identification);
      let piece: Frame | null;
      while ((piece = this.#fragmenter.next()) !== null) this.#send(piece, path.guest.at);
    }
    // No address of a gateway is worth guessing, so a counter will do.
    this.#identification = (this.#identification + 1) & 0xffff;
  }

  /** Sends a frame that is no IP packet: `write` gets the buffer behind the Ethernet header. */
  raw(to: GuestPort, high: number, low: number, type: number, write: () => number): void {
    if (!to.reachable) return;
    this.start = ETHERNET;
    const frame = this.#frame;
    this.#addresses(high, low, type);
    const length = write();
    frame.plain();
    frame.setLength(ETHERNET + length);
    this.#send(frame, to);
  }

  #addresses(high: number, low: number, type: number): void {
    const { view } = this;
    const mac = this.#mac;
    view.setUint32(0, high << 8 | low >>> 16);
    view.setUint16(4, low & 0xffff);
    view.setUint16(6, mac.high >>> 8);
    view.setUint32(8, (mac.high & 0xff) << 24 | mac.low);
    view.setUint16(12, type);
  }

  #ethernet(path: StationPath): void {
    this.#addresses(path.high, path.low, path.version === 4 ? EtherType.ipv4 : EtherType.ipv6);
  }

  #ipv4(path: StationPath, length: number, fragments: boolean): void {
    const { view } = this;
    view.setUint16(ETHERNET, 0x4500 | path.trafficClass);
    view.setUint16(ETHERNET + 2, IPV4 + length);
    view.setUint16(ETHERNET + 4, this.#identification);
    view.setUint16(ETHERNET + 6, path.dontFragment && !fragments ? 0x4000 : 0);
    view.setUint8(ETHERNET + 8, path.hopLimit);
    view.setUint8(ETHERNET + 9, path.protocol);
    view.setUint32(ETHERNET + 12, path.source[3]!);
    view.setUint32(ETHERNET + 16, path.destination[3]!);
    view.setUint16(ETHERNET + 10, ipv4HeaderChecksum(view, ETHERNET, IPV4));
  }

  #ipv6(path: StationPath, length: number): void {
    const { view } = this;
    view.setUint32(ETHERNET, 0x6000_0000 | path.trafficClass << 20);
    view.setUint16(ETHERNET + 4, length);
    view.setUint8(ETHERNET + 6, path.protocol);
    view.setUint8(ETHERNET + 7, path.hopLimit);
    writeIpv6(view, ETHERNET + 8, path.source);
    writeIpv6(view, ETHERNET + 24, path.destination);
  }

  /** Whether the packet leaves unsegmented; the frame says so then. */
  #segmented(path: StationPath, length: number, gsoSize: number): boolean {
    const frame = this.#frame;
    const { start } = this;
    const tcp = path.protocol === IpProtocol.tcp;
    const header = tcp ? (this.view.getUint8(start + 12) >> 4) * 4 : 8;
    if (length - header <= gsoSize) return false;
    frame.gsoType = !tcp
      ? VIRTIO_NET_HDR_GSO_UDP_L4
      : path.version === 4
      ? VIRTIO_NET_HDR_GSO_TCPV4
      : VIRTIO_NET_HDR_GSO_TCPV6;
    frame.gsoSize = gsoSize;
    frame.headerLength = start + header;
    return true;
  }

  #checksum(path: StationPath, length: number, offset: number, segmented: boolean): void {
    const { view, start } = this;
    const frame = this.#frame;
    const { protocol } = path;
    const sum = protocol === IpProtocol.icmp ? 0 : fold(path.pseudo + length);
    view.setUint16(start + offset, sum);
    const transport = protocol === IpProtocol.tcp || protocol === IpProtocol.udp;
    const whole = path.ipHeaderSize + length <= path.mtu;
    if (segmented || (transport && whole && path.guest.at.takes(Offload.csum))) {
      frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
      frame.csumStart = start;
      frame.csumOffset = offset;
      if (frame.gsoType === VIRTIO_NET_HDR_GSO_NONE) {
        frame.headerLength = start +
          (protocol === IpProtocol.tcp ? (view.getUint8(start + 12) >> 4) * 4 : 8);
      }
      return;
    }
    completeChecksum(view, frame.length, start, offset, protocol === IpProtocol.udp);
  }
}

/** The station that a guest is. */
export function stationOf(guest: Guest): Station {
  // There is no other class of guests.
  return guest as Station;
}
