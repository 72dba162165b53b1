/** A server of network block devices that does what a test wants, right or wrong. Not published. */
import { NBD_MAGIC, NBD_OPTION_MAGIC, NBD_OPTION_REPLY_MAGIC } from "./nbd_protocol.ts";
import { NbdStream } from "./nbd_stream.ts";

/** Joins words of 2 bytes (`u16`), 4 (`u32`), 8 (bigint), and bytes. */
export function message(...parts: (number | bigint | Uint8Array | { u16: number })[]): Uint8Array {
  const bytes: number[] = [];
  for (const part of parts) {
    if (part instanceof Uint8Array) bytes.push(...part);
    else {
      const size = typeof part === "bigint" ? 8 : typeof part === "number" ? 4 : 2;
      const value = BigInt(typeof part === "object" ? part.u16 : part);
      for (let i = size - 1; i >= 0; i--) bytes.push(Number((value >> BigInt(8 * i)) & 0xffn));
    }
  }
  return new Uint8Array(bytes);
}

/** A request as the server sees it. */
export interface SeenNbdRequest {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly position: number;
  readonly length: number;
  readonly data: Uint8Array;
}

/** One client, from the server's side. */
export class NbdPeer {
  readonly stream: NbdStream;
  readonly connection: Deno.Conn;

  constructor(connection: Deno.Conn) {
    this.connection = connection;
    this.stream = new NbdStream(connection, () => {});
  }

  /** Sends the greeting, and reads the client's flags. */
  async greet(): Promise<void> {
    this.stream.write(message(NBD_MAGIC, NBD_OPTION_MAGIC, { u16: 3 }));
    await this.stream.need(4);
    this.stream.take(4);
  }

  /** Reads an option. */
  async option(): Promise<number> {
    await this.stream.need(16);
    const at = this.stream.take(16);
    const option = this.stream.view.getUint32(at + 8);
    await this.stream.readInto(new Uint8Array(this.stream.view.getUint32(at + 12)));
    return option;
  }

  /** Answers an option. */
  reply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): void {
    this.stream.write(message(NBD_OPTION_REPLY_MAGIC, option, type, data.length, data));
  }

  /** The whole handshake, as a good server does it. */
  async handshake(size: bigint, flags: number, structured: boolean): Promise<void> {
    await this.greet();
    let option = await this.option();
    this.reply(option, structured ? 1 : 0x8000_0001);
    option = await this.option();
    this.reply(option, 3, message({ u16: 0 }, size, { u16: flags }));
    this.reply(option, 3, message({ u16: 3 }, 1, 4096, 65536));
    this.reply(option, 1);
  }

  /** The next request; null at the end. */
  async request(): Promise<SeenNbdRequest | null> {
    try {
      await this.stream.need(28);
    } catch {
      return null;
    }
    const { view } = this.stream;
    const at = this.stream.take(28);
    const type = view.getUint16(at + 6);
    const length = view.getUint32(at + 24);
    const seen = {
      flags: view.getUint16(at + 4),
      type,
      cookie: view.getBigUint64(at + 8),
      position: Number(view.getBigUint64(at + 16)),
      length,
      data: new Uint8Array(type === 1 ? length : 0),
    };
    await this.stream.readInto(seen.data);
    return seen;
  }
}

/** Listens, and has each client handled. */
export class NbdListener {
  readonly port: number;
  clients = 0;
  readonly #listener: Deno.Listener;
  readonly #open: Set<Deno.Conn> = new Set();
  readonly #done: Promise<void>;

  constructor(handle: (peer: NbdPeer, index: number) => Promise<void>, port = 0) {
    const listener = Deno.listen({ hostname: "127.0.0.1", port });
    this.#listener = listener;
    this.port = listener.addr.port;
    this.#done = this.#accept(listener, handle);
  }

  async #accept(
    listener: Deno.Listener,
    handle: (peer: NbdPeer, index: number) => Promise<void>,
  ): Promise<void> {
    const handled: Promise<void>[] = [];
    try {
      for await (const connection of listener) {
        this.#open.add(connection);
        handled.push(
          handle(new NbdPeer(connection), this.clients++).catch(() => {}).finally(() => {
            this.#open.delete(connection);
            try {
              connection.close();
            } catch { /* closed by the test */ }
          }),
        );
      }
    } catch { /* closed */ }
    await Promise.all(handled);
  }

  /** Ends everything. */
  async close(): Promise<void> {
    this.#listener.close();
    for (const connection of this.#open) {
      try {
        connection.close();
      } catch { /* closed by the test */ }
    }
    await this.#done;
  }
}

/** Serves a disk in memory as a good server does. `after` is asked before each answer: false ends the connection. */
export async function serveMemory(
  peer: NbdPeer,
  disk: Uint8Array,
  flags: number,
  structured: boolean,
  after: (request: SeenNbdRequest) => boolean | Promise<boolean> = () => true,
): Promise<void> {
  await peer.handshake(BigInt(disk.length), flags, structured);
  for (;;) {
    const request = await peer.request();
    if (request === null || request.type === 2) return;
    if (!await after(request)) return;
    const { type, cookie, position, length, data } = request;
    let error = 0;
    let answer = new Uint8Array(0);
    if (type === 0) answer = disk.slice(position, position + length);
    else if (type === 1) disk.set(data, position);
    else if (type === 4 || type === 6) disk.fill(0, position, position + length);
    else if (type !== 3) error = 22;
    if (type === 0 && structured) {
      const half = length >> 1;
      // The second half first, and zeroes as a hole where they are.
      const chunk = (at: number, bytes: Uint8Array): Uint8Array =>
        bytes.every((byte) => byte === 0)
          ? message(0x668e33ef, { u16: 0 }, { u16: 2 }, cookie, 12, BigInt(at), bytes.length)
          : message(
            0x668e33ef,
            { u16: 0 },
            { u16: 1 },
            cookie,
            8 + bytes.length,
            BigInt(at),
            bytes,
          );
      peer.stream.write(
        chunk(position + half, answer.subarray(half)),
        chunk(position, answer.subarray(0, half)),
        message(0x668e33ef, { u16: 1 }, { u16: 0 }, cookie, 0),
      );
    } else {
      peer.stream.write(message(0x67446698, error, cookie, answer));
    }
  }
}
