import { Errno, SystemError } from "./errno.ts";
import { addressOf, errno, loadLibc } from "./libc.ts";

const SYMBOLS = {
  mmap: { parameters: ["u64", "usize", "i32", "i32", "i32", "i64"], result: "u64" },
} as const;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
/** Bytes of a page of a WebAssembly memory; a file is mapped in the system's, which are smaller. */
const WASM_PAGE = 65536;
const MOST_PAGES_32 = 65536;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

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
  /** The memory. It is longer than the mapping by what is missing to a page of 64 KiB; those bytes are this process's own. */
  readonly memory: WebAssembly.Memory;
  /** Its buffer. */
  readonly buffer: SharedArrayBuffer;
  /** Bytes that are mapped. */
  readonly length: number;
  /** Where it begins in this process. */
  readonly address: bigint;
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
    const pages = Math.ceil(length / WASM_PAGE);
    try {
      this.memory = makeMemory(pages);
    } catch (cause) {
      throw new SystemError("mmap", Errno.ENOMEM, `${length} bytes: ${(cause as Error).message}`);
    }
    this.buffer = this.memory.buffer as unknown as SharedArrayBuffer;
    this.length = length;
    const bytes = new Uint8Array(this.buffer, 0, length);
    this.address = addressOf(bytes);
    map(bytes, MAP_SHARED, descriptor, offset);
  }

  /**
   * Takes the file away. Zeroes are there instead, of this process alone, so that whoever is late hits those and not a hole;
   * the memory itself is given back by the collector.
   */
  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    map(new Uint8Array(this.buffer, 0, this.length), flags, -1, 0);
  }
}

function makeMemory(pages: number): WebAssembly.Memory {
  if (pages <= MOST_PAGES_32) {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  }
  const large = { initial: BigInt(pages), maximum: BigInt(pages), shared: true, address: "i64" };
  return new WebAssembly.Memory(large as unknown as WebAssembly.MemoryDescriptor);
}
