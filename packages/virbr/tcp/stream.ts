import type { OutsideStream } from "../outside/outside.ts";
import type { Connection } from "./connection.ts";
import type { CloseReason, ConnectionHandler } from "./connection_types.ts";

/** A connection with a guest as a stream: for services of the gateway's own. */
export class TcpStream implements OutsideStream, ConnectionHandler {
  readonly #connection: Connection;
  readonly #onEnd: (() => void) | undefined;
  #reason: CloseReason | null = null;
  #closing = false;
  #waitingToRead: (() => void) | null = null;
  #waitingToWrite: (() => void) | null = null;

  /**
   * Accepts a connection that a guest wants. Look at `refused`.
   *
   * @param onEnd Told when it is over, and closed.
   */
  constructor(connection: Connection, onEnd?: () => void) {
    this.#connection = connection;
    this.#onEnd = onEnd;
    if (connection.accept(this)) return;
    this.#reason = "aborted";
    this.#end();
  }

  /** The guest's port. */
  get guestPort(): number {
    return this.#connection.guestPort;
  }

  /** Whether the connection was refused for want of memory. */
  get refused(): boolean {
    return this.#reason === "aborted";
  }

  /** Reads at least one byte. @returns How many; null at the end. @throws {Error} If the connection broke. */
  async read(into: Uint8Array): Promise<number | null> {
    const connection = this.#connection;
    for (;;) {
      const bytes = connection.received();
      if (bytes.length > 0 && !this.#broken) {
        const count = Math.min(bytes.length, into.length);
        into.set(bytes.subarray(0, count));
        connection.consume(count);
        return count;
      }
      if (connection.ended) return null;
      this.#check();
      await new Promise<void>((resolve) => this.#waitingToRead = resolve);
    }
  }

  /** Writes at least one byte. @returns How many. @throws {Error} If the connection broke. */
  async write(bytes: Uint8Array): Promise<number> {
    for (;;) {
      this.#check();
      const room = this.#connection.room();
      if (room.length > 0 || bytes.length === 0) {
        const count = Math.min(room.length, bytes.length);
        room.set(bytes.subarray(0, count));
        this.#connection.commit(count);
        return count;
      }
      await new Promise<void>((resolve) => this.#waitingToWrite = resolve);
    }
  }

  /** Nothing more will be written. */
  closeWrite(): Promise<void> {
    this.#connection.end();
    return Promise.resolve();
  }

  /** Ends the connection: what was written still goes out, what comes is not read any more. */
  close(): void {
    const connection = this.#connection;
    if (this.#closing) return;
    connection.end();
    this.#closing = true;
    if (this.#reason !== null) this.#end();
    else this.readable();
    this.#wake();
  }

  #end(): void {
    this.#connection.release();
    this.#onEnd?.();
  }

  get #broken(): boolean {
    return this.#reason !== null && this.#reason !== "finished";
  }

  #check(): void {
    if (this.#closing) throw new Error("The stream was closed");
    if (this.#reason !== null) throw new Error(`The connection is over: ${this.#reason}`);
  }

  #wake(): void {
    this.#waitingToRead?.();
    this.#waitingToWrite?.();
    this.#waitingToRead = this.#waitingToWrite = null;
  }

  /** Of `ConnectionHandler`. */
  readable(): void {
    if (this.#closing) this.#connection.consume(this.#connection.received().length);
    this.#waitingToRead?.();
    this.#waitingToRead = null;
  }

  /** Of `ConnectionHandler`. */
  writable(): void {
    this.#waitingToWrite?.();
    this.#waitingToWrite = null;
  }

  /** Of `ConnectionHandler`. */
  closed(reason: CloseReason): void {
    this.#reason = reason;
    if (this.#closing) this.#end();
    this.#wake();
  }
}
