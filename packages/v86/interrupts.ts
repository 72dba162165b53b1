/** Interrupt lines that several devices pull: a line is asserted while at least one of them asserts it. */
export class WiredLines {
  readonly #counts = new Map<number, number>();
  readonly #drive: (line: number, asserted: boolean) => void;

  /** @param drive Told when the level of a line changes. */
  constructor(drive: (line: number, asserted: boolean) => void) {
    this.#drive = drive;
  }

  /** Whether anybody asserts the line. */
  level(line: number): boolean {
    return (this.#counts.get(line) ?? 0) > 0;
  }

  /** One more source asserts the line. */
  assert(line: number): void {
    const count = this.#counts.get(line) ?? 0;
    this.#counts.set(line, count + 1);
    if (count === 0) this.#drive(line, true);
  }

  /** One source less asserts the line. */
  release(line: number): void {
    const count = this.#counts.get(line) ?? 0;
    if (count === 0) throw new RangeError(`Nobody asserts interrupt line ${line}`);
    this.#counts.set(line, count - 1);
    if (count === 1) this.#drive(line, false);
  }

  /** Drives every line that was ever used to the level that it has here: after the controllers were restored. */
  replay(): void {
    for (const [line, count] of this.#counts) this.#drive(line, count > 0);
  }
}

/** One device's share in the lines: remembers what it asserted, so that it releases the same lines. */
export class LineSource {
  readonly #lines: WiredLines;
  readonly #targets: () => readonly number[];
  #asserted: readonly number[] | null = null;

  /** @param targets The lines that the device is wired to at the moment. */
  constructor(lines: WiredLines, targets: () => readonly number[]) {
    this.#lines = lines;
    this.#targets = targets;
  }

  /** Sets the level that the device gives. */
  set(asserted: boolean): void {
    if (asserted === (this.#asserted !== null)) return;
    if (asserted) {
      this.#asserted = this.#targets();
      for (const line of this.#asserted) this.#lines.assert(line);
    } else {
      const lines = this.#asserted!;
      this.#asserted = null;
      for (const line of lines) this.#lines.release(line);
    }
  }
}

/** A message signalled interrupt, decoded. */
export interface InterruptMessage {
  /** Vector that the local APIC is asked for. */
  readonly vector: number;
}

/**
 * Decodes a message (Intel SDM volume 3, 11.11): a write to 0xFEExxxxx asks the local APIC for a vector. Returns null where
 * it is no such write, or asks for a delivery that is not an ordinary interrupt; hardware drops these too.
 */
export function decodeMessage(
  addressLow: number,
  addressHigh: number,
  data: number,
): InterruptMessage | null {
  if (addressHigh !== 0 || addressLow >>> 20 !== 0xfee) return null;
  const vector = data & 0xff;
  const delivery = data >>> 8 & 7;
  // Fixed and lowest priority mean the same with one processor; vectors below 16 are reserved.
  return delivery <= 1 && vector >= 0x10 && vector < 0xff ? { vector } : null;
}
