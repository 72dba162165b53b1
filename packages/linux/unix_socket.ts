import { closeDescriptor } from "./descriptor.ts";
import { Errno, SystemError } from "./errno.ts";
import { addressOf, check, errno, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
} as const;

export const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
/** A stream that does not block, closed in programs that are started. */
export const SOCKET_TYPE: number = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_PEERCRED = 17;
const MSG_CTRUNC = 8;
/** Besides O_NONBLOCK, which another process that has the same socket may take away. */
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const SHUT_RDWR = 2;
const MAX_PATH = 107;

/** Offsets and sizes of `struct msghdr`, `struct iovec` and `struct cmsghdr` on 64-bit systems. */
const MSGHDR = { iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48, size: 56 } as const;
const IOVEC_SIZE = 16;
const CMSG_HEADER = 16;
/** Descriptors of one message at most (SCM_MAX_FD). */
const MOST_DESCRIPTORS = 253;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** One message header, used by all sockets of the thread: nothing keeps it beyond a call. */
const area = fixedBytes(MSGHDR.size + IOVEC_SIZE + CMSG_HEADER + 4 * MOST_DESCRIPTORS + 4);
const view = new DataView(area.buffer);
const VECTOR = MSGHDR.size;
const CONTROL = VECTOR + IOVEC_SIZE;
const header = area.subarray(0, MSGHDR.size);

function prepare(bytes: Uint8Array, controlLength: number): void {
  const base = addressOf(area);
  view.setBigUint64(0, 0n, true);
  view.setBigUint64(8, 0n, true);
  view.setBigUint64(MSGHDR.iov, base + BigInt(VECTOR), true);
  view.setBigUint64(MSGHDR.iovlen, 1n, true);
  view.setBigUint64(MSGHDR.control, controlLength === 0 ? 0n : base + BigInt(CONTROL), true);
  view.setBigUint64(MSGHDR.controllen, BigInt(controlLength), true);
  view.setBigUint64(MSGHDR.flags, 0n, true);
  view.setBigUint64(VECTOR, addressOf(bytes), true);
  view.setBigUint64(VECTOR + 8, BigInt(bytes.length), true);
}

/** `struct sockaddr_un` of a path. */
export function unixAddress(path: string): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(path);
  if (text.length === 0 || text.length > MAX_PATH) {
    throw new RangeError(`A socket's path has 1 to ${MAX_PATH} bytes: ${path} has ${text.length}`);
  }
  const address = fixedBytes(2 + text.length + 1);
  address[0] = AF_UNIX;
  address.set(text, 2);
  return address;
}

/** What `UnixSocket.receive` got. */
export interface ReceiveResult {
  /** Bytes; 0 if the other side is gone, -1 if there is nothing at the moment. */
  readonly length: number;
  /** Descriptors that came with them, now the caller's to close. */
  readonly descriptors: readonly number[];
  /** Whether there were more descriptors than were wanted or than this process may have; those are lost. */
  readonly truncated: boolean;
}

/** A connected Unix stream socket, which passes descriptors beside bytes. It never blocks: wait for it with a `PollSet`. */
export class UnixSocket {
  /** The descriptor. */
  readonly descriptor: number;

  /** Takes a descriptor over: `close` closes it. */
  constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  /**
   * Connects to a listening socket.
   *
   * @throws {SystemError} If nobody listens (`ECONNREFUSED`, `ENOENT`), or its queue is full (`EAGAIN`).
   */
  static connect(path: string): UnixSocket {
    const address = unixAddress(path);
    const socket = new UnixSocket(check(libc().socket(AF_UNIX, SOCKET_TYPE, 0), "socket"));
    try {
      check(libc().connect(socket.descriptor, address, address.length), "connect", path);
    } catch (error) {
      socket.close();
      throw error;
    }
    return socket;
  }

  /** Two that are connected with each other. */
  static pair(): [UnixSocket, UnixSocket] {
    const two = fixedBytes(8);
    check(libc().socketpair(AF_UNIX, SOCKET_TYPE, 0, two), "socketpair");
    const numbers = new DataView(two.buffer);
    return [
      new UnixSocket(numbers.getInt32(0, true)),
      new UnixSocket(numbers.getInt32(4, true)),
    ];
  }

