import { closeDescriptor } from "./descriptor.ts";
import { Errno } from "./errno.ts";
import { addressOf, check, errno, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "i32" },
  recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "i32" },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
} as const;

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const FLAGS = 0o4000 | 0o2000000; // SOCK_NONBLOCK, SOCK_CLOEXEC
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const SOL_IP = 0;
const SOL_IPV6 = 41;
const IP_RECVERR = 11;
const IPV6_RECVERR = 25;
const IPV6_V6ONLY = 26;
const MSG_NOSIGNAL = 0x4000;
const MSG_ERRQUEUE = 0x2000;
/** Bytes of `struct sockaddr_in` and `struct sockaddr_in6`. */
const SIZE4 = 16;
const SIZE6 = 28;
const MSGHDR_SIZE = 56;
const CMSG_HEADER = 16;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** One address, its length, and a message header, used by all sockets of the thread: nothing keeps them beyond a call. */
const name = fixedBytes(SIZE6);
const nameView = new DataView(name.buffer);
const nameLength = fixedBytes(4);
const lengthView = new DataView(nameLength.buffer);
const one = fixedBytes(4);
one[0] = 1;
const message = fixedBytes(MSGHDR_SIZE + 16 + 256 + 512);
const messageView = new DataView(message.buffer);

/** Somebody on an IP network. */
export interface InetAddress {
  /** 4 bytes of IPv4, 16 of IPv6. */
  readonly address: Uint8Array;
  /** 0 for ICMP. */
  readonly port: number;
}

/** What became of a datagram that was sent. */
export interface DatagramError {
  /** Of `Errno`, such as ECONNREFUSED, or another of the system's numbers. */
  readonly errno: number;
  /** Whom it was sent to. */
  readonly to: InetAddress;
}

/** What goes through a socket: UDP; ICMP echoes; ICMP as a whole, for which the process needs a right. */
export type DatagramKind = "udp" | "echo" | "icmp";

/** A socket for datagrams of IPv4 or IPv6. It never blocks: wait for it with a `PollSet`. */
export class DatagramSocket {
  /** The descriptor. */
  readonly descriptor: number;
  /** Why `send` said last that a datagram was lost: one of `Errno`, or another of the system's numbers. */
  sendError = 0;
  readonly #version: 4 | 6;
  #closed = false;

  private constructor(descriptor: number, version: 4 | 6) {
    this.descriptor = descriptor;
    this.#version = version;
  }

  /**
   * Opens a socket.
   *
   * @throws {SystemError} If it may not (`EACCES`, `EPERM`), or there are too many (`EMFILE`).
   */
  static open(version: 4 | 6, kind: DatagramKind): DatagramSocket {
    const icmp = version === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    const descriptor = check(
      libc().socket(
        version === 4 ? AF_INET : AF_INET6,
        (kind === "icmp" ? SOCK_RAW : SOCK_DGRAM) | FLAGS,
        kind === "udp" ? 0 : icmp,
      ),
      "socket",
    );
    return new DatagramSocket(descriptor, version);
  }

