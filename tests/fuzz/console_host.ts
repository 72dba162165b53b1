/** The host's side of the console target. */
import { assert, assertEquals } from "@std/assert";
import type { ConsoleBackend } from "@virtio/console";

/** Streams count up to here, so that a byte that is missing or there twice is seen; what is beyond are emergency writes. */
export const MODULUS = 251;

/** A stream of numbered bytes, as its receiver sees it. */
export class Stream {
  /** The number of the next byte that is sent. */
  sent = 0;
  #expected: number | null = null;

  /** Some may have been dropped. */
  lose(): void {
    this.#expected = null;
  }

  check(byte: number, what: string): void {
    if (byte >= MODULUS) return;
    if (this.#expected !== null) assertEquals(byte, this.#expected, what);
    this.#expected = (byte + 1) % MODULUS;
  }
}

/** A back end that checks what it is given. */
export class Host implements ConsoleBackend {
  room = 200;
  readonly #stream: Stream;
  readonly #valid: () => boolean;

  constructor(stream: Stream, valid: () => boolean) {
    this.#stream = stream;
    this.#valid = valid;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    assert(length > 0);
    const count = Math.min(length, this.room);
    this.room -= count;
    for (let i = 0; i < count; i++) {
      if (this.#valid()) this.#stream.check(bytes[offset + i]!, "output in its order");
    }
    return count;
  }
}
