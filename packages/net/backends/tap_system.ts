import { NET_HEADER_SIZE } from "../constants.ts";
import { Offload } from "../sink.ts";
import { TapError } from "./tap_error.ts";

const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const EFD_FLAGS = O_NONBLOCK | O_CLOEXEC;
const CLONE_NEWNET = 0x4000_0000;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const POLLIN = 1;

const TUNSETIFF = 0x4004_54can;
const TUNSETOFFLOAD = 0x4004_54d0n;
const TUNSETVNETHDRSZ = 0x4004_54d8n;
const TUNSETVNETLE = 0x4004_54dcn;
const SIOCGIFMTU = 0x8921n;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** Bytes of a `struct ifreq`, and of the name at its beginning. */
const IFREQ_SIZE = 40;
const IFNAMSIZ = 16;

const EPERM = 1;
const ENOENT = 2;
const EINTR = 4;
const EAGAIN = 11;
const ENXIO = 6;
const EACCES = 13;
const EBUSY = 16;
const ENODEV = 19;
const EINVAL = 22;

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctlValue: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  // Counts are far below 2^31, and an isize would be a bigint.
  readv: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32", nonblocking: true },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setns: { parameters: ["i32", "i32"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

type Library = Deno.DynamicLibrary<typeof SYMBOLS>;

function load(): Library {
  if (Deno.build.os !== "linux") {
    throw new TapError("unsupported", "A tap needs Linux: use a stream or a switch elsewhere");
  }
  try {
    return Deno.dlopen("libc.so.6", SYMBOLS);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) {
      throw new TapError(
        "permission",
        "A tap needs the permission for foreign functions: --allow-ffi",
        {
          cause: error,
        },
      );
    }
    throw new TapError("unsupported", "A tap needs the GNU C library: there is no libc.so.6", {
      cause: error,
    });
  }
}

