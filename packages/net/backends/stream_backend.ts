import type { Frame } from "../frame.ts";
import { pass } from "../pass.ts";
import type { FrameSink, NetBackend } from "../sink.ts";
import {
  checkQueue,
  dial,
  nameOf,
  type StreamAddress,
  type StreamOptions,
} from "./stream_address.ts";
import type { StreamError } from "./stream_error.ts";
import { StreamLink } from "./stream_link.ts";

/** How a client tries again; milliseconds. */
export interface Reconnect {
  /** Before the first attempt after a failure; 100 unless given. Doubled after each failure. */
  readonly first?: number;
  /** The most; 10,000 unless given. */
  readonly most?: number;
}

/** Options of `StreamBackend.connect`. */
export interface StreamClientOptions extends StreamOptions {
  /** Whether, and how, to connect again when the connection is lost; no unless given. */
  readonly reconnect?: boolean | Reconnect;
}

/** What a stream counted, over all of its connections. */
export interface StreamCounters {
  /** Frames that came. */
  readonly framesIn: number;
  /** Bytes of those. */
  readonly bytesIn: number;
  /** Frames that were sent, or wait for the socket. */
  readonly framesOut: number;
  /** Bytes of those. */
  readonly bytesOut: number;
  /** Writes to the socket. */
  readonly writes: number;
  /** Frames dropped since too much waited for the socket. */
  readonly overruns: number;
  /** Frames dropped since there was no connection, or nobody here to take them. */
  readonly unheard: number;
  /** Frames of the peer's that were shorter than an Ethernet header. */
  readonly short: number;
}

/**
 * A network device's cable over a socket, to QEMU's `-netdev stream` or whoever speaks the same. To plug it into a switch:
 * `network.port().plug(backend)`.
 *
 * The stream has no net headers, so each frame is finished before it is sent: segmented, and with its checksum. What one
 * turn of the event loop sends goes out in one write.
 *
 * @example A cable between two machines, here one
 * ```ts
 * import { Frame } from "@virtio/net";
 * import { StreamBackend, StreamServer } from "@virtio/net/stream";
 * import { assertEquals } from "@std/assert";
 *
 * const got = Promise.withResolvers<number>();
 * const server = await StreamServer.listen({ port: 0 }, (peer) => {
 *   peer.connect({ offloads: 0, deliver: (frame) => got.resolve(frame.length) });
 * });
 * const client = await StreamBackend.connect({ port: server.port });
 * client.deliver(new Frame().fromBytes(new Uint8Array(60)));
 * assertEquals(await got.promise, 60);
 * await client.close();
 * await server.close();
 * ```
 */
export class StreamBackend implements NetBackend {
  /** The stream has no place for what would have to be done. */
  readonly offloads: number = 0;
  /** Told when a connection was made or lost. */
  onLinkChange: (() => void) | null = null;
  /** Resolves when there will be no connection any more: with the reason why the last one ended, or null. */
  readonly ended: Promise<StreamError | null>;
  readonly #queueSize: number;
  readonly #onError: ((error: StreamError) => void) | undefined;
  #peer: FrameSink | null = null;
  #link: StreamLink | null = null;
  #closed = false;
  #wake: (() => void) | null = null;
  /** Of connections that are over. */
  readonly #past = { framesIn: 0, bytesIn: 0, writes: 0, short: 0 };
  #framesOut = 0;
  #bytesOut = 0;
  #overruns = 0;
  #unheard = 0;

  /**
   * @param next Makes the next connection; null if there is none to be had.
   */
  private constructor(
    first: Deno.Conn | null,
    name: string,
    next: (() => Promise<Deno.Conn>) | null,
    backoff: Required<Reconnect>,
    options: StreamOptions,
  ) {
    this.#queueSize = checkQueue(options);
    this.#onError = options.onError;
    this.ended = this.#live(first, name, next, backoff);
  }

