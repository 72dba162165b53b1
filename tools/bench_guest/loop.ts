/**
 * What the guest runs to be measured: a program of some two hundred bytes, since a shell's tools take longer to start than a
 * measurement lasts. Of each work that it is given it opens the disk with O_DIRECT, looks at the clock, makes so many requests
 * one after the other, looks at the clock again, and writes both times. So disks are measured in alternation, with nothing
 * between them.
 */
import { Assembler, BASE, Jump } from "./i386.ts";
import { beginWorks, endWorks, PATH_SIZE, putPath } from "./works.ts";

/** What the program does at a time. */
export interface Work {
  readonly kind: "read" | "write";
  /** Bytes of one request of the program, up to 1 MiB. */
  readonly block: number;
  /** Requests. They follow one another on the disk, from its start, and go round at the end of `span`. */
  readonly count: number;
  /** Bytes of the disk that are used; a multiple of `block`. */
  readonly span: number;
}

/** Where the guest's program lies. */
export const LOOP_PATH = "/bin/blkloop";

/** Aligned as O_DIRECT wants it. */
const BUFFER = BASE + 0x1000;
const BUFFER_SIZE = 0x10_0000;
const PARAMETERS = BUFFER + BUFFER_SIZE;
const FLAGS = PARAMETERS + PATH_SIZE;
const BLOCK = FLAGS + 4;
const COUNT = BLOCK + 4;
const SPAN = COUNT + 4;
const CALL = SPAN + 4;
const PARAMETERS_SIZE = CALL + 4 - PARAMETERS;
/** The file descriptor. */
const FD = CALL + 4;
const TIMES = PARAMETERS + 0x100;
const END = PARAMETERS + 0x1000;

const SYS_WRITE = 4;
const SYS_OPEN = 5;
const SYS_CLOSE = 6;
const SYS_PREAD64 = 180;
const SYS_PWRITE64 = 181;
const O_RDWR = 2;
const O_DIRECT = 0o40000;
const O_LARGEFILE = 0o100000;

/** The program, as an ELF file. */
export function loopProgram(): Uint8Array {
  const code = new Assembler();
  beginWorks(code, { at: BUFFER, size: BUFFER_SIZE }, { at: PARAMETERS, size: PARAMETERS_SIZE });
  code.set(SYS_OPEN, PARAMETERS, 0, 0);
  code.with([0x8b, 0x0d], FLAGS); // mov ecx, [FLAGS]
  code.call();
  code.raw(0x85, 0xc0); // test eax, eax
  code.jump(Jump.negative, "fail");
  code.with([0xa3], FD); // mov [FD], eax
  code.now(TIMES);
  code.with([0x8b, 0x2d], COUNT); // mov ebp, [COUNT]
  code.raw(0x31, 0xf6, 0x31, 0xff); // xor esi, esi; xor edi, edi: the position
  code.with([0x8b, 0x1d], FD); // mov ebx, [FD]
  code.with([0xb9], BUFFER); // mov ecx
  code.with([0x8b, 0x15], BLOCK); // mov edx, [BLOCK]
  code.label("loop");
  code.with([0xa1], CALL); // mov eax, [CALL]
  code.call();
  code.raw(0x39, 0xd0); // cmp eax, edx
  code.jump(Jump.unequal, "fail");
  code.raw(0x01, 0xd6); // add esi, edx
  code.with([0x3b, 0x35], SPAN); // cmp esi, [SPAN]
  code.jump(Jump.below, "next");
  code.raw(0x31, 0xf6); // xor esi, esi
  code.label("next");
  code.raw(0x4d); // dec ebp
  code.jump(Jump.unequal, "loop");
  code.now(TIMES + 16);
  code.set(SYS_WRITE, 1, TIMES, 32);
  code.call();
  code.with([0x8b, 0x1d], FD); // mov ebx, [FD]
  code.with([0xb8], SYS_CLOSE); // mov eax
  code.call();
  code.go("work");
  endWorks(code);
  return code.finish(END);
}

/**
 * Parameters of one work, for the program's standard input, which takes any number of them.
 *
 * @param path The disk in the guest, up to 31 bytes.
 * @throws {RangeError} If the work is none that the program can do.
 */
export function loopParameters(path: string, work: Work): Uint8Array {
  const { block, count, span } = work;
  if (!(block > 0 && block % 512 === 0 && block <= BUFFER_SIZE)) {
    throw new RangeError(`A block has 512 to ${BUFFER_SIZE} bytes, whole sectors: not ${block}`);
  }
  if (!(count > 0 && span > 0 && span % block === 0 && span < 2 ** 31)) {
    throw new RangeError("The count must be above 0, the span a multiple of the block");
  }
  const bytes = new Uint8Array(PARAMETERS_SIZE);
  const view = new DataView(bytes.buffer);
  putPath(bytes, path);
  view.setUint32(FLAGS - PARAMETERS, O_RDWR | O_DIRECT | O_LARGEFILE, true);
  view.setUint32(BLOCK - PARAMETERS, block, true);
  view.setUint32(COUNT - PARAMETERS, count, true);
  view.setUint32(SPAN - PARAMETERS, span, true);
  view.setUint32(CALL - PARAMETERS, work.kind === "read" ? SYS_PREAD64 : SYS_PWRITE64, true);
  return bytes;
}

/** When the program looked at the clock, in seconds since some moment. */
export interface LoopTimes {
  readonly start: number;
  readonly end: number;
}

/**
 * Reads what the program wrote.
 *
 * @param words Eight decimal 32-bit words for each work, lowest first: `od -An -v -t u4`.
 * @param works How many works there were.
 * @throws {Error} If it is something else.
 */
export function loopTimes(words: string, works: number): LoopTimes[] {
  const fields = words.trim().split(/\s+/).map(Number);
  if (fields.length !== 8 * works || fields.some((field) => !Number.isInteger(field))) {
    throw new Error(`The guest's program wrote no times: ${JSON.stringify(words)}`);
  }
  // Seconds since the guest started fit in the lower word.
  const seconds = (at: number): number => fields[at]! + fields[at + 2]! / 1e9;
  return Array.from({ length: works }, (_, i) => {
    const [start, end] = [seconds(8 * i), seconds(8 * i + 4)];
    if (!(end > start)) throw new Error(`The guest's clock did not go on: ${words}`);
    return { start, end };
  });
}
