/** Addresses that the outside has no reason to name: a name there that leads to the host or its networks is an attack. */

/**
 * Which addresses answers of the outside may have.
 *
 * - `"refuse"`: none of loopback, link-local, private networks (RFC 1918, RFC 4193) and the like. The default.
 * - `"loopback"`: private networks too, but not loopback and link-local.
 * - `"allow"`: all.
 */
export type RebindingRule = "refuse" | "loopback" | "allow";

/** Whether an answer with an address goes no further. @param bytes 4 or 16 bytes. */
export function isRebinding(bytes: Uint8Array, rule: RebindingRule): boolean {
  if (rule === "allow") return false;
  if (bytes.length === 4) return isInner4(bytes[0]!, bytes[1]!, rule === "refuse");
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  const [a, b, c, d] = [0, 4, 8, 12].map((at) => view.getUint32(at)) as [
    number,
    number,
    number,
    number,
  ];
  if (a === 0 && b === 0 && (c === 0 || c === 0xffff)) {
    // Unspecified, loopback, and addresses of IPv4 in other clothes.
    return c === 0 && d <= 1 || isInner4(bytes[12]!, bytes[13]!, rule === "refuse");
  }
  // The well-known prefix of translators, and 6to4.
  if (a === 0x0064_ff9b && b === 0 && c === 0) {
    return isInner4(bytes[12]!, bytes[13]!, rule === "refuse");
  }
  if (a >>> 16 === 0x2002) return isInner4(bytes[2]!, bytes[3]!, rule === "refuse");
  if ((a & 0xffc0_0000) >>> 0 === 0xfe80_0000) return true;
  return rule === "refuse" && (a & 0xfe00_0000) >>> 0 === 0xfc00_0000;
}

function isInner4(first: number, second: number, privateToo: boolean): boolean {
  if (first === 0 || first === 127 || (first === 169 && second === 254)) return true;
  if (!privateToo) return false;
  return first === 10 || (first === 172 && second >> 4 === 1) ||
    (first === 192 && second === 168) || (first === 100 && second >> 6 === 1);
}
