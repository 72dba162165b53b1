/**
 * Reads and writes of open files at a position, from and to several places at once (preadv, pwritev), and what else a disk
 * image wants: making it durable, holes, its size and how direct access has to be aligned.
 */
import { Errno, SystemError } from "./errno.ts";
import { check, errno, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  // Results are at most `MOST_BYTES`, and an isize would be a bigint.
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" },
  pwritev2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  fallocateLater: {
    name: "fallocate",
    parameters: ["i32", "i32", "i64", "i64"],
    result: "i32",
    nonblocking: true,
  },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
} as const;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

const SEEK_END = 2;
const AT_EMPTY_PATH = 0x1000;
const STATX_INO = 0x100;
const STATX_DIOALIGN = 0x2000;
const BLKDISCARD = 0x1277n;
const BLKSSZGET = 0x1268n;

/** Entries of an array of iovecs that one call takes (IOV_MAX). */
export const IOV_MAX = 1024;
/** Bytes that one call transfers at most, less than the system's own limit. */
export const MOST_BYTES = 1 << 30;
/** Bytes of `struct iovec`. */
export const IOVEC_SIZE = 16;

/** Flags of a transfer, to be joined. */
export const TransferFlag = {
  /** A write is durable when it is done (RWF_DSYNC). */
  durable: 2,
  /** Only if nothing has to be waited for; `EAGAIN` otherwise (RWF_NOWAIT). */
  noWait: 8,
} as const;

/** What to do with a range of a file. */
export const AllocateMode = {
  /** Makes a hole: it reads as zeroes and takes no space. */
  hole: 3,
  /** Makes it zeroes, and keeps the space. */
  zero: 17,
} as const;

/** An array of iovecs: where bytes come from, or go to. */
export class IoVectors {
  /** The array, for a call. It does not move. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many entries there is room for. */
  readonly length: number;
  readonly #words: Uint32Array<ArrayBuffer>;

  /** @param length Entries. */
  constructor(length: number) {
    this.bytes = fixedBytes(length * IOVEC_SIZE);
    this.length = length;
    this.#words = new Uint32Array(this.bytes.buffer);
  }

  /** Sets an entry: an address as two halves, and how many bytes there. */
  set(index: number, addressLow: number, addressHigh: number, length: number): void {
    const at = index << 2;
    const words = this.#words;
    words[at] = addressLow;
    words[at + 1] = addressHigh;
    words[at + 2] = length;
    words[at + 3] = 0;
  }

  /**
   * Takes the first `bytes` bytes off the first `count` entries, for the rest of a transfer that was short.
   *
   * @returns How many entries are left; they begin at 0 again.
   */
  drop(bytes: number, count: number): number {
    const words = this.#words;
    let left = bytes;
    let first = 0;
    while (left > 0 && first < count && left >= words[4 * first + 2]!) {
      left -= words[4 * first + 2]!;
      first++;
    }
    words.copyWithin(0, 4 * first, 4 * count);
    if (left > 0) {
      const low = words[0]! + left;
      words[0] = low;
      words[1]! += low > 0xffff_ffff ? 1 : 0;
      words[2]! -= left;
    }
    return count - first;
  }
}

// Positions are 64-bit integers for these calls. A number there costs 150 ns; `BigInt(position)` is an object; but what is read
// from an array of them right where it is used goes to the call as it is.
const positionWords = new Uint32Array(2);
const positionValue = new BigInt64Array(positionWords.buffer);

/**
 * Reads into the first `count` places.
 *
 * @param flags Of `TransferFlag`.
 * @returns Bytes read, less than asked for near the end of the file; the negative of an `Errno` if it failed.
 */
export function readVectors(
  descriptor: number,
  vectors: IoVectors,
  count: number,
  position: number,
  flags = 0,
): number {
  positionWords[0] = position;
  positionWords[1] = position / 0x1_0000_0000;
  for (;;) {
    const done = libc().preadv2(descriptor, vectors.bytes, count, positionValue[0]!, flags);
    if (done >= 0) return done;
    const code = errno();
    if (code !== Errno.EINTR) return -code;
  }
}

/**
 * Writes from the first `count` places.
 *
 * @param flags Of `TransferFlag`.
 * @returns Bytes written; the negative of an `Errno` if it failed.
 */
