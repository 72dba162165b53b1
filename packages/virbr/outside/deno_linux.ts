/**
 * The way out that Linux has beyond Deno's own: datagrams that tell when nobody is there, and echoes. Needs the permission for
 * foreign functions (`--allow-ffi`).
 *
 * @module
 */
import { DatagramSocket, SystemError } from "@virtio/linux";
import { finish, sumBytes } from "@virtio/net/wire";
import { formatAddress, isIpv4, parseAddress } from "../ip/address.ts";
import type { AddressWords } from "../ip/packet.ts";
import { denoOutside } from "./deno.ts";
import { Poller } from "./deno_poller.ts";
import {
  type DatagramOptions,
  type Outside,
  OutsideError,
  type OutsidePeer,
  type OutsideProblem,
  type OutsideSocket,
} from "./outside.ts";

/** Numbers of Linux, and what they mean to a guest. */
const PROBLEMS: Readonly<Record<number, OutsideProblem>> = {
  1: "prohibited",
  13: "prohibited",
  23: "exhausted",
  24: "exhausted",
  98: "taken",
  99: "taken",
  101: "network",
  105: "exhausted",
  111: "refused",
  113: "host",
};
/** Datagrams of one socket that are handled before others have their turn. */
const BUDGET = 64;
const HEADER_SIZE = 8;
/** Types of echo requests and replies. */
const ECHO = { 4: [8, 0], 6: [128, 129] } as const;

/** One buffer for what comes: it is handed on before the next one does. */
const into = new Uint8Array(65_536);

function bytesOf(address: AddressWords): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 4; i++) view.setUint32(4 * i, address[i]!);
  return isIpv4(address) ? bytes.subarray(12) : bytes;
}

function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return formatAddress(new Uint32Array([0, 4, 8, 12].map((at) => view.getUint32(at))));
}

function parse(address: string): Uint8Array {
  const words = parseAddress(address);
  if (words === null) throw new OutsideError("failed", `${address} is no address`);
  return bytesOf(words);
}

function fail(error: unknown, what: string): OutsideError {
  if (!(error instanceof SystemError)) return new OutsideError("failed", what, error);
  return new OutsideError(PROBLEMS[error.errno] ?? "failed", `${what}: ${error.message}`, error);
}

class LinuxSocket implements OutsideSocket {
  readonly address: string;
  readonly port: number;
  readonly #socket: DatagramSocket;
  readonly #poller: Poller;
  readonly #options: DatagramOptions;
  #closed = false;
  /** The last destination as bytes, which most datagrams have in common. */
  #last = "";
  #lastBytes: Uint8Array = into.subarray(0, 0);

