import { closeDescriptor } from "./descriptor.ts";
import { check, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // Counts are far below 2^31, and an isize would be a bigint.
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
} as const;

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

const one = fixedBytes(8);
one[0] = 1;
const count = fixedBytes(8);
// A number does as well as a bigint, though the types do not say so, and costs nothing.
const EIGHT = 8 as unknown as bigint;

/** An event file: a counter that another thread or process can wait for. */
export class EventFd {
  /** The descriptor. */
  readonly descriptor: number;

  /** Takes a descriptor over: `close` closes it. Several objects, also in other threads, may be made of one. */
  constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  /**
   * Makes a new one.
   *
   * @throws {SystemError} If there are too many descriptors.
   */
  static create(): EventFd {
    return new EventFd(check(libc().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
  }

  /** Adds one. Whoever waits wakes up. @returns Whether it was taken; not if the counter is full, or it is no event file. */
  signal(): boolean {
    return libc().write(this.descriptor, one, EIGHT) === 8;
  }

  /**
   * Sets the counter to 0.
   *
   * @returns Whether it was above. One of another process that blocks while it is 0 must be polled before.
   */
  take(): boolean {
    return libc().read(this.descriptor, count, EIGHT) === 8;
  }

  /** Closes the descriptor. */
  close(): void {
    closeDescriptor(this.descriptor);
  }
}
