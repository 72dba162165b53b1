import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { BlkBackend } from "../backend.ts";
import { assertSame, pattern, testBackend } from "./backend_testing.ts";
import { LaterBackend } from "./later_testing.ts";
import { MemoryBackend } from "./memory.ts";
import { OverlayBackend, OverlayFullError } from "./overlay.ts";

const SIZE = 512 * 1024;

async function all(disk: BlkBackend): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.capacity);
  await disk.read(0, bytes, 0, bytes.length);
  return bytes;
}

testBackend(
  "overlay over memory",
  () => Promise.resolve({ backend: new OverlayBackend(new MemoryBackend(SIZE)), done: () => {} }),
);

testBackend("overlay over an overlay", () =>
  Promise.resolve({
    backend: new OverlayBackend(new OverlayBackend(new MemoryBackend(SIZE))),
    done: () => {},
  }));

testBackend("overlay over an asynchronous back end", () =>
  Promise.resolve({
    backend: new OverlayBackend(new LaterBackend(new MemoryBackend(SIZE))),
    done: () => {},
  }));

testBackend(
  "a back end that answers later",
  () => Promise.resolve({ backend: new LaterBackend(new MemoryBackend(SIZE)), done: () => {} }),
);

for (const later of [false, true]) {
  const name = later ? "overlay over an asynchronous base" : "overlay";
  const make = (bytes: Uint8Array): { memory: MemoryBackend; disk: OverlayBackend } => {
    const memory = new MemoryBackend(bytes);
    return { memory, disk: new OverlayBackend(later ? new LaterBackend(memory) : memory) };
  };

  Deno.test(`${name}: the base is not touched before commit, and holds everything after`, async () => {
    const { memory, disk } = make(pattern(SIZE, 1));
    const expected = pattern(SIZE, 1);
    disk.write(512, pattern(20_480, 2), 0, 20_480);
    expected.set(pattern(20_480, 2), 512);
    disk.writeZeroes(100 * 512, 40 * 512, true);
    expected.fill(0, 100 * 512, 140 * 512);
    disk.write(SIZE - 512, pattern(512, 3), 0, 512);
    expected.set(pattern(512, 3), SIZE - 512);
    assertSame(await all(disk), expected);
    assertSame(await all(memory), pattern(SIZE, 1));
    await disk.commit();
    assertEquals(disk.changedBytes, 0);
    assertSame(await all(memory), expected);
    assertSame(await all(disk), expected);
  });

  Deno.test(`${name}: discarded changes are gone`, async () => {
    const { disk } = make(pattern(SIZE, 1));
    disk.write(0, pattern(100 * 512, 2), 0, 100 * 512);
    assert(disk.changedBytes > 0);
    disk.discardChanges();
    assertEquals(disk.changedBytes, 0);
    assertSame(await all(disk), pattern(SIZE, 1));
  });
}

Deno.test("overlay: a write that comes while commit runs is kept", async () => {
  const memory = new MemoryBackend(SIZE);
  const base = new LaterBackend(memory);
  const disk = new OverlayBackend(base);
  const first = pattern(65536, 1);
  disk.write(0, first, 0, first.length);
  const committing = disk.commit();
  assertEquals(disk.commit(), committing);
  await base.started(2); // in the middle of the pages
  const second = pattern(512, 2);
  disk.write(0, second, 0, 512);
  disk.write(65536 - 512, second, 0, 512);
  await committing;
  first.set(second, 0);
  first.set(second, 65536 - 512);
  const back = new Uint8Array(65536);
  await disk.read(0, back, 0, 65536);
  assertSame(back, first);
  await disk.commit();
  memory.read(0, back, 0, 65536);
  assertSame(back, first);
});

Deno.test("overlay: commit forgets nothing when the base fails", async () => {
  const memory = new MemoryBackend(SIZE);
  const base = new LaterBackend(memory);
  const disk = new OverlayBackend(base);
  disk.write(0, pattern(65536, 1), 0, 65536);
  base.failAfter(2);
  await assertRejects(() => disk.commit(), Error, "made to fail");
  const back = new Uint8Array(65536);
  await disk.read(0, back, 0, 65536);
  assertSame(back, pattern(65536, 1));
  await disk.commit();
  memory.read(0, back, 0, 65536);
  assertSame(back, pattern(65536, 1));
});

Deno.test("overlay: its memory is bounded", () => {
  const disk = new OverlayBackend(new MemoryBackend(2 ** 40), { maxBytes: 65536 });
  assertThrows(() => disk.write(0, new Uint8Array(131072), 0, 131072), OverlayFullError);
  assert(disk.changedBytes <= 65536);
  // A discard of everything must neither fail nor fill memory with pages of zeroes.
  disk.discard(0, 2 ** 26);
  assert(disk.changedBytes <= 65536);
  assertThrows(() => disk.writeZeroes(0, 2 ** 26, true), OverlayFullError);
  assert(disk.changedBytes <= 65536);
});

Deno.test("overlay: a read-only base can be written on, not committed to", async () => {
  const disk = new OverlayBackend(new MemoryBackend(pattern(SIZE, 1), { readonly: true }));
  assertEquals(disk.readonly, false);
  disk.write(0, new Uint8Array(512), 0, 512);
  await assertRejects(() => disk.commit(), TypeError, "read-only");
});

Deno.test("overlay: changes beyond a new end do not come back when the base grows again", async () => {
  const disk = new OverlayBackend(new MemoryBackend(SIZE));
  await disk.write(0, pattern(SIZE, 1), 0, SIZE);
  await disk.resize(1024);
  await disk.resize(SIZE);
  const expected = new Uint8Array(SIZE);
  expected.set(pattern(SIZE, 1).subarray(0, 1024));
  assertSame(await all(disk), expected);
});
