import { checkCapacity, checkRange } from "../backend.ts";
import { ImageError } from "./file_error.ts";

/** What may be asked of an open image: nothing once it is closed, nothing beyond its end, no writing if that is refused. */
export class ImageBounds {
  /** Size in bytes. */
  capacity: number;
  /** Whether the image was closed. */
  closed = false;
  readonly #path: string;
  readonly #readonly: boolean;
  /** Whether the size cannot be changed: it is a block device. */
  readonly #fixed: boolean;

  constructor(path: string, readonly: boolean, fixed: boolean, capacity: number) {
    this.#path = path;
    this.#readonly = readonly;
    this.#fixed = fixed;
    this.capacity = capacity;
  }

  /** @throws {ImageError} If the image was closed. */
  checkOpen(): void {
    if (this.closed) throw new ImageError("closed", `${this.#path} has been closed`);
  }

  /**
   * Checks a range to read.
   *
   * @throws {ImageError} If the image was closed.
   * @throws {BackendRangeError} If the range is not within it.
   */
  check(position: number, length: number): void {
    this.checkOpen();
    checkRange(position, length, this.capacity);
  }

  /** Checks a range to change. @throws As `check`. @throws {ImageError} If the image was opened read-only. */
  checkWrite(position: number, length: number): void {
    if (this.#readonly) {
      throw new ImageError("write protected", `${this.#path} was opened read-only`);
    }
    this.check(position, length);
  }

  /**
   * Checks a new size.
   *
   * @throws {RangeError} If it is no multiple of 512.
   * @throws {ImageError} If the image was closed.
   * @throws {TypeError} If it is a block device, or read-only.
   */
  checkResize(capacity: number): void {
    checkCapacity(capacity);
    this.checkOpen();
    if (this.#readonly || this.#fixed) {
      throw new TypeError(`${this.#path} cannot be resized: it is read-only or a block device`);
    }
  }
}
