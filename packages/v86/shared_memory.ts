/**
 * Guest memory that other threads see too, on Linux under Deno: v86 keeps it in a WebAssembly memory of its own, which is not
 * shared, so the same pages of a memory file are mapped over that and over a shared one.
 */
import { mapOver, MemoryFile, SharedMapping } from "@virtio/linux";
import type { RegionSource } from "@virtio/memory";

/** Guest memory, and the file that it lies in. */
export interface SharedGuestMemory {
  /** The shared memory, as a region from address 0 on. */
  readonly source: RegionSource;
  /** The file, for other processes; the caller closes it. */
  readonly file: MemoryFile;
}

/**
 * Maps one memory file over a part of a WebAssembly memory and over a shared one; what is there now is kept.
 *
 * @param memory v86's. It may grow afterwards: it does so in place.
 * @param offset Where guest memory begins in it, a multiple of 4096.
 * @param size Bytes of guest memory, a multiple of 65536.
 * @throws {TypeError} If this is not Deno on Linux with the right to call libc (`--allow-ffi`).
 * @throws {SystemError} If the system refuses.
 */
export function shareGuestMemory(
  memory: WebAssembly.Memory,
  offset: number,
  size: number,
): SharedGuestMemory {
  const file = MemoryFile.create(size, "virtio-guest");
  try {
    const own = new Uint8Array(memory.buffer, offset, size);
    const shared = new SharedMapping(file.descriptor, 0, size);
    new Uint8Array(shared.buffer, 0, size).set(own);
    mapOver(own, file.descriptor, 0);
    // The object is kept with the buffer: a WebAssembly memory of this size is fixed, and its buffer never moves.
    return { source: { base: 0, size, buffer: shared.buffer }, file };
  } catch (error) {
    file.close();
    throw error;
  }
}
