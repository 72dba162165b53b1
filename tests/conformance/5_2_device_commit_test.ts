/** Virtio 1.4, 5.2.6.2: when what was written to a block device is committed. */
import { BlkDevice } from "@virtio/blk";
import * as blk from "@virtio/blk";
import { FileBackend } from "@virtio/blk/file";
import { MemoryBackend } from "@virtio/blk/memory";
import { assert, assertEquals } from "@std/assert";
import { pattern } from "../../packages/blk/backends/backend_testing.ts";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { ranges, RawDriver, turns } from "../../packages/blk/testing.ts";

const { BlkConfigOffset: at, VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK } = blk;
const SIZE = 2 ** 20;
const CACHE = blk.VIRTIO_BLK_F_FLUSH | blk.VIRTIO_BLK_F_CONFIG_WCE;

async function inFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await action(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A back end that writes down writes and flushes. */
function logged(backend: MemoryBackend): { backend: MemoryBackend; log: string[] } {
  const log: string[] = [];
  const { write, writeZeroes } = backend;
  backend.write = (...args) => {
    log.push("write");
    write.apply(backend, args);
  };
  backend.writeZeroes = (...args) => {
    log.push("zero");
    writeZeroes.apply(backend, args);
  };
  backend.flush = () => void log.push("flush");
  return { backend, log };
}

Deno.test("5.2.6.2-D11: case 1: without FLUSH and CONFIG_WCE each write is committed before it completes", async () => {
  const { backend, log } = logged(new MemoryBackend(SIZE));
  const driver = await RawDriver.open(new BlkDevice({ backend }), { wanted: 0n });
  for (let i = 0; i < 3; i++) {
    await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(1024) });
    assertEquals(log.splice(0), ["write", "flush"]);
  }
  const zeroes = await RawDriver.open(new BlkDevice({ backend }), {
    wanted: blk.VIRTIO_BLK_F_WRITE_ZEROES,
  });
  const out = ranges({ sector: 0, sectors: 1 });
  await zeroes.request({ type: blk.VIRTIO_BLK_T_WRITE_ZEROES, out });
  assertEquals(log.splice(0), ["zero", "flush"]);
});

Deno.test("5.2.6.2-D11: case 2: while writeback is 0 each write is committed before it completes, while it is 1 none has to be", async () => {
  for (const wanted of [CACHE, blk.VIRTIO_BLK_F_CONFIG_WCE]) {
    const { backend, log } = logged(new MemoryBackend(SIZE));
    const driver = await RawDriver.open(new BlkDevice({ backend }), { wanted });
    const write = async (): Promise<string[]> => {
      const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512) });
      assertEquals(answer.status, OK);
      return log.splice(0);
    };
    driver.transport.writeConfig(at.writeback, 1, 0);
    assertEquals(await write(), ["write", "flush"]);
    driver.transport.writeConfig(at.writeback, 1, 1);
    assertEquals(await write(), ["write"]);
    driver.transport.writeConfig(at.writeback, 1, 0);
    assertEquals(await write(), ["write", "flush"]);
  }
});

Deno.test("5.2.6.2-D11: case 2, later: the write completes only when the commit has", async () => {
  const backend = new LaterBackend(new MemoryBackend(SIZE));
  const driver = await RawDriver.open(new BlkDevice({ backend, cache: "writethrough" }));
  backend.hold();
  const { answer } = driver.submit({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512) });
  let completed = false;
  const done = answer.then(() => completed = true);
  await turns();
  assertEquals(backend.log, ["write"]);
  backend.release(0);
  await turns();
  assertEquals(backend.log, ["write", "flush"]);
  assert(!completed, "reported before it was committed");
  backend.release();
  await done;
});

Deno.test("5.2.6.2-D11: a write whose commit fails is an error", async () => {
  for (const later of [false, true]) {
    const memory = new MemoryBackend(SIZE);
    const backend = later ? new LaterBackend(memory) : memory;
    memory.flush = () => {
      throw new Error("no power");
    };
    const driver = await RawDriver.open(new BlkDevice({ backend }), { wanted: 0n });
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512) });
    assertEquals(answer.status, IOERR);
  }
});

Deno.test("5.2.6.2-D11: case 3: a flush commits every write that was completed before it was sent, and completes after", async () => {
  const backend = new LaterBackend(new MemoryBackend(SIZE));
  const driver = await RawDriver.open(new BlkDevice({ backend }));
  const out = new Uint8Array(512);
  await Promise.all(
    [0n, 1n, 2n].map((sector) => driver.request({ type: blk.VIRTIO_BLK_T_OUT, sector, out })),
  );
  assertEquals(backend.log.splice(0), ["write", "write", "write"]);
  backend.hold();
  let completed = false;
  const done = driver.request({ type: blk.VIRTIO_BLK_T_FLUSH }).then((answer) => {
    completed = true;
    assertEquals(answer.status, OK);
  });
  await turns();
  assertEquals(backend.log, ["flush"]);
  assert(!completed);
  backend.release();
  await done;
});

Deno.test("5.2.6.2-D11: a flush of a file reaches the host's disk: fdatasync is called, after the writes and before the answer", async () => {
  await inFolder(async (folder) => {
    const calls: string[] = [];
    const prototype = Deno.FsFile.prototype;
    const { syncData, syncDataSync, write, writeSync } = prototype;
    prototype.syncData = function () {
      calls.push("sync");
      return syncData.call(this);
    };
    prototype.syncDataSync = function () {
      calls.push("sync");
      syncDataSync.call(this);
    };
    prototype.write = function (bytes) {
      calls.push("write");
      return write.call(this, bytes);
    };
    prototype.writeSync = function (bytes) {
      calls.push("write");
      return writeSync.call(this, bytes);
    };
    try {
      for (const mode of ["sync", "async"] as const) {
        const path = `${folder}/${mode}`;
        const backend = FileBackend.open(path, { create: true, size: SIZE, mode });
        const driver = await RawDriver.open(new BlkDevice({ backend }));
        calls.length = 0;
        await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(512, 1) });
        assertEquals(calls, ["write"]);
        assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_FLUSH })).status, OK);
        assertEquals(calls, ["write", "sync"]);
        driver.transport.writeConfig(at.writeback, 1, 0);
        await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(512, 1) });
        assertEquals(calls, ["write", "sync", "write", "sync"]);
        await backend.close();
      }
    } finally {
      Object.assign(prototype, { syncData, syncDataSync, write, writeSync });
    }
  });
});

Deno.test("5.2.6.2-D12: without FLUSH offered, writes complete without being committed", async () => {
  const { backend, log } = logged(new MemoryBackend(SIZE));
  const device = new BlkDevice({ backend, cache: "unsafe" });
  assertEquals(device.features & CACHE, 0n);
  const driver = await RawDriver.open(device);
  const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512) });
  assertEquals(answer.status, OK);
  assertEquals(log, ["write"]);
});
