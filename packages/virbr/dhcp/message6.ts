/** Messages of DHCPv6 (RFC 8415, 8 and 21). */
import { readIpv6, writeIpv6 } from "../ip/address.ts";
import type { AddressWords } from "../ip/packet.ts";

/** Types of messages. */
export const Dhcp6Type = {
  solicit: 1,
  advertise: 2,
  request: 3,
  confirm: 4,
  renew: 5,
  rebind: 6,
  reply: 7,
  release: 8,
  decline: 9,
  informationRequest: 11,
} as const;

/** Options. */
export const Dhcp6Option = {
  clientId: 1,
  serverId: 2,
  addresses: 3,
  temporaryAddresses: 4,
  address: 5,
  status: 13,
  rapidCommit: 14,
  resolvers: 23,
  domains: 24,
  prefixes: 25,
  refresh: 32,
} as const;

/** Codes of `Dhcp6Option.status`. */
export const Dhcp6Status = { success: 0, noAddresses: 2, notOnLink: 4, noPrefix: 6 } as const;

/** Bytes of an identifier at most (RFC 8415, 11.1). */
const MOST_ID = 130;
const MOST_OPTIONS = 64;
/** Associations of a message, and addresses of each, that are looked at. */
const MOST_ASSOCIATIONS = 8;
/** Bytes before an association's own options. */
const ASSOCIATION_HEADS: { readonly [option: number]: number } = { 3: 12, 4: 4, 25: 12 };
const ADDRESS_SIZE = 24;

/** What a client wants addresses for, or has them. */
export interface Association {
  /** One of `Dhcp6Option`: addresses, temporaryAddresses or prefixes. */
  readonly option: number;
  /** Which one it is to the client. */
  readonly id: number;
  /** Addresses that the client names. */
  readonly addresses: readonly AddressWords[];
}

/** A client's message. */
export interface Dhcp6Request {
  readonly type: number;
  /** The client's number of the exchange. */
  readonly transaction: number;
  /** Empty if the client does not say who it is. */
  readonly clientId: Uint8Array;
  /** The server that it means; null if any. */
  readonly serverId: Uint8Array | null;
  /** Whether it takes the first answer for the last. */
  readonly rapid: boolean;
  readonly associations: readonly Association[];
}

/** Goes through options; false if they are none, or `take` refuses one. */
function eachOption(
  view: DataView,
  from: number,
  to: number,
  take: (option: number, at: number, length: number) => boolean,
): boolean {
  let at = from;
  for (let count = 0; at < to; count++) {
    if (count === MOST_OPTIONS || at + 4 > to) return false;
    const option = view.getUint16(at);
    const length = view.getUint16(at + 2);
    at += 4;
    if (at + length > to || !take(option, at, length)) return false;
    at += length;
  }
  return true;
}

function readAssociation(
  view: DataView,
  option: number,
  at: number,
  length: number,
): Association | null {
  const head = ASSOCIATION_HEADS[option]!;
  if (length < head) return null;
  const addresses: AddressWords[] = [];
  const fine = eachOption(view, at + head, at + length, (option, at, length) => {
    if (option !== Dhcp6Option.address) return true;
    if (length < ADDRESS_SIZE || addresses.length === MOST_ASSOCIATIONS) return false;
    const words = new Uint32Array(4);
    readIpv6(view, at, words);
    addresses.push(words);
    return true;
  });
  return fine ? { option, id: view.getUint32(at), addresses } : null;
}

/** Reads a message. @returns Null if it breaks a rule. */
export function readDhcp6(view: DataView, from: number, to: number): Dhcp6Request | null {
  if (to - from < 4) return null;
  const bytes = (at: number, length: number): Uint8Array =>
    new Uint8Array(view.buffer, view.byteOffset + at, length).slice();
  let clientId: Uint8Array = new Uint8Array(0);
  let serverId: Uint8Array | null = null;
  let rapid = false;
  const associations: Association[] = [];
  const fine = eachOption(view, from + 4, to, (option, at, length) => {
    if (option === Dhcp6Option.clientId || option === Dhcp6Option.serverId) {
      if (length > MOST_ID) return false;
      if (option === Dhcp6Option.clientId) clientId = bytes(at, length);
      else serverId = bytes(at, length);
    } else if (option === Dhcp6Option.rapidCommit) rapid = true;
    else if (option in ASSOCIATION_HEADS) {
      const read = associations.length === MOST_ASSOCIATIONS
        ? null
        : readAssociation(view, option, at, length);
      if (read === null) return false;
      associations.push(read);
    }
    return true;
  });
  if (!fine) return null;
  const first = view.getUint32(from);
  return {
    type: first >>> 24,
    transaction: first & 0xff_ffff,
    clientId,
    serverId,
    rapid,
    associations,
  };
}

/** Writes a message, option by option. */
export class Dhcp6Writer {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 4;

  /** @param room Bytes for options that vary in length. */
  constructor(type: number, transaction: number, room: number) {
    this.#bytes = new Uint8Array(512 + room);
    this.#view = new DataView(this.#bytes.buffer);
    this.#view.setUint32(0, type * 0x100_0000 + transaction);
  }

  /** What was written. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  /** Puts an option with bytes. */
  put(option: number, bytes: ArrayLike<number>): void {
    this.#head(option, bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** Puts an option with an address. */
  putAddress(option: number, address: AddressWords): void {
    this.#head(option, 16);
    writeIpv6(this.#view, this.#at, address);
    this.#at += 16;
  }

  /** Puts a code, without words. */
  putStatus(status: number): void {
    this.put(Dhcp6Option.status, [0, status]);
  }

  /** Puts an association, with what `inside` puts. @param renew Seconds until the client asks again. */
  putAssociation({ option, id }: Association, renew: number, inside: () => void): void {
    const start = this.#at;
    this.#head(option, 0);
    this.#view.setUint32(this.#at, id);
    this.#at += 4;
    if (option !== Dhcp6Option.temporaryAddresses) {
      this.#view.setUint32(this.#at, renew);
      this.#view.setUint32(this.#at + 4, Math.floor(renew * 1.6));
      this.#at += 8;
    }
    inside();
    this.#view.setUint16(start + 2, this.#at - start - 4);
  }

  /** Puts an address of an association. @param seconds How long it is good; 0 if it is not. */
  putLease(address: AddressWords, seconds: number): void {
    this.#head(Dhcp6Option.address, ADDRESS_SIZE);
    writeIpv6(this.#view, this.#at, address);
    this.#view.setUint32(this.#at + 16, seconds);
    this.#view.setUint32(this.#at + 20, seconds);
    this.#at += ADDRESS_SIZE;
  }

  #head(option: number, length: number): void {
    this.#view.setUint16(this.#at, option);
    this.#view.setUint16(this.#at + 2, length);
    this.#at += 4;
  }
}
