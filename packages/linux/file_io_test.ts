import { assert, assertEquals } from "@std/assert";
import { closeDescriptor, openDescriptor, OpenFlag } from "./descriptor.ts";
import { Errno } from "./errno.ts";
import {
  AllocateMode,
  allocateRange,
  allocateRangeLater,
  fileFacts,
  fileSize,
  IoVectors,
  readVectors,
  resizeFile,
  syncData,
  TransferFlag,
  writeVectors,
} from "./file_io.ts";
import { addressOf, fixedBytes } from "./libc.ts";

const ignore = Deno.build.os !== "linux";

function halves(bytes: Uint8Array): [number, number] {
  const address = addressOf(bytes);
  return [Number(address & 0xffff_ffffn), Number(address >> 32n)];
}

Deno.test({
  name: "file: bytes from several places go to a position and come back, beyond 4 GiB too",
  ignore,
  fn: () => {
    const path = Deno.makeTempFileSync();
    const file = openDescriptor(path, OpenFlag.readWrite);
    const bytes = fixedBytes(4096);
    const [low, high] = halves(bytes);
    bytes.set([1, 2, 3], 0);
    bytes.set([4, 5, 6, 7], 1000);
    const vectors = new IoVectors(4);
    vectors.set(0, low, high, 3);
    vectors.set(1, low + 1000, high, 4);
    for (const position of [0, 777, 2 ** 33 + 5]) {
      assertEquals(writeVectors(file, vectors, 2, position, TransferFlag.durable), 7);
      const single = new IoVectors(1);
      single.set(0, low + 2000, high, 7);
      assertEquals(readVectors(file, single, 1, position), 7);
      assertEquals(bytes.slice(2000, 2007), new Uint8Array([1, 2, 3, 4, 5, 6, 7]));
    }
    syncData(file);
    assertEquals(fileSize(file), 2 ** 33 + 12);
    resizeFile(file, 1000);
    assertEquals(fileSize(file), 1000);
    const end = new IoVectors(1);
    end.set(0, low, high, 4096);
    assertEquals(readVectors(file, end, 1, 990), 10);
    assertEquals(readVectors(file, end, 1, 1000), 0);
    closeDescriptor(file);
    assertEquals(readVectors(file, end, 1, 0), -Errno.EBADF);
    Deno.removeSync(path);
  },
});

Deno.test("file: iovecs go on where a short transfer ended, across the 4 GiB line of addresses", () => {
  const vectors = new IoVectors(3);
  vectors.set(0, 100, 1, 10);
  vectors.set(1, 0xffff_fffe, 1, 10);
  vectors.set(2, 300, 1, 10);
  assertEquals(vectors.drop(14, 3), 2);
  const words = new Uint32Array(vectors.bytes.buffer);
  assertEquals([...words.subarray(0, 8)], [2, 2, 6, 0, 300, 1, 10, 0]);
  assertEquals(vectors.drop(6, 2), 1);
  assertEquals(words[0], 300);
  assertEquals(vectors.drop(10, 1), 0);
});

Deno.test({
  name: "file: holes read as zeroes, and facts are those of the file",
  ignore,
  fn: async () => {
    const path = await Deno.makeTempFile();
    await Deno.writeFile(path, new Uint8Array(65536).fill(9));
    const file = openDescriptor(path, OpenFlag.readWrite);
    const error = allocateRange(file, AllocateMode.hole, 4096, 8192);
    assert(error === 0 || error === Errno.EOPNOTSUPP);
    if (error === 0) {
      assertEquals(await allocateRangeLater(file, AllocateMode.hole, 20480, 4096), true);
      const now = await Deno.readFile(path);
      assertEquals(now.length, 65536);
      assert(now.subarray(4096, 12288).every((byte) => byte === 0));
      assert(now.subarray(20480, 24576).every((byte) => byte === 0));
      assert(now.subarray(12288, 20480).every((byte) => byte === 9));
    }
    const facts = fileFacts(file);
    assertEquals(facts.inode, (await Deno.stat(path)).ino);
    assert(facts.memoryAlignment >= 1 && facts.positionAlignment >= 512);
    closeDescriptor(file);
    await Deno.remove(path);
  },
});
