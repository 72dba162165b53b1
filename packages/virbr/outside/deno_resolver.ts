/** Resolvers of the outside, asked with the host's sockets. Needs Deno. */
import { createSocket } from "node:dgram";
import { parseAddress, sameAddress } from "../ip/address.ts";
import type { DnsUpstream, Resolver } from "../dns/upstream.ts";

/** Where the host says whom it asks. */
const CONFIGURATION = "/etc/resolv.conf";
const MOST_RESOLVERS = 3;

/**
 * Asks resolvers with sockets of the host's: UDP with a socket of its own for each question, TCP with a connection.
 *
 * @example
 * ```ts ignore
 * import { Virbr } from "@virtio/virbr";
 * import { DenoResolver } from "@virtio/virbr/deno";
 *
 * const net = new Virbr({ upstream: new DenoResolver() });
 * ```
 */
export class DenoResolver implements DnsUpstream {
  async resolvers(): Promise<readonly Resolver[]> {
    try {
      return parseConfiguration(await Deno.readTextFile(CONFIGURATION));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  exchange(
    resolver: Resolver,
    message: Uint8Array,
    via: "udp" | "tcp",
    accept: (answer: Uint8Array) => boolean,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    return via === "udp"
      ? exchangeUdp(resolver, message, accept, signal)
      : exchangeTcp(resolver, message, signal);
  }
}

/** The resolvers that a file in the format of resolv.conf names. */
export function parseConfiguration(text: string): Resolver[] {
  const resolvers: Resolver[] = [];
  for (const line of text.split("\n")) {
    const address = /^\s*nameserver\s+([0-9a-fA-F.:]+)\s*$/.exec(line)?.[1];
    if (address !== undefined && resolvers.length < MOST_RESOLVERS) {
      resolvers.push({ address, port: 53 });
    }
  }
  return resolvers;
}

function exchangeUdp(
  { address, port }: Resolver,
  message: Uint8Array,
  accept: (answer: Uint8Array) => boolean,
  signal: AbortSignal,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
    const done = (end: () => void): void => {
      signal.removeEventListener("abort", onAbort);
      socket.close();
      end();
    };
    const onAbort = (): void => done(() => reject(signal.reason));
    signal.addEventListener("abort", onAbort);
    socket.on("error", (error) => done(() => reject(error)));
    socket.on("message", (answer, from) => {
      // Only who was asked has anything to say.
      if (from.port !== port || !isSame(from.address, address) || !accept(answer)) return;
      done(() => resolve(new Uint8Array(answer)));
    });
    socket.send(message, port, address);
  });
}

/** Whether two texts mean one address. */
function isSame(one: string, other: string): boolean {
  const [first, second] = [parseAddress(one), parseAddress(other)];
  return first !== null && second !== null && sameAddress(first, second);
}

async function exchangeTcp(
  { address, port }: Resolver,
  message: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array> {
  signal.throwIfAborted();
  const connection = await Deno.connect({ hostname: address, port, signal });
  const onAbort = (): void => {
    try {
      connection.close();
    } catch {
      // It is closed.
    }
  };
  signal.addEventListener("abort", onAbort);
  try {
    const framed = new Uint8Array(message.length + 2);
    framed[0] = message.length >> 8;
    framed[1] = message.length & 0xff;
    framed.set(message, 2);
    await writeAll(connection, framed);
    const size = await readAll(connection, new Uint8Array(2));
    return await readAll(connection, new Uint8Array(size[0]! << 8 | size[1]!));
  } finally {
    signal.removeEventListener("abort", onAbort);
    onAbort();
  }
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

async function readAll(connection: Deno.Conn, bytes: Uint8Array): Promise<Uint8Array> {
  for (let at = 0; at < bytes.length;) {
    const count = await connection.read(bytes.subarray(at));
    if (count === null) throw new Error("The resolver ended in the midst of its answer");
    at += count;
  }
  return bytes;
}
