import { check, errno, loadLibc } from "./libc.ts";
import { SystemError } from "./errno.ts";

const SYMBOLS = {
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
} as const;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_POPULATE = 0x8000;
/** What mmap gives if it fails. */
const MAP_FAILED = 2n ** 64n - 1n;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/**
 * A part of a file at a place that the system chooses, for files that are mapped nowhere else, such as rings of the kernel. Where
 * `SharedMapping` does, it is better: this buffer is not shared with workers, and it is gone with `unmap`.
 */
export class ForeignMapping {
  /** The bytes, until `unmap`. */
  buffer: ArrayBuffer;
  readonly #pointer: Deno.PointerValue;
  readonly #length: number;

  /** @throws {SystemError} If the system refuses. */
  constructor(descriptor: number, offset: number, length: number) {
    this.#pointer = libc().mmap(
      null,
      BigInt(length),
      PROT_READ_WRITE,
      MAP_SHARED | MAP_POPULATE,
      descriptor,
      BigInt(offset),
    );
    if (BigInt(Deno.UnsafePointer.value(this.#pointer)) === MAP_FAILED) {
      throw new SystemError("mmap", errno());
    }
    this.#length = length;
    this.buffer = Deno.UnsafePointerView.getArrayBuffer(this.#pointer!, length);
  }

  /** Takes it away. No view of the buffer may be touched any more: that would end the process. */
  unmap(): void {
    if (this.buffer.byteLength === 0) return;
    this.buffer = new ArrayBuffer(0);
    check(libc().munmap(this.#pointer, BigInt(this.#length)), "munmap");
  }
}
