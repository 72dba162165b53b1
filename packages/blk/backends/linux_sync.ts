import type { BlkEngine, EngineClient, MemoryPieces } from "../engine.ts";
import type { ImageFile } from "./linux_file.ts";

/** Does everything at once, a system call for each request: fastest for an image in the page cache. */
export class SyncEngine implements BlkEngine {
  /** See `BlkEngine`. Nobody is told of anything. */
  client: EngineClient | null = null;
  /** See `BlkEngine`. */
  polled = false;
  /** See `BlkEngine`: nothing is ever under way. */
  readonly inFlight = 0;
  /** See `BlkEngine`: there is nothing to wait for. */
  readonly descriptor = -1;
  readonly #file: ImageFile;

  /** @param file The image. */
  constructor(file: ImageFile) {
    this.#file = file;
  }

  /** See `BlkEngine`. */
  read(position: number, length: number, into: MemoryPieces): number {
    return this.#file.read(position, length, into);
  }

  /** See `BlkEngine`. */
  write(position: number, length: number, from: MemoryPieces, durable: boolean): number {
    return this.#file.write(position, length, from, durable);
  }

  /** See `BlkEngine`. */
  flush(): number {
    this.#file.flush();
    return 0;
  }

  /** See `BlkEngine`. */
  discard(position: number, length: number): number {
    this.#file.discard(position, length);
    return 0;
  }

  /** See `BlkEngine`. */
  writeZeroes(position: number, length: number, unmap: boolean): number {
    this.#file.zero(position, length, unmap);
    return 0;
  }

  /** See `BlkEngine`. */
  submit(): void {}

  /** See `BlkEngine`. */
  drain(): void {}

  /** See `BlkEngine`. */
  reap(): number {
    return 0;
  }
}
