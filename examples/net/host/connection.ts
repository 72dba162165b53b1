/** A connection of a station's: data as it comes, and writes of any size. TCP itself is that of `@virtio/virbr`. */
import type { CloseReason, Connection, ConnectionHandler } from "@virtio/virbr/tcp";

/** Why a connection broke. */
const BROKEN: Readonly<Record<Exclude<CloseReason, "finished">, string>> = {
  refused: "was refused",
  reset: "was reset by the other side",
  timeout: "was not answered",
  gone: "was given up",
  aborted: "was given up",
};

/** One side of it. Callbacks may be set before the next turn of the event loop. */
export class StationConnection {
  /** The other side sends nothing more. */
  onEnd: () => void = () => {};
  /** Resolves when both sides have ended and know it; rejects if the connection broke. */
  readonly closed: Promise<void>;
  /** Resolves when the other side has answered; rejects if it refused. */
  readonly opened: Promise<void>;
  /** For TCP. */
  readonly handler: ConnectionHandler = {
    opened: () => {
      this.#open.resolve();
      this.#pump();
    },
    readable: () => this.#read(),
    writable: () => this.#pump(),
    closed: (reason) => this.#closed(reason),
  };
  readonly #connection: Connection;
  readonly #open = Promise.withResolvers<void>();
  readonly #close = Promise.withResolvers<void>();
  #onData: ((data: Uint8Array) => void) | null = null;
  /** What has found no room yet. */
  readonly #queue: Uint8Array[] = [];
  #ending = false;
  #ended = false;
  #over = false;

  /** Made by the station. */
  constructor(connection: Connection) {
    this.#connection = connection;
    this.opened = this.#open.promise;
    this.closed = this.#close.promise;
    // Whoever does not ask does not want to know.
    this.opened.catch(() => {});
    this.closed.catch(() => {});
  }

  /** Whether nothing more will happen. */
  get over(): boolean {
    return this.#over;
  }

  /** Gets what the other side sends, in order; valid during the call. Until it is set nothing is read. */
  set onData(take: (data: Uint8Array) => void) {
    this.#onData = take;
    // Whoever sets it may want to set `onEnd` too.
    queueMicrotask(() => this.#read());
  }

  /** Queues data to be sent; `data` must stay as it is until then. */
  write(data: Uint8Array): void {
    if (this.#ending) throw new TypeError("This side has ended: nothing more can be written");
    if (data.length > 0) this.#queue.push(data);
    this.#pump();
  }

  /** Sends nothing more once everything queued is sent. */
  end(): void {
    this.#ending = true;
    this.#pump();
  }

  /** Tells the other side that there is no such connection any more. */
  abort(): void {
    this.#connection.abort();
  }

  #read(): void {
    const connection = this.#connection;
    const take = this.#onData;
    if (take === null || this.#over) return;
    for (;;) {
      const bytes = connection.received();
      if (bytes.length === 0) break;
      take(bytes);
      connection.consume(bytes.length);
    }
    if (!connection.ended || this.#ended) return;
    this.#ended = true;
    this.onEnd();
  }

  #pump(): void {
    const connection = this.#connection;
    for (let next; (next = this.#queue[0]) !== undefined;) {
      const room = connection.room();
      if (room.length === 0) return;
      const count = Math.min(room.length, next.length);
      room.set(next.subarray(0, count));
      connection.commit(count);
      if (count === next.length) this.#queue.shift();
      else this.#queue[0] = next.subarray(count);
    }
    if (this.#ending) connection.end();
  }

  #closed(reason: CloseReason): void {
    if (reason === "finished") this.#read();
    this.#over = true;
    if (reason === "finished") this.#close.resolve();
    else {
      const error = new Error(`The TCP connection ${BROKEN[reason]}`);
      this.#open.reject(error);
      this.#close.reject(error);
    }
    this.#connection.release();
  }
}
