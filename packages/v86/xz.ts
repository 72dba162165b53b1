/**
 * Unpacks .xz: the container, LZMA2, and the x86 branch filter, which is what Linux packs its kernel with. The packages
 * for this at hand either lack the filter or are native code, and a virtual machine has to boot in a browser too.
 */

import { unfilterX86 } from "./bcj.ts";

/** Thrown where the input is not a valid .xz file, or uses a filter or check other than those supported. */
export class XzError extends Error {
  /** "XzError". */
  override readonly name: string = "XzError";
}

const CRC32_TABLE = new Uint32Array(256).map((_, byte) => {
  let value = byte;
  for (let i = 0; i < 8; i++) value = value & 1 ? value >>> 1 ^ 0xedb88320 : value >>> 1;
  return value;
});

/** CRC-32 as in IEEE 802.3, over `bytes`. */
export function crc32(bytes: Uint8Array): number {
  let value = 0xffff_ffff;
  for (let i = 0; i < bytes.length; i++) {
    value = CRC32_TABLE[(value ^ bytes[i]!) & 0xff]! ^ value >>> 8;
  }
  return ~value >>> 0;
}

const CHECK_SIZES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];
const FILTER_X86 = 0x04;
const FILTER_LZMA2 = 0x21;

/** Reads integers and ranges in order, and fails at the end of the input. */
class Reader {
  offset = 0;
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  u8(): number {
    if (this.offset >= this.bytes.length) throw new XzError("Truncated .xz data");
    return this.bytes[this.offset++]!;
  }

  u32(): number {
    return (this.u8() | this.u8() << 8 | this.u8() << 16 | this.u8() << 24) >>> 0;
  }

  /** A variable-length integer; the ones of interest fit a number. */
  size(): number {
    let value = 0;
    for (let shift = 0; shift < 49; shift += 7) {
      const byte = this.u8();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new XzError("A size in the .xz data is too large");
  }

  take(length: number): Uint8Array {
    if (this.offset + length > this.bytes.length) throw new XzError("Truncated .xz data");
    this.offset += length;
    return this.bytes.subarray(this.offset - length, this.offset);
  }
}

/**
 * Unpacks the first stream of `input`.
 *
 * @param size Length of the result in bytes, which the container of the data knows.
 * @throws {XzError} If the data is damaged, needs something unsupported, or is not `size` bytes long.
 */
export function unxz(input: Uint8Array, size: number): Uint8Array {
  const reader = new Reader(input);
  const magic = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
  if (!magic.every((byte) => reader.u8() === byte)) throw new XzError("Not .xz data");
  const flags = reader.take(2);
  if (reader.u32() !== crc32(flags)) throw new XzError("The .xz stream header is damaged");
  const check = flags[1]! & 0x0f;
  const output = new Uint8Array(size);
  let written = 0;
  for (;;) {
    const start = reader.offset;
    const headerByte = reader.u8();
    if (headerByte === 0) break; // the index follows: no more blocks
    const headerSize = (headerByte + 1) * 4;
    reader.offset = start;
    const header = new Reader(reader.take(headerSize - 4));
    if (reader.u32() !== crc32(header.bytes)) throw new XzError("An .xz block header is damaged");
    const hasBranchFilter = readFilters(header);
    const decoder = new Lzma2Decoder(reader, output, written);
    decoder.run();
    const block = output.subarray(written, decoder.position);
    if (hasBranchFilter) unfilterX86(block);
    written = decoder.position;
    while ((reader.offset - start) % 4 !== 0) reader.u8();
    const expected = reader.take(CHECK_SIZES[check]!);
    if (check === 1) {
      const sum = new DataView(expected.buffer, expected.byteOffset).getUint32(0, true);
      if (sum !== crc32(block)) throw new XzError("An .xz block's checksum is wrong");
    }
  }
  if (written !== size) {
    throw new XzError(`The .xz data has ${written} bytes where ${size} were announced`);
  }
  return output;
}

/** Reads a block header past its size byte; returns whether the x86 filter comes before LZMA2. */
function readFilters(header: Reader): boolean {
  header.u8();
  const flags = header.u8();
  if (flags & 0x40) header.size();
  if (flags & 0x80) header.size();
  const ids: number[] = [];
  for (let i = 0; i <= (flags & 3); i++) {
    const id = header.size();
    const properties = header.take(header.size());
    if (id === FILTER_X86 && properties.some((byte) => byte !== 0)) {
      throw new XzError("An x86 filter with a start offset is not supported");
    }
    ids.push(id);
  }
  if (ids.length === 1 && ids[0] === FILTER_LZMA2) return false;
  if (ids.length === 2 && ids[0] === FILTER_X86 && ids[1] === FILTER_LZMA2) return true;
  throw new XzError(`The .xz filters ${ids.map((id) => `0x${id.toString(16)}`)} are not supported`);
}

// Offsets of the probability models in one array; the sizes are those of the LZMA format.
const IS_MATCH = 0;
const IS_REP = IS_MATCH + 12 * 16;
const IS_REP_G0 = IS_REP + 12;
const IS_REP_G1 = IS_REP_G0 + 12;
const IS_REP_G2 = IS_REP_G1 + 12;
const IS_REP0_LONG = IS_REP_G2 + 12;
const DISTANCE_SLOT = IS_REP0_LONG + 12 * 16;
const DISTANCE_SPECIAL = DISTANCE_SLOT + 4 * 64;
const DISTANCE_ALIGN = DISTANCE_SPECIAL + 128;
const MATCH_LENGTH = DISTANCE_ALIGN + 16;
const LENGTH_MODELS = 2 + 16 * 8 * 2 + 256;
const REP_LENGTH = MATCH_LENGTH + LENGTH_MODELS;
const LITERAL = REP_LENGTH + LENGTH_MODELS;

/** LZMA2 into an output buffer that serves as the dictionary. */
class Lzma2Decoder {
  /** Where the next byte goes in the output. */
  position: number;
  readonly #reader: Reader;
  readonly #input: Uint8Array;
  readonly #output: Uint8Array;
  /** Start of the dictionary in the output. */
  #dictionary: number;
  #models = new Uint16Array(LITERAL);
  #literalContext = 0;
  #literalMask = 0;
  #positionMask = 0;
  #range = 0;
  #code = 0;
  #next = 0;
  #state = 0;
  #rep0 = 0;
  #rep1 = 0;
  #rep2 = 0;
  #rep3 = 0;

