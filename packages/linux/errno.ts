/** Numbers of errors that callers tell apart, the same on x64 and arm64. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ENOSYS: 38,
  ETIME: 62,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ENOBUFS: 105,
  ECONNRESET: 104,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EINPROGRESS: 115,
  ECANCELED: 125,
} as const;

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(Errno).map(([name, number]) => [number, name]),
);

/** A call that the system refused. */
export class SystemError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "SystemError";
  /** The call, such as "mmap". */
  readonly call: string;
  /** Of `Errno`, or another of the system's numbers. */
  readonly errno: number;
  /** The number's name, such as "EAGAIN"; "errno 200" where it is not in `Errno`. */
  readonly code: string;

  /**
   * @param call The call that failed.
   * @param number What `errno` said.
   * @param what What it was for, such as a path.
   */
  constructor(call: string, number: number, what = "") {
    const code = NAMES.get(number) ?? `errno ${number}`;
    super(`${call}${what === "" ? "" : ` of ${what}`} failed: ${code}`);
    this.call = call;
    this.errno = number;
    this.code = code;
  }
}
