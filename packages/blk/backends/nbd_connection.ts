import { NbdError } from "./nbd_error.ts";
import type { NbdSession } from "./nbd_handshake.ts";
import * as nbd from "./nbd_protocol.ts";
import type { NbdRequest } from "./nbd_request.ts";
import type { NbdStream } from "./nbd_stream.ts";

/** Bytes of an error's text, with what belongs to it. */
const MOST_ERROR_BYTES = 4096 + 14;

/** A connection to a server that answers requests, until it breaks. What it says is believed only as far as it was asked. */
export class NbdConnection {
  /** Resolves when it is of no use any more, and `onLost` was called. */
  readonly ended: Promise<void>;
  readonly #stream: NbdStream;
  readonly #structured: boolean;
  readonly #timeout: number;
  readonly #onLost: (error: NbdError, requests: NbdRequest[]) => void;
  /** By the lower word of the cookie. */
  readonly #requests: Map<number, NbdRequest> = new Map();
  #cookie = 0;
  readonly #salt: number = Math.floor(Math.random() * 0x1_0000_0000);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #error: NbdError | null = null;

  /**
   * @param timeout Milliseconds that a request may take.
   * @param onLost Told once that the connection is of no use any more, with what was not answered.
   */
  constructor(
    session: NbdSession,
    timeout: number,
    onLost: (error: NbdError, requests: NbdRequest[]) => void,
  ) {
    this.#stream = session.stream;
    this.#structured = session.export.structured;
    this.#timeout = timeout;
    this.#onLost = onLost;
    this.ended = this.#receive();
  }

  /** Requests that are not answered. */
  get inFlight(): number {
    return this.#requests.size;
  }

  /** Sends a request. */
  send(request: NbdRequest): void {
    do this.#cookie = (this.#cookie + 1) >>> 0; while (this.#requests.has(this.#cookie));
    this.#requests.set(this.#cookie, request);
    request.started = performance.now();
    const header = request.header(this.#salt, this.#cookie);
    if (request.type === nbd.NBD_CMD_WRITE) this.#stream.write(header, request.bytes!);
    else this.#stream.write(header);
    this.#timer ??= setTimeout(this.#look, this.#timeout);
  }

  /**
   * It is of no use any more. `onLost` is called when the last answer has been dealt with that had arrived: nothing is written
   * to what was to be read any more then.
   */
  lost(error: unknown): void {
    if (this.#error !== null) return;
    this.#error = error instanceof NbdError
      ? error
      : new NbdError("lost", `The connection to the server broke: ${(error as Error).message}`, {
        cause: error,
      });
    this.#stream.close();
  }

  #end(error: NbdError): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    this.#onLost(error, requests);
  }

  /** Looks whether the oldest request waits for too long. */
  readonly #look = (): void => {
    this.#timer = undefined;
    let oldest = Infinity;
    for (const request of this.#requests.values()) oldest = Math.min(oldest, request.started);
    if (oldest === Infinity) return;
    const left = oldest + this.#timeout - performance.now();
    if (left > 0) this.#timer = setTimeout(this.#look, left);
    else this.lost(new NbdError("timeout", `The server has not answered for ${this.#timeout} ms`));
  };

  async #receive(): Promise<void> {
    const stream = this.#stream;
    try {
      for (;;) {
        if (stream.available < nbd.SIMPLE_REPLY_SIZE) await stream.need(nbd.SIMPLE_REPLY_SIZE);
        const at = stream.take(4);
        const magic = stream.view.getUint32(at);
        if (magic === nbd.NBD_STRUCTURED_REPLY_MAGIC && this.#structured) await this.#chunk();
        else if (magic === nbd.NBD_SIMPLE_REPLY_MAGIC) await this.#simple();
        else throw new NbdError("protocol", "The server sent something that is no reply");
        if (this.#requests.size === 0 && this.#timer !== undefined) {
          clearTimeout(this.#timer);
          this.#timer = undefined;
        }
      }
    } catch (error) {
      this.lost(error);
      this.#end(this.#error!);
    }
  }

  #request(high: number, low: number): NbdRequest {
    const request = high === this.#salt ? this.#requests.get(low) : undefined;
    if (request === undefined) {
      throw new NbdError("protocol", "The server answered a request that was not made");
    }
    return request;
  }

  #done(cookie: number, request: NbdRequest): void {
    request.done();
    this.#requests.delete(cookie);
  }

  async #simple(): Promise<void> {
    const { view } = this.#stream;
    const at = this.#stream.take(nbd.SIMPLE_REPLY_SIZE - 4);
    const code = view.getUint32(at);
    const cookie = view.getUint32(at + 8);
    const request = this.#request(view.getUint32(at + 4), cookie);
    if (code !== 0) {
      request.refused(code);
    } else if (request.type === nbd.NBD_CMD_READ) {
      if (this.#structured) {
        throw new NbdError("protocol", "The server answered a read in the old way");
      }
      await this.#stream.readInto(request.part(request.position, request.length));
    }
    this.#done(cookie, request);
  }

  async #chunk(): Promise<void> {
    const stream = this.#stream;
    const { view } = stream;
    const rest = nbd.STRUCTURED_REPLY_SIZE - 4;
    if (stream.available < rest) await stream.need(rest);
    const at = stream.take(rest);
    const flags = view.getUint16(at);
    const type = view.getUint16(at + 2);
    const high = view.getUint32(at + 4);
    const cookie = view.getUint32(at + 8);
    const length = view.getUint32(at + 12);
    const request = this.#request(high, cookie);
    if (type === nbd.NBD_REPLY_TYPE_OFFSET_DATA && length > 8) {
      const position = await this.#position();
      await stream.readInto(request.part(position, length - 8));
    } else if (type === nbd.NBD_REPLY_TYPE_OFFSET_HOLE && length === 12) {
      const position = await this.#position();
      await stream.need(4);
      request.part(position, view.getUint32(stream.take(4))).fill(0);
    } else if ((type & nbd.NBD_REPLY_TYPE_ERROR_BIT) !== 0) {
      await this.#refusal(request, type, length);
    } else if (type !== nbd.NBD_REPLY_TYPE_NONE || length !== 0) {
      throw new NbdError("protocol", "The server sent a part of a reply that makes no sense");
    }
    if ((flags & nbd.NBD_REPLY_FLAG_DONE) !== 0) this.#done(cookie, request);
    else if (type === nbd.NBD_REPLY_TYPE_NONE) {
      throw new NbdError("protocol", "The server sent an empty part of a reply that goes on");
    }
  }

  async #position(): Promise<number> {
    const stream = this.#stream;
    if (stream.available < 8) await stream.need(8);
    const at = stream.take(8);
    return stream.view.getUint32(at) * 0x1_0000_0000 + stream.view.getUint32(at + 4);
  }

  async #refusal(request: NbdRequest, type: number, length: number): Promise<void> {
    const stream = this.#stream;
    if (length < 6 || length > MOST_ERROR_BYTES) {
      throw new NbdError("protocol", "The server sent an error that is malformed");
    }
    await stream.need(6);
    const at = stream.take(6);
    const code = stream.view.getUint32(at);
    const textLength = stream.view.getUint16(at + 4);
    const known = type === nbd.NBD_REPLY_TYPE_ERROR || type === nbd.NBD_REPLY_TYPE_ERROR_OFFSET;
    const behind = type === nbd.NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
    if (code === 0 || (known && textLength + behind !== length - 6) || textLength > length - 6) {
      throw new NbdError("protocol", "The server sent an error that is malformed");
    }
    const text = await stream.text(length - 6);
    request.refused(code, text.slice(0, Math.min(textLength, 200)));
  }
}
