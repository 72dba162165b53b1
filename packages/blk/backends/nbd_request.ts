import { NbdError } from "./nbd_error.ts";
import { NBD_CMD_READ, NBD_ERRORS, NBD_REQUEST_MAGIC, REQUEST_SIZE } from "./nbd_protocol.ts";

/** Pieces of an answer that do not follow one another, at most. */
const MOST_RANGES = 1024;

/** A request to a server, on whichever connection it is. */
export class NbdRequest {
  /** Of the protocol. */
  readonly type: number;
  /** Of the protocol. */
  readonly flags: number;
  /** Where on the disk. */
  readonly position: number;
  /** Bytes that it is about. */
  readonly length: number;
  /** What is read, or written; null for the others. */
  readonly bytes: Uint8Array | null;
  /** When it was sent last. */
  started = 0;
  /** Why the server refused it. */
  error: NbdError | null = null;
  /** Resolves when it is answered. */
  readonly promise: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  #header: Uint8Array | null = null;
  /** Parts of a read that have arrived: starts and ends, in their order, none next to another. */
  #ranges: number[] = [];

  /** See the fields. */
  constructor(
    type: number,
    flags: number,
    position: number,
    length: number,
    bytes: Uint8Array | null,
  ) {
    this.type = type;
    this.flags = flags;
    this.position = position;
    this.length = length;
    this.bytes = bytes;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** The message that asks for it, by a cookie of two words. */
  header(high: number, low: number): Uint8Array {
    const header = this.#header ??= new Uint8Array(REQUEST_SIZE);
    const view = new DataView(header.buffer);
    view.setUint32(0, NBD_REQUEST_MAGIC);
    view.setUint16(4, this.flags);
    view.setUint16(6, this.type);
    view.setUint32(8, high);
    view.setUint32(12, low);
    view.setUint32(16, Math.floor(this.position / 0x1_0000_0000));
    view.setUint32(20, this.position % 0x1_0000_0000);
    view.setUint32(24, this.length);
    return header;
  }

  /** Forgets what has arrived: it is sent once more. */
  again(): void {
    this.error = null;
    this.#ranges = [];
    // The old message may still be under way to a connection that is gone.
    this.#header = null;
  }

  /**
   * Where a part of a read goes.
   *
   * @param position Of the disk.
   * @throws {NbdError} If it was not asked for, or is there already.
   */
  part(position: number, length: number): Uint8Array {
    const start = position - this.position;
    const end = start + length;
    if (
      this.type !== NBD_CMD_READ || length === 0 || !(start >= 0 && end <= this.length) ||
      !this.#add(start, end)
    ) {
      throw new NbdError("protocol", "The server sent data that was not asked for");
    }
    return this.bytes!.subarray(start, end);
  }

  #add(start: number, end: number): boolean {
    const ranges = this.#ranges;
    let at = ranges.length;
    // Mostly they come in order.
    while (at > 0 && ranges[at - 2]! >= end) at -= 2;
    const after = at < ranges.length && ranges[at] === end;
    if (at > 0 && ranges[at - 1]! > start) return false;
    const before = at > 0 && ranges[at - 1] === start;
    if (before && after) ranges.splice(at - 1, 2);
    else if (before) ranges[at - 1] = end;
    else if (after) ranges[at] = start;
    else ranges.splice(at, 0, start, end);
    return ranges.length <= 2 * MOST_RANGES;
  }

  /** The server says that this was all. @throws {NbdError} If something is missing. */
  done(): void {
    const whole = this.#ranges.length === 2 && this.#ranges[1] === this.length;
    if (this.error === null && this.type === NBD_CMD_READ && !whole) {
      throw new NbdError("protocol", "The server said that a read is done, but data is missing");
    }
    if (this.error === null) this.#resolve();
    else this.#reject(this.error);
  }

  /** It comes to nothing. */
  fail(error: unknown): void {
    this.#reject(error);
  }

  /** The server refuses it. */
  refused(code: number, text = ""): void {
    const name = NBD_ERRORS[code] ?? `error ${code}`;
    this.error ??= new NbdError(
      "request",
      `The server refused a request at ${this.position}: ${name}${text === "" ? "" : ` (${text})`}`,
      { code },
    );
  }
}
