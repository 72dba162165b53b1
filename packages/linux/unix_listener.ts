import { closeDescriptor } from "./descriptor.ts";
import { Errno, SystemError } from "./errno.ts";
import { check, errno, loadLibc } from "./libc.ts";
import { AF_UNIX, SOCKET_TYPE, unixAddress, UnixSocket } from "./unix_socket.ts";

const SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  accept4: { parameters: ["i32", "pointer", "pointer", "i32"], result: "i32" },
} as const;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** A Unix socket that others connect to, by a path. */
export class UnixListener {
  /** The descriptor: readable when somebody wants to connect. */
  readonly descriptor: number;
  /** The socket's path. */
  readonly path: string;

  /**
   * Makes the socket. The caller sees to it that no file is in the way, and removes the socket's file afterwards.
   *
   * @throws {SystemError} If the system refuses; `EADDRINUSE` if there is such a file.
   * @throws {RangeError} If the path is longer than such an address may be.
   */
  constructor(path: string, backlog = 8) {
    const address = unixAddress(path);
    this.path = path;
    this.descriptor = check(libc().socket(AF_UNIX, SOCKET_TYPE, 0), "socket");
    try {
      check(libc().bind(this.descriptor, address, address.length), "bind", path);
      check(libc().listen(this.descriptor, backlog), "listen", path);
    } catch (error) {
      closeDescriptor(this.descriptor);
      throw error;
    }
  }

  /** The next who connected, or null if nobody waits. @throws {SystemError} If there are too many descriptors. */
  accept(): UnixSocket | null {
    const descriptor = libc().accept4(this.descriptor, null, null, SOCKET_TYPE & ~1);
    if (descriptor >= 0) return new UnixSocket(descriptor);
    const code = errno();
    if (code === Errno.EAGAIN || code === Errno.EINTR) return null;
    throw new SystemError("accept", code, this.path);
  }

  /** Closes the socket; its file stays. */
  close(): void {
    closeDescriptor(this.descriptor);
  }
}
