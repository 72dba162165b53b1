import { ImageError } from "./file_error.ts";

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  fallocateLater: {
    name: "fallocate",
    parameters: ["i32", "i32", "i64", "i64"],
    result: "i32",
    nonblocking: true,
  },
} as const;

/**
 * Makes holes in a file. The runtime has no call for that, so it asks the C library, where Linux and the permission for
 * foreign functions are there; without them there are no holes.
 */
export class HolePuncher {
  readonly #library: Deno.DynamicLibrary<typeof SYMBOLS>;
  readonly #descriptor: number;
  #zeroRange = true;

  private constructor(library: Deno.DynamicLibrary<typeof SYMBOLS>, descriptor: number) {
    this.#library = library;
    this.#descriptor = descriptor;
  }

  /**
   * Opens the file once more, by its own descriptor.
   *
   * @param path Where the file is.
   * @param file The file as it was opened, to see that it is the same.
   * @param size Bytes of the file; a hole is tried behind them.
   * @returns Null where holes cannot be made: another system, no permission, or a file system without them.
   * @throws {ImageError} If another file has taken the path.
   */
  static open(path: string, file: Deno.FsFile, size: number): HolePuncher | null {
    if (Deno.build.os !== "linux") return null;
    if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return null;
    let library: Deno.DynamicLibrary<typeof SYMBOLS>;
    try {
      library = Deno.dlopen("libc.so.6", SYMBOLS);
    } catch {
      return null; // another C library
    }
    const descriptor = library.symbols.open(
      new TextEncoder().encode(`${path}\0`),
      O_RDWR | O_CLOEXEC,
    );
    if (descriptor < 0) {
      library.close();
      return null;
    }
    const puncher = new HolePuncher(library, descriptor);
    const ours = file.statSync();
    const theirs = Deno.statSync(path);
    if (ours.ino !== theirs.ino || ours.dev !== theirs.dev) {
      puncher.close();
      throw new ImageError("changed", `${path} was replaced by another file while it was opened`);
    }
    if (!puncher.punch(size, 4096)) {
      puncher.close();
      return null;
    }
    return puncher;
  }

  /** Makes a hole: the range reads as zeroes and takes no space. @returns Whether it worked. */
  punch(position: number, length: number): boolean {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return this.#library.symbols.fallocate(
      this.#descriptor,
      mode,
      BigInt(position),
      BigInt(length),
    ) === 0;
  }

  /** As `punch`, on another thread. */
  async punchLater(position: number, length: number): Promise<boolean> {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return await this.#library.symbols.fallocateLater(
      this.#descriptor,
      mode,
      BigInt(position),
      BigInt(length),
    ) === 0;
  }

  /** Zeroes a range and keeps its space. @returns Whether it worked; some file systems cannot. */
  zero(position: number, length: number): boolean {
    if (!this.#zeroRange) return false;
    const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    this.#zeroRange = this.#library.symbols.fallocate(
      this.#descriptor,
      mode,
      BigInt(position),
      BigInt(length),
    ) === 0;
    return this.#zeroRange;
  }

  /** As `zero`, on another thread. */
  async zeroLater(position: number, length: number): Promise<boolean> {
    if (!this.#zeroRange) return false;
    const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    this.#zeroRange = await this.#library.symbols.fallocateLater(
      this.#descriptor,
      mode,
      BigInt(position),
      BigInt(length),
    ) === 0;
    return this.#zeroRange;
  }

  /** Closes the descriptor. */
  close(): void {
    this.#library.symbols.close(this.#descriptor);
    this.#library.close();
  }
}
