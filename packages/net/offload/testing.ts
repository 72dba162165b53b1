/** Frames for tests: written field by field from what a test says, with no help of the code that is tested. */

/** What to build. Everything has a value that is good enough. */
export interface FrameSpec {
  /** IP version, or "arp" for something that is not IP. */
  readonly ip: 4 | 6 | "arp";
  /** What is in the IP packet; "tcp" unless given. A number is an IP protocol with the payload right behind the IP header. */
  readonly transport?: "tcp" | "udp" | "icmp" | number;
  /** What the transport carries. */
  readonly payload?: Uint8Array;
  /** VLANs, the outer one first: at most 2 that the standard code passes, more for tests of what it does then. */
  readonly tags?: readonly number[];
  /** Destination MAC address; 02:00:00:00:00:02 unless given. */
  readonly to?: readonly number[];
  /** Source MAC address; 02:00:00:00:00:01 unless given. */
  readonly from?: readonly number[];
  /** Source IP address, 4 or 16 bytes; 10.0.0.1 or fd00::1 unless given. */
  readonly source?: readonly number[];
  /** Destination IP address; 10.0.0.2 or fd00::2 unless given. */
  readonly destination?: readonly number[];
  /** Source port; 40000 unless given. */
  readonly sourcePort?: number;
  /** Destination port; 80 unless given. */
  readonly destinationPort?: number;
  /** IPv4 options, a multiple of 4 bytes. */
  readonly ipOptions?: readonly number[];
  /** IPv4 identification; 0x1234 unless given. */
  readonly id?: number;
  /** IPv4 flags and fragment offset; DF unless given. */
  readonly fragment?: number;
  /** IPv6 extension headers: protocol number and content, whose first byte is where the next header goes. */
  readonly extensions?: readonly { readonly type: number; readonly bytes: readonly number[] }[];
  /** TCP options, a multiple of 4 bytes. */
  readonly tcpOptions?: readonly number[];
  /** TCP sequence number; 1000 unless given. */
  readonly sequence?: number;
  /** TCP flags; ACK unless given. */
  readonly tcpFlags?: number;
  /**
   * - "full" (unless given): a right checksum.
   * - "partial": the sum of the pseudo header, as VIRTIO_NET_HDR_F_NEEDS_CSUM wants it.
   * - "none": 0.
   */
  readonly checksum?: "full" | "partial" | "none";
  /** Bytes of padding behind the packet. */
  readonly padding?: number;
}

/** The internet checksum's sum, word by word as RFC 1071 describes it. */
export function naiveSum(bytes: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0);
    while (sum > 0xffff) sum = sum - 0x1_0000 + 1;
  }
  return sum;
}

/** 16 bits, big endian. */
export function be16(value: number): number[] {
  return [(value >> 8) & 0xff, value & 0xff];
}

/** 32 bits, big endian. */
export function be32(value: number): number[] {
  return [...be16(value >>> 16), ...be16(value & 0xffff)];
}

/** Bytes that are all different from their neighbours. */
export function pattern(length: number, seed: number = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 37 + (i >> 8) * 11 + seed) & 0xff);
}

const PROTOCOLS = { tcp: 6, udp: 17, icmp: 1, icmp6: 58 } as const;