  constructor(reader: Reader, output: Uint8Array, position: number) {
    this.#reader = reader;
    this.#input = reader.bytes;
    this.#output = output;
    this.position = position;
    this.#dictionary = position;
  }

  /** Decodes chunks up to the end marker. */
  run(): void {
    const reader = this.#reader;
    for (;;) {
      const control = reader.u8();
      if (control === 0) return;
      if (control < 0x80) {
        if (control > 2) throw new XzError("Bad LZMA2 chunk");
        const length = (reader.u8() << 8 | reader.u8()) + 1;
        if (control === 1) this.#dictionary = this.position;
        this.#reserve(length);
        this.#output.set(reader.take(length), this.position);
        this.position += length;
        continue;
      }
      const length = ((control & 0x1f) << 16 | reader.u8() << 8 | reader.u8()) + 1;
      const packed = (reader.u8() << 8 | reader.u8()) + 1;
      const reset = control >>> 5 & 3;
      if (reset === 3) this.#dictionary = this.position;
      if (reset >= 2) this.#setProperties(reader.u8());
      if (reset >= 1) this.#resetState();
      this.#reserve(length);
      const end = reader.offset + packed;
      reader.u8(); // the first byte of a range-coded chunk carries nothing
      this.#range = 0xffff_ffff;
      this.#code = (reader.u8() << 24 | reader.u8() << 16 | reader.u8() << 8 | reader.u8()) >>> 0;
      this.#next = reader.offset;
      this.#decode(this.position + length);
      if (this.#next !== end) throw new XzError("An LZMA2 chunk does not end where it says");
      reader.offset = end;
    }
  }

  #reserve(length: number): void {
    if (this.position + length > this.#output.length) {
      throw new XzError("The .xz data is longer than announced");
    }
  }

  #setProperties(byte: number): void {
    const positionBits = Math.floor(byte / 45);
    const literalPositionBits = Math.floor(byte / 9) % 5;
    this.#literalContext = byte % 9;
    if (positionBits > 4 || this.#literalContext + literalPositionBits > 4) {
      throw new XzError("Bad LZMA properties");
    }
    this.#positionMask = (1 << positionBits) - 1;
    this.#literalMask = (1 << literalPositionBits) - 1;
    this.#models = new Uint16Array(
      LITERAL + (0x300 << this.#literalContext + literalPositionBits),
    );
  }

