import { createSocket, type Socket } from "node:dgram";
import type { DatagramOptions, OutsideError, OutsideSocket } from "./outside.ts";

/** A socket for datagrams, by the module of Node's that Deno has: its own is not stable yet. */
export class DatagramSocket implements OutsideSocket {
  readonly address: string;
  readonly port: number;
  readonly #socket: Socket;
  #closed = false;

  private constructor(socket: Socket, options: DatagramOptions) {
    this.#socket = socket;
    const { address, port } = socket.address();
    this.address = address;
    this.port = port;
    socket.on("message", (bytes, from) => {
      if (!this.#closed) options.receive(bytes, { address: from.address, port: from.port });
    });
  }

  /** Opens one. @throws What `fail` makes of the error. */
  static open(
    options: DatagramOptions,
    fail: (error: unknown, what: string) => OutsideError,
  ): Promise<DatagramSocket> {
    const { version, port = 0 } = options;
    const address = options.address ?? (version === 4 ? "0.0.0.0" : "::");
    const what = `A socket for datagrams at ${address} port ${port}`;
    return new Promise((resolve, reject) => {
      let socket: Socket;
      try {
        socket = createSocket(
          version === 4 ? { type: "udp4" } : { type: "udp6", ipv6Only: true },
        );
      } catch (error) {
        reject(fail(error, what));
        return;
      }
      socket.once("error", (error) => {
        socket.close();
        reject(fail(error, what));
      });
      socket.bind({ address, port }, () => {
        socket.removeAllListeners("error");
        // A datagram that cannot be sent is a lost one.
        socket.on("error", () => {});
        resolve(new DatagramSocket(socket, options));
      });
    });
  }

  send(bytes: Uint8Array, address: string, port: number): void {
    if (this.#closed) return;
    try {
      // The socket sends when it likes: the bytes are copied.
      this.#socket.send(bytes.slice(), port, address, () => {});
    } catch {
      // As if it were lost.
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }
}
