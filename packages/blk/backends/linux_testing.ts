import type { BlkBackend } from "../backend.ts";
import { type EngineClient, LATER } from "../engine.ts";
import type { LinuxBackend } from "./linux.ts";
import { SinglePiece } from "./linux_pieces.ts";

/** The engine of a back end, as an asynchronous back end that the common tests can be run on. Not published. */
export class EngineAdapter implements BlkBackend, EngineClient {
  readonly asynchronous = true;
  onChange: (() => void) | null = null;
  discard?: (position: number, length: number) => Promise<void>;
  readonly #base: LinuxBackend;
  readonly #waiting: Map<number, (done: number, error: unknown) => void> = new Map();
  #token = 0;

  constructor(base: LinuxBackend) {
    this.#base = base;
    base.engine.client = this;
    base.onChange = () => this.onChange?.();
    if (base.discard !== undefined) {
      this.discard = (position, length) => {
        this.#check(position, length);
        return this.#operate((token) => base.engine.discard(position, length, token));
      };
    }
  }

  get capacity(): number {
    return this.#base.capacity;
  }

  get readonly(): boolean {
    return this.#base.readonly;
  }

  get writeZeroesMayUnmap(): boolean {
    return this.#base.writeZeroesMayUnmap;
  }

  read(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    this.#check(position, length);
    const { engine } = this.#base;
    return this.#transfer(length, (done, token) => {
      const piece = new SinglePiece();
      piece.set(bytes, offset + done, length - done);
      return engine.read(position + done, length - done, piece, token);
    });
  }

  write(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    this.#check(position, length);
    const { engine } = this.#base;
    return this.#transfer(length, (done, token) => {
      const piece = new SinglePiece();
      piece.set(bytes, offset + done, length - done);
      return engine.write(position + done, length - done, piece, length === 512, token);
    });
  }

  flush(): Promise<void> {
    return this.#operate((token) => this.#base.engine.flush(token));
  }

  writeZeroes(position: number, length: number, unmap: boolean): Promise<void> {
    this.#check(position, length);
    return this.#operate((token) => this.#base.engine.writeZeroes(position, length, unmap, token));
  }

  resize(capacity: number): void {
    this.#base.resize(capacity);
  }

  completed(token: number, done: number, error: unknown): void {
    const told = this.#waiting.get(token)!;
    this.#waiting.delete(token);
    told(done, error);
  }

  /** The device does that for engines. */
  #check(position: number, length: number): void {
    if (!(position >= 0 && position + length <= this.capacity)) throw new RangeError("beyond");
  }

  async #transfer(
    length: number,
    start: (done: number, token: number) => number,
  ): Promise<void> {
    for (let done = 0; done < length;) {
      const from = done;
      done += await this.#begin((token) => start(from, token));
    }
  }

  async #operate(start: (token: number) => number): Promise<void> {
    await this.#begin(start);
  }

  #begin(start: (token: number) => number): Promise<number> {
    const token = this.#token++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(
        token,
        (done, error) => error === undefined ? resolve(done) : reject(error),
      );
      const done = start(token);
      if (done === LATER) {
        this.#base.engine.submit();
        return;
      }
      this.#waiting.delete(token);
      resolve(done);
    });
  }
}
