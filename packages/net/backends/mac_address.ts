/** A MAC address as two numbers of 24 bits: small integers everywhere, and nothing to allocate. */
export interface MacAddress {
  /** The first three bytes, the first one highest. */
  readonly high: number;
  /** The last three bytes. */
  readonly low: number;
}

const FORM = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

/**
 * Reads a MAC address, as text with colons or as 6 bytes.
 *
 * @throws {TypeError} If it is none.
 * @throws {RangeError} If it is the address of a group, or zero: no station has such a one.
 */
export function parseStationMac(mac: string | Uint8Array): MacAddress {
  let bytes: ArrayLike<number>;
  if (typeof mac === "string") {
    if (!FORM.test(mac)) {
      throw new TypeError(`A MAC address is written as 52:54:00:12:34:56: this is ${mac}`);
    }
    bytes = mac.split(":").map((byte) => parseInt(byte, 16));
  } else {
    if (mac.length !== 6) {
      throw new TypeError(`A MAC address has 6 bytes: these are ${mac.length}`);
    }
    bytes = mac;
  }
  const high = bytes[0]! << 16 | bytes[1]! << 8 | bytes[2]!;
  const low = bytes[3]! << 16 | bytes[4]! << 8 | bytes[5]!;
  if ((high & 0x010000) !== 0 || (high | low) === 0) {
    throw new RangeError("A station's MAC address is neither a group's nor zero");
  }
  return { high, low };
}

/** A MAC address as text. */
export function formatMac({ high, low }: MacAddress): string {
  const digits = high.toString(16).padStart(6, "0") + low.toString(16).padStart(6, "0");
  return digits.replace(/..(?!$)/g, "$&:");
}
