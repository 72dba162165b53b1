import { ByteRing } from "../byte_ring.ts";
import type { ConsolePort } from "../port.ts";

/** Bytes of input that are read at once. */
const READ_SIZE = 16384;

/** Something that is read and written asynchronously, as sockets and terminals are. */
export interface ByteStream {
  /** Reads some bytes. @returns How many, or null at the end. */
  read(into: Uint8Array): Promise<number | null>;
  /** Writes some of the bytes. @returns How many. */
  write(bytes: Uint8Array): Promise<number>;
}

/**
 * A port's connection to a stream, until one side ends it. Output waits within a bound, and then in the guest's queue; input
 * is read only while the port takes it.
 */
export class StreamLink {
  /** Resolves when input ended, or the link. */
  readonly inputEnded: Promise<void>;
  /** Resolves when the link ended or failed, or `stop` was called: with the error, if there was one. */
  readonly ended: Promise<unknown>;
  readonly #stream: ByteStream;
  readonly #port: ConsolePort;
  readonly #output: ByteRing;
  readonly #filter: ((bytes: Uint8Array) => Uint8Array) | null;
  #refused = false;
  #writing = false;
  #stopped = false;
  #drained: (() => void) | null = null;
  #flushed: (() => void)[] = [];
  readonly #end: (error: unknown) => void;

  /**
   * @param bound Bytes of output that wait at most.
   * @param filter Sees all input, and returns what goes to the guest.
   * @param goesOn Whether output goes on when input has ended.
   */
  constructor(
    stream: ByteStream,
    port: ConsolePort,
    bound: number,
    filter: ((bytes: Uint8Array) => Uint8Array) | null = null,
    goesOn = false,
  ) {
    this.#stream = stream;
    this.#port = port;
    this.#output = new ByteRing(bound);
    this.#filter = filter;
    const { promise, resolve } = Promise.withResolvers<unknown>();
    this.ended = promise;
    this.#end = resolve;
    this.inputEnded = this.#read().then((error) => {
      if (error !== undefined || !goesOn) this.stop(error);
    });
  }

  /** Takes output, as `ConsoleBackend.write`. */
  write(bytes: Uint8Array, offset: number, length: number): number {
    if (this.#stopped) return length;
    const count = this.#output.push(bytes, offset, length);
    if (count < length) this.#refused = true;
    if (!this.#writing) this.#write();
    return count;
  }

  /** As `ConsoleBackend.inputDrained`. */
  inputDrained(): void {
    const drained = this.#drained;
    this.#drained = null;
    drained?.();
  }

  /** Resolves when all output so far was written, or never can be. */
  flushed(): Promise<void> {
    if (this.#stopped || this.#output.length === 0 && !this.#writing) return Promise.resolve();
    return new Promise((resolve) => this.#flushed.push(resolve));
  }

  /** Ends the link; output that waits is dropped. */
  stop(error?: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#output.drop(this.#output.length);
    this.inputDrained();
    for (const resolve of this.#flushed.splice(0)) resolve();
    this.#end(error);
  }

  async #write(): Promise<void> {
    this.#writing = true;
    const output = this.#output;
    try {
      while (output.length > 0) {
        // The ring may be made anew while this is written; this piece stays as it is.
        const piece = output.bytes.slice(output.start, output.start + output.piece);
        const count = await this.#stream.write(piece);
        if (this.#stopped) return;
        output.drop(count);
        if (this.#refused && output.length <= output.bound / 2) {
          this.#refused = false;
          this.#port.resume();
        }
      }
    } catch (error) {
      this.stop(error);
    } finally {
      this.#writing = false;
    }
    for (const resolve of this.#flushed.splice(0)) resolve();
  }

  async #read(): Promise<unknown> {
    const buffer = new Uint8Array(READ_SIZE);
    try {
      while (!this.#stopped) {
        const count = await this.#stream.read(buffer);
        if (count === null || this.#stopped) break;
        const all = buffer.subarray(0, count);
        const bytes = this.#filter === null ? all : this.#filter(all);
        for (let at = 0; at < bytes.length && !this.#stopped;) {
          at += this.#port.write(bytes, at);
          if (at < bytes.length) {
            if (!this.#port.attached) break;
            await new Promise<void>((resolve) => this.#drained = resolve);
          }
        }
      }
      return undefined;
    } catch (error) {
      return error;
    }
  }
}
