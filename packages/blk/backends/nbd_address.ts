import { NbdError } from "./nbd_error.ts";

/** Where a server is: a Unix socket, or a TCP port, of this machine unless `hostname` is given. */
export type NbdAddress =
  | { readonly path: string }
  | { readonly port?: number; readonly hostname?: string };

/** What a URI says. */
export interface NbdTarget {
  /** Where the server is. */
  readonly address: NbdAddress;
  /** Name of the export. */
  readonly export: string;
  /** Whether the connection is to be encrypted. */
  readonly tls: boolean;
}

/** The protocol's port. */
export const NBD_PORT = 10809;

/**
 * Reads a URI of the usual form: `nbd://host:port/export`, `nbd+unix:///export?socket=/path`, `nbds:` for TLS.
 *
 * ```ts
 * import { parseNbdUri } from "@virtio/blk/nbd";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseNbdUri("nbd+unix:///disk?socket=/run/nbd.sock"), {
 *   address: { path: "/run/nbd.sock" },
 *   export: "disk",
 *   tls: false,
 * });
 * ```
 *
 * @throws {NbdError} If it is none.
 */
export function parseNbdUri(uri: string): NbdTarget {
  const parsed = /^(nbds?)(\+unix)?:/.exec(uri);
  const url = parsed === null ? null : URL.parse(uri.replace(/^[a-z+]+:/, "http:"));
  if (parsed === null || (url === null && parsed[2] === undefined)) {
    throw new NbdError("address", `${uri} is no address of a network block device`);
  }
  const tls = parsed[1] === "nbds";
  if (parsed[2] !== undefined) {
    // A URL of the web cannot be without a host.
    const [, name, query] = /^[a-z+]+:(?:\/\/)?\/?([^?]*)(?:\?(.*))?$/.exec(uri) ?? [];
    const path = new URLSearchParams(query ?? "").get("socket");
    if (path === null) {
      throw new NbdError("address", `${uri} needs the socket: nbd+unix:///export?socket=/path`);
    }
    return { address: { path }, export: decoded(name ?? "", uri), tls };
  }
  return {
    address: {
      hostname: url!.hostname.replace(/^\[|\]$/g, ""),
      port: url!.port === "" ? NBD_PORT : Number(url!.port),
    },
    export: decoded(url!.pathname.slice(1), uri),
    tls,
  };
}

function decoded(name: string, uri: string): string {
  try {
    return decodeURIComponent(name);
  } catch (cause) {
    throw new NbdError("address", `The export in ${uri} is badly escaped`, { cause });
  }
}

/** The address for people. */
export function nameOf(address: NbdAddress): string {
  if ("path" in address) return address.path;
  return `${address.hostname ?? "127.0.0.1"} port ${address.port ?? NBD_PORT}`;
}

/**
 * Connects.
 *
 * @param signal Gives up. A Unix socket never keeps one waiting.
 * @throws {NbdError}
 */
export async function dial(address: NbdAddress, signal: AbortSignal): Promise<Deno.Conn> {
  try {
    if ("path" in address) return await Deno.connect({ transport: "unix", path: address.path });
    const { hostname = "127.0.0.1", port = NBD_PORT } = address;
    const connection = await Deno.connect({ hostname, port, signal });
    connection.setNoDelay(true);
    return connection;
  } catch (cause) {
    const denied = cause instanceof Deno.errors.NotCapable ||
      cause instanceof Deno.errors.PermissionDenied;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new NbdError(
      denied ? "permission" : "refused",
      `Connecting failed: ${why}`,
      { cause },
    );
  }
}
