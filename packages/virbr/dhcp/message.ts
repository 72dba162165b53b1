/** Messages of DHCP (RFC 2131, 2) with their options (RFC 2132): read from hostile bytes, written within bounds. */

/** Types of messages (option 53). */
export const DhcpType = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const;

/** Numbers of options. */
export const DhcpOption = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  resolver: 6,
  hostName: 12,
  domainName: 15,
  interfaceMtu: 26,
  broadcast: 28,
  requestedAddress: 50,
  leaseTime: 51,
  overload: 52,
  type: 53,
  serverId: 54,
  parameters: 55,
  message: 56,
  maxSize: 57,
  renewal: 58,
  rebinding: 59,
  clientId: 61,
  tftpServer: 66,
  bootFile: 67,
  fqdn: 81,
  search: 119,
  end: 255,
} as const;

const FIXED = 236;
const COOKIE = 0x6382_5363;
const FLAG_BROADCAST = 0x8000;
/** What every client takes (RFC 2131, 2), as the message without headers of IP and UDP. */
const LEAST_ROOM = 548;
const MOST_ROOM = 1400;
/** Old clients and relays drop shorter ones (RFC 951, 3). */
const LEAST_SIZE = 300;

/** A message of a client. */
export class DhcpRequest {
  type = 0;
  transaction = 0;
  /** Whether the answer is to go to all. */
  broadcast = false;
  /** The client's address, 0 if it has none yet. */
  clientAddress = 0;
  /** Set by a relay. */
  relay = 0;
  /** The client's MAC address, with colons. */
  mac = "";
  /** What came with it, by number: several with one number are one (RFC 3396). */
  readonly options: Map<number, Uint8Array> = new Map();