  constructor(options: DatagramOptions, poller: Poller) {
    const { version, address = version === 4 ? "0.0.0.0" : "::", port = 0 } = options;
    this.#options = options;
    this.#poller = poller;
    this.#socket = DatagramSocket.open(version, "udp");
    try {
      this.#socket.bind(parse(address), port);
      if (options.problem !== undefined) this.#socket.wantErrors();
      const local = this.#socket.local;
      this.address = textOf(local.address);
      this.port = local.port;
      poller.add(this.#socket.descriptor, () => this.#ready());
    } catch (error) {
      this.#socket.close();
      throw error;
    }
  }

  send(bytes: Uint8Array, address: string, port: number): void {
    if (this.#closed) return;
    if (address !== this.#last) {
      this.#lastBytes = parse(address);
      this.#last = address;
    }
    if (this.#socket.send(bytes, this.#lastBytes, port)) return;
    const what = PROBLEMS[this.#socket.sendError];
    if (what !== undefined) this.#options.problem?.(what, { address, port });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.remove(this.#socket.descriptor, () => this.#socket.close());
  }

  #ready(): void {
    const socket = this.#socket;
    for (let left = BUDGET; left > 0 && !this.#closed; left--) {
      const length = socket.receive(into);
      if (length < 0) break;
      const { address, port } = socket.from;
      this.#options.receive(into.subarray(0, length), { address: textOf(address), port });
    }
    const { problem } = this.#options;
    if (problem === undefined) return;
    for (let left = BUDGET; left > 0 && !this.#closed; left--) {
      const error = socket.receiveError();
      if (error === null) return;
      const what = PROBLEMS[error.errno];
      const to: OutsidePeer = { address: textOf(error.to.address), port: error.to.port };
      if (what !== undefined) problem(what, to);
    }
  }
}

/** Opens a socket for echoes: one that the system allows to all, or, where it does not, one for those with the right. */
function openEcho(version: 4 | 6): { readonly socket: DatagramSocket; readonly raw: boolean } {
  try {
    return { socket: DatagramSocket.open(version, "echo"), raw: false };
  } catch (error) {
    if (!(error instanceof SystemError) || PROBLEMS[error.errno] !== "prohibited") throw error;
    return { socket: DatagramSocket.open(version, "icmp"), raw: true };
  }
}

function echo(
  poller: Poller,
  address: string,
  data: Uint8Array,
  timeout: number,
): Promise<number | null> {
  const target = parse(address);
  const version = target.length === 4 ? 4 : 6;
  const what = `An echo of ${address}`;
  let opened: ReturnType<typeof openEcho>;
  try {
    opened = openEcho(version);
  } catch (error) {
    return Promise.reject(fail(error, what));
  }
  const { socket, raw } = opened;
  const [request, reply] = ECHO[version];
  const message = new Uint8Array(HEADER_SIZE + data.length);
  const view = new DataView(message.buffer);
  message[0] = request;
  crypto.getRandomValues(message.subarray(4, 8));
  message.set(data, HEADER_SIZE);
  // The system writes those of ICMPv6, and the number of a socket for echoes.
  if (version === 4) view.setUint16(2, finish(sumBytes(view, 0, message.length)));
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  const start = performance.now();
  const isReply = (length: number): boolean => {
    const at = raw && version === 4 ? (into[0]! & 15) * 4 : 0;
    if (length - at !== message.length || into[at] !== reply) return false;
    for (let i = raw ? 4 : 6; i < message.length; i++) {
      if (into[at + i] !== message[i]) return false;
    }
    return textOf(socket.from.address) === textOf(target);
  };
  let ended = false;
  const end = (time: number | null): void => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    poller.remove(socket.descriptor, () => socket.close());
    resolve(time);
  };
  const timer = setTimeout(() => end(null), timeout);
  try {
    poller.add(socket.descriptor, () => {
      for (let left = BUDGET; left > 0 && !ended; left--) {
        const length = socket.receive(into);
        if (length < 0) return;
        if (isReply(length)) end(performance.now() - start);
      }
    });
    if (!socket.send(message, target, 0)) end(null);
  } catch (error) {
    clearTimeout(timer);
    socket.close();
    reject(fail(error, what));
  }
  return promise;
}

/**
 * Makes the way out of Deno, with the datagrams and echoes of Linux.
 *
 * Echoes need a system that lets this process's group send them (`net.ipv4.ping_group_range`), or the right to open raw
 * sockets; without, guests get no answers to theirs.
 *
 * @example
 * ```ts ignore
 * import { Virbr } from "@virtio/virbr";
 * import { linuxOutside } from "@virtio/virbr/outside/linux";
 *
 * const net = new Virbr({ outside: linuxOutside() });
 * ```
 */
export function linuxOutside(): Outside {
  const poller = new Poller();
  return {
    ...denoOutside(),
    datagrams(options: DatagramOptions): Promise<OutsideSocket> {
      try {
        return Promise.resolve(new LinuxSocket(options, poller));
      } catch (error) {
        return Promise.reject(fail(error, "A socket for datagrams"));
      }
    },
    echo: (address, data, timeout) => echo(poller, address, data, timeout),
  };
}
