import type { Frame } from "../frame.ts";
import { StreamError } from "./stream_error.ts";
import { LENGTH_SIZE, StreamJoiner, StreamSplitter } from "./stream_framing.ts";

const READ_SIZE = 256 * 1024;

/** What a link needs of a connection of the host's. */
export interface ByteStream {
  /** Reads some bytes; null at the end. */
  read(into: Uint8Array): Promise<number | null>;
  /** Writes some bytes. @returns How many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Ends everything that is under way. */
  close(): void;
}

/** Frames in and out of one connection, for as long as it lasts. */
export class StreamLink {
  /** Resolves when the connection is over, and nothing of it is left: with null if the peer ended it between two frames. */
  readonly ended: Promise<StreamError | null>;
  /** Bytes and frames that came. */
  readonly splitter: StreamSplitter;
  /** System calls that wrote. */
  writes = 0;
  readonly #stream: ByteStream;
  readonly #name: string;
  /** Collects while the other one is written. */
  #collecting: StreamJoiner;
  #writing: StreamJoiner;
  /** Whether somebody will write what was collected. */
  #scheduled = false;
  #flushing: Promise<void> = Promise.resolve();
  #closed = false;
  #failure: StreamError | null = null;

  /**
   * @param stream The connection; closed with the link.
   * @param name Of the peer, for messages.
   * @param queueSize Bytes that wait for the connection at most.
   * @param onFrame Gets each frame that comes.
   */
  constructor(
    stream: ByteStream,
    name: string,
    queueSize: number,
    onFrame: (frame: Frame) => void,
  ) {
    this.#stream = stream;
    this.#name = name;
    this.splitter = new StreamSplitter(onFrame);
    this.#collecting = new StreamJoiner(queueSize);
    this.#writing = new StreamJoiner(queueSize);
    this.ended = this.#serve();
  }

  /** Sends a frame, with all others of this turn of the event loop. @returns False if too much waits. */
  send(frame: Frame): boolean {
    if (this.#closed || !this.#collecting.push(frame)) return false;
    if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(this.#flush);
    }
    return true;
  }

  /** Ends the connection. Frames that wait are lost. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.close();
  }

  readonly #flush = (): void => {
    this.#flushing = this.#write();
  };

  async #write(): Promise<void> {
    try {
      while (this.#collecting.length > 0 && !this.#closed) {
        const joiner = this.#collecting;
        this.#collecting = this.#writing;
        this.#writing = joiner;
        const { bytes } = joiner;
        for (let done = 0; done < bytes.length;) {
          this.writes++;
          done += await this.#stream.write(done === 0 ? bytes : bytes.subarray(done));
        }
        joiner.length = 0;
      }
      this.#scheduled = false;
    } catch (error) {
      this.#fail("lost", `The connection to ${this.#name} broke while frames were sent`, error);
    }
  }

  async #serve(): Promise<StreamError | null> {
    const chunk = new Uint8Array(READ_SIZE);
    const { splitter } = this;
    try {
      for (;;) {
        const count = await this.#stream.read(chunk);
        if (this.#closed) break;
        if (count === null) {
          if (!splitter.complete) {
            this.#fail("cut off", `${this.#name} ended the connection in the middle of a frame`);
          }
          break;
        }
        const bad = splitter.push(chunk, count);
        if (bad !== null) {
          this.#fail(
            "bad length",
            `${this.#name} announced a frame of ${bad} bytes: no frame is that long, so this is no stream of ` +
              `frames with lengths of ${LENGTH_SIZE} bytes`,
          );
          break;
        }
      }
    } catch (error) {
      this.#fail("lost", `The connection to ${this.#name} broke`, error);
    }
    this.close();
    await this.#flushing;
    return this.#failure;
  }

  /** The first failure is the reason, unless the link was closed on purpose. */
  #fail(problem: StreamError["problem"], message: string, cause?: unknown): void {
    if (!this.#closed) this.#failure ??= new StreamError(problem, message, { cause });
    this.close();
  }
}
