import { closeDescriptor } from "./descriptor.ts";
import { SystemError } from "./errno.ts";
import { check, cString, errno, loadLibc } from "./libc.ts";

const SYMBOLS = {
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
} as const;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const SEEK_END = 2;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** What may not be done to a memory file any more; to be joined. */
export const Seal = {
  /** No more seals. */
  seal: 1,
  /** It gets no smaller. */
  shrink: 2,
  /** It gets no larger. */
  grow: 4,
  /** Nobody writes. */
  write: 8,
} as const;

/** A file that is memory, to be shared with other processes by its descriptor. */
export class MemoryFile {
  /** The descriptor. */
  readonly descriptor: number;

  /** Takes a descriptor over: `close` closes it. */
  constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  /**
   * Makes a new one, zeroed, that can be sealed.
   *
   * @param size In bytes.
   * @param name Seen in lists of the process's mappings.
   * @throws {SystemError} If the system refuses.
   */
  static create(size: number, name = "virtio"): MemoryFile {
    const { memfd_create, ftruncate } = libc();
    const descriptor = check(
      memfd_create(cString(name), MFD_CLOEXEC | MFD_ALLOW_SEALING),
      "memfd_create",
    );
    const file = new MemoryFile(descriptor);
    if (ftruncate(descriptor, BigInt(size)) !== 0) {
      const error = new SystemError("ftruncate", errno());
      file.close();
      throw error;
    }
    return file;
  }

  /** Bytes that it has now; -1 if the descriptor is of something that has no size. Another process may change it. */
  get size(): number {
    return Number(libc().lseek(this.descriptor, 0n, SEEK_END));
  }

  /** Of `Seal`, joined; 0 if it is a file that has none. */
  get seals(): number {
    return Math.max(0, libc().fcntl(this.descriptor, F_GET_SEALS, 0n));
  }

  /**
   * Adds seals.
   *
   * @param seals Of `Seal`, joined.
   * @throws {SystemError} If it was sealed against that, or is no memory file.
   */
  addSeals(seals: number): void {
    check(libc().fcntl(this.descriptor, F_ADD_SEALS, BigInt(seals)), "fcntl");
  }

  /** Closes the descriptor; what is mapped stays. */
  close(): void {
    closeDescriptor(this.descriptor);
  }
}
