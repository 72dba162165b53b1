/**
 * What the IP layer and the transports on top of it (TCP, UDP, ICMP) tell each other.
 *
 * ```text
 *   guest --frame--> Gateway --IpPacket--> Transport.receive
 *   guest <--frame-- Gateway <--IpOutput-- begin(path) ... write in place ... finish(length)
 * ```
 *
 * Nothing here is allocated per packet: one `IpPacket` and one output buffer are used again and again. What is made once per
 * flow is a `Path`.
 */

/** Protocol numbers of the IP header's `protocol` or last `next header`. */
export const IpProtocol = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  icmpv6: 58,
} as const;

/**
 * An address: four words of 32 bits, the first one highest; not negative. That of IPv4 has the mapped form of RFC 4291,
 * 2.5.5.2: 0, 0, 0xffff, address. So both versions have one kind of key, and an address of IPv4 is `words[3]`.
 */
export type AddressWords = Uint32Array;

/**
 * A station on the network behind a port: one MAC address. The same object for as long as it is known; a good key of a Map or
 * WeakMap for what is kept for each guest.
 */
export interface Guest {
  /** As text, with colons. */
  readonly mac: string;
  /** Name of its lease, or of its port. */
  readonly name: string;
  /** The name of the port that it is behind. */
  readonly port: string;
  /** Its addresses as text, leased or claimed; IPv4 first. */
  readonly addresses: readonly string[];
  /** True once it was forgotten: its port went, or it made room for others. Nothing reaches it any more. */
  readonly gone: boolean;
  /** Whether large TCP segments over IPv4 leave unsegmented; may change. A hint: what is not taken is cut. */
  readonly tso4: boolean;
  /** The same of IPv6. */
  readonly tso6: boolean;
}

/**
 * A checked packet of a guest, whole: fragments were put together. Valid during the call that hands it over, its buffer
 * included; nobody else writes to the buffer meanwhile, not even the guest.
 */
export interface IpPacket {
  /** Who sent it; its source address is one that the guest may use. */
  readonly guest: Guest;
  /** 4 or 6. */
  readonly version: number;
  /** Never a group's or the unspecified one for a transport. */
  readonly source: AddressWords;
  /** Never a group's or the subnet's broadcast address for a transport. */
  readonly destination: AddressWords;
  /** Whether the destination is an address of the gateway's own. */
  readonly local: boolean;
  /** Of the IP header; extension headers are behind us. */
  readonly protocol: number;
  /** Time to live, as it came; at least 1, and at least 2 if not `local`. */
  readonly hopLimit: number;
  /** The byte with DSCP and ECN. */
  readonly trafficClass: number;
  /** IPv4: whether "don't fragment" is set; IPv6: true. */
  readonly dontFragment: boolean;
  /** Where the bytes are. */
  readonly buffer: Uint8Array;
  /** The same bytes. */
  readonly view: DataView;
  /** The first byte of the IP header in `buffer`. */
  readonly headerOffset: number;
  /** The first byte of the transport's header in `buffer`. */
  readonly offset: number;
  /** Bytes from `offset` on: the transport's header and payload, without padding of the frame. */
  readonly length: number;
  /**
   * Whether the transport's checksum is good. Of TCP, UDP and ICMP it was computed unless the guest left it to be completed
   * (then nothing on the way can have damaged it); packets with a wrong one never arrive here. UDP without one counts as
   * good over IPv4.
   */
  readonly checksumGood: boolean;
  /** `gso_size`: bytes of payload of each segment if it came unsegmented, else 0. */
  readonly gsoSize: number;
}

/** Takes packets that guests send. */
export interface Transport {
  /**
   * Takes a packet. Never throws for what is in it. Packets may be sent from within; it is never called while another packet
   * is handled or sent, so there is no recursion.
   */
  receive(packet: IpPacket): void;
  /** Told that a guest is gone: what is kept for it is to be freed. */
  guestGone?(guest: Guest): void;
}

/**
 * How packets of a flow go to a guest: made once per flow by `IpOutput.path`.
 */
