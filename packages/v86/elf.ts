/** Reads what is needed to load a 32-bit x86 ELF kernel. */

/** A loadable segment. */
export interface ElfSegment {
  /** Physical address to load at. */
  readonly address: number;
  /** The bytes in the file; the rest of `memorySize` is zero. */
  readonly bytes: Uint8Array;
  /** Bytes that the segment takes in memory. */
  readonly memorySize: number;
}

/** A kernel ready to be loaded. */
export interface ElfImage {
  /** Physical entry address. */
  readonly entry: number;
  /** Segments in file order. */
  readonly segments: readonly ElfSegment[];
}

const ELF_MAGIC = 0x464c457f;
const ELFCLASS32 = 1;
const ELFDATA2LSB = 1;
const EM_386 = 3;
const PT_LOAD = 1;

/** Whether `bytes` begin like an ELF file. */
export function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 52 &&
    new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === ELF_MAGIC;
}

/**
 * Parses the headers of a 32-bit little-endian x86 executable.
 *
 * @throws {RangeError} If it is something else, or if a header points outside of the file.
 */
export function readElf(bytes: Uint8Array): ElfImage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!isElf(bytes) || bytes[4] !== ELFCLASS32 || bytes[5] !== ELFDATA2LSB) {
    throw new RangeError("The kernel is not a 32-bit little-endian ELF file");
  }
  if (view.getUint16(18, true) !== EM_386) {
    throw new RangeError("The kernel is not for 32-bit x86: v86 runs nothing else");
  }
  const virtualEntry = view.getUint32(24, true);
  let entry = virtualEntry;
  const headers = view.getUint32(28, true);
  const headerSize = view.getUint16(42, true);
  const count = view.getUint16(44, true);
  if (headerSize < 32 || headers + headerSize * count > bytes.length) {
    throw new RangeError("The kernel's program headers lie outside of the file");
  }
  const segments: ElfSegment[] = [];
  for (let i = 0; i < count; i++) {
    const at = headers + i * headerSize;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const offset = view.getUint32(at + 4, true);
    const virtual = view.getUint32(at + 8, true);
    const address = view.getUint32(at + 12, true);
    const fileSize = view.getUint32(at + 16, true);
    const memorySize = view.getUint32(at + 20, true);
    if (offset + fileSize > bytes.length || fileSize > memorySize) {
      throw new RangeError(`The kernel's segment ${i} lies outside of the file`);
    }
    // Kernels state their entry as a physical or as a virtual address.
    if (virtualEntry >= virtual && virtualEntry - virtual < memorySize && virtual !== address) {
      entry = virtualEntry - virtual + address;
    }
    segments.push({ address, bytes: bytes.subarray(offset, offset + fileSize), memorySize });
  }
  if (segments.length === 0) throw new RangeError("The kernel has nothing to load");
  return { entry, segments };
}
