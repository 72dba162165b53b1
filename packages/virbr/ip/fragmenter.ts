import { Frame } from "@virtio/net";
import { ipv4HeaderChecksum } from "@virtio/net/wire";

const ETHERNET = 14;
const IPV4 = 20;
const IPV6 = 40;
const FRAGMENT_HEADER = 8;
const IPPROTO_FRAGMENT = 44;
const MORE_FRAGMENTS = 0x2000;

/** Cuts a packet that is larger than the MTU into fragments (RFC 791, 3.2; RFC 8200, 4.5). */
export class Fragmenter {
  readonly #frame: Frame = new Frame();
  #from: Frame = this.#frame;
  #version = 4;
  #size = 0;
  #identification = 0;
  /** The next byte behind the IP header of the whole. */
  #at = 0;
  /** Where that stands in a larger whole, of which it is a fragment itself, in units of eight bytes; and whether more follows. */
  #base = 0;
  #more = 0;

  /**
   * Starts with a packet.
   *
   * @param from Ethernet, an IP header without options or extensions, and what follows, with complete checksums. One of IPv4
   *   may be a fragment already.
   * @param mtu Of each fragment, at least 68.
   * @param identification The same for all of them.
   */
  start(from: Frame, version: number, mtu: number, identification: number): void {
    this.#from = from;
    this.#version = version;
    this.#identification = identification;
    this.#size = (version === 4 ? mtu - IPV4 : mtu - IPV6 - FRAGMENT_HEADER) & -8;
    this.#at = 0;
    const field = version === 4 ? from.view.getUint16(ETHERNET + 6) : 0;
    this.#base = field & 0x1fff;
    this.#more = field & MORE_FRAGMENTS;
  }

  /** The next fragment; null behind the last. */
  next(): Frame | null {
    const from = this.#from;
    const header = this.#version === 4 ? IPV4 : IPV6;
    const total = from.length - ETHERNET - header;
    const at = this.#at;
    if (at >= total) return null;
    const size = Math.min(this.#size, total - at);
    const more = at + size < total;
    const frame = this.#frame;
    const { buffer, view } = frame;
    buffer.set(from.buffer.subarray(0, ETHERNET + header));
    let put = ETHERNET + header;
    if (this.#version === 4) {
      view.setUint16(ETHERNET + 2, IPV4 + size);
      view.setUint16(ETHERNET + 6, this.#base + (at >> 3) | (more ? MORE_FRAGMENTS : this.#more));
      view.setUint16(ETHERNET + 10, ipv4HeaderChecksum(view, ETHERNET, IPV4));
    } else {
      view.setUint16(ETHERNET + 4, FRAGMENT_HEADER + size);
      view.setUint16(put, view.getUint8(ETHERNET + 6) << 8);
      view.setUint16(put + 2, at | (more ? 1 : 0));
      view.setUint32(put + 4, this.#identification);
      view.setUint8(ETHERNET + 6, IPPROTO_FRAGMENT);
      put += FRAGMENT_HEADER;
    }
    const start = ETHERNET + header + at;
    buffer.set(from.buffer.subarray(start, start + size), put);
    frame.plain();
    frame.setLength(put + size);
    this.#at = at + size;
    return frame;
  }
}
