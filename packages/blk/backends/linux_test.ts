import { assert, assertEquals, assertThrows } from "@std/assert";
import { allocateBytes } from "@virtio/memory";
import { closeDescriptor, duplicateDescriptor, SystemError } from "@virtio/linux";
import * as blk from "../constants.ts";
import { BlkDevice } from "../device.ts";
import { RawDriver } from "../testing.ts";
import { assertFails, assertSame, pattern, testBackend } from "./backend_testing.ts";
import { FileBackend } from "./file.ts";
import { ImageError, LinuxBackend, type LinuxBackendOptions } from "./linux.ts";
import { EngineAdapter } from "./linux_testing.ts";

const SIZE = 512 * 1024;
const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK } = blk;

/** Ways of working that this system has: containers may forbid io_uring, and file systems direct access. */
function ways(): LinuxBackendOptions[] {
  if (Deno.build.os !== "linux") return [];
  const path = Deno.makeTempFileSync();
  const found: LinuxBackendOptions[] = [];
  try {
    Deno.truncateSync(path, SIZE);
    for (const direct of [false, true]) {
      for (const engine of ["sync", "io_uring", "auto"] as const) {
        try {
          void LinuxBackend.open(path, { engine, direct }).close();
          found.push({ engine, direct });
        } catch (error) {
          if (!(error instanceof SystemError || error instanceof ImageError)) throw error;
        }
      }
    }
  } finally {
    Deno.removeSync(path);
  }
  return found;
}

const WAYS = ways();

/** Duplicates all descriptors of a file, as a process that is being started has them. */
function copiesOf(path: string): number[] {
  const copies: number[] = [];
  for (const { name } of [...Deno.readDirSync("/proc/self/fd")]) {
    let target: string;
    try {
      target = Deno.readLinkSync(`/proc/self/fd/${name}`);
    } catch {
      // Closed meanwhile, such as the one of the folder.
      continue;
    }
    if (target === path) copies.push(duplicateDescriptor(Number(name)));
  }
  return copies;
}

function nameOf({ engine, direct }: LinuxBackendOptions): string {
  return `${engine}${direct ? ", direct" : ""}`;
}

