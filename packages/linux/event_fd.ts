import { closeDescriptor } from "./descriptor.ts";
import { Errno } from "./errno.ts";
import { addressOf, check, errno, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // Counts are far below 2^31, and an isize would be a bigint.
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
} as const;

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

const one = fixedBytes(8);
one[0] = 1;
const count = fixedBytes(8);
const RWF_NOWAIT = 8;
/** Files that have no positions want this one. */
const NOWHERE = -1n;

let place: Uint8Array<ArrayBuffer> | null = null;

/** An array of one iovec: `count`. */
function makePlace(): Uint8Array<ArrayBuffer> {
  const bytes = fixedBytes(16);
  new BigUint64Array(bytes.buffer).set([addressOf(count), 8n]);
  return bytes;
}

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
   * Sets the counter to 0. Never waits for it: another process that has the file may have made it one that blocks, and may have
   * taken what was there a moment ago.
   *
   * @returns Whether it was above.
   */
  take(): boolean {
    const { preadv2, read } = libc();
    if (preadv2(this.descriptor, place ??= makePlace(), 1, NOWHERE, RWF_NOWAIT) === 8) return true;
    // What is no event file may not know of this.
    return errno() === Errno.EOPNOTSUPP && read(this.descriptor, count, EIGHT) === 8;
  }

  /** Closes the descriptor. */
  close(): void {
    closeDescriptor(this.descriptor);
  }
}
