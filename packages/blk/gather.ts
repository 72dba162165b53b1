import type { ChainReader, ChainWriter } from "@virtio/vring";
import { type BackendResult, type BlkBackend, notSynchronous } from "./backend.ts";

/** Bytes that go in one call: more costs no less each. */
const BUFFER_SIZE = 1 << 18;
/** From this mean size of a piece on, a call for each costs less than copying. */
const PIECE_LIMIT = 1 << 14;

/**
 * Takes the pieces of a request together, for a synchronous back end each call of which is a system call: a driver describes
 * a buffer page by page, and a call of its own for each of 128 pages costs several times what copying them does.
 */
export class Gather {
  readonly #backend: BlkBackend;
  readonly #buffer: Uint8Array = new Uint8Array(BUFFER_SIZE);

  /** @param backend A synchronous one. */
  constructor(backend: BlkBackend) {
    this.#backend = backend;
  }

  /** Whether it is worth while for `length` bytes in about as many pieces. */
  pays(pieces: number, length: number): boolean {
    // Header or status is one of the two that are left aside.
    return pieces > 2 && length < pieces * PIECE_LIMIT;
  }

  /** Reads from the disk. @throws What the back end throws; the writer has not passed what could not be read. */
  read(writer: ChainWriter, position: number, length: number): void {
    for (let done = 0; done < length;) {
      const part = this.#part(length - done);
      this.#done(this.#backend.read(position + done, part, 0, part.length));
      done += writer.write(part);
    }
  }

  /** Writes to the disk. @throws What the back end throws. */
  write(reader: ChainReader, position: number, length: number): void {
    for (let done = 0; done < length;) {
      const part = this.#part(length - done);
      reader.read(part);
      this.#done(this.#backend.write(position + done, part, 0, part.length));
      done += part.length;
    }
  }

  #part(length: number): Uint8Array {
    return length < BUFFER_SIZE ? this.#buffer.subarray(0, length) : this.#buffer;
  }

  #done(result: BackendResult): void {
    if (result !== undefined) notSynchronous(result);
  }
}