async function inFolder(action: (folder: string) => Promise<void> | void): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await action(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function fresh(options: LinuxBackendOptions) {
  const folder = await Deno.makeTempDir();
  const disk = LinuxBackend.open(`${folder}/disk`, { create: true, size: SIZE, ...options });
  return {
    disk,
    done: async () => {
      await disk.close();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

for (const way of WAYS) {
  const name = nameOf(way);
  testBackend(`linux, ${name}, by its methods`, async () => {
    const { disk, done } = await fresh(way);
    return { backend: disk, done };
  });
  testBackend(`linux, ${name}, by its engine`, async () => {
    const { disk, done } = await fresh(way);
    return { backend: new EngineAdapter(disk), done };
  });

  Deno.test(`linux, ${name}: requests of a driver, cut in any way, go from guest memory to the file and back`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = LinuxBackend.open(path, { create: true, size: SIZE, ...way });
      const device = new BlkDevice({ backend: disk });
      const driver = await RawDriver.open(device);
      const expected = new Uint8Array(SIZE);
      let at = 0;
      // 12 is aligned to nothing that direct access wants.
      for (const cuts of [[], [512], [4096, 4096], [12, 500], [1, 2, 3], Array(100).fill(40)]) {
        const out = pattern(8192, at + 1);
        const common = { sector: BigInt(at), cuts: { readable: [16, ...cuts], writable: cuts } };
        const wrote = await driver.request({ ...common, type: blk.VIRTIO_BLK_T_OUT, out });
        assertEquals([wrote.status, wrote.used], [OK, 1]);
        expected.set(out, at * 512);
        const read = await driver.request({ ...common, type: blk.VIRTIO_BLK_T_IN, in: 8192 });
        assertEquals([read.status, read.used], [OK, 8193]);
        assertSame(read.data, out);
        at += 17;
      }
      assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_FLUSH })).status, OK);
      assertSame(await Deno.readFile(path), expected);
      await disk.close();
    }));

  Deno.test(`linux, ${name}: many requests at a time, with writes beside each other in one block`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = LinuxBackend.open(path, { create: true, size: SIZE, ...way });
      const driver = await RawDriver.open(new BlkDevice({ backend: disk }));
      const expected = pattern(120 * 512, 3);
      for (let round = 0; round < 3; round++) {
        const answers = Array.from({ length: 120 }, (_, i) =>
          driver.submit({
            type: blk.VIRTIO_BLK_T_OUT,
            sector: BigInt(i),
            out: expected.subarray(i * 512, (i + 1) * 512),
            publish: i % 40 === 39,
          }).answer);
        for (const answer of await Promise.all(answers)) assertEquals(answer.status, OK);
      }
      const reads = Array.from(
        { length: 120 },
        (_, i) => driver.submit({ type: blk.VIRTIO_BLK_T_IN, sector: BigInt(i), in: 512 }).answer,
      );
      for (const [i, answer] of (await Promise.all(reads)).entries()) {
        assertSame(answer.data, expected.subarray(i * 512, (i + 1) * 512));
      }
      await disk.close();
    }));

  Deno.test(`linux, ${name}: a reset with requests under way waits for them, and the next life works`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = LinuxBackend.open(path, { create: true, size: SIZE, ...way });
      const device = new BlkDevice({ backend: disk });
      for (let life = 0; life < 20; life++) {
        const driver = await RawDriver.open(device);
        const peeks = Array.from({ length: 60 }, (_, i) =>
          driver.submit({
            type: i % 2 === 0 ? blk.VIRTIO_BLK_T_OUT : blk.VIRTIO_BLK_T_IN,
            sector: BigInt(i * 8),
            ...(i % 2 === 0 ? { out: pattern(4096, i) } : { in: 4096 }),
            publish: i % 20 === 19,
          }).peek);
        driver.transport.writeStatus(0);
        assertEquals(disk.engine.inFlight, 0);
        const before = peeks.map((peek) => peek());
        await new Promise((resolve) => setTimeout(resolve, 1));
        peeks.forEach((peek, i) => assertSame(peek(), before[i]!));
      }
      const driver = await RawDriver.open(device);
      assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 512 })).status, OK);
      await disk.close();
    }));

  Deno.test(`linux, ${name}: a file cut off under our feet fails reads, it does not read as zeroes`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = LinuxBackend.open(path, { create: true, size: SIZE, ...way });
      disk.write(0, pattern(SIZE, 2), 0, SIZE);
      disk.flush();
      await Deno.truncate(path, 12_288);
      const errors: ImageError[] = [];
      const onError = (error: unknown): void => void errors.push(error as ImageError);
      const driver = await RawDriver.open(new BlkDevice({ backend: disk, onError }));
      const good = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 12_288 });
      assertSame(good.data, pattern(SIZE, 2).subarray(0, 12_288));
      for (const [sector, length] of [[20, 4096], [64, 4096], [0, 16384]] as const) {
        const type = blk.VIRTIO_BLK_T_IN;
        const answer = await driver.request({ type, sector: BigInt(sector), in: length });
        assertEquals(answer.status, IOERR);
        assertSame(answer.data, new Uint8Array(length));
      }
      assertEquals(errors.map((error) => error.problem), Array(3).fill("truncated"));
      const bytes = new Uint8Array(4096);
      const error = await assertFails(() => disk.read(65536, bytes, 0, 4096)) as ImageError;
      assertEquals(error.problem, "truncated");
      await disk.close();
    }));

  Deno.test(`linux, ${name}: discarded ranges become holes, zeroes are zeroes`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const base = LinuxBackend.open(path, { create: true, size: SIZE, ...way });
      const disk = new EngineAdapter(base);
      base.write(0, pattern(SIZE, 3), 0, SIZE);
      base.flush();
      const full = (await Deno.stat(path)).blocks!;
      await disk.discard!(65536, 262144);
      await disk.flush();
      if (base.writeZeroesMayUnmap) {
        assertEquals(full - (await Deno.stat(path)).blocks!, 262144 / 512);
      }
      await disk.writeZeroes(0, 65536 - 512, false);
      await disk.writeZeroes(65536 + 262144 + 512, 1024, true);
      const bytes = await Deno.readFile(path);
      assertEquals(bytes.length, SIZE);
      assert(bytes.subarray(0, 65536 - 512).every((byte) => byte === 0));
      assertSame(bytes.subarray(65536 - 512, 65536), pattern(SIZE, 3).subarray(65536 - 512, 65536));
      await base.close();
    }));

  Deno.test(`linux, ${name}: the lock is given back, though a process that is being started has the file too`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = LinuxBackend.open(path, { create: true, size: SIZE, ...way });
      const copies = copiesOf(path);
      try {
        assert(copies.length >= 2);
        await disk.close();
        const again = FileBackend.open(path);
        copies.push(...copiesOf(path));
        await again.close();
        await LinuxBackend.open(path, way).close();
      } finally {
        for (const copy of copies) closeDescriptor(copy);
      }
    }));

  Deno.test(`linux, ${name}: closed is closed, and the file can be had again`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const disk = LinuxBackend.open(path, { create: true, size: SIZE, ...way });
      const locked = assertThrows(() => LinuxBackend.open(path, way), ImageError);
      assertEquals(locked.problem, "locked");
      await LinuxBackend.open(path, { ...way, lock: false }).close();
      await disk.close();
      await disk.close();
      const error = await assertFails(() => disk.read(0, new Uint8Array(512), 0, 512));
      assertEquals((error as ImageError).problem, "closed");
      const reader = LinuxBackend.open(path, { ...way, readonly: true });
      const refused = await assertFails(() => reader.write(0, new Uint8Array(512), 0, 512));
      assertEquals((refused as ImageError).problem, "write protected");
      assertEquals(reader.discard, undefined);
      await reader.close();
    }));
}

