import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import type { BlkBackend } from "./backend.ts";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { IOERR, kinds, OK, SIZE } from "./disk_testing.ts";
import { RawDriver, turns, UNTOUCHED } from "./testing.ts";

Deno.test("device: a request without a status byte makes it ask for a reset, and says why", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(SIZE) });
  const driver = await RawDriver.open(device);
  driver.submit({ type: blk.VIRTIO_BLK_T_OUT, out: new Uint8Array(512), statusBytes: 0 });
  await turns();
  assert(driver.transport.needsReset);
  assert(driver.transport.errors[0]!.message.includes("5.2.6"));
  assertEquals(driver.transport.configInterrupts, 1);
  // What cannot be answered is not done.
  assertEquals(device.stats.writes, 0);
  // A reset heals it.
  const again = await RawDriver.open(device);
  assertEquals((await again.request({ type: blk.VIRTIO_BLK_T_IN, in: 512 })).status, OK);
});

Deno.test("device: queues beyond the first need VIRTIO_BLK_F_MQ", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(pattern(SIZE, 1)), queues: 3 });
  assertEquals(device.config.read(blk.BlkConfigOffset.num_queues, 2), 3);
  const driver = await RawDriver.open(device, { queues: 3 });
  for (const queue of [2, 0, 1]) {
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 512, queue });
    assertEquals(answer.status, OK);
  }
  const without = await RawDriver.open(device, { queues: 2, wanted: 0n });
  without.submit({ type: blk.VIRTIO_BLK_T_IN, in: 512, queue: 1 });
  await turns();
  assert(without.transport.needsReset);
  assert(without.transport.errors[0]!.message.includes("5.2.2"));
});

Deno.test("device: an error of the back end is an error status, with nothing of the disk or the host in the data", async () => {
  const reported: unknown[] = [];
  const memory = new MemoryBackend(pattern(SIZE, 1));
  const broken: BlkBackend = {
    capacity: SIZE,
    readonly: false,
    asynchronous: false,
    read: (position, bytes, offset, length) => {
      memory.read(position, bytes, offset, length);
      if (position >= 1024) throw new Error("bad sector");
    },
    write: () => {
      throw new Error("disk full");
    },
    flush: () => {
      throw new Error("cable gone");
    },
    onChange: null,
  };
  const device = new BlkDevice({ backend: broken, onError: (error) => reported.push(error) });
  const driver = await RawDriver.open(device);
  const read = await driver.request({
    type: blk.VIRTIO_BLK_T_IN,
    in: 4096,
    cuts: { readable: [], writable: [1024, 512, 512] },
  });
  // The first piece was read, the second failed.
  assertEquals([read.status, read.used], [IOERR, 4097]);
  assertSame(read.data.subarray(0, 1024), pattern(SIZE, 1).subarray(0, 1024));
  assertSame(read.data.subarray(1024), new Uint8Array(3072));
  const out = new Uint8Array(512);
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out })).status, IOERR);
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_FLUSH })).status, IOERR);
  assertEquals(reported.map((error) => (error as Error).message), [
    "bad sector",
    "disk full",
    "cable gone",
  ]);
  assertEquals(device.stats.errors, 3);
  assert(!driver.transport.needsReset);
});

Deno.test("device: a bad request with much room for data costs no more than a bad one with little", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(SIZE) });
  const driver = await RawDriver.open(device);
  const answer = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 4 * SIZE });
  // The length says that nothing can be relied on; the status is there all the same.
  assertEquals([answer.status, answer.used], [IOERR, 0]);
  assertSame(answer.data, new Uint8Array(4 * SIZE).fill(UNTOUCHED));
});

Deno.test("device: what one kick brings is answered with one interrupt", async () => {
  for (const [, make] of kinds) {
    const device = new BlkDevice({ backend: make(new Uint8Array(SIZE)) });
    const core = VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC;
    const driver = await RawDriver.open(device, { core });
    const answers = Array.from({ length: 80 }, (_, i) =>
      driver.submit({
        type: blk.VIRTIO_BLK_T_IN,
        sector: BigInt(i),
        in: 512,
        publish: false,
      }).answer);
    driver.session.publish(0);
    await Promise.all(answers);
    assertEquals(device.stats.reads, 80);
    assertEquals(driver.transport.kicks, 1);
    assertEquals(driver.transport.queueInterrupts, 1);
  }
});
