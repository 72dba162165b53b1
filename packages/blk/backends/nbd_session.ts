import { checkInteger } from "@virtio/device";
import { dial, nameOf, type NbdAddress } from "./nbd_address.ts";
import { NbdError } from "./nbd_error.ts";
import { checkExport, type NbdExport, shakeHands } from "./nbd_handshake.ts";
import type { NbdStream } from "./nbd_stream.ts";

/** What to do when a connection breaks. */
export interface NbdReconnect {
  /** Milliseconds that requests wait for the server to come back before they fail; 60,000 unless given. */
  readonly patience?: number;
  /** Milliseconds between the first two attempts; 100 unless given. Each later one waits twice as long, up to 5 seconds. */
  readonly delay?: number;
  /**
   * Whether the server still has what it acknowledged when it comes back, since only the network can fail and not the server; no
   * unless given. Without it, the first flush after writes that may be lost fails, so that the guest knows.
   */
  readonly keepsWrites?: boolean;
}

/** Options of `NbdBackend.connect`. */
export interface NbdBackendOptions {
  /** Name of the export; the server's default unless given. */
  readonly export?: string;
  /** Refuses writes; as the server unless given. */
  readonly readonly?: boolean;
  /** Connections at most, 1 to 16; 4 unless given. One, where the server cannot keep several consistent. */
  readonly connections?: number;
  /** Encrypts the connections, over TCP. `hostname` is what the certificate must name, `caCerts` who may have signed it (PEM). */
  readonly tls?: { readonly hostname?: string; readonly caCerts?: string[] } | boolean;
  /** What to do when a connection breaks; false: its requests fail, and all later ones. */
  readonly reconnect?: NbdReconnect | false;
  /** Milliseconds that a request, or connecting, may take; 30,000 unless given. Then the connection counts as broken. */
  readonly timeout?: number;
}

/** A session whose errors go to whoever uses it last. */
export interface OpenSession {
  /** What the server exports. */
  readonly export: NbdExport;
  /** The connection. */
  readonly stream: NbdStream;
  /** Told that writing failed. */
  onError: (error: unknown) => void;
}

/** Milliseconds that something may take. @throws {RangeError} */
export function timeoutOf(options: NbdBackendOptions): number {
  return checkInteger("timeout", options.timeout, 1, 2 ** 31 - 1, 30_000);
}

/** Connects, and agrees on an export. @throws {NbdError} */
export async function openSession(
  address: NbdAddress,
  options: NbdBackendOptions,
): Promise<OpenSession> {
  const timeout = timeoutOf(options);
  const dialing = new AbortController();
  let connection: Deno.Conn | null = null;
  let expired = false;
  const timer = setTimeout(() => {
    expired = true;
    if (connection === null) dialing.abort();
    else connection.close();
  }, timeout);
  const session: { onError: (error: unknown) => void } = { onError: () => {} };
  const { tls = false } = options;
  const startTls = async (): Promise<Deno.Conn> => {
    if ("path" in address) throw new TypeError("it needs TCP, not a Unix socket");
    const { caCerts, hostname = address.hostname ?? "127.0.0.1" } = tls === true || tls === false
      ? {} as { hostname?: string; caCerts?: string[] }
      : tls;
    const encrypted = await Deno.startTls(connection as Deno.TcpConn, {
      hostname,
      ...(caCerts === undefined ? {} : { caCerts }),
    });
    connection = encrypted;
    await encrypted.handshake();
    return encrypted;
  };
  try {
    connection = await dial(address, dialing.signal);
    // It may have come just as it was given up.
    if (expired) connection.close();
    const made = await shakeHands(connection, {
      name: options.export ?? "",
      startTls: tls === false ? null : startTls,
      onError: (error) => session.onError(error),
    });
    checkExport(made.export);
    return Object.assign(session, made);
  } catch (error) {
    if (!expired) {
      try {
        connection?.close();
      } catch {
        // It broke, or TLS took it.
      }
    }
    const where = nameOf(address);
    if (expired) throw new NbdError("timeout", `${where} has not answered for ${timeout} ms`);
    if (error instanceof NbdError) {
      throw new NbdError(error.problem, `${where}: ${error.message}`, {
        cause: error,
        code: error.code,
      });
    }
    const why = error instanceof Error ? error.message : String(error);
    throw new NbdError("lost", `${where}: ${why}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
