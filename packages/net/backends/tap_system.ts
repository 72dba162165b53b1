import {
  addressOf,
  closeDescriptor,
  Errno,
  errno,
  EventFd,
  fixedBytes,
  loadLibc,
  LoopReader,
  openDescriptor,
  OpenFlag,
  PollSet,
  SystemError,
} from "@virtio/linux";
import { MAX_FRAME_SIZE, NET_HEADER_SIZE } from "../constants.ts";
import { Offload } from "../sink.ts";
import { TapError } from "./tap_error.ts";

const CLONE_NEWNET = 0x4000_0000;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;

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

/** Milliseconds between looks at whether the interface is still there. */
const LOOK_INTERVAL = 1000;

const SYMBOLS = {
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctlValue: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  // Counts are far below 2^31, and an isize would be a bigint.
  readv: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setns: { parameters: ["i32", "i32"], result: "i32" },
} as const;

type Symbols = ReturnType<typeof loadLibc<typeof SYMBOLS>>;

function load(): Symbols {
  try {
    return loadLibc(SYMBOLS);
  } catch (cause) {
    if ((cause as Error).cause instanceof Deno.errors.NotCapable) {
      throw new TapError(
        "permission",
        "A tap needs the permission for foreign functions: --allow-ffi",
        { cause },
      );
    }
    throw new TapError(
      "unsupported",
      "A tap needs Linux with the GNU C library: use a stream or a switch elsewhere",
      { cause },
    );
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
  readonly #libc: Symbols;
  readonly #tap: number;
  /** Signalled to end a wait in another thread. */
  readonly #event: EventFd;
  readonly #header: Uint8Array;
  readonly #frame: Uint8Array;
  /** Two of `struct iovec`: header and frame. */
  readonly #vectors: Uint8Array<ArrayBuffer>;
  /** The tap and the event. */
  readonly #polled: PollSet = new PollSet();
  #serving = true;

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
    this.#libc = load();
    this.name = name;
    this.#header = header;
    this.#frame = frame;
    let tap = -1;
    try {
      const leave = namespace === null ? null : this.#enter(namespace);
      try {
        tap = this.#open();
        this.#tap = tap;
        this.offloads = this.#configure();
        this.mtu = this.#readMtu();
      } finally {
        leave?.();
      }
      this.#event = this.#attempt("making an event", () => EventFd.create());
    } catch (error) {
      closeDescriptor(tap);
      throw error;
    }
    this.#vectors = fixedBytes(32);
    const vectors = new DataView(this.#vectors.buffer);
    [header, frame].forEach((bytes, i) => {
      vectors.setBigUint64(16 * i, addressOf(bytes), true);
      vectors.setBigUint64(16 * i + 8, BigInt(bytes.length), true);
    });
    this.#polled.add(this.#tap);
    this.#polled.add(this.#event.descriptor);
  }

  /**
   * Tells of what comes until `stop` is called, then closes the tap. To be called once.
   *
   * The event loop itself waits for the tap where it can: each frame that finds it asleep wakes one thread, and is answered
   * before anything else. Where it cannot, another thread polls, and wakes the event loop.
   *
   * @param came Told what the first read gave: bytes, or one of `TapRead`. It reads on by itself, up to a bound. It says whether
   *   it goes on.
   */
  async serve(came: (count: number) => boolean): Promise<void> {
    const first = new Uint8Array(NET_HEADER_SIZE + MAX_FRAME_SIZE);
    let reader: LoopReader | null = null;
    try {
      reader = LoopReader.open(this.#tap, first, (count) => {
        if (count > 0) this.#split(first, count);
        if (this.#serving && !came(count > 0 ? count : TapRead.gone)) this.stop();
      });
    } catch {
      // It would need one more descriptor: to poll needs none.
    }
    try {
      await (reader === null ? this.#poll(came) : this.#watch(came));
    } finally {
      this.#serving = false;
      await reader?.close();
      closeDescriptor(this.#tap);
      this.#event.close();
    }
  }

  /** Has `serve` end. */
  stop(): void {
    if (!this.#serving) return;
    this.#serving = false;
    this.#event.signal();
  }

  async #poll(came: (count: number) => boolean): Promise<void> {
    while (this.#serving) {
      await this.#polled.waitLater(-1);
      if (this.#serving && !came(this.read())) return;
    }
  }

  /**
   * The event loop hears of frames, but not that the interface was removed: to it that is no event of reading. Nor is a thread
   * woken by that which is not woken by each frame, so this looks now and then.
   */
  async #watch(came: (count: number) => boolean): Promise<void> {
    this.#polled.set(0, this.#tap, 0);
    while (this.#serving) {
      await this.#polled.waitLater(LOOK_INTERVAL);
      if (this.#serving && this.#polled.ready(0) !== 0 && !came(TapRead.gone)) return;
    }
  }

  /** Puts a header and the frame behind it where `read` puts them. */
  #split(bytes: Uint8Array, length: number): void {
    this.#header.set(bytes.subarray(0, NET_HEADER_SIZE));
    if (length > NET_HEADER_SIZE) this.#frame.set(bytes.subarray(NET_HEADER_SIZE, length));
  }

  /** Reads a frame with its header. @returns Bytes of both, or one of `TapRead`. */
  read(): number {
    for (;;) {
      const count = this.#libc.readv(this.#tap, this.#vectors, 2);
      if (count >= 0) return count;
      const code = errno();
      if (code === Errno.EAGAIN) return TapRead.empty;
      if (code !== Errno.EINTR) return TapRead.gone;
    }
  }

  /** Writes a frame that stands behind its header. @returns One of `TapWrite`. */
  write(bytes: Uint8Array, length: number): number {
    const { write } = this.#libc;
    // A number does as well as a bigint, though the types do not say so.
    const written = write(this.#tap, bytes as Uint8Array<ArrayBuffer>, length as unknown as bigint);
    if (written >= 0) return TapWrite.done;
    switch (errno()) {
      case Errno.EAGAIN:
      case Errno.EINTR:
        return TapWrite.full;
      case Errno.EINVAL:
        return TapWrite.refused;
      default:
        // EIO if it is down; EBADFD if it is gone, which the reader notices too.
        return TapWrite.down;
    }
  }

  /** Goes to another network namespace. @returns What comes back. */
  #enter(path: string): () => void {
    const { setns } = this.#libc;
    const open = (path: string, what: string): number =>
      this.#attempt(what, () => openDescriptor(path, OpenFlag.readOnly));
    const home = open("/proc/thread-self/ns/net", "opening the process's own network namespace");
    let there = -1;
    try {
      there = open(path, `entering the network namespace ${path}`);
      if (setns(there, CLONE_NEWNET) !== 0) {
        throw this.#error(`entering the network namespace ${path}`);
      }
    } catch (error) {
      closeDescriptor(home);
      throw error;
    } finally {
      closeDescriptor(there);
    }
    return () => {
      const back = setns(home, CLONE_NEWNET);
      closeDescriptor(home);
      if (back !== 0) throw this.#error("coming back from the network namespace");
    };
  }

  #open(): number {
    const tap = this.#attempt(
      "opening /dev/net/tun",
      () => openDescriptor("/dev/net/tun", OpenFlag.readWrite | OpenFlag.nonblocking),
    );
    const request = new Uint8Array(IFREQ_SIZE);
    const name = text(this.name);
    if (name.length > IFNAMSIZ || name.length < 2) {
      closeDescriptor(tap);
      throw new TapError("not a tap", `An interface has a name of 1 to 15 bytes: not ${this.name}`);
    }
    request.set(name);
    new DataView(request.buffer).setUint16(IFNAMSIZ, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, true);
    if (this.#libc.ioctl(tap, TUNSETIFF, request) !== 0) {
      const error = this.#error(`taking the interface ${this.name}`);
      closeDescriptor(tap);
      throw error;
    }
    return tap;
  }

  /** @returns The offloads that the system takes. */
  #configure(): number {
    const { ioctl, ioctlValue } = this.#libc;
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
    const { socket, ioctl } = this.#libc;
    const control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0) throw this.#error("asking for the MTU");
    const request = new Uint8Array(IFREQ_SIZE);
    request.set(text(this.name));
    const failed = ioctl(control, SIOCGIFMTU, request) !== 0;
    const error = failed ? this.#error("asking for the MTU") : null;
    closeDescriptor(control);
    if (error !== null) throw error;
    return new DataView(request.buffer).getInt32(IFNAMSIZ, true);
  }

  /** Passes on what a call gives, or what its error means. */
  #attempt<T>(doing: string, call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw error instanceof SystemError ? this.#error(doing, error.errno) : error;
    }
  }

  /** What an error means; the last call's unless given. */
  #error(doing: string, code: number = errno()): TapError {
    const { name } = this;
    switch (code) {
      case Errno.EPERM:
      case Errno.EACCES:
        return new TapError(
          "permission",
          `No right to use a tap (${doing}): run with CAP_NET_ADMIN and access to /dev/net/tun, or have the ` +
            `administrator run "ip tuntap add dev ${name} mode tap user USER vnet_hdr" for you`,
        );
      case Errno.ENOENT:
      case Errno.ENODEV:
      case Errno.ENXIO:
        return new TapError(
          "missing",
          `There is no such thing (${doing}): for a tap the module tun must be loaded, and in a container ` +
            "/dev/net/tun must be passed in",
        );
      case Errno.EBUSY:
        return new TapError(
          "busy",
          `Another program uses ${name}, or it was made for several queues: take another name`,
        );
      case Errno.EINVAL:
        return new TapError(
          "not a tap",
          `${name} is an interface already, and no tap: take another name`,
        );
      default:
        return new TapError("system", `The system refused (${doing}): error ${code}`);
    }
  }
}
