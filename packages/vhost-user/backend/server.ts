/** A device behind a Unix socket. */
import { checkInteger, type Device } from "@virtio/device";
import { Errno, SystemError, UnixSocket } from "@virtio/linux";
import { protocolFeatureNames } from "../protocol/features.ts";
import { reactor, type Watch } from "./reactor.ts";
import { LocalDevice, type QueueCount, type Served } from "./served.ts";
import { Session } from "./session.ts";
import { VHOST_USER_FEATURES } from "./session_options.ts";
import { OwnedSocket } from "./socket_path.ts";

/** Options of `VhostUserServer`. */
export interface VhostUserServerOptions {
  /** Path of the socket. */
  readonly socket: string;
  /** Whether the front end listens there, and this side connects, again and again; no unless given. */
  readonly connect?: boolean;
  /** The device: any `Device`, or one whose code runs elsewhere. One front end has it at a time. */
  readonly device: Device | Served;
  /**
   * Feature bits 24 to 43 to offer; those of split and packed rings with indirect descriptors and event indexes unless given.
   */
  readonly features?: bigint;
  /**
   * Offers INBAND_NOTIFICATIONS; no unless given. Front ends that can do it may use it always, as User Mode Linux does, and
   * every kick and interrupt is a message then, which is slow: for simulations.
   */
  readonly inbandNotifications?: boolean;
  /**
   * Refuses guest memory that is not sealed against shrinking; no unless given. A front end that makes its file shorter ends
   * this process. Files that let themselves be sealed, as all memory files of common front ends do, are sealed here.
   */
  readonly requireSeals?: boolean;
  /** Has a network device's station announce itself after a migration, with its MAC address: see `rarpFrame`. */
  readonly announce?: (mac: Uint8Array) => void;
  /** Milliseconds that requests in flight may take to end once the front end is gone; 5,000 unless given. */
  readonly patience?: number;
  /** Told when something changed that `status` shows. */
  readonly onStatus?: (server: VhostUserServer) => void;
  /** Told why a device asked for a reset, why a connection was given up, or that a worker died. */
  readonly onError?: (error: Error) => void;
}

/** What one ring of a front end is doing. */
export interface RingStatus {
  /** Whether the device has it. */
  readonly live: boolean;
  /** Entries. */
  readonly size: number;
}

/** What a server shows of itself. */
export interface VhostUserStatus {
  /** - `"waiting"` for a front end, - `"connected"`, - `"live"`: rings are, - `"broken"`: the device asks for a reset. */
  readonly state: "waiting" | "connected" | "live" | "broken" | "closed";
  /** The process that is the front end, and its name as the system tells it; null if there is none, or it cannot be seen. */
  readonly frontEnd: { readonly pid: number; readonly name: string } | null;
  /** Front ends so far. */
  readonly connections: number;
  /** Feature bits that the driver accepted; 0n while there is none. */
  readonly features: bigint;
  /** Names of the protocol features that were agreed on. */
  readonly protocolFeatures: readonly string[];
  /** Bytes of guest memory. */
  readonly memory: number;
  /** Its rings. */
  readonly rings: readonly RingStatus[];
}

/** Milliseconds between attempts to connect. */
const RETRY = 200;

