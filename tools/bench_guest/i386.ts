/** Small programs for a Linux guest on i386, made of instructions: system calls by `int 0x80`, and nothing else. */

/** Where a program lies. */
export const BASE = 0x0804_8000;
const HEADERS = 52 + 32;
const SYS_CLOCK_GETTIME64 = 403;
const CLOCK_MONOTONIC = 1;

/** Opcodes, behind 0x0f, of jumps on a condition. */
export const Jump = {
  below: 0x82,
  equal: 0x84,
  unequal: 0x85,
  negative: 0x88,
  greater: 0x8f,
} as const;

/** The bytes of a number of 32 bits. */
export function word(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => value >>> shift & 0xff);
}

/** Collects instructions, by way of labels that are known when all of them are there. */
export class Assembler {
  readonly #code: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #jumps: { at: number; to: string }[] = [];

  /** Instructions as they are. */
  raw(...bytes: number[]): void {
    this.#code.push(...bytes);
  }

  /** An instruction with an address or a number behind its opcode. */
  with(opcode: readonly number[], value: number): void {
    this.raw(...opcode, ...word(value));
  }

  /** Sets the registers of a system call: its number, and up to three arguments. */
  set(eax: number, ebx?: number, ecx?: number, edx?: number): void {
    this.with([0xb8], eax);
    if (ebx !== undefined) this.with([0xbb], ebx);
    if (ecx !== undefined) this.with([0xb9], ecx);
    if (edx !== undefined) this.with([0xba], edx);
  }

  /** Calls the system. */
  call(): void {
    this.raw(0xcd, 0x80);
  }

  /** Names this place. */
  label(name: string): void {
    this.#labels.set(name, this.#code.length);
  }

  /** Goes to a label on a condition, one of `Jump`. */
  jump(condition: number, to: string): void {
    this.raw(0x0f, condition, 0, 0, 0, 0);
    this.#jumps.push({ at: this.#code.length, to });
  }

  /** Goes to a label. */
  go(to: string): void {
    this.raw(0xe9, 0, 0, 0, 0);
    this.#jumps.push({ at: this.#code.length, to });
  }

  /** Looks at the clock: seconds and nanoseconds, 64 bits each. */
  now(at: number): void {
    this.set(SYS_CLOCK_GETTIME64, CLOCK_MONOTONIC, at);
    this.call();
  }

  /**
   * The program as an ELF file.
   *
   * @param end Of the memory that it has, from `BASE` on.
   */
  finish(end: number): Uint8Array {
    const code = [...this.#code];
    for (const { at, to } of this.#jumps) {
      code.splice(at - 4, 4, ...word(this.#labels.get(to)! - at));
    }
    const bytes = new Uint8Array(HEADERS + code.length);
    const view = new DataView(bytes.buffer);
    bytes.set([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1]);
    view.setUint16(16, 2, true); // ET_EXEC
    view.setUint16(18, 3, true); // EM_386
    view.setUint32(20, 1, true);
    view.setUint32(24, BASE + HEADERS, true); // entry
    view.setUint32(28, 52, true); // program headers
    view.setUint16(40, 52, true);
    view.setUint16(42, 32, true);
    view.setUint16(44, 1, true);
    // One segment: PT_LOAD, all rights, with the program's memory behind the file's bytes.
    [1, 0, BASE, BASE, bytes.length, end - BASE, 7, 0x1000].forEach((field, i) =>
      view.setUint32(52 + 4 * i, field, true)
    );
    bytes.set(code, HEADERS);
    return bytes;
  }
}
