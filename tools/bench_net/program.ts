/**
 * What the guest runs to be measured: a small program, since a shell's tools take longer to start than a measurement lasts, and
 * copy what they send through pipes. Of each work that it is given it opens a socket or a file, looks at the clock, sends and
 * receives so often, looks at the clock again, and writes both times.
 */
import { Assembler, BASE, Jump, word } from "../bench_guest/i386.ts";
import { beginWorks, endWorks, PATH_SIZE, putPath } from "../bench_guest/works.ts";

/** What the program does at a time. */
export type Work =
  /** Sends a message and waits for the answer, `count` times: ICMP echo. */
  | { readonly kind: "ping"; readonly ip: string; readonly count: number }
  /** Sends `count` datagrams of `block` bytes to the discard port. */
  | {
    readonly kind: "udp";
    readonly ip: string;
    readonly block: number;
    readonly count: number;
  }
  /** Sends `count` times `block` bytes to the discard port, ends, and waits for the other side's end. */
  | {
    readonly kind: "tcp send";
    readonly ip: string;
    readonly block: number;
    readonly count: number;
  }
  /** Receives `count` times `block` bytes from the port that sends characters for ever. */
  | {
    readonly kind: "tcp receive";
    readonly ip: string;
    readonly block: number;
    readonly count: number;
  }
  /** Writes `count` times `block` bytes to a file. */
  | {
    readonly kind: "write";
    readonly path: string;
    readonly block: number;
    readonly count: number;
  };

/** Where the guest's program lies. */
export const PROGRAM_PATH = "/bin/netloop";
/** UDP and TCP: whatever comes is thrown away (RFC 863). */
export const DISCARD_PORT = 9;
/** TCP: sends for ever (RFC 864). */
export const CHARGEN_PORT = 19;
/** Bytes of an ICMP message: what ping sends. */
export const PING_SIZE = 64;

const BUFFER = BASE + 0x1000;
const BUFFER_SIZE = 0x1_0000;
const PARAMETERS = BUFFER + BUFFER_SIZE;
/** Socket type, 0 for a file; protocol; address; what to do; and how often. */
const TYPE = PARAMETERS + PATH_SIZE;
const PROTOCOL = TYPE + 4;
const ADDRESS = PROTOCOL + 4;
const ADDRESS_SIZE = 16;
const MODE = ADDRESS + ADDRESS_SIZE;
const BLOCK = MODE + 4;
const COUNT = BLOCK + 4;
/** The beginning of what is sent. */
const HEAD = COUNT + 4;
const HEAD_SIZE = 8;
const PARAMETERS_SIZE = HEAD + HEAD_SIZE - PARAMETERS;
const FD = PARAMETERS + 0x200;
const TIMES = FD + 0x10;
const END = PARAMETERS + 0x1000;

const Mode = { send: 0, exchange: 1, receive: 2, sendAndEnd: 3 } as const;

const SYS_READ = 3;
const SYS_WRITE = 4;
const SYS_OPEN = 5;
const SYS_CLOSE = 6;
const SYS_SOCKET = 359;
const SYS_CONNECT = 362;
const SYS_SHUTDOWN = 373;
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const IPPROTO_ICMP = 1;
const SHUT_WR = 1;
const O_WRONLY_O_NOCTTY = 0o401;

