/**
 * A disk in a raw image: a file, or a block device of the host. Needs Deno, and the permission to read and write the file;
 * with the permission for foreign functions (`--allow-ffi`) on Linux, discarded ranges become holes.
 *
 * @module
 */
import type { BackendResult, BlkBackend } from "../backend.ts";
import { ImageBounds } from "./file_bounds.ts";
import { ImageError } from "./file_error.ts";
import { HolePuncher } from "./file_hole.ts";
import { closeImage, type FileBackendOptions, openAgain, openImage } from "./file_open.ts";

export { ImageError, type ImageProblem } from "./file_error.ts";
export type { FileBackendOptions } from "./file_open.ts";

const ZEROES = new Uint8Array(65536);

/** One open file, and where it stands. */
interface Handle {
  readonly file: Deno.FsFile;
  /** -1: unknown. */
  position: number;
}

/**
 * A disk in a raw image. Bytes of the disk are bytes of the file; `flush` comes back when they have reached the host's disk
 * (fdatasync).
 *
 * ```ts
 * import { FileBackend } from "@virtio/blk/file";
 * import { assertEquals } from "@std/assert";
 *
 * const path = await Deno.makeTempFile();
 * await Deno.remove(path);
 * using disk = FileBackend.open(path, { create: true, size: 1024 * 1024 });
 * disk.write(4096, new Uint8Array([1, 2, 3]), 0, 3);
 * disk.flush();
 * const back = new Uint8Array(3);
 * disk.read(4096, back, 0, 3);
 * assertEquals(back, new Uint8Array([1, 2, 3]));
 * await Deno.remove(path);
 * ```
 */
export class FileBackend implements BlkBackend {
  /** Where the image is. */
  readonly path: string;
  /** Whether writes are refused. */
  readonly readonly: boolean;
  /** Whether it was opened in async mode. */
  readonly asynchronous: boolean;
  /** In sync mode a call is a system call. */
  readonly gather: boolean;
  /** Told when the size changed, or holes turned out to be impossible. */
  onChange: (() => void) | null = null;
  /** Makes holes in the range. There only where the file system can. */
  discard?: (position: number, length: number) => BackendResult;
  readonly #bounds: ImageBounds;
  readonly #fixed: boolean;
  readonly #first: Handle;
  readonly #handles: Handle[];
  /** Handles that no request uses. Async mode only. */
  readonly #idle: Handle[];
  readonly #waiting: ((handle: Handle) => void)[] = [];
  readonly #puncher: HolePuncher | null;
  /** Cleared when a hole could not be made. The puncher stays open for calls that still run on other threads. */
  #holes: boolean;

