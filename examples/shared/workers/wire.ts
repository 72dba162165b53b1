/** A stream of bytes each way between two threads, as messages, with a bound on what is under way. */

/** What crosses. */
export type WireMessage =
  /** Bytes. */
  | { readonly bytes: Uint8Array }
  /** So many bytes were taken at the other end. */
  | { readonly taken: number };

/** Bytes that may be under way in one direction. */
const WINDOW = 64 * 1024;

/** What an end of a wire is made of. */
export interface WireEnd {
  /** Sends to the other end. */
  post(message: WireMessage): void;
  /** Takes bytes that came. @returns How many; if not all, `Wire.pump` is called when there is room. */
  take(bytes: Uint8Array, offset: number, length: number): number;
  /** There is room again, after `Wire.send` took less than it was given. */
  drained(): void;
}

/** One end of a wire. */
export class Wire {
  readonly #end: WireEnd;
  #room = WINDOW;
  #refused = false;
  /** What came and was not taken: the other end sends no more than a window of it. */
  readonly #waiting: Uint8Array[] = [];
  #at = 0;

  constructor(end: WireEnd) {
    this.#end = end;
  }

  /** Sends a copy. @returns How many bytes were taken, from the first on. */
  send(bytes: Uint8Array, offset: number, length: number): number {
    const count = Math.min(length, this.#room);
    if (count < length) this.#refused = true;
    if (count === 0) return 0;
    this.#room -= count;
    this.#end.post({ bytes: bytes.slice(offset, offset + count) });
    return count;
  }

  /** Something came. */
  heard(message: WireMessage): void {
    if ("bytes" in message) {
      this.#waiting.push(message.bytes);
      this.pump();
      return;
    }
    this.#room += message.taken;
    if (!this.#refused) return;
    this.#refused = false;
    this.#end.drained();
  }

  /** Has what waits taken. */
  pump(): void {
    let taken = 0;
    while (this.#waiting.length > 0) {
      const first = this.#waiting[0]!;
      const count = this.#end.take(first, this.#at, first.length - this.#at);
      taken += count;
      this.#at += count;
      if (this.#at < first.length) break;
      this.#waiting.shift();
      this.#at = 0;
    }
    if (taken > 0) this.#end.post({ taken });
  }
}