  #resetState(): void {
    this.#models.fill(1024);
    this.#state = 0;
    this.#rep0 =
      this.#rep1 =
      this.#rep2 =
      this.#rep3 =
        0;
  }

  #normalize(): void {
    if (this.#range < 0x100_0000) {
      this.#range = this.#range << 8 >>> 0;
      this.#code = (this.#code << 8 | this.#input[this.#next++]!) >>> 0;
    }
  }

  #bit(model: number): number {
    const models = this.#models;
    const probability = models[model]!;
    const bound = (this.#range >>> 11) * probability;
    let bit: number;
    if (this.#code < bound) {
      this.#range = bound;
      models[model] = probability + (2048 - probability >>> 5);
      bit = 0;
    } else {
      this.#range -= bound;
      this.#code -= bound;
      models[model] = probability - (probability >>> 5);
      bit = 1;
    }
    this.#normalize();
    return bit;
  }

  #tree(models: number, bits: number): number {
    let node = 1;
    for (let i = 0; i < bits; i++) node = node << 1 | this.#bit(models + node);
    return node - (1 << bits);
  }

  #reverseTree(models: number, bits: number): number {
    let node = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const bit = this.#bit(models + node);
      node = node << 1 | bit;
      value |= bit << i;
    }
    return value;
  }

  #length(models: number, positionState: number): number {
    if (this.#bit(models) === 0) return 2 + this.#tree(models + 2 + positionState * 8, 3);
    if (this.#bit(models + 1) === 0) {
      return 10 + this.#tree(models + 2 + 128 + positionState * 8, 3);
    }
    return 18 + this.#tree(models + 2 + 256, 8);
  }

  #distance(length: number): number {
    const slot = this.#tree(DISTANCE_SLOT + Math.min(length - 2, 3) * 64, 6);
    if (slot < 4) return slot;
    const bits = (slot >>> 1) - 1;
    const base = (2 | slot & 1) * 2 ** bits;
    if (slot < 14) {
      return base + this.#reverseTree(DISTANCE_SPECIAL + base - slot, bits);
    }
    let direct = 0;
    for (let i = 4; i < bits; i++) {
      this.#range >>>= 1;
      const bit = this.#code >= this.#range ? 1 : 0;
      if (bit) this.#code -= this.#range;
      direct = direct * 2 + bit;
      this.#normalize();
    }
    return base + direct * 16 + this.#reverseTree(DISTANCE_ALIGN, 4);
  }

  #literal(): void {
    const output = this.#output;
    const position = this.position;
    const offset = position - this.#dictionary;
    const before = offset > 0 ? output[position - 1]! : 0;
    const context = (offset & this.#literalMask) << this.#literalContext |
      before >>> 8 - this.#literalContext;
    const models = LITERAL + 0x300 * context;
    let node = 1;
    if (this.#state >= 7) {
      // After a match the byte that the match would have continued with is part of the context, until it differs.
      let matched = output[position - this.#rep0 - 1]!;
      let same = 0x100;
      while (node < 0x100) {
        matched <<= 1;
        const matchedBit = matched & same;
        const bit = this.#bit(models + same + matchedBit + node);
        node = node << 1 | bit;
        same &= bit ? matchedBit : ~matchedBit;
      }
    } else {
      while (node < 0x100) node = node << 1 | this.#bit(models + node);
    }
    output[position] = node;
    this.position = position + 1;
    this.#state = this.#state < 4 ? 0 : this.#state < 10 ? this.#state - 3 : this.#state - 6;
  }

  #decode(end: number): void {
    const output = this.#output;
    while (this.position < end) {
      if (this.#next > this.#input.length) throw new XzError("Truncated .xz data");
      const positionState = this.position - this.#dictionary & this.#positionMask;
      const state = this.#state;
      if (this.#bit(IS_MATCH + state * 16 + positionState) === 0) {
        this.#literal();
        continue;
      }
      let length: number;
      if (this.#bit(IS_REP + state) === 0) {
        this.#rep3 = this.#rep2;
        this.#rep2 = this.#rep1;
        this.#rep1 = this.#rep0;
        length = this.#length(MATCH_LENGTH, positionState);
        this.#rep0 = this.#distance(length);
        this.#state = state < 7 ? 7 : 10;
      } else {
        let short = false;
        if (this.#bit(IS_REP_G0 + state) === 0) {
          short = this.#bit(IS_REP0_LONG + state * 16 + positionState) === 0;
        } else {
          let distance: number;
          if (this.#bit(IS_REP_G1 + state) === 0) {
            distance = this.#rep1;
          } else {
            if (this.#bit(IS_REP_G2 + state) === 0) {
              distance = this.#rep2;
            } else {
              distance = this.#rep3;
              this.#rep3 = this.#rep2;
            }
            this.#rep2 = this.#rep1;
          }
          this.#rep1 = this.#rep0;
          this.#rep0 = distance;
        }
        length = short ? 1 : this.#length(REP_LENGTH, positionState);
        this.#state = short ? (state < 7 ? 9 : 11) : state < 7 ? 8 : 11;
      }
      let from = this.position - this.#rep0 - 1;
      if (from < this.#dictionary) throw new XzError("An LZMA match points before the data");
      const stop = this.position + length;
      if (stop > end) throw new XzError("An LZMA match crosses its chunk");
      for (let to = this.position; to < stop; to++) output[to] = output[from++]!;
      this.position = stop;
    }
  }
}
