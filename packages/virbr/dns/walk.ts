/**
 * Walks over a message of DNS (RFC 1035, 4) without making objects of it: the first look at what guests and resolvers send.
 * What passes is as long as it says, and its names end; so whoever decodes it afterwards has a bounded amount of work.
 */

/** Types of records. */
export const RecordType = { a: 1, cname: 5, aaaa: 28, opt: 41 } as const;

/** What a walk finds out. */
export interface Walked {
  readonly id: number;
  /** The second and third byte: QR, opcode, AA, TC, RD, RA, and the code of the answer. */
  readonly flags: number;
  readonly questions: number;
  /** Bytes of the header and all questions. */
  readonly questionEnd: number;
  /** Addresses of all records: of IPv4 4 bytes, of IPv6 16. */
  readonly addresses: readonly Uint8Array[];
  /** Records that say that a name is another's. */
  readonly aliases: number;
  /** `udp payload size` of EDNS (RFC 6891); 0 if there is none. */
  readonly ednsSize: number;
}

/** Flags of the header. */
export const DnsFlag = {
  response: 0x8000,
  opcode: 0x7800,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  code: 0x000f,
} as const;

const HEADER = 12;
/** Labels of a name, with those that pointers lead to. */
const MAX_LABELS = 128;
const MAX_NAME = 255;

/**
 * Walks over a message.
 *
 * @param most Records at most.
 * @returns Null if it breaks a rule: cut off, bytes behind its end, a name that is too long or goes in circles.
 */
export function walk(bytes: Uint8Array, most: number): Walked | null {
  if (bytes.length < HEADER || bytes.length > 65_535) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const questions = view.getUint16(4);
  const records = view.getUint16(6) + view.getUint16(8) + view.getUint16(10);
  if (questions + records > most) return null;
  let at = HEADER;
  for (let i = 0; i < questions; i++) {
    at = skipName(view, at);
    if (at < 0 || at + 4 > bytes.length) return null;
    at += 4;
  }
  const questionEnd = at;
  const addresses: Uint8Array[] = [];
  let aliases = 0;
  let ednsSize = 0;
  for (let i = 0; i < records; i++) {
    at = skipName(view, at);
    if (at < 0 || at + 10 > bytes.length) return null;
    const type = view.getUint16(at);
    const size = view.getUint16(at + 8);
    const data = at + 10;
    if (data + size > bytes.length) return null;
    if (type === RecordType.a || type === RecordType.aaaa) {
      if (size !== (type === RecordType.a ? 4 : 16)) return null;
      addresses.push(bytes.subarray(data, data + size));
    } else if (type === RecordType.cname) {
      if (skipName(view, data) !== data + size) return null;
      aliases++;
    } else if (type === RecordType.opt) {
      if (ednsSize !== 0) return null;
      ednsSize = Math.max(512, view.getUint16(at + 2));
    }
    at = data + size;
  }
  if (at !== bytes.length) return null;
  return {
    id: view.getUint16(0),
    flags: view.getUint16(2),
    questions,
    questionEnd,
    addresses,
    aliases,
    ednsSize,
  };
}

/** @returns The first byte behind a name; -1 if it is none. */
function skipName(view: DataView, from: number): number {
  let at = from;
  let end = -1;
  let lowest = from;
  let length = 1;
  for (let labels = 0; labels < MAX_LABELS; labels++) {
    if (at >= view.byteLength) return -1;
    const size = view.getUint8(at);
    if (size === 0) return end < 0 ? at + 1 : end;
    if ((size & 0xc0) === 0xc0) {
      if (at + 2 > view.byteLength) return -1;
      if (end < 0) end = at + 2;
      // Only to what came before (RFC 1035, 4.1.4): so it cannot go in circles.
      const target = view.getUint16(at) & 0x3fff;
      if (target >= lowest || target < HEADER) return -1;
      lowest = target;
      at = target;
      continue;
    }
    if ((size & 0xc0) !== 0) return -1;
    length += size + 1;
    if (length > MAX_NAME) return -1;
    at += size + 1;
  }
  return -1;
}