  /** Binds it. IPv6 means IPv6 only. @throws {SystemError} If the address is not to be had (`EADDRINUSE`). */
  bind(address: Uint8Array, port: number): void {
    const { bind, setsockopt } = libc();
    if (this.#version === 6) {
      check(setsockopt(this.descriptor, SOL_IPV6, IPV6_V6ONLY, one, 4), "setsockopt");
    }
    check(bind(this.descriptor, name, this.#write(address, port)), "bind");
  }

  /** Has the system tell what became of datagrams: see `receiveError`. */
  wantErrors(): void {
    const four = this.#version === 4;
    check(
      libc().setsockopt(
        this.descriptor,
        four ? SOL_IP : SOL_IPV6,
        four ? IP_RECVERR : IPV6_RECVERR,
        one,
        4,
      ),
      "setsockopt",
    );
  }

  /** Where it is bound. */
  get local(): InetAddress {
    lengthView.setUint32(0, SIZE6, true);
    check(libc().getsockname(this.descriptor, name, nameLength), "getsockname");
    return this.#read();
  }

  /**
   * Sends a datagram.
   *
   * @returns Whether it went; if not, the system has no room, or refused it: it is lost.
   */
  send(bytes: Uint8Array, address: Uint8Array, port: number): boolean {
    const size = this.#write(address, port);
    const { sendto } = libc();
    const length = bytes.length as unknown as bigint;
    // The first call may tell of an earlier datagram's fate.
    for (let tries = 0; tries < 2; tries++) {
      if (
        sendto(
          this.descriptor,
          bytes as Uint8Array<ArrayBuffer>,
          length,
          MSG_NOSIGNAL,
          name,
          size,
        ) >= 0
      ) {
        return true;
      }
      this.sendError = errno();
      if (this.sendError === Errno.EAGAIN) return false;
    }
    return false;
  }

  /**
   * Receives a datagram.
   *
   * @returns Its length, at most that of `into`; -1 if there is none.
   */
  receive(into: Uint8Array): number {
    const { recvfrom } = libc();
    const length = into.length as unknown as bigint;
    for (let tries = 0; tries < 2; tries++) {
      lengthView.setUint32(0, SIZE6, true);
      const got = recvfrom(
        this.descriptor,
        into as Uint8Array<ArrayBuffer>,
        length,
        0,
        name,
        nameLength,
      );
      if (got >= 0) return got;
      if (errno() === Errno.EAGAIN) return -1;
    }
    return -1;
  }

  /** Who sent what was received last, by whichever socket of this thread. */
  get from(): InetAddress {
    return this.#read();
  }

  /** What became of a datagram; null if nothing more is known. */
  receiveError(): DatagramError | null {
    const base = addressOf(message);
    const vector = MSGHDR_SIZE;
    const control = vector + 16 + 256;
    message.fill(0);
    messageView.setBigUint64(0, addressOf(name), true);
    messageView.setUint32(8, SIZE6, true);
    messageView.setBigUint64(16, base + BigInt(vector), true);
    messageView.setBigUint64(24, 1n, true);
    messageView.setBigUint64(32, base + BigInt(control), true);
    messageView.setBigUint64(40, 512n, true);
    messageView.setBigUint64(vector, base + BigInt(vector + 16), true);
    messageView.setBigUint64(vector + 8, 256n, true);
    if (libc().recvmsg(this.descriptor, message.subarray(0, MSGHDR_SIZE), MSG_ERRQUEUE) < 0) {
      return null;
    }
    const stop = control + Math.min(512, Number(messageView.getBigUint64(40, true)));
    for (let at = control; at + CMSG_HEADER + 4 <= stop;) {
      const size = Number(messageView.getBigUint64(at, true));
      const level = messageView.getInt32(at + 8, true);
      const type = messageView.getInt32(at + 12, true);
      const fits = level === SOL_IP && type === IP_RECVERR ||
        level === SOL_IPV6 && type === IPV6_RECVERR;
      if (fits) return { errno: messageView.getUint32(at + CMSG_HEADER, true), to: this.#read() };
      if (size < CMSG_HEADER) break;
      at += (size + 7) & ~7;
    }
    return { errno: 0, to: this.#read() };
  }

  /** Closes it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeDescriptor(this.descriptor);
  }

  /** Writes `name`. @returns Its length. */
  #write(address: Uint8Array, port: number): number {
    const four = this.#version === 4;
    if (address.length !== (four ? 4 : 16)) {
      throw new RangeError(
        `An address of IPv${this.#version} has ${four ? 4 : 16} bytes: this has ${address.length}`,
      );
    }
    name.fill(0);
    nameView.setUint16(0, four ? AF_INET : AF_INET6, true);
    nameView.setUint16(2, port);
    name.set(address, four ? 4 : 8);
    return four ? SIZE4 : SIZE6;
  }

  #read(): InetAddress {
    const four = this.#version === 4;
    return {
      address: name.slice(four ? 4 : 8, four ? 8 : 24),
      port: nameView.getUint16(2),
    };
  }
}
