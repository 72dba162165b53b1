import {
  AllocateMode,
  allocateRange,
  allocateRangeLater,
  closeDescriptor,
  OpenFlag,
  SystemError,
} from "@virtio/linux";
import { openDescriptorAgain } from "./file_open.ts";

/**
 * Makes holes in a file. The runtime has no call for that, so it asks the C library, where Linux and the permission for
 * foreign functions are there; without them there are no holes.
 */
export class HolePuncher {
  readonly #descriptor: number;
  #zeroRange = true;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /**
   * Opens the file once more, by its own descriptor.
   *
   * @param path Where the file is.
   * @param file The file as it was opened, to see that it is the same.
   * @param size Bytes of the file; a hole is tried behind them.
   * @returns Null where holes cannot be made: another system, no permission, or a file system without them.
   * @throws {ImageError} If another file has taken the path.
   */
  static open(path: string, file: Deno.FsFile, size: number): HolePuncher | null {
    if (Deno.build.os !== "linux") return null;
    if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return null;
    let descriptor: number;
    try {
      descriptor = openDescriptorAgain(path, OpenFlag.readWrite, file);
    } catch (error) {
      // Another C library, or no right to open it.
      if (error instanceof SystemError || error instanceof TypeError) return null;
      throw error;
    }
    const puncher = new HolePuncher(descriptor);
    if (!puncher.punch(size, 4096)) {
      puncher.close();
      return null;
    }
    return puncher;
  }

  /** Makes a hole: the range reads as zeroes and takes no space. @returns Whether it worked. */
  punch(position: number, length: number): boolean {
    return allocateRange(this.#descriptor, AllocateMode.hole, position, length) === 0;
  }

  /** As `punch`, on another thread. */
  punchLater(position: number, length: number): Promise<boolean> {
    return allocateRangeLater(this.#descriptor, AllocateMode.hole, position, length);
  }

  /** Zeroes a range and keeps its space. @returns Whether it worked; some file systems cannot. */
  zero(position: number, length: number): boolean {
    if (!this.#zeroRange) return false;
    const { zero } = AllocateMode;
    this.#zeroRange = allocateRange(this.#descriptor, zero, position, length) === 0;
    return this.#zeroRange;
  }

  /** As `zero`, on another thread. */
  async zeroLater(position: number, length: number): Promise<boolean> {
    if (!this.#zeroRange) return false;
    const { zero } = AllocateMode;
    this.#zeroRange = await allocateRangeLater(this.#descriptor, zero, position, length);
    return this.#zeroRange;
  }

  /** Closes the descriptor. */
  close(): void {
    closeDescriptor(this.#descriptor);
  }
}
