/** What TCP of `@virtio/virbr` needs of a station: a way for its segments, and what came as it wants to see it. */
import {
  Frame,
  type FrameSink,
  pass,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "@virtio/net";
import type { AddressWords, Guest, IpOutput, IpPacket, Path } from "@virtio/virbr";
import {
  type Address,
  ETHERNET_SIZE,
  ETHERTYPE_IPV4,
  fold,
  formatIp,
  IP_SIZE,
  type Packet,
  PROTOCOL_TCP,
  pseudoSum,
  putEthernet,
  putIp,
} from "./wire.ts";

/** What it needs of its station. */
export interface StationLink {
  readonly mac: Address;
  readonly ip: Address;
  readonly mtu: number;
  /** Whether segments leave unsegmented and without their sums. */
  readonly offload: boolean;
  /** The MAC address of a neighbour; undefined if it is not known. */
  neighbour(ip: string): Address | undefined;
  /** Puts a frame on the network. */
  send(frame: Frame): void;
}

/** An address as TCP has it. */
export function wordsOf(ip: Address): AddressWords {
  const [a, b, c, d] = ip;
  return new Uint32Array([0, 0, 0xffff, (a! << 24 | b! << 16 | c! << 8 | d!) >>> 0]);
}

/** And the other way round. */
function bytesOf(words: AddressWords): Address {
  const word = words[3]!;
  return new Uint8Array([word >>> 24, word >>> 16, word >>> 8, word]);
}

/** Where segments leave a station. */
export class StationOutput implements IpOutput {
  readonly addresses: readonly AddressWords[];
  readonly start: number = ETHERNET_SIZE + IP_SIZE;
  readonly room: number = 65_535 - IP_SIZE;
  readonly #link: StationLink;
  readonly #frame: Frame = new Frame();
  /** Gets frames with which nothing is left to be done. */
  readonly #finisher: FrameSink;
  /** Peers by address: TCP tells them apart by identity. */
  readonly #peers: Map<string, Guest> = new Map();
  #to: Address = new Uint8Array(4);
  #id = 0;

  constructor(link: StationLink) {
    this.#link = link;
    this.addresses = [wordsOf(link.ip)];
    this.#finisher = { offloads: 0, deliver: link.send };
  }

  get buffer(): Uint8Array {
    return this.#frame.buffer;
  }

  get view(): DataView {
    return this.#frame.view;
  }

  /** Whoever has an address. */
  peer(ip: Address): Guest {
    const text = formatIp(ip);
    const { offload } = this.#link;
    let peer = this.#peers.get(text);
    if (peer === undefined) {
      peer = {
        mac: "",
        name: text,
        port: text,
        addresses: [text],
        gone: false,
        tso4: offload,
        tso6: false,
      };
      this.#peers.set(text, peer);
    }
    return peer;
  }

  /** A packet of TCP that came, as TCP wants to see it. */
  packet({ from, to, payload }: Packet, gsoSize: number): IpPacket {
    const { buffer, byteOffset, byteLength } = payload;
    return {
      guest: this.peer(from),
      version: 4,
      source: wordsOf(from),
      destination: wordsOf(to),
      local: true,
      protocol: PROTOCOL_TCP,
      hopLimit: 64,
      trafficClass: 0,
      dontFragment: true,
      buffer: payload,
      view: new DataView(buffer, byteOffset, byteLength),
      headerOffset: 0,
      offset: 0,
      length: byteLength,
      checksumGood: true,
      gsoSize,
    };
  }

  path(guest: Guest, source: AddressWords, destination: AddressWords, protocol: number): Path {
    return {
      guest,
      version: 4,
      protocol,
      source,
      destination,
      mtu: this.#link.mtu,
      ipHeaderSize: IP_SIZE,
      trafficClass: 0,
      hopLimit: 64,
      dontFragment: true,
    };
  }

  begin({ destination }: Path): boolean {
    const { mac, neighbour } = this.#link;
    this.#to = bytesOf(destination);
    const to = neighbour(formatIp(this.#to));
    if (to === undefined) return false;
    putEthernet(this.buffer, to, mac, ETHERTYPE_IPV4);
    return true;
  }

  finish(length: number, checksumOffset: number, gsoSize: number): void {
    const { ip, offload, send } = this.#link;
    const frame = this.#frame;
    const { buffer, view, start } = this;
    putIp(buffer, ip, this.#to, PROTOCOL_TCP, length, this.#id++ & 0xffff);
    const at = start + checksumOffset;
    // 5.1.6.2: the field holds the sum over the pseudo header; whoever finishes the frame adds the rest.
    view.setUint16(at, fold(pseudoSum(ip, this.#to, PROTOCOL_TCP, length)));
    frame.plain();
    frame.setLength(start + length);
    frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    frame.csumStart = start;
    frame.csumOffset = checksumOffset;
    frame.headerLength = start + (buffer[start + 12]! >> 4) * 4;
    if (gsoSize > 0) {
      frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
      frame.gsoSize = gsoSize;
    }
    if (offload) send(frame);
    else pass(frame, this.#finisher);
  }

  refuse(): void {}

  reject(): void {}

  find(): null {
    return null;
  }
}
