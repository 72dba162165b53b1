import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertSame, pattern, testBackend } from "./backend_testing.ts";
import { MemoryBackend } from "./memory.ts";

const SIZE = 512 * 1024;

testBackend(
  "sparse memory",
  () => Promise.resolve({ backend: new MemoryBackend(SIZE), done: () => {} }),
);

testBackend("memory of somebody else", () => {
  const backend = new MemoryBackend(new Uint8Array(SIZE));
  // It cannot grow; the contract skips what is not there.
  Object.defineProperty(backend, "resize", { value: undefined });
  return Promise.resolve({ backend, done: () => {} });
});

Deno.test("given bytes are the disk", () => {
  const bytes = pattern(8192, 1);
  const disk = new MemoryBackend(bytes);
  const back = new Uint8Array(8192);
  disk.read(0, back, 0, 8192);
  assertSame(back, pattern(8192, 1));
  disk.write(4096, new Uint8Array(512), 0, 512);
  assertSame(bytes.subarray(4096, 4608), new Uint8Array(512));
  assertThrows(() => disk.resize(16384), TypeError, "cannot be resized");
});

Deno.test("sparse memory takes what is written and gives back what is discarded", () => {
  const disk = new MemoryBackend(2 ** 40);
  assertEquals(disk.allocated, 0);
  disk.write(2 ** 39, pattern(4096, 1), 0, 4096);
  assertEquals(disk.allocated, 65536);
  const page = new Uint8Array(4096);
  disk.read(2 ** 39, page, 0, 4096);
  assertSame(page, pattern(4096, 1));
  disk.discard(2 ** 39, 65536);
  assertEquals(disk.allocated, 0);
  // The page was read through a kept view: it must be gone too.
  disk.read(2 ** 39, page, 0, 4096);
  assertSame(page, new Uint8Array(4096));
});

Deno.test("a read-only memory disk refuses every change", () => {
  const disk = new MemoryBackend(4096, { readonly: true });
  assert(disk.readonly);
  assertThrows(() => disk.write(0, new Uint8Array(512), 0, 512), TypeError, "read-only");
  assertThrows(() => disk.writeZeroes(0, 512), TypeError, "read-only");
  assertThrows(() => disk.discard(0, 512), TypeError, "read-only");
  assertThrows(() => disk.secureErase(0, 512), TypeError, "read-only");
});

Deno.test("a memory disk of an odd size is refused", () => {
  assertThrows(() => new MemoryBackend(1000), RangeError, "multiple of 512");
  assertThrows(() => new MemoryBackend(-512), RangeError);
  assertThrows(() => new MemoryBackend(new Uint8Array(100)), RangeError);
});