  private constructor(path: string, options: FileBackendOptions) {
    this.path = path;
    this.readonly = options.readonly ?? false;
    this.asynchronous = options.mode === "async";
    this.gather = !this.asynchronous;
    const parallel = this.asynchronous ? options.parallel ?? 4 : 1;
    if (!(Number.isInteger(parallel) && parallel >= 1 && parallel <= 64)) {
      throw new RangeError(`parallel must be an integer from 1 to 64: it is ${parallel}`);
    }
    const { file, size, fixed } = openImage(path, options);
    this.#bounds = new ImageBounds(path, this.readonly, fixed, size);
    this.#fixed = fixed;
    this.#first = { file, position: -1 };
    this.#handles = [this.#first];
    try {
      for (let i = 1; i < parallel; i++) {
        this.#handles.push({ file: openAgain(path, this.readonly, file), position: -1 });
      }
      const holes = !this.readonly && (options.holes ?? true);
      this.#puncher = holes ? HolePuncher.open(path, file, size) : null;
    } catch (error) {
      this.#closeHandles();
      throw error;
    }
    this.#idle = [...this.#handles];
    this.#holes = this.#puncher !== null;
    if (this.#holes) this.discard = this.#discard;
  }

  /**
   * Opens an image.
   *
   * @throws {ImageError} If it is missing, a directory, locked, empty or of an odd size, or may not be opened.
   * @throws {RangeError} If an option is out of range.
   */
  static open(path: string, options: FileBackendOptions = {}): FileBackend {
    return new FileBackend(path, options);
  }

  /** Size in bytes. */
  get capacity(): number {
    return this.#bounds.capacity;
  }

  /** Whether holes can be made. */
  get writeZeroesMayUnmap(): boolean {
    return this.#holes;
  }

  /**
   * Reads.
   *
   * @throws {BackendRangeError} If the range is not within the disk.
   * @throws {ImageError} If the file has become shorter than it was when it was opened.
   */
  read(position: number, bytes: Uint8Array, offset: number, length: number): BackendResult {
    this.#bounds.check(position, length);
    const into = bytes.subarray(offset, offset + length);
    if (this.asynchronous) return this.#use((handle) => this.#readLater(handle, position, into));
    const handle = this.#first;
    this.#seek(handle, position);
    for (let done = 0; done < length;) {
      const count = handle.file.readSync(done === 0 ? into : into.subarray(done));
      if (count === null || count === 0) throw this.#truncated(handle);
      done += count;
    }
    handle.position = position + length;
  }

  /**
   * Writes.
   *
   * @throws {BackendRangeError} If the range is not within the disk.
   * @throws {ImageError} If the image was opened read-only.
   */
  write(position: number, bytes: Uint8Array, offset: number, length: number): BackendResult {
    this.#bounds.checkWrite(position, length);
    const from = bytes.subarray(offset, offset + length);
    if (this.asynchronous) return this.#use((handle) => this.#writeLater(handle, position, from));
    this.#writeNow(position, from);
  }

  /** Has the host's disk take all that was written (fdatasync). */
  flush(): BackendResult {
    this.#bounds.checkOpen();
    if (this.readonly) return;
    // One descriptor is enough: the call is about the file, not about who wrote to it.
    if (this.asynchronous) return this.#use((handle) => handle.file.syncData());
    this.#first.file.syncDataSync();
  }

  /**
   * Makes the range read as zeroes: by a hole if `unmap` allows it, else by allocated zeroes where the file system has
   * them, else by writing.
   *
   * @throws As `write`.
   */
  writeZeroes(position: number, length: number, unmap: boolean): BackendResult {
    this.#bounds.checkWrite(position, length);
    if (length === 0) return;
    if (this.asynchronous) return this.#zeroLater(position, length, unmap);
    const puncher = this.#puncher;
    if (puncher !== null) {
      const hole = unmap && this.#holes;
      if (hole ? puncher.punch(position, length) : puncher.zero(position, length)) return;
      if (hole) this.#noHoles();
    }
    for (let done = 0; done < length;) {
      const count = Math.min(ZEROES.length, length - done);
      this.#writeNow(position + done, ZEROES.subarray(0, count));
      done += count;
    }
  }

  /**
   * Changes the size of the file.
   *
   * @throws {TypeError} If it is a block device, or read-only.
   * @throws {RangeError} If `capacity` is no multiple of 512.
   */
  resize(capacity: number): BackendResult {
    this.#bounds.checkResize(capacity);
    if (!this.asynchronous) {
      this.#first.file.truncateSync(capacity);
      this.#resized(capacity);
      return;
    }
    return this.#use(async (handle) => {
      await handle.file.truncate(capacity);
      this.#resized(capacity);
    });
  }

  /** Takes over the size that the file has now, after somebody else resized it. */
  refresh(): void {
    const size = this.#fixed
      ? this.#first.file.seekSync(0, Deno.SeekMode.End)
      : this.#first.file.statSync().size;
    this.#first.position = -1;
    this.#resized(size - size % 512);
  }

  /** Closes the file and gives the lock back. Requests that still run are waited for in async mode. */
  close(): BackendResult {
    if (this.#bounds.closed) return;
    this.#bounds.closed = true;
    if (this.#idle.length === this.#handles.length) return this.#closeNow();
    return this.#drain();
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    void this.close();
  }

  #resized(capacity: number): void {
    this.#bounds.capacity = capacity;
    this.onChange?.();
  }

  #truncated(handle: Handle): ImageError {
    handle.position = -1;
    return new ImageError(
      "truncated",
      `${this.path} has become shorter than the ${this.#bounds.capacity} bytes it had when it was opened`,
    );
  }

  #seek(handle: Handle, position: number): void {
    if (handle.position !== position) handle.file.seekSync(position, Deno.SeekMode.Start);
    // Unknown until the transfer has worked.
    handle.position = -1;
  }

  #writeNow(position: number, from: Uint8Array): void {
    const handle = this.#first;
    this.#seek(handle, position);
    for (let done = 0; done < from.length;) {
      const count = handle.file.writeSync(done === 0 ? from : from.subarray(done));
      if (count === 0) throw new Error(`${this.path} takes no more bytes`);
      done += count;
    }
    handle.position = position + from.length;
  }

  async #readLater(handle: Handle, position: number, into: Uint8Array): Promise<void> {
    this.#seek(handle, position);
    for (let done = 0; done < into.length;) {
      const count = await handle.file.read(done === 0 ? into : into.subarray(done));
      if (count === null || count === 0) throw this.#truncated(handle);
      done += count;
    }
    handle.position = position + into.length;
  }

  async #writeLater(handle: Handle, position: number, from: Uint8Array): Promise<void> {
    this.#seek(handle, position);
    for (let done = 0; done < from.length;) {
      const count = await handle.file.write(done === 0 ? from : from.subarray(done));
      if (count === 0) throw new Error(`${this.path} takes no more bytes`);
      done += count;
    }
    handle.position = position + from.length;
  }

  async #zeroLater(position: number, length: number, unmap: boolean): Promise<void> {
    // A handle is taken although the puncher has its own descriptor: `close` waits for handles.
    await this.#use(async (handle) => {
      const puncher = this.#puncher;
      if (puncher !== null) {
        const hole = unmap && this.#holes;
        const done = hole
          ? await puncher.punchLater(position, length)
          : await puncher.zeroLater(position, length);
        if (done) return;
        if (hole) this.#noHoles();
      }
      for (let done = 0; done < length;) {
        const count = Math.min(ZEROES.length, length - done);
        await this.#writeLater(handle, position + done, ZEROES.subarray(0, count));
        done += count;
      }
    });
  }

  #discard(position: number, length: number): BackendResult {
    this.#bounds.checkWrite(position, length);
    const puncher = this.#puncher;
    // A discard that does nothing is a discard (5.2.6.2: MAY deallocate).
    if (puncher === null || !this.#holes || length === 0) return;
    if (!this.asynchronous) {
      if (!puncher.punch(position, length)) this.#noHoles();
      return;
    }
    return this.#use(async () => {
      if (!await puncher.punchLater(position, length)) this.#noHoles();
    });
  }

  #noHoles(): void {
    if (!this.#holes) return;
    this.#holes = false;
    this.onChange?.();
  }

  /** Runs `action` with a file position of its own, when one is free. */
  async #use(action: (handle: Handle) => Promise<void>): Promise<void> {
    const handle = this.#idle.pop() ??
      await new Promise<Handle>((resolve) => this.#waiting.push(resolve));
    try {
      await action(handle);
    } finally {
      const next = this.#waiting.shift();
      if (next !== undefined) next(handle);
      else this.#idle.push(handle);
    }
  }

  async #drain(): Promise<void> {
    const taken: Handle[] = [];
    while (taken.length < this.#handles.length) {
      taken.push(
        this.#idle.pop() ?? await new Promise<Handle>((resolve) => this.#waiting.push(resolve)),
      );
    }
    this.#closeNow();
  }

  #closeNow(): void {
    this.#closeHandles();
    this.#puncher?.close();
  }

  #closeHandles(): void {
    for (const { file } of this.#handles) {
      if (file === this.#first.file) closeImage(file);
      else file.close();
    }
  }
}