export function writeVectors(
  descriptor: number,
  vectors: IoVectors,
  count: number,
  position: number,
  flags = 0,
): number {
  // Not one loop for both calls: the compiler makes a call of which it knows the function much cheaper.
  positionWords[0] = position;
  positionWords[1] = position / 0x1_0000_0000;
  for (;;) {
    const done = libc().pwritev2(descriptor, vectors.bytes, count, positionValue[0]!, flags);
    if (done >= 0) return done;
    const code = errno();
    if (code !== Errno.EINTR) return -code;
  }
}

/** Has the disk take what was written to the file (fdatasync). @throws {SystemError} If it did not. */
export function syncData(descriptor: number): void {
  check(libc().fdatasync(descriptor), "fdatasync");
}

/**
 * Makes a range of a file read as zeroes. The file does not become longer.
 *
 * @param mode Of `AllocateMode`.
 * @returns 0, or an `Errno`: `EOPNOTSUPP` where the file system cannot.
 */
export function allocateRange(
  descriptor: number,
  mode: number,
  position: number,
  length: number,
): number {
  for (;;) {
    if (libc().fallocate(descriptor, mode, BigInt(position), BigInt(length)) === 0) return 0;
    const code = errno();
    if (code !== Errno.EINTR) return code;
  }
}

/** As `allocateRange`, on another thread. @returns Whether it worked; why not cannot be told from here. */
export async function allocateRangeLater(
  descriptor: number,
  mode: number,
  position: number,
  length: number,
): Promise<boolean> {
  return await libc().fallocateLater(descriptor, mode, BigInt(position), BigInt(length)) === 0;
}

const range = fixedBytes(16);
const rangeView = new DataView(range.buffer);

/** Tells a block device that a range is not needed (BLKDISCARD). @returns 0, or an `Errno`. */
export function discardBlocks(descriptor: number, position: number, length: number): number {
  rangeView.setBigUint64(0, BigInt(position), true);
  rangeView.setBigUint64(8, BigInt(length), true);
  return libc().ioctl(descriptor, BLKDISCARD, range) === 0 ? 0 : errno();
}

/** Bytes of a file or a block device. @throws {SystemError} If it has no size. */
export function fileSize(descriptor: number): number {
  return check(Number(libc().lseek(descriptor, 0n, SEEK_END)), "lseek");
}

/** Makes a file `size` bytes long. @throws {SystemError} If the system refuses. */
export function resizeFile(descriptor: number, size: number): void {
  check(libc().ftruncate(descriptor, BigInt(size)), "ftruncate");
}

/** What a file is, and how it has to be accessed past the page cache. */
export interface FileFacts {
  /** Number of the file. */
  readonly inode: number;
  /** Major and minor number of the device that it is on. */
  readonly device: readonly [number, number];
  /** Addresses of direct access are multiples of this. */
  readonly memoryAlignment: number;
  /** Positions and lengths of direct access are multiples of this. */
  readonly positionAlignment: number;
}

/**
 * Asks about an open file. Where the system does not say how direct access is aligned (before Linux 6.1), a block device is
 * asked for its sectors, and 4096 is assumed of files.
 *
 * @throws {SystemError} If the descriptor is not open.
 */
export function fileFacts(descriptor: number): FileFacts {
  const bytes = fixedBytes(256);
  const view = new DataView(bytes.buffer);
  const mask = STATX_INO | STATX_DIOALIGN;
  check(libc().statx(descriptor, fixedBytes(1), AT_EMPTY_PATH, mask, bytes), "statx");
  const field = (at: number): number => view.getUint32(at, true);
  let memoryAlignment = 4096;
  let positionAlignment = 4096;
  // Zeroes: direct access is not possible, and `open` refused it.
  if ((field(0) & STATX_DIOALIGN) !== 0 && field(0x9c) > 0) {
    memoryAlignment = field(0x98);
    positionAlignment = field(0x9c);
  } else if (libc().ioctl(descriptor, BLKSSZGET, range) === 0) {
    memoryAlignment = positionAlignment = rangeView.getInt32(0, true);
  }
  return {
    inode: Number(view.getBigUint64(0x20, true)),
    device: [field(0x88), field(0x8c)],
    memoryAlignment,
    positionAlignment,
  };
}

/** What went wrong in a call that gives the negative of an `Errno`. */
export function transferError(call: string, result: number, what = ""): SystemError {
  return new SystemError(call, -result, what);
}