  /**
   * Sends bytes, and descriptors with the first of them. The descriptors stay the caller's.
   *
   * @param bytes At least one byte.
   * @returns How many went; 0 if there is no room at the moment. If any went, so did the descriptors.
   * @throws {SystemError} If the other side is gone (`EPIPE`, `ECONNRESET`), or a descriptor is not open (`EBADF`).
   */
  send(bytes: Uint8Array, descriptors: readonly number[] = []): number {
    const count = descriptors.length;
    if (count > MOST_DESCRIPTORS) {
      throw new RangeError(`A message takes ${MOST_DESCRIPTORS} descriptors, not ${count}`);
    }
    prepare(bytes, count === 0 ? 0 : CMSG_HEADER + 4 * count);
    if (count > 0) {
      view.setBigUint64(CONTROL, BigInt(CMSG_HEADER + 4 * count), true);
      view.setInt32(CONTROL + 8, SOL_SOCKET, true);
      view.setInt32(CONTROL + 12, SCM_RIGHTS, true);
      descriptors.forEach((descriptor, i) =>
        view.setInt32(CONTROL + CMSG_HEADER + 4 * i, descriptor, true)
      );
    }
    for (;;) {
      const sent = libc().sendmsg(this.descriptor, header, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0) return sent;
      const code = errno();
      if (code === Errno.EAGAIN) return 0;
      if (code !== Errno.EINTR) throw new SystemError("sendmsg", code);
    }
  }

  /**
   * Receives what is there. The system never joins bytes with descriptors to those before: what comes with descriptors begins
   * with the byte they were sent with.
   *
   * @param into Where bytes go; at most its length.
   * @param most Descriptors that are wanted at most; more are closed by the system, and `truncated` says so.
   * @throws {SystemError} If the connection broke (`ECONNRESET`).
   */
  receive(into: Uint8Array, most = MOST_DESCRIPTORS): ReceiveResult {
    const room = Math.min(most, MOST_DESCRIPTORS);
    // Room for one more, since the system fills what alignment adds.
    prepare(into, CMSG_HEADER + 4 * room);
    let length: number;
    for (;;) {
      length = libc().recvmsg(this.descriptor, header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
      if (length >= 0) break;
      const code = errno();
      if (code === Errno.EAGAIN) return { length: -1, descriptors: [], truncated: false };
      if (code !== Errno.EINTR) throw new SystemError("recvmsg", code);
    }
    const descriptors: number[] = [];
    const stop = CONTROL + Number(view.getBigUint64(MSGHDR.controllen, true));
    for (let at = CONTROL; at + CMSG_HEADER <= stop;) {
      const size = Number(view.getBigUint64(at, true));
      if (size < CMSG_HEADER || at + size > stop) break;
      if (
        view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS
      ) {
        for (let fd = at + CMSG_HEADER; fd + 4 <= at + size; fd += 4) {
          descriptors.push(view.getInt32(fd, true));
        }
      }
      at += (size + 7) & ~7;
    }
    const truncated = (view.getInt32(MSGHDR.flags, true) & MSG_CTRUNC) !== 0;
    return { length, descriptors, truncated };
  }

  /** Process that connected, or that listened when this one did; 0 if it cannot be seen from here. */
  get peerProcess(): number {
    // `struct ucred` and its length.
    const credentials = fixedBytes(12);
    const length = new Uint8Array(new Uint32Array([12]).buffer);
    const { getsockopt } = libc();
    if (getsockopt(this.descriptor, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0) return 0;
    return new DataView(credentials.buffer).getInt32(0, true);
  }

  /** Ends the connection in both directions, so that whoever waits for it wakes up. */
  shutdown(): void {
    libc().shutdown(this.descriptor, SHUT_RDWR);
  }

  /** Closes the descriptor. */
  close(): void {
    closeDescriptor(this.descriptor);
  }
}
