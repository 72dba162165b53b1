/** How the resolver asks others. */
import type { Outside, OutsidePeer, OutsideStream } from "../outside/outside.ts";

const PORT = 53;

/** Asks resolvers of the outside. */
export interface DnsUpstream {
  /** The host's own resolvers, the best first. */
  resolvers(): Promise<readonly OutsidePeer[]>;
  /**
   * Sends a message and waits for an answer.
   *
   * @param accept Whether a message that came is the answer; others are ignored, and waited on.
   * @param signal Ends the waiting: the promise is rejected, the socket closed.
   */
  exchange(
    resolver: OutsidePeer,
    message: Uint8Array,
    via: "udp" | "tcp",
    accept: (answer: Uint8Array) => boolean,
    signal: AbortSignal,
  ): Promise<Uint8Array>;
}

/** Asks through the way out: over UDP each question has a socket of its own, at a port that nobody can guess. */
export class OutsideUpstream implements DnsUpstream {
  readonly #outside: Outside;

  constructor(outside: Outside) {
    this.#outside = outside;
  }

  async resolvers(): Promise<readonly OutsidePeer[]> {
    const addresses = await this.#outside.resolvers?.() ?? [];
    return addresses.map((address) => ({ address, port: PORT }));
  }

  exchange(
    resolver: OutsidePeer,
    message: Uint8Array,
    via: "udp" | "tcp",
    accept: (answer: Uint8Array) => boolean,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    return via === "udp" && this.#outside.datagrams !== undefined
      ? this.#byDatagram(resolver, message, accept, signal)
      : this.#byStream(resolver, message, signal);
  }

  async #byDatagram(
    peer: OutsidePeer,
    message: Uint8Array,
    accept: (answer: Uint8Array) => boolean,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    // Rejected before anybody waits for it, it must not end the program.
    promise.catch(() => {});
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort);
    try {
      const socket = await this.#outside.datagrams!({
        version: peer.address.includes(":") ? 6 : 4,
        peer,
        receive: (bytes, from) => {
          // Only who was asked has anything to say.
          const asked = from.port === peer.port && from.address === peer.address;
          // Not by slice: that of Node's buffers copies nothing.
          if (asked && accept(bytes)) resolve(new Uint8Array(bytes));
        },
        problem: (problem) => reject(new Error(`The resolver was not reached: ${problem}`)),
      });
      try {
        socket.send(message, peer.address, peer.port);
        return await promise;
      } finally {
        socket.close();
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #byStream(
    { address, port }: OutsidePeer,
    message: Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const stream = await this.#outside.connect(address, port, signal);
    const onAbort = (): void => stream.close();
    signal.addEventListener("abort", onAbort);
    try {
      signal.throwIfAborted();
      const framed = new Uint8Array(message.length + 2);
      framed[0] = message.length >> 8;
      framed[1] = message.length & 0xff;
      framed.set(message, 2);
      for (let at = 0; at < framed.length;) at += await stream.write(framed.subarray(at));
      const size = await readAll(stream, new Uint8Array(2));
      return await readAll(stream, new Uint8Array(size[0]! << 8 | size[1]!));
    } finally {
      signal.removeEventListener("abort", onAbort);
      stream.close();
    }
  }
}

async function readAll(stream: OutsideStream, bytes: Uint8Array): Promise<Uint8Array> {
  for (let at = 0; at < bytes.length;) {
    const count = await stream.read(bytes.subarray(at));
    if (count === null) throw new Error("The resolver ended in the midst of its answer");
    at += count;
  }
  return bytes;
}
