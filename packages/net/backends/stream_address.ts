import { checkInteger } from "@virtio/device";
import { MAX_FRAME_SIZE } from "../constants.ts";
import { StreamError } from "./stream_error.ts";
import { LENGTH_SIZE } from "./stream_framing.ts";

const DEFAULT_QUEUE = 4 * 1024 * 1024;
const LEAST_QUEUE = LENGTH_SIZE + MAX_FRAME_SIZE;

/** Where a socket is: a path of the file system, or a TCP port, of this machine's loopback unless `hostname` is given. */
export type StreamAddress =
  | { readonly path: string }
  | { readonly port: number; readonly hostname?: string };

/** Options of all streams. */
export interface StreamOptions {
  /** Bytes that wait for the socket at most; 4 MiB unless given, 65,601 at least. Frames beyond are dropped and counted. */
  readonly queueSize?: number;
  /** Told why a connection ended, or could not be made. */
  readonly onError?: (error: StreamError) => void;
}

/** The address for people. */
export function nameOf(address: StreamAddress): string {
  return "path" in address
    ? address.path
    : `${address.hostname ?? "127.0.0.1"} port ${address.port}`;
}

/** What a failure at an address means. */
export function explain(error: unknown, doing: string, address: StreamAddress): StreamError {
  const where = nameOf(address);
  if (error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.PermissionDenied) {
    return new StreamError("permission", `${doing} ${where} needs a permission: ${error.message}`, {
      cause: error,
    });
  }
  if (error instanceof Deno.errors.AddrInUse) {
    return new StreamError("in use", `${doing} ${where} failed: something listens there already`, {
      cause: error,
    });
  }
  const why = error instanceof Error ? error.message : String(error);
  return new StreamError("refused", `${doing} ${where} failed: ${why}`, { cause: error });
}

/** Connects to an address. @throws {StreamError} */
export async function dial(address: StreamAddress): Promise<Deno.Conn> {
  try {
    if ("path" in address) return await Deno.connect({ transport: "unix", path: address.path });
    const { hostname = "127.0.0.1", port } = address;
    const connection = await Deno.connect({ hostname, port });
    // Frames that wait for more frames are late.
    connection.setNoDelay(true);
    return connection;
  } catch (error) {
    throw explain(error, "Connecting to", address);
  }
}

/** The size of the queue. @throws {RangeError} If it is out of range. */
export function checkQueue({ queueSize }: StreamOptions): number {
  // Each frame has to fit.
  return checkInteger("queueSize", queueSize, LEAST_QUEUE, 2 ** 30, DEFAULT_QUEUE);
}
