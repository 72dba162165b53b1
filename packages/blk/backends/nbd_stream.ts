import { NbdError } from "./nbd_error.ts";

/** What a stream needs of a connection. */
export interface ByteConnection {
  /** See `Deno.Conn`. */
  read(into: Uint8Array): Promise<number | null>;
  /** See `Deno.Conn`. */
  write(from: Uint8Array): Promise<number>;
  /** See `Deno.Conn`. */
  close(): void;
}

const BUFFER = 1 << 17;
/** Up to this many bytes are put together to be written by one call. */
const TOGETHER = 1 << 15;

/** Bytes of a connection: read as many as are wanted, written one message after another. */
export class NbdStream {
  readonly #connection: ByteConnection;
  readonly #buffer: Uint8Array = new Uint8Array(BUFFER);
  /** Fields of what was read. */
  readonly view: DataView = new DataView(this.#buffer.buffer);
  #start = 0;
  #end = 0;
  #queue: Uint8Array[] = [];
  #writing = false;
  readonly #together: Uint8Array = new Uint8Array(TOGETHER);
  readonly #onError: (error: unknown) => void;

  /** @param onError Told once that writing failed. */
  constructor(connection: ByteConnection, onError: (error: unknown) => void) {
    this.#connection = connection;
    this.#onError = onError;
  }

  /** Bytes that are there already. */
  get available(): number {
    return this.#end - this.#start;
  }

  /** Passes `length` bytes that are there. @returns Where they begin in `view`. */
  take(length: number): number {
    const at = this.#start;
    this.#start += length;
    return at;
  }

  /**
   * Waits until `length` bytes are there.
   *
   * @param length At most 64 KiB.
   * @throws {NbdError} If the connection ends before.
   */
  async need(length: number): Promise<void> {
    while (this.available < length) {
      if (this.#start + length > BUFFER) {
        this.#buffer.copyWithin(0, this.#start, this.#end);
        this.#end -= this.#start;
        this.#start = 0;
      }
      if (this.#start === this.#end) this.#start = this.#end = 0;
      this.#end += await this.#read(this.#buffer.subarray(this.#end));
    }
  }

  /** Reads all of `into`. @throws {NbdError} If the connection ends before. */
  async readInto(into: Uint8Array): Promise<void> {
    let done = Math.min(into.length, this.available);
    const at = this.take(done);
    into.set(this.#buffer.subarray(at, at + done));
    while (done < into.length) {
      const left = into.length - done;
      if (left >= BUFFER / 2) {
        done += await this.#read(into.subarray(done));
        continue;
      }
      // What follows comes along, and saves a call.
      await this.need(1);
      const count = Math.min(left, this.available);
      const from = this.take(count);
      into.set(this.#buffer.subarray(from, from + count), done);
      done += count;
    }
  }

  /** Passes a text of `length` bytes. @throws {NbdError} If the connection ends before. */
  async text(length: number): Promise<string> {
    const bytes = new Uint8Array(length);
    await this.readInto(bytes);
    // deno-lint-ignore no-control-regex
    return new TextDecoder().decode(bytes).replace(/[\x00-\x1f\x7f]+/g, " ");
  }

  /** Writes, after what was given before. The bytes must stay as they are until the answer has come. */
  write(...messages: Uint8Array[]): void {
    this.#queue.push(...messages);
    if (!this.#writing) void this.#writeAll();
  }

  /** Ends the connection. */
  close(): void {
    this.#queue = [];
    try {
      this.#connection.close();
    } catch {
      // It was closed by its other user, or broke.
    }
  }

  async #read(into: Uint8Array): Promise<number> {
    const count = await this.#connection.read(into);
    if (count === null || count === 0) {
      throw new NbdError("lost", "The server ended the connection");
    }
    return count;
  }

  async #writeAll(): Promise<void> {
    this.#writing = true;
    try {
      // What comes in this turn goes together.
      await null;
      while (this.#queue.length > 0) await this.#writePart(this.#nextPart());
    } catch (error) {
      this.#onError(error);
    } finally {
      this.#writing = false;
    }
  }

  #nextPart(): Uint8Array {
    let count = 0;
    let length = 0;
    while (count < this.#queue.length && length + this.#queue[count]!.length <= TOGETHER) {
      length += this.#queue[count++]!.length;
    }
    if (count <= 1) return this.#queue.shift()!;
    let at = 0;
    for (const message of this.#queue.splice(0, count)) {
      this.#together.set(message, at);
      at += message.length;
    }
    return this.#together.subarray(0, length);
  }

  async #writePart(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      done += await this.#connection.write(done === 0 ? bytes : bytes.subarray(done));
    }
  }
}