export interface Path {
  /** The receiver. */
  readonly guest: Guest;
  /** 4 or 6. */
  readonly version: number;
  /** A protocol number. */
  readonly protocol: number;
  /** The outside's or the gateway's address: the source of what is sent. */
  readonly source: AddressWords;
  /** The guest's address. */
  readonly destination: AddressWords;
  /** The largest IP packet, header included, that leaves in one piece. Of TCP: MSS is this less 40 (IPv4) or 60 (IPv6). */
  readonly mtu: number;
  /** Bytes of the IP header: 20 or 40. */
  readonly ipHeaderSize: number;
  /** DSCP and ECN of what is sent; 0 at first. */
  trafficClass: number;
  /** Time to live of what is sent; 64 at first. */
  hopLimit: number;
  /** "Don't fragment" of IPv4; true at first for TCP. What is larger than the MTU is cut into fragments if false. */
  dontFragment: boolean;
}

/** What an ICMP error says, in the terms of both versions. */
export type IcmpErrorKind =
  /** No way to the network. */
  | "network"
  /** No way to the host. */
  | "host"
  /** Nobody knows the protocol. */
  | "protocol"
  /** Nobody listens at the port. */
  | "port"
  /** Refused by a rule. */
  | "prohibited"
  /** Larger than a link takes, and not to be fragmented; `mtu` says how large it may be. */
  | "tooBig"
  /** The hop limit ran out. */
  | "hopLimit";

/** Sends packets to guests. */
export interface IpOutput {
  /** The output buffer: the same one always. */
  readonly buffer: Uint8Array;
  /** The same bytes. */
  readonly view: DataView;
  /** Where the transport's header starts in `buffer`, after `begin`. */
  readonly start: number;
  /** Bytes that fit from `start` on: up to 65,535 with the IP header. */
  readonly room: number;
  /** The addresses of the gateway: [IPv4, IPv6, IPv6 link-local], as far as there are such. */
  readonly addresses: readonly AddressWords[];

  /**
   * Makes a path to a guest.
   *
   * @param source The outside's address, or one of the gateway's.
   * @param destination The guest's, of the same version.
   */
  path(guest: Guest, source: AddressWords, destination: AddressWords, protocol: number): Path;

  /**
   * Begins a packet: write the transport's header and payload at `start` of `buffer`, then call `finish`. Nothing else may be
   * sent in between. Not finishing is fine. The checksum field's content does not matter.
   *
   * @returns False if nothing reaches the guest at present (its link is down, or it is gone): do not write, do not finish.
   */
  begin(path: Path): boolean;

  /**
   * Sends what was written. Headers of Ethernet and IP are made here; the checksum is left to the guest if it takes that.
   *
   * @param length Bytes of the transport's header and payload.
   * @param checksumOffset Where the checksum is in the transport's header (TCP 16, UDP 6, ICMPv6 2: with the pseudo header;
   *   ICMP 2: without), or -1 if there is nothing to be done.
   * @param gsoSize Payload bytes of a segment if it is TCP or UDP to be segmented, else 0. Only if the payload is longer.
   */
  finish(length: number, checksumOffset: number, gsoSize: number): void;

  /**
   * Answers a packet with an ICMP error, at a limited rate. Call it while the packet is valid.
   *
   * @param mtu Of "tooBig".
   */
  refuse(packet: IpPacket, kind: IcmpErrorKind, mtu?: number): void;

  /**
   * Sends an ICMP error about a packet of the past, at a limited rate: the outside refused it.
   *
   * @param path The way back to the guest that sent it: `path.source` is where the packet went.
   * @param start The first bytes of what the guest sent, the transport's header first: at least 8 bytes.
   * @param mtu Of "tooBig".
   */
  reject(path: Path, kind: IcmpErrorKind, start: Uint8Array, mtu?: number): void;

  /**
   * Finds the guest that has an address on the network: for forwards from the outside.
   *
   * @returns Null if it is not known. A neighbour who was silent is asked for: try again a moment later.
   */
  find(address: AddressWords): Guest | null;
}

/** The side of the IP layer that transports register with. */
export interface IpLayer {
  /** Sends. */
  readonly output: IpOutput;
  /**
   * Sets who takes packets of a protocol, both versions; null for nobody. Packets of ICMP and ICMPv6 are handed up if they
   * are echo requests to the outside, or errors about what was sent from an address of the outside (the error's quote is in
   * the packet, unchecked). UDP to the gateway's own services (DHCP, DNS) is not handed up.
   */
  transport(protocol: number, transport: Transport | null): void;
}
