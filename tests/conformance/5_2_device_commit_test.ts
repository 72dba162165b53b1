/** Virtio 1.4, 5.2.6.2: when what was written to a block device is committed. */
import { BlkDevice } from "@virtio/blk";
import * as blk from "@virtio/blk";
import { FileBackend } from "@virtio/blk/file";
import { assert, assertEquals } from "@std/assert";
import { pattern } from "../../packages/blk/backends/backend_testing.ts";
import { ranges, RawDriver } from "../../packages/blk/testing.ts";
import { everywhere, type Placed } from "./places.ts";

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

/** Writes and flushes that reached the back end since this was asked last. */
function took({ run }: Placed<"blk">): string[] {
  return run(({ log }) => log.splice(0));
}

/** Operations that a back end which answers later was asked for since. */
function asked({ run }: Placed<"blk">): string[] {
  return run(({ later }) => later!.log.splice(0));
}

everywhere(
  "5.2.6.2-D11: case 1: without FLUSH and CONFIG_WCE each write is committed before it completes",
  async (place) => {
    const far = await place.open("blk", {});
    const driver = await RawDriver.open(far.device, { wanted: 0n });
    for (let i = 0; i < 3; i++) {
      await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(1024) });
      assertEquals(took(far), ["write", "flush"]);
    }
    const zeroes = await RawDriver.open(far.device, {
      wanted: blk.VIRTIO_BLK_F_WRITE_ZEROES,
    });
    const out = ranges({ sector: 0, sectors: 1 });
    await zeroes.request({ type: blk.VIRTIO_BLK_T_WRITE_ZEROES, out });
    assertEquals(took(far), ["zero", "flush"]);
  },
);

everywhere(
  "5.2.6.2-D11: case 2: while writeback is 0 each write is committed before it completes, while it is 1 none has to be",
  async (place) => {
    for (const wanted of [CACHE, blk.VIRTIO_BLK_F_CONFIG_WCE]) {
      const far = await place.open("blk", {});
      const driver = await RawDriver.open(far.device, { wanted });
      const write = async (): Promise<string[]> => {
        const answer = await driver.request({
          type: blk.VIRTIO_BLK_T_OUT,
          out: new Uint8Array(512),
        });
        assertEquals(answer.status, OK);
        return took(far);
      };
      driver.transport.writeConfig(at.writeback, 1, 0);
      assertEquals(await write(), ["write", "flush"]);
      driver.transport.writeConfig(at.writeback, 1, 1);
      assertEquals(await write(), ["write"]);
      driver.transport.writeConfig(at.writeback, 1, 0);
      assertEquals(await write(), ["write", "flush"]);
    }
  },
);

everywhere(
  "5.2.6.2-D11: case 2, later: the write completes only when the commit has",
  async (place) => {
    const far = await place.open("blk", { later: true, options: { cache: "writethrough" } });
    const driver = await RawDriver.open(far.device);
    far.run(({ later }) => later!.hold());
    const { answer } = driver.submit({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512) });
    let completed = false;
    const done = answer.then(() => completed = true);
    await far.turns();
    assertEquals(asked(far), ["write"]);
    far.run(({ later }) => later!.release(0));
    await far.turns();
    assertEquals(asked(far), ["flush"]);
    assert(!completed, "reported before it was committed");
    far.run(({ later }) => later!.release());
    await done;
  },
);

everywhere("5.2.6.2-D11: a write whose commit fails is an error", async (place) => {
  for (const later of [false, true]) {
    const far = await place.open("blk", { later });
    far.run(({ memory }) => {
      memory.flush = () => {
        throw new Error("no power");
      };
    });
    const driver = await RawDriver.open(far.device, { wanted: 0n });
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512) });
    assertEquals(answer.status, IOERR);
  }
});

everywhere(
  "5.2.6.2-D11: case 3: a flush commits every write that was completed before it was sent, and completes after",
  async (place) => {
    const far = await place.open("blk", { later: true });
    const driver = await RawDriver.open(far.device);
    const out = new Uint8Array(512);
    await Promise.all(
      [0n, 1n, 2n].map((sector) => driver.request({ type: blk.VIRTIO_BLK_T_OUT, sector, out })),
    );
    assertEquals(asked(far), ["write", "write", "write"]);
    far.run(({ later }) => later!.hold());
    let completed = false;
    const done = driver.request({ type: blk.VIRTIO_BLK_T_FLUSH }).then((answer) => {
      completed = true;
      assertEquals(answer.status, OK);
    });
    await far.turns();
    assertEquals(asked(far), ["flush"]);
    assert(!completed);
    far.run(({ later }) => later!.release());
    await done;
  },
);

// In process only: it replaces functions of this thread's `Deno`.
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

everywhere(
  "5.2.6.2-D12: without FLUSH offered, writes complete without being committed",
  async (place) => {
    const far = await place.open("blk", { options: { cache: "unsafe" } });
    assertEquals(far.device.features & CACHE, 0n);
    const driver = await RawDriver.open(far.device);
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512) });
    assertEquals(answer.status, OK);
    assertEquals(took(far), ["write"]);
  },
);
