import type { OutsideStream } from "../outside/outside.ts";
import type { Connection } from "../tcp/connection.ts";
import type { CloseReason, ConnectionHandler } from "../tcp/connection_types.ts";

/**
 * A guest's connection joined to the outside's. What one reads the other writes, straight from and into the connection's
 * rings, as far as they have room: who is slow slows down the other.
 */
export class TcpFlow implements ConnectionHandler {
  readonly #connection: Connection;
  readonly #stream: OutsideStream;
  readonly #onEnd: (reason: CloseReason) => void;
  /** Bytes of room that make a read worth its while. */
  readonly #worth: number;
  #writing = false;
  #reading = false;
  #open = false;
  /** The outside was told that the guest has said all, or will never be. */
  #said = false;
  /** The outside has said all. */
  #heard = false;
  /** Nothing can be written to the outside: it was reset, or gave up reading. The guest is reset when it has what was said. */
  #doomed = false;
  /** It was reset, so its end is none: it might have said more. */
  #cut = false;
  #reason: CloseReason | null = null;
  #closed = false;
  #told = false;

  /** @param onEnd Told once, when all is given back. */
  constructor(
    connection: Connection,
    stream: OutsideStream,
    bufferSize: number,
    onEnd: (reason: CloseReason) => void,
  ) {
    this.#connection = connection;
    this.#stream = stream;
    this.#onEnd = onEnd;
    this.#worth = bufferSize >>> 3;
  }

  opened(): void {
    this.#open = true;
    this.writable();
  }

  readable(): void {
    if (this.#doomed) this.#discard();
    else if (!this.#writing && !this.#said) void this.#write();
  }

  writable(): void {
    if (this.#doomed) this.#discard();
    if (!this.#reading && !this.#heard && this.#open) void this.#read();
  }

  closed(reason: CloseReason): void {
    this.#reason = reason;
    if (reason === "finished") this.readable();
    else this.#closeStream();
    this.#settle();
  }

  /** Ends it at once, both ways. */
  close(): void {
    this.#fail();
    this.#settle();
  }

  /** From the guest to the outside. */
  async #write(): Promise<void> {
    const connection = this.#connection;
    this.#writing = true;
    try {
      for (;;) {
        const bytes = connection.received();
        if (bytes.length === 0) break;
        const count = await this.#stream.write(bytes);
        if (this.#closed) break;
        connection.consume(count);
      }
    } catch (error) {
      // Nobody listens any more, but what was said before shall reach the guest.
      this.#doomed = true;
      this.#cut = (error as { code?: unknown } | null)?.code !== "EPIPE";
    }
    if (!this.#doomed && connection.ended && !this.#closed) {
      this.#said = true;
      try {
        await this.#stream.closeWrite();
      } catch {
        // The outside has closed both ways already.
      }
    }
    this.#writing = false;
    if (this.#doomed) this.#discard();
    this.#settle();
  }

  /** Drops what the guest says; ends the connection once the guest has what the outside said. */
  #discard(): void {
    const connection = this.#connection;
    // What is being written belongs to the stream.
    if (!this.#writing) connection.consume(connection.received().length);
    if (connection.unacknowledged > 0) return;
    if (this.#heard || !this.#reading) this.#fail();
  }

  /** From the outside to the guest. */
  async #read(): Promise<void> {
    const connection = this.#connection;
    this.#reading = true;
    try {
      while (!connection.over && connection.writableBytes >= this.#worth) {
        const count = await this.#stream.read(connection.room());
        if (connection.over) break;
        if (count === null) {
          this.#heard = true;
          if (!this.#cut) connection.end();
          break;
        }
        connection.commit(count);
      }
    } catch {
      this.#doomed = this.#cut = true;
      this.#closeStream();
    }
    this.#reading = false;
    if (this.#cut) this.#discard();
    this.#settle();
  }

  /** Ends the connection, for the guest too. */
  #fail(): void {
    this.#said = this.#heard = true;
    this.#connection.abort();
    this.#closeStream();
  }

  #closeStream(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#said = this.#heard = true;
    this.#stream.close();
  }

  /** Gives everything back when nobody uses it any more. */
  #settle(): void {
    if (this.#reason === null) return;
    if (!this.#closed && this.#said && this.#heard && !this.#writing) this.#closeStream();
    if (!this.#closed || this.#writing || this.#reading) return;
    const reason = this.#reason;
    this.#connection.release();
    this.#ended(reason);
  }

  #ended(reason: CloseReason): void {
    if (this.#told) return;
    this.#told = true;
    this.#onEnd(reason);
  }
}
