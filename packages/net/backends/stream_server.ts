import { checkInteger } from "@virtio/device";
import {
  checkQueue,
  explain,
  nameOf,
  type StreamAddress,
  type StreamOptions,
} from "./stream_address.ts";
import { StreamBackend } from "./stream_backend.ts";
import { StreamError } from "./stream_error.ts";

/** Options of `StreamServer.listen`. */
export interface StreamServerOptions extends StreamOptions {
  /** The most peers at a time; 64 unless given. Others are turned away. */
  readonly maxPeers?: number;
}

/** Removes a Unix socket that nobody listens at any more: its process died. */
async function removeDead(path: string): Promise<void> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) {
      if ((await Deno.lstat(path)).isSocket) await Deno.remove(path);
    }
  }
}

/** Accepts peers, each a `StreamBackend` of its own. */
export class StreamServer {
  readonly #address: StreamAddress;
  readonly #listener: Deno.Listener;
  readonly #options: StreamServerOptions;
  readonly #onPeer: (peer: StreamBackend) => void;
  readonly #maxPeers: number;
  readonly #peers = new Set<StreamBackend>();
  #closed = false;
  readonly #served: Promise<void>;

  private constructor(
    address: StreamAddress,
    listener: Deno.Listener,
    onPeer: (peer: StreamBackend) => void,
    options: StreamServerOptions,
  ) {
    this.#address = address;
    this.#listener = listener;
    this.#onPeer = onPeer;
    this.#options = options;
    this.#maxPeers = options.maxPeers ?? 64;
    this.#served = this.#serve();
  }

  /**
   * Listens. A Unix socket that a dead process left behind is replaced.
   *
   * @param address Where; TCP port 0 for any that is free.
   * @param onPeer Told of each peer before its first frame: plug it in here.
   * @throws {StreamError} If something listens there already, or a permission is missing.
   * @throws {RangeError} If an option is out of range.
   */
  static async listen(
    address: StreamAddress,
    onPeer: (peer: StreamBackend) => void,
    options: StreamServerOptions = {},
  ): Promise<StreamServer> {
    checkQueue(options);
    checkInteger("maxPeers", options.maxPeers, 1, Infinity, 64);
    let listener: Deno.Listener;
    try {
      if ("path" in address) {
        await removeDead(address.path);
        listener = Deno.listen({ transport: "unix", path: address.path });
      } else {
        const { hostname = "127.0.0.1", port } = address;
        listener = Deno.listen({ hostname, port });
      }
    } catch (error) {
      throw explain(error, "Listening at", address);
    }
    return new StreamServer(address, listener, onPeer, options);
  }

  /** The TCP port. @throws {TypeError} If it is a Unix socket. */
  get port(): number {
    const { addr } = this.#listener;
    if (addr.transport !== "tcp") throw new TypeError("A Unix socket has a path and no port");
    return addr.port;
  }

  /** Peers that are connected. */
  get peers(): readonly StreamBackend[] {
    return [...this.#peers];
  }

  /** Accepts no more peers, and ends the connections of those that there are. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#listener.close();
      if ("path" in this.#address) await Deno.remove(this.#address.path).catch(() => {});
    }
    await this.#served;
    await Promise.all([...this.#peers].map((peer) => peer.close()));
  }

  async #serve(): Promise<void> {
    const name = `a peer at ${nameOf(this.#address)}`;
    while (!this.#closed) {
      let connection: Deno.Conn;
      try {
        connection = await this.#listener.accept();
      } catch (error) {
        if (this.#closed) return;
        this.#options.onError?.(
          new StreamError("lost", `Accepting ${name} failed`, { cause: error }),
        );
        // Such as no more file descriptors: it may get better, but not at once.
        await new Promise((resolve) => setTimeout(resolve, 100));
        continue;
      }
      if (this.#closed || this.#peers.size >= this.#maxPeers) {
        connection.close();
        if (this.#closed) return;
        this.#options.onError?.(
          new StreamError("too many", `${name} was turned away: there are ${this.#maxPeers}`),
        );
        continue;
      }
      if ("setNoDelay" in connection) (connection as Deno.TcpConn).setNoDelay(true);
      const peer = StreamBackend.accept(connection, name, this.#options);
      this.#peers.add(peer);
      void peer.ended.then(() => this.#peers.delete(peer));
      this.#onPeer(peer);
    }
  }
}
