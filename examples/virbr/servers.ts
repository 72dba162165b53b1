/** What guests find outside: a server with a page, and a resolver, both on this machine's loopback. */
import { denoOutside } from "@virtio/virbr/outside/deno";
import { answer } from "./dns.ts";

/** A name of the outside, and its address. */
export const OUTSIDE_NAME = "www.example.com";
/** An address that belongs to nobody (RFC 5737). */
export const OUTSIDE_ADDRESS = "192.0.2.80";
/** A name whose owner says that it is the loopback: a trick that the network must not pass on. */
export const REBINDING_NAME = "rebinding.example.com";

/** Servers at work. */
export interface Servers extends AsyncDisposable {
  /** Port of the page. */
  readonly port: number;
  /** Port of a server that guests may not reach. */
  readonly privatePort: number;
  /** Connections that the private one got. */
  readonly trespassers: () => number;
  /** Requests for the page. */
  readonly requests: () => number;
  /** For `VirbrOptions.resolvers`. */
  readonly resolver: string;
}

const HOSTNAME = "127.0.0.1";

/** Starts them. */
export async function startServers(page: Uint8Array<ArrayBuffer>): Promise<Servers> {
  let requests = 0;
  let trespassers = 0;
  const server = Deno.serve({ hostname: HOSTNAME, port: 0, onListen() {} }, () => {
    requests++;
    return new Response(page);
  });
  const secret = Deno.serve({ hostname: HOSTNAME, port: 0, onListen() {} }, () => {
    trespassers++;
    return new Response("secret");
  });
  const names = new Map([
    [OUTSIDE_NAME, OUTSIDE_ADDRESS.split(".").map(Number)],
    [REBINDING_NAME, [127, 0, 0, 1]],
  ]);
  const socket = await denoOutside().datagrams!({
    version: 4,
    address: HOSTNAME,
    receive: (question, from) => {
      const message = answer(question, names);
      if (message !== null) socket.send(message, from.address, from.port);
    },
  });
  return {
    port: server.addr.port,
    privatePort: secret.addr.port,
    trespassers: () => trespassers,
    requests: () => requests,
    resolver: `${HOSTNAME}:${socket.port}`,
    [Symbol.asyncDispose]: async () => {
      socket.close();
      await Promise.all([server.shutdown(), secret.shutdown()]);
    },
  };
}
