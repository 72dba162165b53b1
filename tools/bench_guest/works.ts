/**
 * The frame of a program that measures in a guest: it reads the parameters of one work after the other from standard input, until
 * that ends, and ends with the number of an error where there is one.
 */
import { type Assembler, Jump } from "./i386.ts";

/** Bytes of a path among the parameters, with the 0 at its end. */
export const PATH_SIZE = 32;

const SYS_EXIT = 1;
const SYS_READ = 3;

/** Memory of the program. */
interface Area {
  readonly at: number;
  readonly size: number;
}

/** The beginning: fills the buffer, and reads the parameters of a work. To the label "work" each goes back at its end. */
export function beginWorks(code: Assembler, buffer: Area, parameters: Area): void {
  // The buffer's pages are touched first, so that the clock does not run for that.
  code.raw(0xfc); // cld
  code.with([0xbf], buffer.at); // mov edi
  code.with([0xb9], buffer.size / 4); // mov ecx
  code.with([0xb8], 0x5a5a_5a5a); // mov eax
  code.raw(0xf3, 0xab); // rep stosd
  code.label("work");
  code.set(SYS_READ, 0, parameters.at, parameters.size);
  code.call();
  code.raw(0x85, 0xc0); // test eax, eax
  code.jump(Jump.equal, "end");
  code.raw(0x39, 0xd0); // cmp eax, edx
  code.jump(Jump.unequal, "fail");
}

/** The end, with the label "fail" for what to do about a number below 0 in eax. */
export function endWorks(code: Assembler): void {
  code.label("end");
  code.with([0xbb], 0); // mov ebx
  code.label("exit");
  code.with([0xb8], SYS_EXIT); // mov eax
  code.call();
  code.label("fail");
  code.raw(0xf7, 0xd8, 0x89, 0xc3); // neg eax; mov ebx, eax: the error's number is the status
  code.raw(0x80, 0xcb, 0x80); // or bl, 0x80: never 0
  code.go("exit");
}

/** Puts a path at the beginning of parameters. @throws {RangeError} If it has more than 31 bytes. */
export function putPath(parameters: Uint8Array, path: string): void {
  const name = new TextEncoder().encode(path);
  if (name.length >= PATH_SIZE) throw new RangeError(`The path ${path} is too long`);
  parameters.set(name);
}
