/**
 * The host's end of a console port at a Unix socket: a listener that other programs connect to, or a client of one. Needs
 * Deno.
 *
 * @module
 */
import { checkInteger } from "@virtio/device";
import type { ConsoleBackend } from "../backend.ts";
import type { ConsolePort } from "../port.ts";
import { StreamLink } from "./stream.ts";

/** Options of `UnixConsole.listen` and `UnixConsole.connect`. */
export interface UnixConsoleOptions {
  /** Bytes of output that wait for the peer at most; 65,536 unless given. Then the guest waits. */
  readonly outputBuffer?: number;
  /** Client: milliseconds between attempts to connect, the first and those after the peer closed; 1000 unless given. */
  readonly retry?: number;
  /** Told when a connection failed. */
  readonly onError?: (error: unknown) => void;
}

/**
 * A port's other end at a Unix socket. The host's side of the port is open while there is a connection; what the guest
 * writes meanwhile is dropped, as the standard has no place for it. There is one connection at a time: who connects to a
 * listener beside it waits.
 *
 * @example A program that talks to the guest's agent
 * ```ts
 * import { ConsoleDevice } from "@virtio/console";
 * import { UnixConsole } from "@virtio/console/unix";
 * import { assertEquals } from "@std/assert";
 *
 * const folder = await Deno.makeTempDir();
 * const socket = await UnixConsole.listen(`${folder}/agent`);
 * const device = new ConsoleDevice({
 *   ports: [{ backend: socket, name: "org.example.agent" }],
 * });
 * const peer = await Deno.connect({ transport: "unix", path: `${folder}/agent` });
 * await socket.connected();
 * assertEquals(device.port("org.example.agent")!.hostOpen, true);
 * peer.close();
 * await socket.close();
 * await Deno.remove(folder);
 * ```
 */
export class UnixConsole implements ConsoleBackend {
  readonly #path: string;
  readonly #listener: Deno.UnixListener | null;
  readonly #options: UnixConsoleOptions;
  readonly #outputBuffer: number;
  #port: ConsolePort | null = null;
  #link: StreamLink | null = null;
  #closed = false;
  #wake: (() => void) | null = null;
  #waiting: (() => void)[] = [];
  readonly #served: Promise<void>;

  private constructor(
    path: string,
    listener: Deno.UnixListener | null,
    options: UnixConsoleOptions,
  ) {
    this.#path = path;
    this.#listener = listener;
    this.#options = options;
    this.#outputBuffer = checkInteger("outputBuffer", options.outputBuffer, 1, Infinity, 65536);
    this.#served = this.#serve();
  }

  /**
   * Listens. A socket file that nobody listens at any more is replaced.
   *
   * @throws {Deno.errors.AddrInUse} Rejects if somebody listens there, or there is a file of another kind.
   */
  static async listen(path: string, options: UnixConsoleOptions = {}): Promise<UnixConsole> {
    try {
      return new UnixConsole(path, Deno.listen({ transport: "unix", path }), options);
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse) || !(await isStale(path))) throw error;
    }
    await Deno.remove(path);
    return new UnixConsole(path, Deno.listen({ transport: "unix", path }), options);
  }

  /** Connects, and again whenever the peer is not there or went away. */
  static connect(path: string, options: UnixConsoleOptions = {}): UnixConsole {
    return new UnixConsole(path, null, options);
  }

  /** Whether there is a connection. */
  get isConnected(): boolean {
    return this.#link !== null;
  }

  /** Resolves when there is a connection, or it is closed. */
  connected(): Promise<void> {
    if (this.#link !== null || this.#closed) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** See `ConsoleBackend.write`. */
  write(bytes: Uint8Array, offset: number, length: number): number {
    return this.#link === null ? length : this.#link.write(bytes, offset, length);
  }

  /** See `ConsoleBackend.attached`. */
  attached(port: ConsolePort): void {
    this.#port = port;
    port.close();
    this.#rouse();
  }

  /** See `ConsoleBackend.detached`. */
  detached(): void {
    this.#port = null;
    this.#link?.stop();
  }

  /** See `ConsoleBackend.inputDrained`. */
  inputDrained(): void {
    this.#link?.inputDrained();
  }

  /** Ends the connection, and listens or connects no more. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener?.close();
    this.#link?.stop();
    this.#rouse();
    await this.#served;
    for (const resolve of this.#waiting.splice(0)) resolve();
    if (this.#listener !== null) await Deno.remove(this.#path).catch(() => {});
  }

  #rouse(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  async #serve(): Promise<void> {
    while (!this.#closed) {
      // Without a port there is nobody to talk to: who connects waits.
      if (this.#port === null) {
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      let connection: Deno.UnixConn;
      try {
        connection = this.#listener === null
          ? await Deno.connect({ transport: "unix", path: this.#path })
          : await this.#listener.accept();
      } catch (error) {
        if (this.#closed) return;
        if (this.#listener !== null) this.#options.onError?.(error);
        await this.#pause();
        continue;
      }
      await this.#talk(connection);
      if (!this.#closed && this.#listener === null) await this.#pause();
    }
  }

  async #talk(connection: Deno.UnixConn): Promise<void> {
    const port = this.#port;
    if (port === null || this.#closed) {
      connection.close();
      return;
    }
    const link = new StreamLink(connection, port, this.#outputBuffer);
    this.#link = link;
    port.open();
    for (const resolve of this.#waiting.splice(0)) resolve();
    const error = await link.ended;
    this.#link = null;
    port.close();
    try {
      connection.close();
    } catch {
      // It was closed under us, which is what ended it.
    }
    if (error !== undefined && !this.#closed) this.#options.onError?.(error);
  }

  async #pause(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined = undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, this.#options.retry ?? 1000);
    });
    this.#wake = null;
    clearTimeout(timer);
  }
}

/** Whether there is a socket at which nobody listens. */
async function isStale(path: string): Promise<boolean> {
  if (!(await Deno.lstat(path)).isSocket) return false;
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return false;
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused;
  }
}