function text(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${value}\0`);
}

/** How a read ended that brought no frame. */
export const TapRead = {
  /** There is nothing at the moment. */
  empty: -1,
  /** The interface is gone, or does not work. */
  gone: -2,
} as const;

/** What became of a write. */
export const TapWrite = {
  /** It was taken. */
  done: 0,
  /** There is no room at the moment. */
  full: 1,
  /** The interface is down. */
  down: 2,
  /** The system does not like the frame or its header. */
  refused: 3,
} as const;

/** An open tap, by the calls of the C library. Each frame has a `struct virtio_net_hdr` of 12 bytes before it. */
export class TapSystem {
  /** Name of the interface. */
  readonly name: string;
  /** What the system takes, and was told that it may send: of `Offload`. */
  readonly offloads: number;
  /** The interface's MTU when it was opened. */
  readonly mtu: number;
  readonly #library: Library;
  readonly #tap: number;
  /** Written to, so that whoever waits in `wait` comes back. */
  readonly #event: number;
  readonly #errno: Deno.UnsafePointerView;
  /** Two of `struct iovec`: header and frame. */
  readonly #vectors: Uint8Array<ArrayBuffer>;
  /** Two of `struct pollfd`: tap and event. */
  readonly #polled: Uint8Array<ArrayBuffer>;

  /**
   * Opens a tap, which is made if it is not there.
   *
   * @param name Of the interface, up to 15 characters.
   * @param namespace Path of a network namespace; the process's own if null.
   * @param header Where `read` puts headers.
   * @param frame Where it puts frames. Neither may ever move.
   * @throws {TapError} If it cannot be had.
   */
  constructor(
    name: string,
    namespace: string | null,
    header: Uint8Array,
    frame: Uint8Array,
  ) {
    const library = this.#library = load();
    this.name = name;
    const opened: number[] = [];
    try {
      this.#errno = new Deno.UnsafePointerView(library.symbols.__errno_location()!);
      const leave = namespace === null ? null : this.#enter(namespace);
      try {
        this.#tap = this.#open();
        opened.push(this.#tap);
        this.offloads = this.#configure();
        this.mtu = this.#readMtu();
      } finally {
        leave?.();
      }
      this.#event = library.symbols.eventfd(0, EFD_FLAGS);
      if (this.#event < 0) throw this.#error("eventfd");
      opened.push(this.#event);
    } catch (error) {
      for (const descriptor of opened) library.symbols.close(descriptor);
      library.close();
      throw error;
    }
    this.#vectors = new Uint8Array(32);
    const vectors = new DataView(this.#vectors.buffer);
    [header, frame].forEach((bytes, i) => {
      const pointer = Deno.UnsafePointer.of(bytes as Uint8Array<ArrayBuffer>);
      vectors.setBigUint64(16 * i, Deno.UnsafePointer.value(pointer), true);
      vectors.setBigUint64(16 * i + 8, BigInt(bytes.length), true);
    });
    this.#polled = new Uint8Array(16);
    const polled = new DataView(this.#polled.buffer);
    [this.#tap, this.#event].forEach((descriptor, i) => {
      polled.setInt32(8 * i, descriptor, true);
      polled.setInt16(8 * i + 4, POLLIN, true);
    });
  }

  /** Resolves when there may be something to read, or `wake` was called. */
  async wait(): Promise<void> {
    await this.#library.symbols.poll(this.#polled, 2n, -1);
  }

  /** Makes `wait` resolve, now and ever after. */
  wake(): void {
    const one = new Uint8Array(8);
    one[0] = 1;
    this.#library.symbols.write(this.#event, one, 8n);
  }

  /** Reads a frame with its header. @returns Bytes of both, or one of `TapRead`. */
  read(): number {
    for (;;) {
      const count = this.#library.symbols.readv(this.#tap, this.#vectors, 2);
      if (count >= 0) return count;
      const code = this.#errno.getInt32();
      if (code === EAGAIN) return TapRead.empty;
      if (code !== EINTR) return TapRead.gone;
    }
  }

  /** Writes a frame that stands behind its header. @returns One of `TapWrite`. */
  write(bytes: Uint8Array, length: number): number {
    const { write } = this.#library.symbols;
    // A number does as well as a bigint, though the types do not say so.
    const written = write(this.#tap, bytes as Uint8Array<ArrayBuffer>, length as unknown as bigint);
    if (written >= 0) return TapWrite.done;
    switch (this.#errno.getInt32()) {
      case EAGAIN:
      case EINTR:
        return TapWrite.full;
      case EINVAL:
        return TapWrite.refused;
      default:
        // EIO if it is down; EBADFD if it is gone, which the reader notices too.
        return TapWrite.down;
    }
  }

  /** Gives all back. Nobody may be in `wait`. */
  close(): void {
    this.#library.symbols.close(this.#tap);
    this.#library.symbols.close(this.#event);
    this.#library.close();
  }

  /** Goes to another network namespace. @returns What comes back. */
  #enter(path: string): () => void {
    const { open, setns, close } = this.#library.symbols;
    const home = open(text("/proc/thread-self/ns/net"), O_CLOEXEC);
    if (home < 0) throw this.#error("opening the process's own network namespace");
    const there = open(text(path), O_CLOEXEC);
    try {
      if (there < 0 || setns(there, CLONE_NEWNET) !== 0) {
        throw this.#error(`entering the network namespace ${path}`);
      }
    } catch (error) {
      close(home);
      throw error;
    } finally {
      if (there >= 0) close(there);
    }
    return () => {
      const back = setns(home, CLONE_NEWNET);
      close(home);
      if (back !== 0) throw this.#error("coming back from the network namespace");
    };
  }

  #open(): number {
    const tap = this.#library.symbols.open(text("/dev/net/tun"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap < 0) throw this.#error("opening /dev/net/tun");
    const request = new Uint8Array(IFREQ_SIZE);
    const name = text(this.name);
    if (name.length > IFNAMSIZ || name.length < 2) {
      this.#library.symbols.close(tap);
      throw new TapError("not a tap", `An interface has a name of 1 to 15 bytes: not ${this.name}`);
    }
    request.set(name);
    new DataView(request.buffer).setUint16(IFNAMSIZ, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, true);
    if (this.#library.symbols.ioctl(tap, TUNSETIFF, request) !== 0) {
      const error = this.#error(`taking the interface ${this.name}`);
      this.#library.symbols.close(tap);
      throw error;
    }
    return tap;
  }

  /** @returns The offloads that the system takes. */
  #configure(): number {
    const { ioctl, ioctlValue } = this.#library.symbols;
    const set = (request: bigint, value: number): boolean =>
      ioctl(this.#tap, request, new Uint8Array(new Int32Array([value]).buffer)) === 0;
    if (!set(TUNSETVNETHDRSZ, NET_HEADER_SIZE)) {
      throw this.#error("setting the size of net headers");
    }
    // Where it is not known, headers are little endian on all machines that Deno runs on.
    set(TUNSETVNETLE, 1);
    // The bits of TUNSETOFFLOAD are those of `Offload`. Older systems do not know the last ones.
    const { csum, tso4, tso6, ecn, ufo } = Offload;
    for (
      const offloads of [Offload.all, csum | tso4 | tso6 | ecn | ufo, csum | tso4 | tso6, csum]
    ) {
      if (ioctlValue(this.#tap, TUNSETOFFLOAD, BigInt(offloads)) === 0) return offloads;
    }
    return 0;
  }

  #readMtu(): number {
    const { socket, ioctl, close } = this.#library.symbols;
    const control = socket(AF_INET, SOCK_DGRAM | O_CLOEXEC, 0);
    if (control < 0) throw this.#error("asking for the MTU");
    const request = new Uint8Array(IFREQ_SIZE);
    request.set(text(this.name));
    const failed = ioctl(control, SIOCGIFMTU, request) !== 0;
    const error = failed ? this.#error("asking for the MTU") : null;
    close(control);
    if (error !== null) throw error;
    return new DataView(request.buffer).getInt32(IFNAMSIZ, true);
  }

  /** What the last call's error means. */
  #error(doing: string): TapError {
    const code = this.#errno.getInt32();
    const { name } = this;
    switch (code) {
      case EPERM:
      case EACCES:
        return new TapError(
          "permission",
          `No right to use a tap (${doing}): run with CAP_NET_ADMIN and access to /dev/net/tun, or have the ` +
            `administrator run "ip tuntap add dev ${name} mode tap user USER vnet_hdr" for you`,
        );
      case ENOENT:
      case ENODEV:
      case ENXIO:
        return new TapError(
          "missing",
          `There is no such thing (${doing}): for a tap the module tun must be loaded, and in a container ` +
            "/dev/net/tun must be passed in",
        );
      case EBUSY:
        return new TapError(
          "busy",
          `Another program uses ${name}, or it was made for several queues: take another name`,
        );
      case EINVAL:
        return new TapError(
          "not a tap",
          `${name} is an interface already, and no tap: take another name`,
        );
      default:
        return new TapError("system", `The system refused (${doing}): error ${code}`);
    }
  }
}
