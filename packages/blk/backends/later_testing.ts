import type { BlkBackend } from "../backend.ts";

/** An asynchronous back end over a synchronous one, whose answers the test can hold, order and fail. Not published. */
export class LaterBackend implements BlkBackend {
  readonly asynchronous = true;
  onChange: (() => void) | null = null;
  readonly #base: BlkBackend;
  #held: (() => void)[] | null = null;
  #failAfter = Infinity;
  #started = 0;
  readonly #watchers: { count: number; resolve: () => void }[] = [];
  /** Every operation by name, in the order of their starts. */
  readonly log: string[] = [];

  constructor(base: BlkBackend) {
    this.#base = base;
    base.onChange = () => this.onChange?.();
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

  /** Operations that wait for `release`. */
  get held(): number {
    return this.#held?.length ?? 0;
  }

  /** From now on operations wait. */
  hold(): void {
    this.#held ??= [];
  }

  /** Lets operations go: all, or the one at `index` of those that wait. Without `index` later ones do not wait any more. */
  release(index?: number): void {
    const held = this.#held ?? [];
    if (index !== undefined) {
      held.splice(index, 1)[0]?.();
      return;
    }
    this.#held = null;
    for (const go of held) go();
  }

  /** Lets `count` operations work, then fails one. */
  failAfter(count: number): void {
    this.#failAfter = count;
  }

  /** Resolves when `count` operations have been started from now on. */
  started(count: number): Promise<void> {
    return new Promise((resolve) => this.#watchers.push({ count: this.#started + count, resolve }));
  }

  read(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    return this.#later("read", () => this.#base.read(position, bytes, offset, length));
  }

  write(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    return this.#later("write", () => this.#base.write(position, bytes, offset, length));
  }

  flush(): Promise<void> {
    return this.#later("flush", () => this.#base.flush());
  }

  discard(position: number, length: number): Promise<void> {
    return this.#later("discard", () => this.#base.discard!(position, length));
  }

  writeZeroes(position: number, length: number, unmap: boolean): Promise<void> {
    return this.#later("writeZeroes", () => this.#base.writeZeroes!(position, length, unmap));
  }

  secureErase(position: number, length: number): Promise<void> {
    return this.#later("secureErase", () => this.#base.secureErase!(position, length));
  }

  resize(capacity: number): void {
    void this.#base.resize!(capacity);
  }

  async #later(name: string, action: () => void | Promise<void>): Promise<void> {
    this.log.push(name);
    this.#started++;
    for (const { count, resolve } of this.#watchers) if (count <= this.#started) resolve();
    const held = this.#held;
    if (held !== null) await new Promise<void>((go) => held.push(go));
    else await Promise.resolve();
    if (this.#failAfter-- === 0) {
      this.#failAfter = Infinity;
      throw new Error("made to fail");
    }
    return await action();
  }
}