  /** A message from bytes; null if they are none. */
  static parse(bytes: Uint8Array): DhcpRequest | null {
    if (bytes.length < FIXED + 4) return null;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    // A request, over Ethernet.
    if (view.getUint16(0) !== 0x0101 || view.getUint8(2) !== 6) return null;
    if (view.getUint32(FIXED) !== COOKIE) return null;
    const message = new DhcpRequest();
    message.transaction = view.getUint32(4);
    message.broadcast = (view.getUint16(10) & FLAG_BROADCAST) !== 0;
    message.clientAddress = view.getUint32(12);
    message.relay = view.getUint32(24);
    message.mac = Array.from(
      bytes.subarray(28, 34),
      (byte) => byte.toString(16).padStart(2, "0"),
    ).join(":");
    if (!message.#read(bytes.subarray(FIXED + 4))) return null;
    const overload = message.byte(DhcpOption.overload);
    if (overload !== null) {
      if ((overload & 1) !== 0 && !message.#read(bytes.subarray(108, 236))) return null;
      if ((overload & 2) !== 0 && !message.#read(bytes.subarray(44, 108))) return null;
    }
    message.type = message.byte(DhcpOption.type) ?? 0;
    return message.type === 0 ? null : message;
  }

  /** An option that is a byte; null if it is not there or another length. */
  byte(option: number): number | null {
    const value = this.options.get(option);
    return value?.length === 1 ? value[0]! : null;
  }

  /** An option that is an address. */
  address(option: number): number | null {
    const value = this.options.get(option);
    if (value?.length !== 4) return null;
    return (value[0]! << 24 | value[1]! << 16 | value[2]! << 8 | value[3]!) >>> 0;
  }

  /** The host name that the client has, not yet checked; empty if it says none. */
  get hostName(): string {
    const fqdn = this.options.get(DhcpOption.fqdn);
    if (fqdn !== undefined && fqdn.length > 3) {
      // With the E bit the name is in the format of DNS (RFC 4702, 2.1): its first label is all that counts.
      if ((fqdn[0]! & 4) === 0) return ascii(fqdn.subarray(3)).split(".")[0]!;
      return ascii(fqdn.subarray(4, 4 + fqdn[3]!));
    }
    return ascii(this.options.get(DhcpOption.hostName) ?? new Uint8Array(0)).split(".")[0]!;
  }

  /** How long the answer may be. */
  get room(): number {
    const value = this.options.get(DhcpOption.maxSize);
    if (value?.length !== 2) return LEAST_ROOM;
    const most = (value[0]! << 8 | value[1]!) - 28;
    return Math.min(MOST_ROOM, Math.max(LEAST_ROOM, most));
  }

  #read(bytes: Uint8Array): boolean {
    let at = 0;
    while (at < bytes.length) {
      const option = bytes[at++]!;
      if (option === DhcpOption.pad) continue;
      if (option === DhcpOption.end) return true;
      const size = bytes[at++];
      if (size === undefined || at + size > bytes.length) return false;
      const value = bytes.slice(at, at + size);
      const known = this.options.get(option);
      if (known === undefined) this.options.set(option, value);
      else {
        const joined = new Uint8Array(known.length + value.length);
        joined.set(known);
        joined.set(value, known.length);
        this.options.set(option, joined);
      }
      at += size;
    }
    // Some clients forget the end.
    return true;
  }
}

/** What the fixed part of an answer says. */
export interface DhcpAnswer {
  readonly clientAddress: number;
  readonly yourAddress: number;
  /** The server to boot from; 0 if there is none. */
  readonly nextServer: number;
  /** The file to boot; empty if there is none. */
  readonly bootFile: string;
}

/** Writes an answer. */
export class DhcpWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = FIXED + 4;

  constructor(request: DhcpRequest, answer: DhcpAnswer) {
    this.#bytes = new Uint8Array(request.room);
    this.#view = new DataView(this.#bytes.buffer);
    const view = this.#view;
    view.setUint32(0, 0x0201_0600);
    view.setUint32(4, request.transaction);
    view.setUint16(10, request.broadcast ? FLAG_BROADCAST : 0);
    view.setUint32(12, answer.clientAddress);
    view.setUint32(16, answer.yourAddress);
    view.setUint32(20, answer.nextServer);
    for (const [i, byte] of request.mac.split(":").entries()) {
      view.setUint8(28 + i, parseInt(byte, 16));
    }
    const file = encodeAscii(answer.bootFile);
    if (file.length < 128) this.#bytes.set(file, 108);
    view.setUint32(FIXED, COOKIE);
  }

  /** Adds an option, if there is room. */
  bytes(option: number, value: Uint8Array): this {
    // Longer ones go in pieces (RFC 3396).
    const pieces = Math.ceil(value.length / 255);
    if (value.length === 0 || this.#at + value.length + 2 * pieces + 1 > this.#bytes.length) {
      return this;
    }
    for (let from = 0; from < value.length; from += 255) {
      const piece = value.subarray(from, from + 255);
      this.#bytes[this.#at] = option;
      this.#bytes[this.#at + 1] = piece.length;
      this.#bytes.set(piece, this.#at + 2);
      this.#at += 2 + piece.length;
    }
    return this;
  }

  /** Adds an option of one byte. */
  byte(option: number, value: number): this {
    return this.bytes(option, new Uint8Array([value]));
  }

  /** Adds an option of 32 bits. */
  word(option: number, value: number): this {
    return this.words(option, [value]);
  }

  /** Adds an option of several words. */
  words(option: number, values: readonly number[]): this {
    const bytes = new Uint8Array(4 * values.length);
    const view = new DataView(bytes.buffer);
    for (const [i, value] of values.entries()) view.setUint32(4 * i, value);
    return this.bytes(option, bytes);
  }

  /** Adds an option that is text. */
  text(option: number, value: string): this {
    return this.bytes(option, encodeAscii(value));
  }

  /** The message. */
  finish(): Uint8Array {
    this.#bytes[this.#at++] = DhcpOption.end;
    return this.#bytes.subarray(0, Math.max(LEAST_SIZE, this.#at));
  }
}

/** Text of one byte each; what follows a zero is none of it. */
function ascii(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end).slice(0, 255));
}

function encodeAscii(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0) & 0x7f);
}