/**
 * Serves a device to one front end after another: a virtual machine that knows vhost-user. The device is any `Device`, and
 * knows nothing of it.
 *
 * @example A disk, and a driver of another process that uses it
 * ```ts
 * import { BlkDevice } from "@virtio/blk";
 * import { BlkDriver } from "@virtio/blk/driver";
 * import { MemoryBackend } from "@virtio/blk/memory";
 * import { DeviceId } from "@virtio/device";
 * import { VhostUserServer } from "@virtio/vhost-user";
 * import { FrontEndMemory, VhostUserTransport } from "@virtio/vhost-user/driver";
 * import { DmaPool } from "@virtio/vring/driver";
 * import { assertEquals } from "@std/assert";
 *
 * const folder = await Deno.makeTempDir();
 * const socket = `${folder}/disk.sock`;
 * const device = new BlkDevice({ backend: new MemoryBackend(1 << 20) });
 * const server = new VhostUserServer({ socket, device });
 *
 * const memory = FrontEndMemory.allocate(1 << 20);
 * const transport = await VhostUserTransport.connect(socket, {
 *   deviceType: DeviceId.block,
 *   memory,
 * });
 * const driver = await BlkDriver.open(transport, { dma: new DmaPool(memory.guest, 0, 1 << 20) });
 * await driver.write(8, new Uint8Array(512).fill(7));
 * const back = new Uint8Array(512);
 * await driver.read(8, back);
 * assertEquals(back[0], 7);
 * assertEquals(server.status.state, "live");
 *
 * await transport.close();
 * await server.close();
 * memory.close();
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export class VhostUserServer implements AsyncDisposable {
  /** Resolves when the server was closed. */
  readonly closed: Promise<void>;
  readonly #options: VhostUserServerOptions;
  readonly #served: Served;
  readonly #patience: number;
  readonly #socket: OwnedSocket | null;
  #watch: Watch | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #session: Session | null = null;
  #connections = 0;
  #frontEnd: VhostUserStatus["frontEnd"] = null;
  #closing: Promise<void> | null = null;
  #isClosed = false;
  #resolveClosed: () => void = () => {};

  /**
   * Listens, or begins to connect.
   *
   * @throws {TypeError} If another server has the socket, or a file is in its place.
   * @throws {RangeError} If an option is out of its range, or the path too long.
   * @throws {SystemError} If the system refuses.
   */
  constructor(options: VhostUserServerOptions) {
    this.#options = options;
    this.#patience = checkInteger("patience", options.patience, 0, 3_600_000, 5000);
    const { device } = options;
    this.#served = "config" in device && typeof device.config === "function"
      ? device as Served
      : new LocalDevice(device as Device);
    this.#served.trouble = (error) => options.onError?.(error);
    this.closed = new Promise((resolve) => this.#resolveClosed = resolve);
    this.#socket = options.connect ? null : new OwnedSocket(options.socket);
    this.#await();
  }

  /** What it is doing. */
  get status(): VhostUserStatus {
    const session = this.#session;
    const rings = session?.rings.rings ?? [];
    const state = this.#isClosed
      ? "closed"
      : session === null
      ? "waiting"
      : session.failed
      ? "broken"
      : session.rings.live
      ? "live"
      : "connected";
    return {
      state,
      frontEnd: session === null ? null : this.#frontEnd,
      connections: this.#connections,
      features: session?.features ?? 0n,
      protocolFeatures: protocolFeatureNames(session?.protocolFeatures ?? 0n),
      memory: session?.rings.memorySize ?? 0,
      rings: rings.map(({ live, size }) => ({ live, size })),
    };
  }

  /** What each queue of the device did since it was made; null if it does not count. */
  async counters(): Promise<readonly QueueCount[] | null> {
    return await this.#served.counters();
  }

  #await(): void {
    if (this.#closing !== null) return;
    if (this.#socket !== null) {
      this.#watch = reactor().watch(this.#socket.listener.descriptor, () => this.#accept());
      return;
    }
    let socket: UnixSocket;
    try {
      socket = UnixSocket.connect(this.#options.socket);
    } catch (error) {
      const expected = error instanceof SystemError &&
        [Errno.ECONNREFUSED, Errno.ENOENT, Errno.EAGAIN].includes(error.errno as 2);
      if (!expected) this.#options.onError?.(error as Error);
      this.#timer = setTimeout(() => this.#await(), RETRY);
      return;
    }
    this.#serve(socket);
  }

  #accept(): void {
    let socket: UnixSocket | null = null;
    try {
      socket = this.#socket!.listener.accept();
    } catch (error) {
      // Out of descriptors, for instance: it may be better later, and must not keep this thread busy until then.
      this.#watch?.close();
      this.#options.onError?.(error as Error);
      this.#timer = setTimeout(() => this.#await(), RETRY);
      return;
    }
    if (socket === null) return;
    // One front end at a time; another waits until this one is gone.
    this.#watch?.close();
    this.#watch = null;
    this.#serve(socket);
  }

  #serve(socket: UnixSocket): void {
    this.#connections++;
    this.#frontEnd = processAt(socket);
    const { options } = { options: this.#options };
    const session = this.#session = new Session(socket, this.#served, {
      features: options.features ?? VHOST_USER_FEATURES,
      inband: options.inbandNotifications ?? false,
      requireSeals: options.requireSeals ?? false,
      announce: options.announce ?? null,
      patience: this.#patience,
      changed: () => options.onStatus?.(this),
      error: (error) => options.onError?.(error),
    });
    options.onStatus?.(this);
    session.ended.then(() => {
      this.#session = null;
      options.onStatus?.(this);
      if (this.#options.connect) this.#timer = setTimeout(() => this.#await(), RETRY);
      else this.#await();
    });
  }

  /**
   * Ends it: requests in flight end, the front end is disconnected, the socket's file removed. What is behind the device stays
   * open, and is the embedder's to flush and close.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#watch?.close();
    clearTimeout(this.#timer);
    // `close` was called before anything else can happen in this turn, so nothing new begins.
    await this.#session?.close();
    clearTimeout(this.#timer);
    this.#socket?.close();
    await this.#served.close();
    this.#isClosed = true;
    this.#options.onStatus?.(this);
    this.#resolveClosed();
  }

  /** See `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function processAt(socket: UnixSocket): VhostUserStatus["frontEnd"] {
  const pid = socket.peerProcess;
  if (pid <= 0) return null;
  try {
    return { pid, name: Deno.readTextFileSync(`/proc/${pid}/comm`).trimEnd() };
  } catch {
    // Gone already, or of somebody else.
    return { pid, name: "" };
  }
}