/** Builds a frame. */
export function buildFrame(spec: FrameSpec): Uint8Array {
  const payload = spec.payload ?? new Uint8Array(0);
  const frame = [
    ...(spec.to ?? [2, 0, 0, 0, 0, 2]),
    ...(spec.from ?? [2, 0, 0, 0, 0, 1]),
  ];
  const tags = spec.tags ?? [];
  tags.forEach((tag, i) => {
    frame.push(...be16(i === 0 && tags.length > 1 ? 0x88a8 : 0x8100), ...be16(tag));
  });
  if (spec.ip === "arp") {
    return Uint8Array.from([...frame, 8, 6, ...payload, ...new Array(spec.padding ?? 0).fill(0)]);
  }
  const source = spec.source ?? (spec.ip === 4 ? [10, 0, 0, 1] : ipv6(1));
  const destination = spec.destination ?? (spec.ip === 4 ? [10, 0, 0, 2] : ipv6(2));
  const kind = spec.transport ?? "tcp";
  const protocol = typeof kind === "number"
    ? kind
    : kind === "icmp" && spec.ip === 6
    ? PROTOCOLS.icmp6
    : PROTOCOLS[kind];
  const upper = transportOf(spec, kind, protocol, [...source, ...destination], payload);
  if (spec.ip === 4) {
    frame.push(8, 0, ...ipv4Header(spec, protocol, [...source, ...destination], upper.length));
  } else {
    const extensions = spec.extensions ?? [];
    const chain: number[] = [];
    extensions.forEach(({ bytes }, i) => {
      chain.push(extensions[i + 1]?.type ?? protocol, ...bytes.slice(1));
    });
    const first = extensions[0]?.type ?? protocol;
    frame.push(0x86, 0xdd, 0x60, 0, 0, 0, ...be16(chain.length + upper.length), first, 64);
    frame.push(...source, ...destination, ...chain);
  }
  const bytes = new Uint8Array(frame.length + upper.length + (spec.padding ?? 0));
  bytes.set(frame);
  bytes.set(upper, frame.length);
  return bytes;
}

function ipv6(last: number): number[] {
  return [0xfd, ...new Array(14).fill(0), last];
}

function ipv4Header(
  spec: FrameSpec,
  protocol: number,
  addresses: readonly number[],
  upper: number,
): number[] {
  const options = spec.ipOptions ?? [];
  const size = 20 + options.length;
  const before = [
    0x40 | (size / 4),
    0,
    ...be16(size + upper),
    ...be16(spec.id ?? 0x1234),
    ...be16(spec.fragment ?? 0x4000),
    64,
    protocol,
  ];
  const checksum = ~naiveSum([...before, 0, 0, ...addresses, ...options]) & 0xffff;
  return [...before, ...be16(checksum), ...addresses, ...options];
}

/** The transport's header with its checksum, and its payload. */
function transportOf(
  spec: FrameSpec,
  kind: "tcp" | "udp" | "icmp" | number,
  protocol: number,
  addresses: readonly number[],
  payload: Uint8Array,
): Uint8Array {
  if (typeof kind === "number") return payload;
  const ports = [...be16(spec.sourcePort ?? 40000), ...be16(spec.destinationPort ?? 80)];
  let header: number[];
  let field: number;
  if (kind === "tcp") {
    const options = spec.tcpOptions ?? [];
    const flags = [((20 + options.length) / 4) << 4, spec.tcpFlags ?? 0x10];
    header = [...ports, ...be32(spec.sequence ?? 1000), ...be32(77), ...flags];
    header.push(...be16(0xff00), 0, 0, 0, 0, ...options);
    field = 16;
  } else if (kind === "udp") {
    header = [...ports, ...be16(8 + payload.length), 0, 0];
    field = 6;
  } else {
    header = [spec.ip === 4 ? 8 : 128, 0, 0, 0, 0, 1, 0, 1];
    field = 2;
  }
  const bytes = new Uint8Array(header.length + payload.length);
  bytes.set(header);
  bytes.set(payload, header.length);
  const pseudo = spec.ip === 4 && kind === "icmp"
    ? []
    : [...addresses, ...be32(bytes.length), ...be32(protocol)];
  const mode = spec.checksum ?? "full";
  if (mode === "partial") {
    bytes.set(be16(naiveSum(pseudo)), field);
  } else if (mode === "full") {
    const sum = naiveSum([...be16(naiveSum(pseudo)), ...be16(naiveSum(bytes))]);
    const checksum = ~sum & 0xffff;
    bytes.set(be16(kind === "udp" && checksum === 0 ? 0xffff : checksum), field);
  }
  return bytes;
}

/** A view of bytes that throws outside of them. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
