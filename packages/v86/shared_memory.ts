/**
 * Guest memory that other threads see too, on Linux under Deno: v86 keeps it in a WebAssembly memory of its own, which is not
 * shared, so the same pages of a memory file are mapped over that and over a shared one.
 */
import type { RegionSource } from "@virtio/memory";

const PAGE = 65536;
const PROT_READ_WRITE = 3;
const MAP_SHARED_FIXED = 0x11;
const MFD_CLOEXEC = 1;

const SYMBOLS = {
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  pwrite: { parameters: ["i32", "pointer", "usize", "i64"], result: "isize" },
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  close: { parameters: ["i32"], result: "i32" },
} as const;

/**
 * Maps one memory file over a part of a WebAssembly memory and over a shared one; what is there now is kept.
 *
 * @param memory v86's. It may grow afterwards: it does so in place.
 * @param offset Where guest memory begins in it, a multiple of 4096.
 * @param size Bytes of guest memory, a multiple of 65536.
 * @returns The shared one, as a region from address 0 on.
 * @throws {TypeError} If this is not Deno on Linux with the right to call libc (`--allow-ffi`).
 * @throws {Error} If the system refuses.
 */
export function shareGuestMemory(
  memory: WebAssembly.Memory,
  offset: number,
  size: number,
): RegionSource {
  if (typeof Deno === "undefined" || Deno.build.os !== "linux") {
    throw new TypeError("Only Deno on Linux can share v86's memory: leave `shared` out");
  }
  const libc = Deno.dlopen("libc.so.6", SYMBOLS);
  const { symbols } = libc;
  const must = (done: boolean, what: string): void => {
    if (!done) throw new Error(`Cannot share guest memory: ${what} failed`);
  };
  const name = new TextEncoder().encode("virtio-guest\0");
  const fd = symbols.memfd_create(name, MFD_CLOEXEC);
  try {
    must(fd >= 0, "memfd_create");
    must(symbols.ftruncate(fd, BigInt(size)) === 0, "ftruncate");
    const own = Deno.UnsafePointer.of(new Uint8Array(memory.buffer, offset, size));
    for (let done = 0; done < size;) {
      const from = Deno.UnsafePointer.offset(own!, done);
      const count = Number(symbols.pwrite(fd, from, BigInt(size - done), BigInt(done)));
      must(count > 0, "pwrite");
      done += count;
    }
    const pages = size / PAGE;
    const shared = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const other = Deno.UnsafePointer.of(new Uint8Array(shared.buffer));
    for (const place of [own, other]) {
      const at = symbols.mmap(place, BigInt(size), PROT_READ_WRITE, MAP_SHARED_FIXED, fd, 0n);
      must(Deno.UnsafePointer.equals(at, place), "mmap");
    }
    // The object is kept with the buffer: a WebAssembly memory of this size is fixed, and its buffer never moves.
    return { base: 0, size, buffer: shared.buffer };
  } finally {
    if (fd >= 0) symbols.close(fd);
    libc.close();
  }
}
