import { closeDescriptor, fileFacts, openDescriptor } from "@virtio/linux";
import { ImageError } from "./file_error.ts";

/** How an image is opened, whatever is done with it then. */
export interface ImageOptions {
  /** Opens the image for reading only; no unless given. */
  readonly readonly?: boolean;
  /** Makes a sparse image of `size` bytes if there is no file; no unless given. */
  readonly create?: boolean;
  /** Size in bytes of an image that `create` makes; a multiple of 512. An image that is there keeps its size. */
  readonly size?: number;
  /**
   * Gives the space of discarded ranges back, where the host can; yes unless given. Without it the image keeps all space
   * that it has taken, and DISCARD is not offered.
   */
  readonly holes?: boolean;
  /** Locks the image (exclusively, or shared if read-only), so that no second one takes it; yes unless given. */
  readonly lock?: boolean;
}

/** Options of `FileBackend.open`. */
export interface FileBackendOptions extends ImageOptions {
  /**
   * `"sync"`: each request blocks the thread until the system has answered; fastest for an image in the page cache.
   * `"async"`: requests run beside each other on other threads. `"sync"` unless given.
   */
  readonly mode?: "sync" | "async";
  /** Async mode: how many requests run at once at most, 1 to 64; 4 unless given. */
  readonly parallel?: number;
}

/** An opened image. */
export interface OpenedImage {
  /** The file that holds the lock. */
  readonly file: Deno.FsFile;
  /** Bytes. */
  readonly size: number;
  /** Whether the size is that of a device rather than a file, and cannot be changed. */
  readonly fixed: boolean;
}

/** Opens the file at `path` once more, for another request at the same time. */
export function openAgain(path: string, readonly: boolean, like: Deno.FsFile): Deno.FsFile {
  const file = Deno.openSync(path, { read: true, write: !readonly });
  const first = like.statSync();
  const second = file.statSync();
  if (first.ino === second.ino && first.dev === second.dev) return file;
  file.close();
  throw new ImageError("changed", `${path} was replaced by another file while it was opened`);
}

/**
 * As `openAgain`, for system calls.
 *
 * @param flags Of `OpenFlag`.
 * @returns A descriptor.
 * @throws {SystemError} If the system refuses.
 * @throws {ImageError} If another file has taken the path.
 */
export function openDescriptorAgain(path: string, flags: number, like: Deno.FsFile): number {
  const descriptor = openDescriptor(path, flags);
  const first = like.statSync();
  const { inode, device } = fileFacts(descriptor);
  if (first.ino === inode && first.dev === deviceNumber(...device)) return descriptor;
  closeDescriptor(descriptor);
  throw new ImageError("changed", `${path} was replaced by another file while it was opened`);
}

/** A device's number as `stat` gives it. */
function deviceNumber(major: number, minor: number): number {
  return (minor & 0xff) + (major & 0xfff) * 2 ** 8 + Math.floor(minor / 256) * 2 ** 20 +
    Math.floor(major / 4096) * 2 ** 44;
}

/**
 * Closes what `openImage` opened, and gives the lock back: explicitly, since a process that this one is just starting has all of
 * its files for a moment, and with them the lock.
 */
export function closeImage(file: Deno.FsFile): void {
  try {
    file.unlockSync();
  } finally {
    file.close();
  }
}

/**
 * Opens and locks an image, and looks whether it can be a disk.
 *
 * @throws {ImageError} If it cannot; the file is untouched then.
 * @throws {RangeError} If `size` is missing or no multiple of 512 where an image is to be made.
 */
export function openImage(path: string, options: ImageOptions): OpenedImage {
  const readonly = options.readonly ?? false;
  const made = options.create === true && createImage(path, options.size);
  const kind = look(path);
  if (kind.isDirectory) {
    throw new ImageError("directory", `${path} is a directory, not a disk image`);
  }
  // Asked before opening: opening a pipe would wait for its other end.
  if (!kind.isFile && !kind.isBlockDevice) {
    throw new ImageError("not a disk", `${path} is neither a file nor a block device`);
  }
  const file = openFile(path, readonly);
  try {
    if ((options.lock ?? true) && !file.tryLockSync(!readonly)) {
      throw new ImageError("locked", `${path} is locked: another program is using it as a disk`);
    }
    if (made) file.truncateSync(options.size);
    const fixed = kind.isBlockDevice === true;
    const size = fixed ? file.seekSync(0, Deno.SeekMode.End) : file.statSync().size;
    if (fixed) file.seekSync(0, Deno.SeekMode.Start);
    if (size === 0) {
      throw new ImageError("empty", `${path} is empty: a disk needs at least 512 bytes`);
    }
    if (size % 512 !== 0) {
      throw new ImageError(
        "odd size",
        `${path} has ${size} bytes, which is no multiple of 512: it is cut off or no raw disk image`,
      );
    }
    return { file, size, fixed };
  } catch (error) {
    closeImage(file);
    if (made) Deno.removeSync(path);
    throw error;
  }
}

function createImage(path: string, size: number | undefined): boolean {
  if (size === undefined || !Number.isSafeInteger(size) || size <= 0 || size % 512 !== 0) {
    throw new RangeError(
      `To create an image give its size, a positive multiple of 512: it is ${size}`,
    );
  }
  try {
    // Nothing is written before the lock is held: two creators of one image must not both size it.
    Deno.openSync(path, { write: true, createNew: true }).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw explain(path, error);
  }
}

function look(path: string): Deno.FileInfo {
  try {
    return Deno.statSync(path);
  } catch (error) {
    throw explain(path, error);
  }
}

function openFile(path: string, readonly: boolean): Deno.FsFile {
  try {
    return Deno.openSync(path, { read: true, write: !readonly });
  } catch (error) {
    throw explain(path, error);
  }
}

function explain(path: string, cause: unknown): unknown {
  if (cause instanceof Deno.errors.NotFound) {
    return new ImageError("missing", `There is no disk image at ${path}`, { cause });
  }
  if (cause instanceof Deno.errors.IsADirectory) {
    return new ImageError("directory", `${path} is a directory, not a disk image`, { cause });
  }
  if (cause instanceof Deno.errors.PermissionDenied) {
    return new ImageError("permission", `There is no permission to open ${path}`, { cause });
  }
  if (cause instanceof Deno.errors.NotCapable) {
    return new ImageError(
      "permission",
      `This program was not allowed to open ${path}: start it with --allow-read and --allow-write`,
      { cause },
    );
  }
  return cause;
}
