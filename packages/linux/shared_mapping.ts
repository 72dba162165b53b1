import { Errno, SystemError } from "./errno.ts";
import { addressOf, errno, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  mmap: { parameters: ["u64", "usize", "i32", "i32", "i32", "i64"], result: "u64" },
  fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
} as const;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const HUGETLBFS_MAGIC = 0x958458f6;
/** Offsets and size of `struct statfs`. */
const STATFS = { type: 0, blockSize: 8, size: 120 } as const;
/** Bytes of a page of a WebAssembly memory; a file is mapped in the system's, which are smaller. */
const WASM_PAGE = 65536;
const MOST_PAGES_32 = 65536;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** Bytes of a page of a file of huge pages, which is mapped in whole ones; 0 for other files. */
function hugePage(descriptor: number): number {
  const bytes = fixedBytes(STATFS.size);
  if (libc().fstatfs(descriptor, bytes) !== 0) return 0;
  const fields = new DataView(bytes.buffer);
  if (fields.getUint32(STATFS.type, true) !== HUGETLBFS_MAGIC) return 0;
  return fields.getUint32(STATFS.blockSize, true);
}

function map(bytes: Uint8Array, flags: number, descriptor: number, offset: number): void {
  const address = addressOf(bytes);
  const at = libc().mmap(
    address,
    BigInt(bytes.length),
    PROT_READ_WRITE,
    flags | MAP_FIXED,
    descriptor,
    BigInt(offset),
  );
  if (BigInt(at) !== address) throw new SystemError("mmap", errno());
}

/**
 * Maps a part of a file over bytes that are there: what is written to either is seen in both, by other processes too. What the
 * bytes held is gone.
 *
 * The file must not become shorter as long as it is mapped: touching what is missing ends the process (SIGBUS). See
 * `MemoryFile.size` and `MemoryFile.seals`.
 *
 * @param bytes Of a WebAssembly memory, which begins at a page and never moves; a multiple of the system's pages, as `offset`.
 * @param descriptor Of the file, open for reading and writing. It may be closed afterwards.
 * @param offset Where in the file.
 * @throws {SystemError} If the system refuses.
 */
export function mapOver(bytes: Uint8Array, descriptor: number, offset: number): void {
  map(bytes, MAP_SHARED, descriptor, offset);
}

/**
 * A part of a file as shared memory that threads of this process and other processes see: a real `SharedArrayBuffer`, the
 * buffer of a shared WebAssembly memory, over which the file is mapped.
 */
export class SharedMapping {
  /** The memory. It is longer than the mapping, at least by what is missing to a page of 64 KiB: those bytes mean nothing. */
  readonly memory: WebAssembly.Memory;
  /** Its buffer. */
  readonly buffer: SharedArrayBuffer;
  /** Where the mapping begins in it: 0, but for files of huge pages. */
  readonly byteOffset: number;
  /** Bytes that are mapped. */
  readonly length: number;
  /** Where it begins in this process. */
  readonly address: bigint;
  /** What was mapped: the bytes, or the huge pages around them. */
  readonly #whole: Uint8Array;
  #mapped = true;

  /**
   * Maps `length` bytes from `offset` on.
   *
   * @param descriptor Of a file that has them, which must not become shorter; it may be closed afterwards.
   * @param offset A multiple of the system's page size.
   * @param length In bytes. The last page is mapped whole.
   * @throws {RangeError} If length or offset cannot be.
   * @throws {SystemError} If the system refuses; `ENOMEM` if there is no room for so large a memory.
   */
  constructor(descriptor: number, offset: number, length: number) {
    if (!(Number.isSafeInteger(length) && length > 0)) {
      throw new RangeError(`A mapping needs bytes: the length is ${length}`);
    }
    if (!(Number.isSafeInteger(offset) && offset >= 0 && offset % 4096 === 0)) {
      throw new RangeError(`A mapping begins at a page: the offset is ${offset}`);
    }
    const huge = hugePage(descriptor);
    // Huge pages are mapped whole, at addresses that are multiples of their size: one more has room for moving there.
    const before = huge === 0 ? 0 : offset % huge;
    const whole = huge === 0 ? length : Math.ceil((before + length) / huge) * huge;
    const pages = Math.ceil((whole + huge) / WASM_PAGE);
    try {
      this.memory = makeMemory(pages);
    } catch (cause) {
      throw new SystemError("mmap", Errno.ENOMEM, `${length} bytes: ${(cause as Error).message}`);
    }
    this.buffer = this.memory.buffer as unknown as SharedArrayBuffer;
    this.length = length;
    const base = addressOf(new Uint8Array(this.buffer));
    const room = huge === 0 ? 0 : Number((BigInt(huge) - base % BigInt(huge)) % BigInt(huge));
    this.byteOffset = room + before;
    this.address = base + BigInt(this.byteOffset);
    this.#whole = new Uint8Array(this.buffer, room, whole);
    map(this.#whole, MAP_SHARED, descriptor, offset - before);
  }

  /**
   * Takes the file away. Zeroes are there instead, of this process alone, so that whoever is late hits those and not a hole;
   * the memory itself is given back by the collector.
   */
  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    map(this.#whole, flags, -1, 0);
  }
}

function makeMemory(pages: number): WebAssembly.Memory {
  if (pages <= MOST_PAGES_32) {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  }
  const large = { initial: BigInt(pages), maximum: BigInt(pages), shared: true, address: "i64" };
  return new WebAssembly.Memory(large as unknown as WebAssembly.MemoryDescriptor);
}
