/**
 * Packs bytes as raw LZMA (lc 3, lp 0, pb 2), which is what the loader in front of GRUB's core image unpacks. Greedy, with
 * one candidate per position: the result is some percent larger than it could be, which does not matter here.
 */

const PROBABILITY_ONE = 2048;
const LITERAL_CONTEXT_BITS = 3;
const POSITION_MASK = 3;
const MATCH_MINIMUM = 4;
const MATCH_MAXIMUM = 273;
const HASH_BITS = 15;

/** The models of a length: two choices, then trees. */
interface LengthModels {
  readonly choice: Uint16Array;
  readonly low: readonly Uint16Array[];
  readonly middle: readonly Uint16Array[];
  readonly high: Uint16Array;
}

function models(count: number): Uint16Array {
  return new Uint16Array(count).fill(PROBABILITY_ONE / 2);
}

function lengthModels(): LengthModels {
  const perPosition = (): Uint16Array[] =>
    Array.from({ length: POSITION_MASK + 1 }, () => models(8));
  return { choice: models(2), low: perPosition(), middle: perPosition(), high: models(256) };
}

/** Binary arithmetic coder with adaptive probabilities. */
class RangeEncoder {
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(1 << 16);
  #length = 0;
  #low = 0;
  #range = 0xffff_ffff;
  #cache = 0;
  #pending = 1;

  bit(model: Uint16Array, index: number, bit: number): void {
    const probability = model[index]!;
    const bound = (this.#range >>> 11) * probability;
    if (bit === 0) {
      this.#range = bound;
      model[index] = probability + (PROBABILITY_ONE - probability >>> 5);
    } else {
      this.#low += bound;
      this.#range -= bound;
      model[index] = probability - (probability >>> 5);
    }
    this.#normalize();
  }

  /** Bits from the most significant one down, each with the model of those before it. */
  tree(model: Uint16Array, bits: number, value: number): void {
    let node = 1;
    for (let i = bits - 1; i >= 0; i--) {
      const bit = value >>> i & 1;
      this.bit(model, node, bit);
      node = node << 1 | bit;
    }
  }

  /** As `tree`, from the least significant bit up. */
  reverseTree(model: Uint16Array, offset: number, bits: number, value: number): void {
    let node = 1;
    for (let i = 0; i < bits; i++) {
      const bit = value >>> i & 1;
      this.bit(model, offset + node, bit);
      node = node << 1 | bit;
    }
  }

  /** Bits that are as often 0 as 1. */
  direct(bits: number, value: number): void {
    for (let i = bits - 1; i >= 0; i--) {
      this.#range >>>= 1;
      if (value >>> i & 1) this.#low += this.#range;
      this.#normalize();
    }
  }

  finish(): Uint8Array {
    for (let i = 0; i < 5; i++) this.#shift();
    return this.#bytes.slice(0, this.#length);
  }

  #normalize(): void {
    while (this.#range < 0x100_0000) {
      this.#range = this.#range << 8 >>> 0;
      this.#shift();
    }
  }

  /** Gives out the top byte; one that a later carry could still change waits. */
  #shift(): void {
    if (this.#low < 0xff00_0000 || this.#low > 0xffff_ffff) {
      const carry = this.#low > 0xffff_ffff ? 1 : 0;
      let byte = this.#cache;
      for (; this.#pending > 0; this.#pending--) {
        this.#put(byte + carry & 0xff);
        byte = 0xff;
      }
      this.#cache = Math.floor(this.#low / 0x100_0000) & 0xff;
    }
    this.#pending++;
    this.#low = this.#low % 0x100_0000 * 256;
  }

  #put(byte: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#length++] = byte;
  }
}

/** Packs `input`. The reader has to know its length: there is no end marker. */
export function lzmaEncode(input: Uint8Array): Uint8Array {
  const coder = new RangeEncoder();
  const isMatch = models(12 * 16);
  const isRepeated = models(12);
  const distanceSlots = Array.from({ length: 4 }, () => models(64));
  const distanceSpecial = models(128);
  const distanceAlign = models(16);
  const matchLength = lengthModels();
  const literals = models(0x300 << LITERAL_CONTEXT_BITS);
  const table = new Int32Array(1 << HASH_BITS).fill(-1);
  let state = 0;
  let lastDistance = 0;

  const hash = (at: number): number =>
    Math.imul(
      input[at]! | input[at + 1]! << 8 | input[at + 2]! << 16 | input[at + 3]! << 24,
      0x9e37_79b1,
    ) >>> 32 - HASH_BITS;

  const literal = (at: number): void => {
    const before = at > 0 ? input[at - 1]! : 0;
    const base = 0x300 * (before >>> 8 - LITERAL_CONTEXT_BITS);
    const byte = input[at]!;
    let node = 1;
    let i = 7;
    if (state >= 7) {
      // After a match the byte at its distance is part of the model, until the first difference.
      const matched = input[at - lastDistance - 1]!;
      for (let same = true; same && i >= 0; i--) {
        const matchedBit = matched >>> i & 1;
        const bit = byte >>> i & 1;
        coder.bit(literals, base + 0x100 + (matchedBit << 8) + node, bit);
        node = node << 1 | bit;
        same = bit === matchedBit;
      }
    }
    for (; i >= 0; i--) {
      const bit = byte >>> i & 1;
      coder.bit(literals, base + node, bit);
      node = node << 1 | bit;
    }
    state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
  };

  const length = (value: number, position: number): void => {
    const { choice, low, middle, high } = matchLength;
    if (value < 10) {
      coder.bit(choice, 0, 0);
      coder.tree(low[position]!, 3, value - 2);
    } else {
      coder.bit(choice, 0, 1);
      coder.bit(choice, 1, value < 18 ? 0 : 1);
      if (value < 18) coder.tree(middle[position]!, 3, value - 10);
      else coder.tree(high, 8, value - 18);
    }
  };

  const distance = (value: number, matched: number): void => {
    const slots = distanceSlots[Math.min(matched - 2, 3)]!;
    if (value < 4) {
      coder.tree(slots, 6, value);
      return;
    }
    const top = 31 - Math.clz32(value);
    const slot = top << 1 | value >>> top - 1 & 1;
    coder.tree(slots, 6, slot);
    const bits = top - 1;
    const base = (2 | slot & 1) << bits;
    const rest = value - base;
    if (slot < 14) {
      coder.reverseTree(distanceSpecial, base - slot, bits, rest);
    } else {
      coder.direct(bits - 4, rest >>> 4);
      coder.reverseTree(distanceAlign, 0, 4, rest & 15);
    }
  };

  let at = 0;
  while (at < input.length) {
    const position = at & POSITION_MASK;
    let matched = 0;
    let from = -1;
    if (at + MATCH_MINIMUM <= input.length) {
      const slot = hash(at);
      from = table[slot]!;
      table[slot] = at;
      const limit = Math.min(MATCH_MAXIMUM, input.length - at);
      if (from >= 0) {
        while (matched < limit && input[from + matched] === input[at + matched]) matched++;
      }
    }
    if (matched < MATCH_MINIMUM) {
      coder.bit(isMatch, state * 16 + position, 0);
      literal(at);
      at++;
      continue;
    }
    coder.bit(isMatch, state * 16 + position, 1);
    coder.bit(isRepeated, state, 0);
    length(matched, position);
    lastDistance = at - from - 1;
    distance(lastDistance, matched);
    state = state < 7 ? 7 : 10;
    const end = at + matched;
    for (at++; at < end; at++) if (at + MATCH_MINIMUM <= input.length) table[hash(at)] = at;
  }
  return coder.finish();
}
