/**
 * A disk in a browser's own storage (the origin private file system): larger than memory, and there again after a reload.
 *
 * This module is for browsers.
 *
 * @module
 */
import { type BlkBackend, checkCapacity, checkRange } from "../backend.ts";
import type { OpfsAnswer, OpfsOpen, OpfsRequest } from "./opfs_messages.ts";

/** How a disk is opened. */
export interface OpfsOptions {
  /**
   * The worker that does the work: `new Worker(url, { type: "module" })` of a module that imports `@virtio/blk/opfs/worker`.
   * It serves this disk alone, and is ended by `close`.
   */
  readonly worker: Worker;
  /** Path below the origin's root, with slashes; folders are made. */
  readonly path: string;
  /** Bytes of the disk if there is none yet, a multiple of 512; without it there has to be one. */
  readonly size?: number;
  /** Refuses writes. */
  readonly readonly?: boolean;
}

/** A disk that cannot be opened, or went away. */
export class OpfsError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "OpfsError";
  /**
   * - `"locked"`: another tab has it open.
   * - `"missing"`: there is none, and no size was given to make one.
   * - `"failed"`: anything else.
   */
  readonly reason: "locked" | "missing" | "failed";

  /** Describes it. */
  constructor(reason: "locked" | "missing" | "failed", message: string) {
    super(message);
    this.reason = reason;
  }
}

/** Who waits for an answer. */
interface Waiting {
  readonly resolve: (bytes: Uint8Array | null) => void;
  readonly reject: (error: Error) => void;
}

/** A block device's sectors in a file of the origin private file system. */
export class OpfsBackend implements BlkBackend {
  /** See `BlkBackend.asynchronous`. */
  readonly asynchronous = true;
  /** See `BlkBackend.readonly`. */
  readonly readonly: boolean;
  /** See `BlkBackend.onChange`. */
  onChange: (() => void) | null = null;
  readonly #worker: Worker;
  readonly #waiting: Map<number, Waiting> = new Map();
  #capacity: number;
  #next = 1;
  #lost: Error | null = null;

  private constructor(worker: Worker, capacity: number, readonly: boolean) {
    this.#worker = worker;
    this.#capacity = capacity;
    this.readonly = readonly;
    worker.addEventListener("message", (event) => this.#answered(event.data as OpfsAnswer));
    worker.addEventListener("error", (event) => {
      this.#lose(new OpfsError("failed", `The disk's worker died: ${event.message}`));
    });
  }

  /**
   * Opens a disk, or makes one.
   *
   * @throws {RangeError} If the size is no multiple of 512.
   * @throws {OpfsError} If it is not there, is open in another tab, or the browser refuses; the worker is ended then.
   */
  static async open(options: OpfsOptions): Promise<OpfsBackend> {
    const { worker, path, size } = options;
    if (size !== undefined) checkCapacity(size);
    const opened = new Promise<OpfsAnswer>((resolve, reject) => {
      worker.addEventListener("message", (event) => resolve(event.data), { once: true });
      worker.addEventListener("error", (event) => {
        reject(new OpfsError("failed", `The disk's worker did not start: ${event.message}`));
      }, { once: true });
    });
    const request: OpfsOpen = { opfs: "open", path, size: size ?? null };
    worker.postMessage(request);
    try {
      const answer = await opened;
      if (answer.opfs === "failed") throw describe(path, answer);
      const capacity = answer.size - answer.size % 512;
      return new OpfsBackend(worker, capacity, options.readonly ?? false);
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  /** See `BlkBackend.capacity`. */
  get capacity(): number {
    return this.#capacity;
  }

  /** Reads. @throws {BackendRangeError} If the range is not within the disk. */
  async read(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    checkRange(position, length, this.#capacity);
    const read = await this.#ask("read", position, length);
    bytes.set(read!, offset);
  }

  /** Writes. @throws {BackendRangeError} If the range is not within the disk. */
  async write(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    this.#checkWrite(position, length);
    // A copy, which is the worker's from now on.
    await this.#ask(
      "write",
      position,
      length,
      new Uint8Array(bytes.subarray(offset, offset + length)),
    );
  }

  /** Makes all writes durable. */
  async flush(): Promise<void> {
    await this.#ask("flush", 0, 0);
  }

  /** Zeroes the range; its storage stays. @throws {BackendRangeError} If the range is not within the disk. */
  async writeZeroes(position: number, length: number): Promise<void> {
    this.#checkWrite(position, length);
    await this.#ask("zero", position, length);
  }

  /** Changes the size. @throws {RangeError} If it is no multiple of 512. */
  async resize(capacity: number): Promise<void> {
    checkCapacity(capacity);
    this.#checkWrite(0, 0);
    // Smaller at once, so that nothing goes behind the end any more; larger when there is room.
    if (capacity < this.#capacity) this.#capacity = capacity;
    await this.#ask("resize", capacity, 0);
    this.#capacity = capacity;
    this.onChange?.();
  }

  /** Flushes, closes the file for other tabs, and ends the worker. */
  async close(): Promise<void> {
    if (this.#lost !== null) return;
    await this.#ask("close", 0, 0);
    this.#lose(new OpfsError("failed", "The disk is closed"));
  }

  #checkWrite(position: number, length: number): void {
    if (this.readonly) throw new TypeError("The disk is read-only");
    checkRange(position, length, this.#capacity);
  }

  #ask(
    opfs: OpfsRequest["opfs"],
    position: number,
    length: number,
    bytes: Uint8Array<ArrayBuffer> | null = null,
  ): Promise<Uint8Array | null> {
    if (this.#lost !== null) return Promise.reject(this.#lost);
    const id = this.#next++;
    const request: OpfsRequest = { opfs, id, position, length, bytes };
    this.#worker.postMessage(request, bytes === null ? [] : [bytes.buffer]);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #answered(answer: OpfsAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    if (waiting === undefined) return;
    this.#waiting.delete(answer.id);
    if (answer.opfs === "done") waiting.resolve(answer.bytes);
    else waiting.reject(new OpfsError("failed", `${answer.name}: ${answer.message}`));
  }

  /** Nothing comes from the worker any more. */
  #lose(reason: Error): void {
    this.#lost ??= reason;
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
    this.#worker.terminate();
  }
}

function describe(path: string, { name, message }: OpfsAnswer): OpfsError {
  if (name === "NoModificationAllowedError") {
    return new OpfsError("locked", `The disk ${path} is open in another tab`);
  }
  if (name === "NotFoundError") {
    return new OpfsError("missing", `There is no disk ${path}: give a size to make one`);
  }
  return new OpfsError("failed", `Cannot open the disk ${path}: ${name}: ${message}`);
}
