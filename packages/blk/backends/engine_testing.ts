import type { BlkBackend } from "../backend.ts";
import { type BlkEngine, type EngineClient, LATER, type MemoryPieces } from "../engine.ts";

/** How a `TestEngine` behaves. */
export interface TestEngineOptions {
  /** Operations end when they are told to: by `submit` in a later turn, by `reap`, or by `release` while held. */
  readonly later?: boolean;
  /** Bytes that a read or write transfers at most. */
  readonly most?: number;
}

/**
 * An engine over a back end in memory. It touches guest memory when an operation ends, as late as a kernel may. The test can
 * hold, order and fail operations. Not published.
 */
export class TestEngine implements BlkEngine {
  client: EngineClient | null = null;
  polled = false;
  inFlight = 0;
  descriptor = -1;
  /** Names of the operations in the order of their starts. */
  readonly log: string[] = [];
  /** Calls of `submit`. */
  submits = 0;
  /** Fails the operation so many starts from now. */
  failAfter = Infinity;
  /** Comes to nothing so many times. */
  nothing = 0;
  held = false;
  readonly #base: BlkBackend;
  readonly #later: boolean;
  readonly #most: number;
  readonly #due: (() => void)[] = [];

  constructor(base: BlkBackend, options: TestEngineOptions) {
    this.#base = base;
    this.#later = options.later ?? false;
    this.#most = options.most ?? Infinity;
  }

  read(position: number, length: number, into: MemoryPieces, token: number): number {
    const pieces = collect(into, Math.min(length, this.#most));
    return this.#begin("read", token, () => {
      let done = 0;
      for (const { bytes, offset, length } of pieces) {
        void this.#base.read(position + done, bytes, offset, length);
        done += length;
      }
      return done;
    });
  }

  write(
    position: number,
    length: number,
    from: MemoryPieces,
    durable: boolean,
    token: number,
  ): number {
    const pieces = collect(from, Math.min(length, this.#most));
    return this.#begin(durable ? "write durably" : "write", token, () => {
      let done = 0;
      for (const { bytes, offset, length } of pieces) {
        void this.#base.write(position + done, bytes, offset, length);
        done += length;
      }
      return done;
    });
  }

  flush(token: number): number {
    return this.#begin("flush", token, () => {
      void this.#base.flush();
      return 0;
    });
  }

  discard(position: number, length: number, token: number): number {
    return this.#begin("discard", token, () => {
      void this.#base.discard!(position, length);
      return 0;
    });
  }

  writeZeroes(position: number, length: number, unmap: boolean, token: number): number {
    return this.#begin("writeZeroes", token, () => {
      void this.#base.writeZeroes!(position, length, unmap);
      return 0;
    });
  }

  submit(): void {
    this.submits++;
    if (this.#due.length > 0 && !this.held) queueMicrotask(() => this.reap());
  }

  reap(): number {
    const due = this.held ? [] : this.#due.splice(0);
    for (const end of due) end();
    return due.length;
  }

  drain(): void {
    while (this.#due.length > 0) this.release(0);
  }

  /** Ends one of the operations that are under way. */
  release(index: number): void {
    this.#due.splice(index, 1)[0]?.();
  }

  #begin(name: string, token: number, action: () => number): number {
    this.log.push(name);
    const fails = this.failAfter-- === 0;
    const run = (): number => {
      if (fails) throw new Error("made to fail");
      return action();
    };
    if (!this.#later) return this.nothing-- > 0 ? 0 : run();
    this.inFlight++;
    this.#due.push(() => {
      this.inFlight--;
      let done = 0;
      let error: unknown;
      try {
        if (this.nothing-- <= 0) done = run();
      } catch (reason) {
        error = reason;
      }
      this.client!.completed(token, done, error);
    });
    return LATER;
  }
}

function collect(
  pieces: MemoryPieces,
  length: number,
): { bytes: Uint8Array; offset: number; length: number }[] {
  const all = [];
  for (let left = length; pieces.next(left); left -= pieces.length) {
    const { region, offset, length } = pieces;
    all.push({ bytes: region!.bytes, offset, length });
  }
  return all;
}

/** A back end with such an engine. */
export class EngineBackend implements BlkBackend {
  readonly asynchronous = false;
  readonly engine: TestEngine;
  onChange: (() => void) | null = null;
  readonly #base: BlkBackend;

  constructor(base: BlkBackend, options: TestEngineOptions = {}) {
    this.#base = base;
    this.engine = new TestEngine(base, options);
  }

  get capacity(): number {
    return this.#base.capacity;
  }

  get readonly(): boolean {
    return this.#base.readonly;
  }

  get writeZeroesMayUnmap(): boolean {
    return this.#base.writeZeroesMayUnmap ?? false;
  }

  /** Not to be used where there is an engine. */
  read(): void {
    throw new Error("the device must use the engine");
  }

  /** Likewise. */
  write(): void {
    throw new Error("the device must use the engine");
  }

  /** Likewise. */
  flush(): void {
    throw new Error("the device must use the engine");
  }

  /** Likewise. */
  discard(): void {
    throw new Error("the device must use the engine");
  }

  /** Likewise. */
  writeZeroes(): void {
    throw new Error("the device must use the engine");
  }

  secureErase(position: number, length: number): void {
    void this.#base.secureErase!(position, length);
  }

  resize(capacity: number): void {
    void this.#base.resize!(capacity);
  }
}
