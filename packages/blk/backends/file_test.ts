import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { assertFails, assertSame, pattern, testBackend } from "./backend_testing.ts";
import { FileBackend, ImageError, type ImageProblem } from "./file.ts";

const SIZE = 512 * 1024;

async function inFolder(action: (folder: string) => Promise<void> | void): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await action(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const mode of ["sync", "async"] as const) {
  for (const holes of [true, false]) {
    testBackend(`file, ${mode}${holes ? "" : ", no holes"}`, async () => {
      const folder = await Deno.makeTempDir();
      const path = `${folder}/disk`;
      const backend = FileBackend.open(path, { create: true, size: SIZE, mode, holes });
      if (!holes) {
        assertEquals(backend.discard, undefined);
        assertEquals(backend.writeZeroesMayUnmap, false);
      }
      return {
        backend,
        done: async () => {
          await backend.close();
          await Deno.remove(folder, { recursive: true });
        },
      };
    });
  }

  Deno.test(`file, ${mode}: what was written and flushed is in the file`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = FileBackend.open(path, { create: true, size: SIZE, mode });
      await disk.write(8192, pattern(4096, 1), 0, 4096);
      await disk.flush();
      const file = await Deno.readFile(path);
      assertEquals(file.length, SIZE);
      assertSame(file.subarray(8192, 12288), pattern(4096, 1));
      await disk.close();
      const again = FileBackend.open(path, { mode, readonly: true });
      const back = new Uint8Array(4096);
      await again.read(8192, back, 0, 4096);
      assertSame(back, pattern(4096, 1));
      await again.flush();
      assertEquals(
        (await assertFails(() => again.write(0, back, 0, 512)) as ImageError).problem,
        "write protected",
      );
      assertEquals(again.discard, undefined);
      await again.close();
    }));

  Deno.test(`file, ${mode}: a file cut off under our feet fails reads, it does not read as zeroes`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = FileBackend.open(path, { create: true, size: SIZE, mode });
      await disk.write(0, pattern(SIZE, 2), 0, SIZE);
      await Deno.truncate(path, 10_000);
      const back = new Uint8Array(4096);
      await disk.read(0, back, 0, 4096);
      assertSame(back, pattern(SIZE, 2).subarray(0, 4096));
      for (const at of [8192, 65536]) {
        const error = await assertFails(() => disk.read(at, back, 0, 4096)) as ImageError;
        assertEquals(error.problem, "truncated");
      }
      // And the next request is not confused by where the failed one left the file.
      await disk.read(512, back, 0, 512);
      assertSame(back.subarray(0, 512), pattern(SIZE, 2).subarray(512, 1024));
      await disk.close();
    }));

  Deno.test(`file, ${mode}: discarded ranges become holes`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = FileBackend.open(path, { create: true, size: SIZE, mode });
      if (disk.discard === undefined) return await disk.close(); // this host cannot
      await disk.write(0, pattern(SIZE, 3), 0, SIZE);
      await disk.flush();
      const full = (await Deno.stat(path)).blocks!;
      await disk.discard(65536, 262144);
      await disk.flush();
      const less = (await Deno.stat(path)).blocks!;
      assertEquals(full - less, 262144 / 512);
      await disk.writeZeroes(65536 + 262144, 65536, true);
      await disk.flush();
      assertEquals((await Deno.stat(path)).blocks!, less - 65536 / 512);
      assertEquals((await Deno.stat(path)).size, SIZE);
      await disk.close();
    }));

  Deno.test(`file, ${mode}: closed is closed`, () =>
    inFolder(async (folder) => {
      const disk = FileBackend.open(`${folder}/disk`, { create: true, size: SIZE, mode });
      const pending = mode === "async" ? disk.write(0, pattern(SIZE, 1), 0, SIZE) : undefined;
      const closing = disk.close();
      await pending;
      await closing;
      await disk.close();
      const error = await assertFails(() => disk.read(0, new Uint8Array(512), 0, 512));
      assertEquals((error as ImageError).problem, "closed");
      assertEquals((await Deno.readFile(`${folder}/disk`)).length, SIZE);
    }));
}

function problem(path: string, options = {}): { problem: ImageProblem; message: string } {
  return assertThrows(() => FileBackend.open(path, options), ImageError);
}

Deno.test("an image that cannot be used is refused in one sentence that names it, and left alone", () =>
  inFolder(async (folder) => {
    const missing = problem(`${folder}/none`);
    assertEquals(missing.problem, "missing");
    assert(missing.message.includes(`${folder}/none`));
    assertEquals(problem(folder).problem, "directory");

    await Deno.writeFile(`${folder}/odd`, pattern(1000, 1));
    const odd = problem(`${folder}/odd`);
    assertEquals(odd.problem, "odd size");
    assert(odd.message.includes("1000"));
    assertSame(await Deno.readFile(`${folder}/odd`), pattern(1000, 1));

    await Deno.writeFile(`${folder}/empty`, new Uint8Array(0));
    assertEquals(problem(`${folder}/empty`).problem, "empty");

    await new Deno.Command("mkfifo", { args: [`${folder}/pipe`] }).output();
    assertEquals(problem(`${folder}/pipe`).problem, "not a disk");
  }));

Deno.test("a locked image is refused at once", () =>
  inFolder(async (folder) => {
    const path = `${folder}/disk`;
    const first = FileBackend.open(path, { create: true, size: SIZE });
    assertEquals(problem(path).problem, "locked");
    assertEquals(problem(path, { readonly: true }).problem, "locked");
    assertEquals(problem(path, { create: true, size: SIZE }).problem, "locked");
    await first.close();
    const reader = FileBackend.open(path, { readonly: true });
    const reader2 = FileBackend.open(path, { readonly: true });
    assertEquals(problem(path).problem, "locked");
    await reader.close();
    await reader2.close();
    await FileBackend.open(path).close();
  }));

Deno.test("create makes a sparse image, and leaves one that is there alone", () =>
  inFolder(async (folder) => {
    const path = `${folder}/disk`;
    await FileBackend.open(path, { create: true, size: 2 ** 30 }).close();
    const info = await Deno.stat(path);
    assertEquals(info.size, 2 ** 30);
    assert(info.blocks! < 100);
    const again = FileBackend.open(path, { create: true, size: 512 });
    assertEquals(again.capacity, 2 ** 30);
    await again.close();
    assertThrows(() => FileBackend.open(`${folder}/b`, { create: true }), RangeError, "size");
    assertThrows(() => FileBackend.open(`${folder}/b`, { create: true, size: 100 }), RangeError);
    await assertRejects(() => Deno.stat(`${folder}/b`), Deno.errors.NotFound);
  }));

Deno.test("a file that somebody else made longer is taken over by refresh", () =>
  inFolder(async (folder) => {
    const path = `${folder}/disk`;
    const disk = FileBackend.open(path, { create: true, size: SIZE });
    let told = 0;
    disk.onChange = () => told++;
    await Deno.truncate(path, SIZE + 1024);
    disk.refresh();
    assertEquals(disk.capacity, SIZE + 1024);
    assertEquals(told, 1);
    await disk.close();
  }));
