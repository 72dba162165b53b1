/**
 * The way out by the sockets of Deno: no rights beyond `--allow-net`, and `--allow-sys` and `--allow-read` to know the host's
 * networks and resolvers.
 *
 * @module
 */
import type { DatagramOptions, Outside, OutsideListener, OutsideSocket } from "./outside.ts";
import {
  OutsideError,
  type OutsidePeer,
  type OutsideProblem,
  type OutsideStream,
} from "./outside.ts";
import { DatagramSocket } from "./deno_datagrams.ts";

/** Milliseconds between attempts to accept while the host has no more descriptors. */
const ACCEPT_PAUSE = 100;

/** What a code of the system's means to a guest. */
const PROBLEMS: Readonly<Record<string, OutsideProblem>> = {
  ECONNREFUSED: "refused",
  // Somebody listened who ended just then.
  ECONNRESET: "refused",
  ENETUNREACH: "network",
  ENETDOWN: "network",
  EHOSTUNREACH: "host",
  EHOSTDOWN: "host",
  ETIMEDOUT: "host",
  EACCES: "prohibited",
  EPERM: "prohibited",
  EMFILE: "exhausted",
  ENFILE: "exhausted",
  ENOBUFS: "exhausted",
  ENOMEM: "exhausted",
  EADDRINUSE: "taken",
  EADDRNOTAVAIL: "taken",
};

/** Says what an error of the runtime's means. */
export function outsideError(error: unknown, what: string): OutsideError {
  if (error instanceof OutsideError) return error;
  const code = (error as { code?: unknown } | null)?.code;
  let problem = typeof code === "string" ? PROBLEMS[code] : undefined;
  if (problem === undefined) {
    problem = error instanceof Deno.errors.NotCapable ? "prohibited" : "failed";
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new OutsideError(problem, `${what}: ${reason}`, error);
}

class DenoStream implements OutsideStream {
  readonly #connection: Deno.TcpConn;
  #closed = false;

  constructor(connection: Deno.TcpConn) {
    this.#connection = connection;
    connection.setNoDelay(true);
    connection.setKeepAlive(true);
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.#connection.read(into as Uint8Array<ArrayBuffer>);
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#connection.write(bytes as Uint8Array<ArrayBuffer>);
  }

  closeWrite(): Promise<void> {
    return this.#connection.closeWrite();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }
}

class DenoListener implements OutsideListener {
  readonly address: string;
  readonly port: number;
  readonly #listener: Deno.TcpListener;
  #closed = false;

  constructor(
    listener: Deno.TcpListener,
    accept: (stream: OutsideStream, from: OutsidePeer) => void,
  ) {
    this.#listener = listener;
    this.address = listener.addr.hostname;
    this.port = listener.addr.port;
    void this.#serve(accept);
  }

  async #serve(accept: (stream: OutsideStream, from: OutsidePeer) => void): Promise<void> {
    while (!this.#closed) {
      let connection: Deno.TcpConn;
      try {
        connection = await this.#listener.accept();
      } catch {
        // What was aborted before it was accepted, or no more descriptors: later there may be some again.
        if (!this.#closed) await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE));
        continue;
      }
      const { hostname, port } = connection.remoteAddr;
      try {
        accept(new DenoStream(connection), { address: hostname, port });
      } catch {
        // It was gone before anything could be set.
        connection.close();
      }
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.close();
  }
}

/** Networks as the system tells them, but for loopback. */
function networks(): string[] {
  try {
    return Deno.networkInterfaces()
      .filter(({ address }) => !address.startsWith("127.") && address !== "::1")
      .map(({ cidr }) => cidr)
      .filter((cidr): cidr is string => typeof cidr === "string");
  } catch {
    return [];
  }
}

async function resolvers(): Promise<string[]> {
  let text: string;
  try {
    text = await Deno.readTextFile("/etc/resolv.conf");
  } catch {
    return [];
  }
  const found: string[] = [];
  for (const [, address] of text.matchAll(/^[ \t]*nameserver[ \t]+([0-9a-fA-F.:]+)/gm)) {
    found.push(address!);
  }
  return found;
}

/**
 * Makes the way out that Deno has: TCP and UDP through its sockets.
 *
 * Two things a guest is not told, since Deno does not tell: that nobody is at a port that a datagram went to, and the outside,
 * that a guest reset a connection: it sees an end. `linuxOutside` knows the first.
 *
 * @example
 * ```ts
 * import { denoOutside } from "@virtio/virbr/outside/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const outside = denoOutside();
 * const listener = await outside.listen!("127.0.0.1", 0, async (stream) => {
 *   await stream.write(new Uint8Array([7]));
 *   stream.close();
 * });
 * const stream = await outside.connect("127.0.0.1", listener.port);
 * const bytes = new Uint8Array(10);
 * assertEquals([await stream.read(bytes), bytes[0], await stream.read(bytes)], [1, 7, null]);
 * stream.close();
 * listener.close();
 * ```
 */
export function denoOutside(): Outside {
  return {
    async connect(address, port, signal) {
      try {
        const connection = await Deno.connect({
          hostname: address,
          port,
          ...(signal === undefined ? {} : { signal }),
        });
        return new DenoStream(connection);
      } catch (error) {
        throw outsideError(error, `Connecting to ${address} port ${port}`);
      }
    },
    datagrams(options: DatagramOptions): Promise<OutsideSocket> {
      return DatagramSocket.open(options, outsideError);
    },
    listen(address, port, accept) {
      try {
        return Promise.resolve(
          new DenoListener(Deno.listen({ hostname: address, port }), accept),
        );
      } catch (error) {
        return Promise.reject(outsideError(error, `Listening at ${address} port ${port}`));
      }
    },
    networks,
    resolvers,
  };
}
