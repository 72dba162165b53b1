/**
 * Plain data as bytes, for calls through shared memory, where structured cloning cannot reach: numbers, strings, booleans,
 * null, bigints, byte arrays, and arrays and objects of them. Undefined members are left out.
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What a tagged value looks like in JSON: an object with one member that no plain object of ours has. */
const BIGINT = "\u0001n";
const BYTES = "\u0001b";

/** @throws {TypeError} If the value is no plain data. */
export function encodePlain(value: unknown): Uint8Array {
  const text = JSON.stringify(value, (_key, item: unknown) => {
    if (typeof item === "bigint") return { [BIGINT]: item.toString() };
    if (item instanceof Uint8Array) return { [BYTES]: toBase64(item) };
    if (typeof item === "function" || typeof item === "symbol") {
      throw new TypeError(`Cannot send a ${typeof item} to a device's worker: send plain data`);
    }
    if (typeof item === "object" && item !== null && !Array.isArray(item)) {
      const prototype: unknown = Object.getPrototypeOf(item);
      if (prototype !== Object.prototype && prototype !== null) {
        throw new TypeError(
          `Cannot send a ${item.constructor.name} to a device's worker: send plain data`,
        );
      }
    }
    return item;
  });
  return encoder.encode(text ?? "null");
}

/** The value that `encodePlain` was given. @throws {SyntaxError} If the bytes are not such. */
export function decodePlain(bytes: Uint8Array): unknown {
  return JSON.parse(decoder.decode(bytes), (_key, item: unknown) => {
    if (typeof item !== "object" || item === null) return item;
    if (BIGINT in item) return BigInt(item[BIGINT] as string);
    if (BYTES in item) return fromBase64(item[BYTES] as string);
    return item;
  });
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
