/**
 * A disk in a raw image, a file or a block device, by system calls on guest memory itself: nothing is copied on the way, a
 * request is one call, and many requests are one where io_uring does them. Needs Deno on Linux, and the permission for foreign
 * functions (`--allow-ffi`) beside those for the file.
 *
 * `FileBackend` (`@virtio/blk/file`) does the same by the means of the runtime, on any system.
 *
 * @module
 */
import { fileFacts, fileSize, OpenFlag, resizeFile, SystemError } from "@virtio/linux";
import type { BackendResult, BlkBackend } from "../backend.ts";
import type { BlkEngine } from "../engine.ts";
import { ImageBounds } from "./file_bounds.ts";
import { ImageError } from "./file_error.ts";
import { closeImage, type ImageOptions, openDescriptorAgain, openImage } from "./file_open.ts";
import { ImageFile } from "./linux_file.ts";
import { SinglePiece } from "./linux_pieces.ts";
import { SyncEngine } from "./linux_sync.ts";
import { UringEngine } from "./linux_uring.ts";

export { ImageError, type ImageProblem } from "./file_error.ts";
export type { ImageOptions } from "./file_open.ts";

/** How requests are done. */
export type LinuxEngine = "sync" | "io_uring";

/** Options of `LinuxBackend.open`. */
export interface LinuxBackendOptions extends ImageOptions {
  /**
   * Past the page cache of the host (O_DIRECT); no unless given. For disks that are larger than memory, guests that have a cache
   * of their own, and latencies that do not depend on what else is written.
   */
  readonly direct?: boolean;
  /**
   * - `"sync"`: a system call for each request, which is waited for.
   * - `"io_uring"`: all requests of a kick begun by one call, and done while the thread goes on.
   * - `"auto"`: what is best as far as is known: io_uring, but what the page cache does without waiting at once, where that costs
   *   less; `"sync"` where the system has no io_uring for us. Unless given.
   */
  readonly engine?: LinuxEngine | "auto";
}

/**
 * A disk in a raw image. Bytes of the disk are bytes of the file.
 *
 * It serves one device, in the thread that opened it. For several threads open it in each, with `lock: false` in all but one.
 *
 * ```ts
 * import { BlkDevice } from "@virtio/blk";
 * import { LinuxBackend } from "@virtio/blk/linux";
 * import { assertEquals } from "@std/assert";
 *
 * const path = await Deno.makeTempFile();
 * await Deno.remove(path);
 * const disk = LinuxBackend.open(path, { create: true, size: 1024 * 1024, engine: "sync" });
 * const device = new BlkDevice({ backend: disk, blockSize: disk.blockSize });
 * assertEquals(device.capacity, 1024 * 1024);
 * await disk.close();
 * await Deno.remove(path);
 * ```
 */
export class LinuxBackend implements BlkBackend {
  /** Where the image is. */
  readonly path: string;
  /** Whether writes are refused. */
  readonly readonly: boolean;
  /** The methods below are done when they return; the engine is not. */
  readonly asynchronous = false;
  /** The way of a device's requests. */
  readonly engine: BlkEngine;
  /** Which it is. */
  readonly engineName: LinuxEngine;
  /** Whether the page cache is passed by. */
  readonly direct: boolean;
  /** Blocks that the disk is best accessed in, in bytes: what `BlkDeviceOptions.blockSize` should be. Others work, slowly. */
  readonly blockSize: number;
  /** Told when the size changed, or holes turned out to be impossible. */
  onChange: (() => void) | null = null;
  /** Gives the space of the range back. There only where that is wanted. */
  discard?: (position: number, length: number) => void;
  readonly #lock: Deno.FsFile;
  readonly #file: ImageFile;
  readonly #piece: SinglePiece = new SinglePiece();
  readonly #bounds: ImageBounds;