/** The program, as an ELF file. */
export function netProgram(): Uint8Array {
  const code = new Assembler();
  const fail = (condition: number): void => code.jump(condition, "fail");
  const negative = (): void => {
    code.raw(0x85, 0xc0); // test eax, eax
    fail(Jump.negative);
  };
  const mode = (value: number, to: string): void => {
    code.raw(0x83, 0x3d, ...word(MODE), value); // cmp dword [MODE], value
    code.jump(Jump.equal, to);
  };
  const fd = (): void => code.with([0x8b, 0x1d], FD); // mov ebx, [FD]
  /** Reads into the second half of the buffer, which is not what is sent. */
  const read = (): void => {
    code.set(SYS_READ, 0, BUFFER + BUFFER_SIZE / 2, BUFFER_SIZE / 2);
    fd();
    code.call();
  };

  beginWorks(code, { at: BUFFER, size: BUFFER_SIZE }, { at: PARAMETERS, size: PARAMETERS_SIZE });
  for (let at = 0; at < HEAD_SIZE; at += 4) {
    code.with([0xa1], HEAD + at); // mov eax, [HEAD + at]
    code.with([0xa3], BUFFER + at); // mov [BUFFER + at], eax
  }
  code.with([0x8b, 0x0d], TYPE); // mov ecx, [TYPE]
  code.raw(0x85, 0xc9); // test ecx, ecx
  code.jump(Jump.equal, "file");
  code.with([0xb8], SYS_SOCKET);
  code.with([0xbb], AF_INET);
  code.with([0x8b, 0x15], PROTOCOL); // mov edx, [PROTOCOL]
  code.call();
  negative();
  code.with([0xa3], FD); // mov [FD], eax
  code.set(SYS_CONNECT, 0, ADDRESS, ADDRESS_SIZE);
  fd();
  code.call();
  negative();
  code.go("begin");
  code.label("file");
  code.set(SYS_OPEN, PARAMETERS, O_WRONLY_O_NOCTTY, 0);
  code.call();
  negative();
  code.with([0xa3], FD); // mov [FD], eax
  code.label("begin");
  code.now(TIMES);
  code.with([0x8b, 0x2d], COUNT); // mov ebp, [COUNT]
  mode(Mode.receive, "receive");
  code.label("loop");
  // A line may take a part of what it is given.
  code.with([0xbe], BUFFER); // mov esi
  code.with([0x8b, 0x3d], BLOCK); // mov edi, [BLOCK]
  code.label("rest");
  code.with([0xb8], SYS_WRITE);
  fd();
  code.raw(0x89, 0xf1, 0x89, 0xfa); // mov ecx, esi; mov edx, edi
  code.call();
  negative();
  code.raw(0x01, 0xc6, 0x29, 0xc7); // add esi, eax; sub edi, eax
  code.jump(Jump.greater, "rest");
  mode(Mode.exchange, "answer");
  code.label("next");
  code.raw(0x4d); // dec ebp
  code.jump(Jump.unequal, "loop");
  mode(Mode.sendAndEnd, "shut");
  code.go("done");
  code.label("answer");
  read();
  negative();
  code.go("next");
  code.label("receive");
  // Bytes in all: [COUNT] * [BLOCK].
  code.raw(0x0f, 0xaf, 0x2d, ...word(BLOCK)); // imul ebp, [BLOCK]
  code.label("more");
  read();
  code.raw(0x85, 0xc0); // test eax, eax
  fail(Jump.equal);
  fail(Jump.negative);
  code.raw(0x29, 0xc5); // sub ebp, eax
  code.jump(Jump.greater, "more");
  code.go("done");
  code.label("shut");
  code.set(SYS_SHUTDOWN, 0, SHUT_WR);
  fd();
  code.call();
  read();
  negative();
  code.label("done");
  code.now(TIMES + 16);
  code.set(SYS_WRITE, 1, TIMES, 32);
  code.call();
  code.with([0xb8], SYS_CLOSE);
  fd();
  code.call();
  code.go("work");
  endWorks(code);
  return code.finish(END);
}

const KINDS = {
  ping: { type: SOCK_RAW, protocol: IPPROTO_ICMP, port: 0, mode: Mode.exchange },
  udp: { type: SOCK_DGRAM, protocol: 0, port: DISCARD_PORT, mode: Mode.send },
  "tcp send": { type: SOCK_STREAM, protocol: 0, port: DISCARD_PORT, mode: Mode.sendAndEnd },
  "tcp receive": { type: SOCK_STREAM, protocol: 0, port: CHARGEN_PORT, mode: Mode.receive },
  write: { type: 0, protocol: 0, port: 0, mode: Mode.send },
} as const;

/**
 * Parameters of one work, for the program's standard input, which takes any number of them.
 *
 * @throws {RangeError} If the work is none that the program can do.
 */
export function netParameters(work: Work): Uint8Array {
  const { type, protocol, port, mode } = KINDS[work.kind];
  const block = work.kind === "ping" ? PING_SIZE : work.block;
  if (!(block > 0 && block <= BUFFER_SIZE / 2 && work.count > 0 && block * work.count < 2 ** 31)) {
    throw new RangeError(`The program cannot send ${work.count} blocks of ${block} bytes`);
  }
  const bytes = new Uint8Array(PARAMETERS_SIZE);
  const view = new DataView(bytes.buffer);
  const put = (at: number, value: number): void => view.setUint32(at - PARAMETERS, value, true);
  if (work.kind === "write") {
    putPath(bytes, work.path);
  } else {
    view.setUint16(ADDRESS - PARAMETERS, AF_INET, true);
    view.setUint16(ADDRESS + 2 - PARAMETERS, port);
    bytes.set(work.ip.split(".").map(Number), ADDRESS + 4 - PARAMETERS);
  }
  put(TYPE, type);
  put(PROTOCOL, protocol);
  put(MODE, mode);
  put(BLOCK, block);
  put(COUNT, work.count);
  if (work.kind === "ping") {
    // Echo request, identifier and number 1, and as data what fills the buffer.
    const sum = 0x0800 + 1 + 1 + (PING_SIZE - HEAD_SIZE) / 2 * 0x5a5a;
    const folded = (sum & 0xffff) + (sum >>> 16);
    bytes.set([8, 0, ~folded >> 8 & 0xff, ~folded & 0xff, 0, 1, 0, 1], HEAD - PARAMETERS);
  }
  return bytes;
}
