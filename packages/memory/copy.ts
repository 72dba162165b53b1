/**
 * Copies between memories. Where both are memories of WebAssembly, one instruction of a tiny module copies between them: at
 * the speed of memcpy, shared or not, aligned or not, for about 10 ns, and without a view. All else is `set(subarray)`, which
 * allocates, costs three times as much to begin with, and copies shared memory at half the speed.
 */

/** Copies `length` bytes, which may overlap, from an offset of one memory to an offset of another. */
export type Copy = (from: number, to: number, length: number) => void;

/** Bytes of a page of WebAssembly. */
const PAGE = 65536;
/** Pages of the largest memory. */
const MAX_PAGES = 65536;

/** Which memory owns a buffer, since a buffer does not tell. */
const owners: WeakMap<ArrayBufferLike, WebAssembly.Memory> = new WeakMap();
const copies: WeakMap<WebAssembly.Memory, WeakMap<WebAssembly.Memory, Copy>> = new WeakMap();
/** By which of the two memories is shared; null where the engine cannot copy between two memories. */
const modules: Map<number, WebAssembly.Module | null> = new Map();

function isShared(memory: WebAssembly.Memory): boolean {
  return typeof SharedArrayBuffer !== "undefined" && memory.buffer instanceof SharedArrayBuffer;
}

/** Remembers whose a buffer is. */
export function register(memory: WebAssembly.Memory): void {
  owners.set(memory.buffer, memory);
}

/** The memory behind bytes, or null. */
export function ownerOf(bytes: Uint8Array): WebAssembly.Memory | null {
  return owners.get(bytes.buffer) ?? null;
}

/** A memory that never grows, with room for `size` bytes; null where there is none to be had. */
export function makeMemory(size: number, shared: boolean): WebAssembly.Memory | null {
  const pages = Math.ceil(size / PAGE);
  if (typeof WebAssembly === "undefined" || !(pages <= MAX_PAGES)) return null;
  try {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
    register(memory);
    return memory;
  } catch {
    return null;
  }
}

/**
 * Bytes that can be copied to and from guest memory fast, and without allocating anything: for buffers that live long, such
 * as those of frames, or a disk. They take whole pages of 64 KiB.
 *
 * ```ts
 * import { allocateBytes, GuestMemory } from "@virtio/memory";
 * import { assertEquals } from "@std/assert";
 *
 * const region = GuestMemory.allocate(0x1000).find(0, 0x1000);
 * const frame = allocateBytes(1514);
 * frame.fill(7);
 * region.copyFrom(3, frame, 0, frame.length);
 * assertEquals(region.bytes[3 + 1513], 7);
 * ```
 *
 * @param length Bytes, all 0.
 * @param shared Whether other threads can be given them.
 * @throws {RangeError} If there is no memory left.
 */
export function allocateBytes(length: number, shared = false): Uint8Array {
  const memory = makeMemory(length, shared);
  if (memory !== null) return new Uint8Array(memory.buffer, 0, length);
  return new Uint8Array(shared ? new SharedArrayBuffer(length) : new ArrayBuffer(length));
}

/** What copies from one memory to another; null where the engine cannot. */
export function copyBetween(from: WebAssembly.Memory, to: WebAssembly.Memory): Copy | null {
  let known = copies.get(from);
  if (known === undefined) copies.set(from, known = new WeakMap());
  let copy = known.get(to);
  if (copy === undefined) {
    const module = moduleFor(isShared(from), isShared(to));
    if (module === null) return null;
    try {
      copy = new WebAssembly.Instance(module, { m: { f: from, t: to } }).exports["c"] as Copy;
    } catch {
      // A memory with 64-bit addresses.
      return null;
    }
    known.set(to, copy);
  }
  return copy;
}

function moduleFor(fromShared: boolean, toShared: boolean): WebAssembly.Module | null {
  const key = (fromShared ? 2 : 0) | (toShared ? 1 : 0);
  let module = modules.get(key);
  if (module === undefined) {
    try {
      module = new WebAssembly.Module(assemble(fromShared, toShared));
    } catch {
      // Two memories in one module are younger than the rest, and a page's policy may forbid modules altogether.
      module = null;
    }
    modules.set(key, module);
  }
  return module;
}

/** `(func (export "c") (param i32 i32 i32) (memory.copy $t $f (local.get 1) (local.get 0) (local.get 2)))` */
function assemble(fromShared: boolean, toShared: boolean): Uint8Array<ArrayBuffer> {
  const section = (id: number, ...bytes: number[]) => [id, bytes.length, ...bytes];
  const name = (text: string) => [text.length, text.charCodeAt(0)];
  // A memory of any size; a shared one must name its most pages, 65536.
  const limits = (shared: boolean) => shared ? [3, 0, 0x80, 0x80, 4] : [0, 0];
  const code = [0, 0x20, 1, 0x20, 0, 0x20, 2, 0xfc, 10, 1, 0, 0x0b];
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, 1, 0x60, 3, 0x7f, 0x7f, 0x7f, 0),
    ...section(
      2,
      2,
      ...[...name("m"), ...name("f"), 2, ...limits(fromShared)],
      ...[...name("m"), ...name("t"), 2, ...limits(toShared)],
    ),
    ...section(3, 1, 0),
    ...section(7, 1, ...name("c"), 0, 0),
    ...section(10, 1, code.length, ...code),
  ]);
}

/** A view that a region copied to or from, with what copies. */
export class Peer {
  readonly bytes: Uint8Array;
  /** Where the view starts in its memory. */
  readonly start: number;
  /** To the view. */
  readonly out: Copy;
  /** From the view. */
  readonly in: Copy;

  constructor(bytes: Uint8Array, out: Copy, into: Copy) {
    this.bytes = bytes;
    this.start = bytes.byteOffset;
    this.out = out;
    this.in = into;
  }
}