  private constructor(path: string, options: LinuxBackendOptions) {
    this.path = path;
    this.readonly = options.readonly ?? false;
    this.direct = options.direct ?? false;
    const { file, size, fixed } = openImage(path, options);
    this.#lock = file;
    this.#bounds = new ImageBounds(path, this.readonly, fixed, size);
    try {
      this.#file = openFile(path, file, fixed, options);
    } catch (error) {
      closeImage(file);
      throw error;
    }
    const { positionAlignment } = this.#file.facts;
    this.blockSize = Math.max(512, positionAlignment);
    try {
      if (size % positionAlignment !== 0) {
        throw new ImageError(
          "odd size",
          `${path} has ${size} bytes: direct access needs a multiple of ${positionAlignment}`,
        );
      }
      this.engine = makeEngine(this.#file, options);
    } catch (error) {
      this.#file.close();
      closeImage(file);
      throw error;
    }
    this.engineName = this.engine instanceof UringEngine ? "io_uring" : "sync";
    this.#file.onHoles = () => this.onChange?.();
    if (this.#file.holes) this.discard = this.#discard;
  }

  /**
   * Opens an image.
   *
   * @throws {ImageError} If it is missing, a directory, locked, empty or of an odd size, may not be opened, or cannot be
   * accessed directly.
   * @throws {SystemError} If io_uring is demanded, and the system has none for us.
   * @throws {TypeError} If this is not Deno on Linux with the permission for foreign functions.
   * @throws {RangeError} If an option is out of range.
   */
  static open(path: string, options: LinuxBackendOptions = {}): LinuxBackend {
    const engine = options.engine ?? "auto";
    if (engine !== "auto" && engine !== "sync" && engine !== "io_uring") {
      throw new RangeError(`engine must be "auto", "sync" or "io_uring": it is ${String(engine)}`);
    }
    return new LinuxBackend(path, options);
  }

  /** Size in bytes. */
  get capacity(): number {
    return this.#bounds.capacity;
  }

  /** Whether holes can be made. */
  get writeZeroesMayUnmap(): boolean {
    return this.#file.holes;
  }

  /**
   * Reads.
   *
   * @throws {BackendRangeError} If the range is not within the disk.
   * @throws {SystemError} If the system refuses.
   * @throws {ImageError} If the file has become shorter than it was when it was opened.
   */
  read(position: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#bounds.check(position, length);
    for (let done = 0; done < length;) {
      const piece = this.#rest(bytes, offset, done, length);
      done += this.#file.read(position + done, length - done, piece);
    }
  }

  /**
   * Writes.
   *
   * @throws {BackendRangeError} If the range is not within the disk.
   * @throws {SystemError} If the system refuses: `ENOSPC` where the disk of the host is full.
   * @throws {ImageError} If the image was opened read-only.
   */
  write(position: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#bounds.checkWrite(position, length);
    // Writes that are not aligned must be alone.
    if (this.direct) void this.engine.drain();
    for (let done = 0; done < length;) {
      const piece = this.#rest(bytes, offset, done, length);
      done += this.#file.write(position + done, length - done, piece, false);
    }
  }

  /** Has the host's disk take all that was written (fdatasync). @throws {SystemError} If it does not. */
  flush(): void {
    this.#bounds.checkOpen();
    if (!this.readonly) this.#file.flush();
  }

  /**
   * Makes the range read as zeroes: by a hole if `unmap` allows it, else by allocated zeroes where the file system has them,
   * else by writing.
   *
   * @throws As `write`.
   */
  writeZeroes(position: number, length: number, unmap: boolean): void {
    this.#bounds.checkWrite(position, length);
    if (this.direct) void this.engine.drain();
    this.#file.zero(position, length, unmap);
  }

  /**
   * Changes the size of the file.
   *
   * @throws {TypeError} If it is a block device, or read-only.
   * @throws {RangeError} If `capacity` is no multiple of 512, or of `blockSize` where it is accessed directly.
   * @throws {SystemError} If the system refuses.
   */
  resize(capacity: number): void {
    this.#bounds.checkResize(capacity);
    if (capacity % this.#file.facts.positionAlignment !== 0) {
      throw new RangeError(`A capacity must be a multiple of ${this.blockSize} here: ${capacity}`);
    }
    resizeFile(this.#file.descriptor, capacity);
    this.#resized(capacity);
  }

  /** Takes over the size that the file has now, after somebody else resized it. */
  refresh(): void {
    this.#bounds.checkOpen();
    const size = fileSize(this.#file.descriptor);
    this.#resized(size - size % this.blockSize);
  }

  /** Closes the file and gives the lock back. Requests that are under way are waited for. */
  close(): BackendResult {
    if (this.#bounds.closed) return;
    this.#bounds.closed = true;
    const closing = this.engine instanceof UringEngine ? this.engine.close() : undefined;
    if (closing !== undefined) return closing.then(() => this.#closeNow());
    this.#closeNow();
  }

  #closeNow(): void {
    this.#file.close();
    closeImage(this.#lock);
  }

  #rest(bytes: Uint8Array, offset: number, done: number, length: number): SinglePiece {
    this.#piece.set(bytes, offset + done, length - done);
    return this.#piece;
  }

  #discard(position: number, length: number): void {
    this.#bounds.checkWrite(position, length);
    this.#file.discard(position, length);
  }

  #resized(capacity: number): void {
    this.#bounds.capacity = capacity;
    this.onChange?.();
  }
}

function openFile(
  path: string,
  like: Deno.FsFile,
  block: boolean,
  options: LinuxBackendOptions,
): ImageFile {
  const { readonly = false, direct = false, holes = true } = options;
  const flags = (readonly ? OpenFlag.readOnly : OpenFlag.readWrite) |
    (direct ? OpenFlag.direct : 0);
  let descriptor: number;
  try {
    descriptor = openDescriptorAgain(path, flags, like);
  } catch (cause) {
    if (!direct || !(cause instanceof SystemError)) throw cause;
    throw new ImageError("not direct", `${path} cannot be accessed directly: ${cause.code}`, {
      cause,
    });
  }
  const facts = fileFacts(descriptor);
  return new ImageFile(descriptor, {
    path,
    block,
    direct,
    memoryAlignment: direct ? facts.memoryAlignment : 1,
    positionAlignment: direct ? facts.positionAlignment : 1,
    holes: holes && !readonly,
  });
}

function makeEngine(file: ImageFile, options: LinuxBackendOptions): BlkEngine {
  const { engine = "auto", direct = false } = options;
  if (engine === "sync") return new SyncEngine(file);
  try {
    return new UringEngine(file, { cached: engine === "auto" && !direct });
  } catch (error) {
    // Containers often forbid it.
    if (engine === "auto" && error instanceof SystemError) return new SyncEngine(file);
    throw error;
  }
}
