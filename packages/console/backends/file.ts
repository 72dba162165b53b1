/**
 * The host's end of a console port in a file: the guest's output is appended to it. Needs Deno.
 *
 * @module
 */
import type { ConsoleBackend } from "../backend.ts";

/** Options of `FileConsole.open`. */
export interface FileConsoleOptions {
  /** Keeps what is in the file and writes behind it; yes unless given. */
  readonly append?: boolean;
  /** Bytes that are written at most, so that a guest cannot fill the disk; what is beyond is dropped. None unless given. */
  readonly maxBytes?: number;
}

/** Bytes that are written at once. */
const PIECE = 65536;

/**
 * A log of a port's output. It has no input.
 *
 * Bytes are handed to the system before the guest hears that they were taken. If that fails (no space), the device closes
 * the host's side of the port, and reports it.
 *
 * @example A console whose output goes to a file
 * ```ts
 * import { ConsoleDevice } from "@virtio/console";
 * import { FileConsole } from "@virtio/console/file";
 * import { assertEquals } from "@std/assert";
 *
 * const path = await Deno.makeTempFile();
 * const log = FileConsole.open(path);
 * const device = new ConsoleDevice({ ports: [{ backend: log }] });
 * assertEquals(device.ports.length, 1);
 * log.close();
 * await Deno.remove(path);
 * ```
 */
export class FileConsole implements ConsoleBackend {
  /** Bytes beyond `maxBytes`, which were dropped. */
  dropped = 0;
  readonly #file: Deno.FsFile;
  /** Guest memory may be shared, and change while it is written: a copy is written. */
  readonly #buffer: Uint8Array = new Uint8Array(PIECE);
  #left: number;

  private constructor(file: Deno.FsFile, maxBytes: number) {
    this.#file = file;
    this.#left = maxBytes;
  }

  /**
   * Opens a file, and makes it if there is none.
   *
   * @throws {RangeError} If `maxBytes` is negative.
   * @throws {Deno.errors} If the file cannot be opened.
   */
  static open(path: string, options: FileConsoleOptions = {}): FileConsole {
    const maxBytes = options.maxBytes ?? Infinity;
    if (!(maxBytes >= 0)) throw new RangeError(`maxBytes must not be negative: it is ${maxBytes}`);
    const append = options.append ?? true;
    const file = Deno.openSync(
      path,
      append ? { create: true, append } : {
        create: true,
        write: true,
        truncate: true,
      },
    );
    return new FileConsole(file, maxBytes);
  }

  /** See `ConsoleBackend.write`. */
  write(bytes: Uint8Array, offset: number, length: number): number {
    const wanted = Math.min(length, this.#left);
    this.dropped += length - wanted;
    for (let done = 0; done < wanted;) {
      const count = Math.min(wanted - done, PIECE);
      this.#buffer.set(bytes.subarray(offset + done, offset + done + count));
      for (let at = 0; at < count;) at += this.#file.writeSync(this.#buffer.subarray(at, count));
      done += count;
      this.#left -= count;
    }
    return length;
  }

  /** Closes the file. Remove the port, or stop the guest, before. */
  close(): void {
    this.#file.close();
  }
}
