/** How Ethernet, ARP, IPv4, ICMP, UDP and TCP look on the wire, as far as this example's station uses them. */

/** A MAC address as 6 bytes, an IPv4 address as 4. */
export type Address = Uint8Array;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const ETHERNET_SIZE = 14;
export const IP_SIZE = 20;
export const UDP_SIZE = 8;

export const BROADCAST_MAC: Address = new Uint8Array(6).fill(0xff);
export const BROADCAST_IP: Address = new Uint8Array(4).fill(0xff);

/** Parses "10.0.0.1". @throws {RangeError} If it is no IPv4 address. */
export function parseIp(text: string): Address {
  const parts = text.split(".").map(Number);
  if (
    parts.length !== 4 || !parts.every((part) => Number.isInteger(part) && part >= 0 && part < 256)
  ) {
    throw new RangeError(`${text} is no IPv4 address`);
  }
  return new Uint8Array(parts);
}

/** The other way round. */
export function formatIp(ip: Address): string {
  return ip.join(".");
}

/** Whether two addresses are the same. */
export function sameAddress(a: Address, b: Address): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** The sum of 16-bit words that the checksum of the Internet (RFC 1071) is made of, not folded. */
export function sumWords(bytes: Uint8Array, from = 0, to: number = bytes.length): number {
  let sum = 0;
  const even = to - ((to - from) & 1);
  for (let at = from; at < even; at += 2) sum += bytes[at]! << 8 | bytes[at + 1]!;
  return even === to ? sum : sum + (bytes[even]! << 8);
}

/** Folds a sum to 16 bits. */
export function fold(sum: number): number {
  while (sum > 0xffff) sum = sum % 0x1_0000 + Math.floor(sum / 0x1_0000);
  return sum;
}

/** The sum over the pseudo header of TCP and UDP. */
export function pseudoSum(from: Address, to: Address, protocol: number, length: number): number {
  return sumWords(from) + sumWords(to) + protocol + length;
}

/** Writes an Ethernet header. */
export function putEthernet(bytes: Uint8Array, to: Address, from: Address, type: number): void {
  bytes.set(to, 0);
  bytes.set(from, 6);
  bytes[12] = type >> 8;
  bytes[13] = type & 0xff;
}

/** Writes an IPv4 header without options behind an Ethernet header. */
export function putIp(
  bytes: Uint8Array,
  from: Address,
  to: Address,
  protocol: number,
  payload: number,
  id: number,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  bytes.fill(0, ETHERNET_SIZE, ETHERNET_SIZE + IP_SIZE);
  bytes[14] = 0x45;
  view.setUint16(16, IP_SIZE + payload);
  view.setUint16(18, id);
  view.setUint16(20, 0x4000); // do not fragment
  bytes[22] = 64;
  bytes[23] = protocol;
  bytes.set(from, 26);
  bytes.set(to, 30);
  view.setUint16(24, ~fold(sumWords(bytes, ETHERNET_SIZE, ETHERNET_SIZE + IP_SIZE)) & 0xffff);
}

/** An IPv4 packet in a frame. */
export interface Packet {
  readonly protocol: number;
  readonly from: Address;
  readonly to: Address;
  /** Who sent the frame. */
  readonly fromMac: Address;
  /** What the packet carries; shares the frame's memory. */
  readonly payload: Uint8Array;
}

/** Reads an IPv4 packet; null if it is none, damaged, a fragment, or cut short. */
export function readIp(bytes: Uint8Array): Packet | null {
  if (bytes.length < ETHERNET_SIZE + IP_SIZE) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint16(12) !== ETHERTYPE_IPV4 || bytes[14]! >> 4 !== 4) return null;
  const size = (bytes[14]! & 15) * 4;
  const total = view.getUint16(16);
  if (size < IP_SIZE || total < size || ETHERNET_SIZE + total > bytes.length) return null;
  if ((view.getUint16(20) & 0x3fff) !== 0) return null;
  if (fold(sumWords(bytes, ETHERNET_SIZE, ETHERNET_SIZE + size)) !== 0xffff) return null;
  return {
    protocol: bytes[23]!,
    from: bytes.slice(26, 30),
    to: bytes.slice(30, 34),
    fromMac: bytes.slice(6, 12),
    payload: bytes.subarray(ETHERNET_SIZE + size, ETHERNET_SIZE + total),
  };
}
