import type { BlkEngine } from "./engine.ts";

/** What a back end did: nothing to say if it is done, a promise if it will be. */
export type BackendResult = void | Promise<void>;

/** Wear of the storage, as eMMC and UFS report it (virtio 1.4, 5.2.6, `struct virtio_blk_lifetime`). */
export interface BlkLifetime {
  /** 0 undefined, 1 normal, 2 warning, 3 urgent. */
  readonly preEolInfo: number;
  /** Wear of SLC cells in steps of 10%: 0 undefined, 1 to 10, 11 exceeded. */
  readonly estimateTypeA: number;
  /** Wear of MLC cells, likewise. */
  readonly estimateTypeB: number;
}

/**
 * What a block device stores its sectors in.
 *
 * Positions and lengths are bytes and lie within `capacity`; a back end may rely on that only as far as it checks its own
 * memory: a resize can come between. It reports failure by throwing or rejecting, and the driver gets VIRTIO_BLK_S_IOERR.
 *
 * A synchronous back end (`asynchronous` false) gets guest memory itself, in pieces cut as the driver cut them, at any byte
 * position, and must be done with it when it returns; with `gather` it gets small pieces together, copied. An asynchronous one never sees guest memory: it gets a buffer that is
 * its own until its promise settles, with position and length multiples of 512. It may still return nothing where it is
 * done at once.
 */
export interface BlkBackend {
  /** Size in bytes, a multiple of 512, at most 2^53 - 512. May change; `onChange` is told then. */
  readonly capacity: number;
  /** Whether writes are refused. */
  readonly readonly: boolean;
  /** Whether the methods may return promises. Fixed. */
  readonly asynchronous: boolean;
  /** Whether a call costs much more than copying a few pages, as a system call does; no unless given. Fixed. */
  readonly gather?: boolean;
  /**
   * The way to work on guest memory itself, several requests at a time, if the back end has one. A device uses it in place of
   * the methods below for reading, writing, flushing, discarding and zeroes. Fixed; one device uses it.
   */
  readonly engine?: BlkEngine | null;

  /** Copies `length` bytes at `position` of the disk to `bytes[offset...]`. All of them, or it throws. */
  read(position: number, bytes: Uint8Array, offset: number, length: number): BackendResult;
  /** Copies `length` bytes from `bytes[offset...]` to `position` of the disk. All of them, or it throws. */
  write(position: number, bytes: Uint8Array, offset: number, length: number): BackendResult;
  /** Makes all writes that were done before durable: they survive a crash of the host once this is done. */
  flush(): BackendResult;

  /**
   * As `write`, and durable once it is done; for an asynchronous back end that can do both in one step. Without it a write that
   * has to be durable is followed by `flush`.
   */
  writeDurably?(
    position: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): BackendResult;
  /** Tells that the range is not needed; it may read as anything afterwards. */
  discard?(position: number, length: number): BackendResult;
  /** Makes the range read as zeroes. `unmap`: its storage may be given back. */
  writeZeroes?(position: number, length: number, unmap: boolean): BackendResult;
  /** Whether `writeZeroes` with `unmap` can give storage back; no unless given. May change; `onChange` is told then. */
  readonly writeZeroesMayUnmap?: boolean;
  /** Destroys what the range held, beyond recovery. Only for storage that can promise that. */
  secureErase?(position: number, length: number): BackendResult;
  /** Wear of the storage. Only for storage that knows it. */
  lifetime?(): BlkLifetime | Promise<BlkLifetime>;

  /** Changes the capacity to `capacity` bytes. */
  resize?(capacity: number): BackendResult;
  /** Called by the back end when `capacity` or `writeZeroesMayUnmap` changed. The device sets it. */
  onChange?: (() => void) | null;
  /** Gives files and locks back. For whoever made the back end; the device never calls it. */
  close?(): BackendResult;
}

/** A range that is not within the capacity of a back end. */
export class BackendRangeError extends RangeError {
  /** Tells errors apart by name. */
  override readonly name = "BackendRangeError";

  /** Describes the range. */
  constructor(position: number, length: number, capacity: number) {
    super(`No ${length} bytes at ${position}: the back end has ${capacity} bytes`);
  }
}

/**
 * Checks a range against a capacity.
 *
 * @throws {BackendRangeError} If it is not within.
 */
export function checkRange(position: number, length: number, capacity: number): void {
  if (!(position >= 0 && length >= 0 && position + length <= capacity)) {
    throw new BackendRangeError(position, length, capacity);
  }
}

/**
 * Checks a capacity.
 *
 * @throws {RangeError} If it is negative, too large or no multiple of 512.
 */
export function checkCapacity(capacity: number): void {
  if (!Number.isSafeInteger(capacity) || capacity < 0 || capacity % 512 !== 0) {
    throw new RangeError(`A capacity must be a non-negative multiple of 512: it is ${capacity}`);
  }
}

/** Refuses a promise where none may come, and makes sure that nobody misses how it ends. @throws {TypeError} Always. */
export function notSynchronous(result: PromiseLike<unknown>): never {
  result.then(undefined, () => {});
  throw new TypeError(
    "The back end answered with a promise: a back end that does must say that it is asynchronous",
  );
}
