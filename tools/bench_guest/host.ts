/**
 * The host's own direct I/O: the same requests made by this process on a real file opened with O_DIRECT. A guest that had
 * the disk passed through to it could not be faster.
 */
import fs from "node:fs";
import type { Work } from "./loop.ts";

/** A file of the host, opened past its page cache. */
export class DirectFile implements Disposable {
  readonly #fd: number;
  /** Memory of WebAssembly lies on a page's boundary, as O_DIRECT wants it. */
  readonly #buffer = new Uint8Array(new WebAssembly.Memory({ initial: 16 }).buffer);

  private constructor(fd: number) {
    this.#fd = fd;
    this.#buffer.fill(0x5a);
  }

  /**
   * Opens a file.
   *
   * @returns The file, or in one sentence why there is no direct I/O here.
   */
  static open(path: string): DirectFile | string {
    const flag: number | undefined = fs.constants.O_DIRECT;
    if (flag === undefined) return "This system has no O_DIRECT.";
    let fd: number;
    try {
      fd = fs.openSync(path, fs.constants.O_RDWR | flag);
    } catch (error) {
      return `The file system has no direct I/O: ${(error as Error).message}.`;
    }
    const file = new DirectFile(fd);
    try {
      file.run({ kind: "read", block: 4096, count: 1, span: 4096 });
      return file;
    } catch (error) {
      file[Symbol.dispose]();
      return `The file system has no direct I/O: ${(error as Error).message}.`;
    }
  }

  /** Does the work. @returns Seconds that it took. */
  run(work: Work): number {
    const { kind, block, count, span } = work;
    const buffer = this.#buffer;
    let position = 0;
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      const done = kind === "read"
        ? fs.readSync(this.#fd, buffer, 0, block, position)
        : fs.writeSync(this.#fd, buffer, 0, block, position);
      if (done !== block) throw new Error(`The host's file took ${done} of ${block} bytes`);
      position += block;
      if (position >= span) position = 0;
    }
    return (performance.now() - start) / 1000;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    fs.closeSync(this.#fd);
  }
}
