/** Names as DNS has them (RFC 1035, 3.1). */

const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/;

/** A name without its last dot, in small letters. @returns Null if it is none. */
export function normalName(name: string): string | null {
  const lower = name.toLowerCase().replace(/\.$/, "");
  if (lower.length > 253 || lower === "") return null;
  return lower.split(".").every((label) => LABEL.test(label)) ? lower : null;
}

/** A name in the format of DNS: labels with their lengths, uncompressed. Names that are none become nothing. */
export function encodeName(name: string): Uint8Array {
  const normal = normalName(name);
  if (normal === null) return new Uint8Array(0);
  const bytes = new Uint8Array(normal.length + 2);
  let at = 0;
  for (const label of normal.split(".")) {
    bytes[at++] = label.length;
    for (let i = 0; i < label.length; i++) bytes[at++] = label.charCodeAt(i);
  }
  return bytes;
}

/** Names behind each other, in the format of DNS. */
export function encodeNames(names: readonly string[]): Uint8Array {
  return new Uint8Array(names.flatMap((name) => [...encodeName(name)]));
}