Deno.test({
  name: "linux: a disk of the host that is full is an error status, and what was written stays",
  ignore: WAYS.length === 0 || Deno.uid() !== 0,
  fn: () =>
    inFolder(async (folder) => {
      const mount = (args: string[]) => new Deno.Command("mount", { args }).output();
      const { success } = await mount(["-t", "tmpfs", "-o", "size=256k", "none", folder]);
      if (!success) return; // this root may not mount
      try {
        for (const engine of ["sync", "auto"] as const) {
          const path = `${folder}/disk`;
          const disk = LinuxBackend.open(path, { create: true, size: SIZE, engine });
          const errors: unknown[] = [];
          const device = new BlkDevice({ backend: disk, onError: (error) => errors.push(error) });
          const driver = await RawDriver.open(device);
          const statuses: number[] = [];
          for (let i = 0; i < 8; i++) {
            const sector = BigInt(i * 128);
            const out = pattern(65536, i);
            const type = blk.VIRTIO_BLK_T_OUT;
            statuses.push((await driver.request({ type, sector, out })).status);
          }
          assertEquals(statuses.slice(0, 3), [OK, OK, OK]);
          assertEquals(statuses[7], IOERR);
          assertEquals((errors[0] as SystemError).code, "ENOSPC");
          const read = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 65536 });
          assertSame(read.data, pattern(65536, 0));
          await disk.close();
          await Deno.remove(path);
        }
      } finally {
        // Lazily: the system takes a ring, and the files it knows, down a little later.
        await new Deno.Command("umount", { args: ["-l", folder] }).output();
      }
    }),
});

Deno.test({
  name: "linux: on a file system without zero ranges zeroes are written",
  ignore: WAYS.length === 0,
  fn: async () => {
    let folder: string;
    try {
      folder = await Deno.makeTempDir({ dir: "/dev/shm" });
    } catch {
      return; // no such memory here
    }
    try {
      for (const engine of ["sync", "auto"] as const) {
        const path = `${folder}/disk`;
        const base = LinuxBackend.open(path, { create: true, size: SIZE, engine });
        base.write(0, pattern(SIZE, 1), 0, SIZE);
        const disk = new EngineAdapter(base);
        for (const unmap of [false, true, false]) {
          await disk.writeZeroes(512, 300_032, unmap);
          const bytes = await Deno.readFile(path);
          assert(bytes.subarray(512, 300_544).every((byte) => byte === 0));
          assertSame(bytes.subarray(0, 512), pattern(SIZE, 1).subarray(0, 512));
          assertSame(bytes.subarray(300_544), pattern(SIZE, 1).subarray(300_544));
        }
        await base.close();
        await Deno.remove(path);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "linux: views of one memory at several places, and one that was taken away",
  ignore: WAYS.length === 0,
  fn: async () => {
    const { disk, done } = await fresh({ engine: "sync" });
    const bytes = allocateBytes(8192, true);
    bytes.set(pattern(8192, 4));
    disk.write(512, bytes.subarray(100, 200), 10, 50);
    const back = new Uint8Array(50);
    disk.read(512, back, 0, 50);
    assertSame(back, pattern(8192, 4).slice(110, 160));
    assertThrows(() => disk.read(0, bytes, 8000, 512), RangeError, "There are no 512 bytes");
    const gone = new Uint8Array(512);
    disk.read(0, gone, 0, 512);
    gone.buffer.transfer();
    assertThrows(() => disk.read(0, gone, 0, 512), RangeError, "there are 0");
    await done();
  },
});

Deno.test({
  name: "linux: options that cannot be are refused",
  ignore: WAYS.length === 0,
  fn: () =>
    inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const make = (options: object) => LinuxBackend.open(path, options);
      assertThrows(() => make({ engine: "fast" }), RangeError, "engine must be");
      assertEquals(assertThrows(() => make({}), ImageError).problem, "missing");
      assertThrows(() => make({ create: true }), RangeError, "size");
      await Deno.writeFile(path, new Uint8Array(1000));
      assertEquals(assertThrows(() => make({}), ImageError).problem, "odd size");
    }),
});
