/**
 * What the guest runs to be measured: a program of some two hundred bytes, since a shell's tools take longer to start than a
 * measurement lasts. Of each work that it is given it opens the disk with O_DIRECT, looks at the clock, makes so many requests
 * one after the other, looks at the clock again, and writes both times. So disks are measured in alternation, with nothing
 * between them. Linux for i386, system calls by `int 0x80`.
 */

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

const BASE = 0x0804_8000;
const HEADERS = 52 + 32;
/** Aligned as O_DIRECT wants it. */
const BUFFER = BASE + 0x1000;
const BUFFER_SIZE = 0x10_0000;
const PARAMETERS = BUFFER + BUFFER_SIZE;
const PATH_SIZE = 32;
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

const SYS_EXIT = 1;
const SYS_READ = 3;
const SYS_WRITE = 4;
const SYS_OPEN = 5;
const SYS_CLOSE = 6;
const SYS_PREAD64 = 180;
const SYS_PWRITE64 = 181;
const SYS_CLOCK_GETTIME64 = 403;
const CLOCK_MONOTONIC = 1;
const O_RDWR = 2;
const O_DIRECT = 0o40000;
const O_LARGEFILE = 0o100000;

function word(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => value >>> shift & 0xff);
}

/** The instructions, by way of labels that are known when all of them are there. */
function assemble(): number[] {
  const code: number[] = [];
  const labels = new Map<string, number>();
  const jumps: { at: number; to: string }[] = [];
  const raw = (...bytes: number[]): void => void code.push(...bytes);
  const eax = (value: number): void => raw(0xb8, ...word(value));
  const ecx = (value: number): void => raw(0xb9, ...word(value));
  const edx = (value: number): void => raw(0xba, ...word(value));
  const ebx = (value: number): void => raw(0xbb, ...word(value));
  const call = (): void => raw(0xcd, 0x80);
  const label = (name: string): void => void labels.set(name, code.length);
  const jump = (opcode: number, to: string): void => {
    raw(0x0f, opcode, 0, 0, 0, 0);
    jumps.push({ at: code.length, to });
  };
  const now = (at: number): void => {
    eax(SYS_CLOCK_GETTIME64);
    ebx(CLOCK_MONOTONIC);
    ecx(at);
    call();
  };

  // The buffer's pages are touched first, so that the clock does not run for that.
  raw(0xfc, 0xbf, ...word(BUFFER)); // cld; mov edi, BUFFER
  ecx(BUFFER_SIZE / 4);
  eax(0x5a5a_5a5a);
  raw(0xf3, 0xab); // rep stosd
  label("work");
  // Parameters of a work from standard input, until that ends.
  eax(SYS_READ);
  ebx(0);
  ecx(PARAMETERS);
  edx(PARAMETERS_SIZE);
  call();
  raw(0x85, 0xc0); // test eax, eax
  jump(0x84, "end"); // jz
  raw(0x39, 0xd0); // cmp eax, edx
  jump(0x85, "fail"); // jne
  eax(SYS_OPEN);
  ebx(PARAMETERS);
  raw(0x8b, 0x0d, ...word(FLAGS)); // mov ecx, [FLAGS]
  edx(0);
  call();
  raw(0x85, 0xc0); // test eax, eax
  jump(0x88, "fail"); // js
  raw(0xa3, ...word(FD)); // mov [FD], eax
  now(TIMES);
  raw(0x8b, 0x2d, ...word(COUNT)); // mov ebp, [COUNT]
  raw(0x31, 0xf6, 0x31, 0xff); // xor esi, esi; xor edi, edi: the position
  raw(0x8b, 0x1d, ...word(FD)); // mov ebx, [FD]
  ecx(BUFFER);
  raw(0x8b, 0x15, ...word(BLOCK)); // mov edx, [BLOCK]
  label("loop");
  raw(0xa1, ...word(CALL)); // mov eax, [CALL]
  call();
  raw(0x39, 0xd0); // cmp eax, edx
  jump(0x85, "fail"); // jne
  raw(0x01, 0xd6); // add esi, edx
  raw(0x3b, 0x35, ...word(SPAN)); // cmp esi, [SPAN]
  jump(0x82, "next"); // jb
  raw(0x31, 0xf6); // xor esi, esi
  label("next");
  raw(0x4d); // dec ebp
  jump(0x85, "loop"); // jnz
  now(TIMES + 16);
  eax(SYS_WRITE);
  ebx(1);
  ecx(TIMES);
  edx(32);
  call();
  eax(SYS_CLOSE);
  raw(0x8b, 0x1d, ...word(FD)); // mov ebx, [FD]
  call();
  raw(0xe9, 0, 0, 0, 0); // jmp
  jumps.push({ at: code.length, to: "work" });
  label("end");
  ebx(0);
  label("exit");
  eax(SYS_EXIT);
  call();
  label("fail");
  raw(0xf7, 0xd8, 0x89, 0xc3); // neg eax; mov ebx, eax: the error's number is the status
  raw(0x80, 0xcb, 0x80); // or bl, 0x80: never 0
  raw(0xe9, 0, 0, 0, 0); // jmp
  jumps.push({ at: code.length, to: "exit" });

  for (const { at, to } of jumps) code.splice(at - 4, 4, ...word(labels.get(to)! - at));
  return code;
}

/** The program, as an ELF file. */
export function loopProgram(): Uint8Array {
  const code = assemble();
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
  // One segment: PT_LOAD, all rights, with the buffer behind the file's bytes.
  [1, 0, BASE, BASE, bytes.length, END - BASE, 7, 0x1000].forEach((field, i) =>
    view.setUint32(52 + 4 * i, field, true)
  );
  bytes.set(code, HEADERS);
  return bytes;
}

/**
 * Parameters of one work, for the program's standard input, which takes any number of them.
 *
 * @param path The disk in the guest, up to 31 bytes.
 * @throws {RangeError} If the work is none that the program can do.
 */
export function loopParameters(path: string, work: Work): Uint8Array {
  const name = new TextEncoder().encode(path);
  const { block, count, span } = work;
  if (name.length >= PATH_SIZE) throw new RangeError(`The path ${path} is too long`);
  if (!(block > 0 && block % 512 === 0 && block <= BUFFER_SIZE)) {
    throw new RangeError(`A block has 512 to ${BUFFER_SIZE} bytes, whole sectors: not ${block}`);
  }
  if (!(count > 0 && span > 0 && span % block === 0 && span < 2 ** 31)) {
    throw new RangeError("The count must be above 0, the span a multiple of the block");
  }
  const bytes = new Uint8Array(PARAMETERS_SIZE);
  const view = new DataView(bytes.buffer);
  bytes.set(name);
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