  /**
   * Connects to a server. Without `reconnect` it waits for the connection; with it, the link is down until there is one.
   *
   * @throws {StreamError} Without `reconnect`: if nobody listens there, or a permission is missing.
   * @throws {RangeError} If an option is out of range.
   */
  static async connect(
    address: StreamAddress,
    options: StreamClientOptions = {},
  ): Promise<StreamBackend> {
    checkQueue(options);
    const { reconnect = false } = options;
    const { first = 100, most = 10_000 } = typeof reconnect === "object" ? reconnect : {};
    if (!(first > 0 && most >= first)) {
      throw new RangeError(
        `A client waits first > 0 ms, and most at least that: ${first}, ${most}`,
      );
    }
    const backoff = { first, most };
    const name = nameOf(address);
    if (reconnect === false) {
      return new StreamBackend(await dial(address), name, null, backoff, options);
    }
    return new StreamBackend(null, name, () => dial(address), backoff, options);
  }

  /** For `StreamServer`: a connection that was accepted. */
  static accept(connection: Deno.Conn, name: string, options: StreamOptions): StreamBackend {
    return new StreamBackend(connection, name, null, { first: 1, most: 1 }, options);
  }

  /** Whether there is a connection. */
  get linkUp(): boolean {
    return this.#link !== null;
  }

  /** What was counted until now. */
  get counters(): StreamCounters {
    const past = this.#past;
    const link = this.#link;
    return {
      framesIn: past.framesIn + (link?.splitter.frames ?? 0),
      bytesIn: past.bytesIn + (link?.splitter.bytes ?? 0),
      framesOut: this.#framesOut,
      bytesOut: this.#bytesOut,
      writes: past.writes + (link?.writes ?? 0),
      overruns: this.#overruns,
      unheard: this.#unheard,
      short: past.short + (link?.splitter.short ?? 0),
    };
  }

  /** Plugs the cable in: frames that come go to `peer`. */
  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  /** Sends a frame. */
  deliver(frame: Frame): void {
    if (this.#link === null) this.#unheard++;
    else if (this.#link.send(frame)) {
      this.#framesOut++;
      this.#bytesOut += frame.length;
    } else this.#overruns++;
  }

  /** Ends the connection, and makes no other. Frames that wait are lost. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#link?.close();
    this.#wake?.();
    await this.ended;
  }

  async #live(
    first: Deno.Conn | null,
    name: string,
    next: (() => Promise<Deno.Conn>) | null,
    backoff: Required<Reconnect>,
  ): Promise<StreamError | null> {
    let connection = first;
    let delay = backoff.first;
    let reason: StreamError | null = null;
    for (;;) {
      if (connection !== null) {
        reason = await this.#use(connection, name);
        connection = null;
        delay = backoff.first;
      }
      if (this.#closed) return null;
      if (next === null) return reason;
      try {
        connection = await next();
        if (!this.#closed) continue;
        connection.close();
        return null;
      } catch (error) {
        reason = error as StreamError;
        this.#onError?.(reason);
      }
      await this.#pause(delay);
      delay = Math.min(2 * delay, backoff.most);
    }
  }

  /** Lives as long as a connection does. */
  async #use(connection: Deno.Conn, name: string): Promise<StreamError | null> {
    const link = new StreamLink(connection, name, this.#queueSize, (frame) => {
      const peer = this.#peer;
      if (peer === null) this.#unheard++;
      else pass(frame, peer);
    });
    this.#link = link;
    this.onLinkChange?.();
    const reason = await link.ended;
    const past = this.#past;
    past.framesIn += link.splitter.frames;
    past.bytesIn += link.splitter.bytes;
    past.short += link.splitter.short;
    past.writes += link.writes;
    this.#link = null;
    if (reason !== null) this.#onError?.(reason);
    this.onLinkChange?.();
    return reason;
  }

  /** Waits, unless it is closed meanwhile. */
  async #pause(milliseconds: number): Promise<void> {
    if (this.#closed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const timer = setTimeout(resolve, milliseconds);
    await promise;
    clearTimeout(timer);
    this.#wake = null;
  }
}
