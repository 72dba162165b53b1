/** Addresses of both versions as four words, and the networks that they are in. */
import type { AddressWords } from "./packet.ts";

/** The third word of an address of IPv4 in its mapped form (RFC 4291, 2.5.5.2). */
const MAPPED = 0xffff;

/** Makes an address of IPv4. @param value 32 bits, not negative. */
export function ipv4(value: number): AddressWords {
  return new Uint32Array([0, 0, MAPPED, value]);
}

/** Whether an address is one of IPv4. */
export function isIpv4(address: AddressWords): boolean {
  return address[0] === 0 && address[1] === 0 && address[2] === MAPPED;
}

/** Whether two addresses are the same. */
export function sameAddress(one: AddressWords, other: AddressWords): boolean {
  return one[3] === other[3] && one[2] === other[2] && one[1] === other[1] && one[0] === other[0];
}

/** Reads the address of IPv4 at `at` into `into`. */
export function readIpv4(view: DataView, at: number, into: AddressWords): void {
  into[0] = 0;
  into[1] = 0;
  into[2] = MAPPED;
  into[3] = view.getUint32(at);
}

/** Reads the address of IPv6 at `at` into `into`. */
export function readIpv6(view: DataView, at: number, into: AddressWords): void {
  for (let i = 0; i < 4; i++) into[i] = view.getUint32(at + 4 * i);
}

/** Writes an address of IPv6. */
export function writeIpv6(view: DataView, at: number, address: AddressWords): void {
  for (let i = 0; i < 4; i++) view.setUint32(at + 4 * i, address[i]!);
}

/** Reads an address of IPv4 as text: four decimal numbers. @returns Null if it is none. */
export function parseIpv4(text: string): number | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  let value = 0;
  for (const part of parts) {
    // A leading zero means octal to some: not to be guessed.
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return null;
    value = value * 256 + Number(part);
  }
  return value;
}

/** Writes an address of IPv4 as text. */
export function formatIpv4(value: number): string {
  return `${value >>> 24}.${value >>> 16 & 255}.${value >>> 8 & 255}.${value & 255}`;
}

/** Reads an address of either version as text. @returns Null if it is none. */
export function parseAddress(text: string): AddressWords | null {
  const value = parseIpv4(text);
  if (value !== null) return ipv4(value);
  return text.includes(":") ? parseIpv6(text) : null;
}

function parseIpv6(text: string): AddressWords | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const head = parseGroups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : [];
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  const words = new Uint32Array(4);
  for (let i = 0; i < 4; i++) words[i] = groups[2 * i]! * 0x1_0000 + groups[2 * i + 1]!;
  return words;
}

function parseGroups(text: string, last: boolean): number[] | null {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [i, part] of parts.entries()) {
    if (last && i === parts.length - 1 && part.includes(".")) {
      const value = parseIpv4(part);
      if (value === null) return null;
      groups.push(value >>> 16, value & 0xffff);
    } else if (/^[0-9a-f]{1,4}$/i.test(part)) groups.push(parseInt(part, 16));
    else return null;
  }
  return groups;
}

/** Writes an address of either version as text, that of IPv6 as RFC 5952 has it. */
export function formatAddress(address: AddressWords): string {
  if (isIpv4(address)) return formatIpv4(address[3]!);
  const groups: number[] = [];
  for (const word of address) groups.push(word >>> 16, word & 0xffff);
  let best = -1;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) {
      best = i;
      length = end - i;
    }
  }
  const write = (from: number, to: number): string =>
    groups.slice(from, to).map((group) => group.toString(16)).join(":");
  return best < 0 ? write(0, 8) : `${write(0, best)}::${write(best + length, 8)}`;
}

/** A network: all addresses with the same first bits. */
export class Subnet {
  /** 4 or 6. */
  readonly version: 4 | 6;
  /** Bits that all addresses share: of IPv4 0 to 32. */
  readonly prefix: number;
  /** The first address. */
  readonly first: AddressWords;
  readonly #masks: Uint32Array = new Uint32Array(4);

  /**
   * @param address Any address of it.
   * @param prefix Bits that all addresses share.
   * @throws {RangeError} If the prefix is out of range.
   */
  constructor(address: AddressWords, prefix: number) {
    this.version = isIpv4(address) ? 4 : 6;
    const most = this.version === 4 ? 32 : 128;
    if (!(Number.isInteger(prefix) && prefix >= 0 && prefix <= most)) {
      throw new RangeError(`A prefix has from 0 to ${most} bits: these are ${prefix}`);
    }
    this.prefix = prefix;
    const bits = prefix + 128 - most;
    for (let i = 0; i < 4; i++) {
      const own = Math.min(32, Math.max(0, bits - 32 * i));
      this.#masks[i] = own === 0 ? 0 : 0xffff_ffff << (32 - own);
    }
    this.first = address.map((word, i) => word & this.#masks[i]!);
  }

  /**
   * Reads a network as text, such as 192.168.122.0/24.
   *
   * @throws {TypeError} If it is none.
   */
  static parse(text: string): Subnet {
    const [address, prefix, ...more] = text.split("/");
    const words = parseAddress(address!);
    if (words === null || prefix === undefined || !/^[0-9]{1,3}$/.test(prefix) || more.length > 0) {
      throw new TypeError(`A network is written as 192.168.122.0/24 or fd00::/64: this is ${text}`);
    }
    return new Subnet(words, Number(prefix));
  }

  /** Of IPv4: the mask. */
  get mask(): number {
    return this.#masks[3]!;
  }

  /** Of IPv4: the last address, which means all. */
  get broadcast(): number {
    return (this.first[3]! | ~this.mask) >>> 0;
  }

  /** Whether an address is in it. */
  contains(address: AddressWords): boolean {
    const { first } = this;
    for (let i = 0; i < 4; i++) {
      if (((address[i]! ^ first[i]!) & this.#masks[i]!) !== 0) return false;
    }
    return true;
  }

  /** Whether they have an address in common. */
  overlaps(other: Subnet): boolean {
    return this.version === other.version &&
      (this.contains(other.first) || other.contains(this.first));
  }

  /** As text. */
  toString(): string {
    return `${formatAddress(this.first)}/${this.prefix}`;
  }
}

/** Whether an address belongs to a group (multicast), or to all (255.255.255.255). */
export function isGroup(address: AddressWords): boolean {
  if (isIpv4(address)) return address[3]! >= 0xe000_0000;
  return address[0]! >>> 24 === 0xff;
}

/** Whether an address says that there is none. */
export function isUnspecified(address: AddressWords): boolean {
  return address[3] === 0 && address[0] === 0 && address[1] === 0 &&
    (address[2] === 0 || address[2] === MAPPED);
}

/** Whether an address of IPv6 is for its link only. */
export function isLinkLocal(address: AddressWords): boolean {
  return (address[0]! & 0xffc0_0000) >>> 0 === 0xfe80_0000;
}

/** Addresses of IPv4 that never are on a wire (RFC 6890). Which others may be reached is for whoever has the way out. */
export function isMartian4(address: AddressWords): boolean {
  const first = address[3]! >>> 24;
  return first === 0 || first === 127 || first >= 240;
}

/** Addresses of IPv6 that never are on a wire beyond a link. */
export function isMartian6(address: AddressWords): boolean {
  if (isLinkLocal(address)) return true;
  return address[0] === 0 && address[1] === 0 && address[2] === 0 && address[3]! <= 1;
}
