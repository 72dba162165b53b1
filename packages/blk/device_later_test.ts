/** Back ends that answer later: order, resets, and buffers. */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_RESET } from "@virtio/device";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { LaterBackend } from "./backends/later_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { IOERR, OK, SECTORS, SIZE } from "./disk_testing.ts";
import { RawDriver, turns, UNTOUCHED } from "./testing.ts";

Deno.test("device: a back end that answers later without saying so costs its requests, not the host", async () => {
  const reported: Error[] = [];
  const backend = new LaterBackend(new MemoryBackend(SIZE));
  Object.defineProperty(backend, "asynchronous", { value: false });
  const device = new BlkDevice({ backend, onError: (error) => reported.push(error as Error) });
  const driver = await RawDriver.open(device);
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 512 })).status, IOERR);
  assert(reported[0]!.message.includes("asynchronous"));
});

Deno.test("device: errors of a back end that answers later are error statuses", async () => {
  const reported: unknown[] = [];
  const backend = new LaterBackend(new MemoryBackend(pattern(2 * SIZE, 1)));
  const device = new BlkDevice({ backend, onError: (error) => reported.push(error) });
  const driver = await RawDriver.open(device);
  // Two pieces: the first works, the second fails.
  backend.failAfter(1);
  const read = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 2 * SIZE - 512 });
  assertEquals([read.status, read.used], [IOERR, 2 * SIZE - 511]);
  assertSame(read.data.subarray(0, SIZE), pattern(2 * SIZE, 1).subarray(0, SIZE));
  assertSame(read.data.subarray(SIZE), new Uint8Array(SIZE - 512));
  backend.failAfter(0);
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_FLUSH })).status, IOERR);
  backend.failAfter(0);
  const out = new Uint8Array(512);
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out })).status, IOERR);
  assertEquals(reported.length, 3);
  assertEquals(device.stats.errors, 3);
});

Deno.test("device: requests complete in the order in which the back end answers, or in order if so negotiated", async () => {
  for (const inOrder of [false, true]) {
    const backend = new LaterBackend(new MemoryBackend(pattern(SIZE, 1)));
    const device = new BlkDevice({ backend });
    const core = inOrder ? VIRTIO_F_IN_ORDER : 0n;
    const driver = await RawDriver.open(device, { core });
    backend.hold();
    const order: number[] = [];
    const answers = [0, 1, 2].map(async (i) => {
      const answer = await driver.request({
        type: blk.VIRTIO_BLK_T_IN,
        sector: BigInt(i),
        in: 512,
      });
      order.push(i);
      assertSame(answer.data, pattern(SIZE, 1).subarray(512 * i, 512 * i + 512));
    });
    await turns();
    assertEquals(backend.held, 3);
    backend.release(2);
    await turns();
    assertEquals(order, inOrder ? [] : [2]);
    backend.release(0);
    await turns();
    assertEquals(order, inOrder ? [0] : [2, 0]);
    backend.release();
    await Promise.all(answers);
    assertEquals(order, inOrder ? [0, 1, 2] : [2, 0, 1]);
  }
});

Deno.test("device: nothing is written to guest memory after a reset, and the next life waits for the last one's writes", async () => {
  const bytes = pattern(SIZE, 1);
  const backend = new LaterBackend(new MemoryBackend(bytes));
  const device = new BlkDevice({ backend });
  const driver = await RawDriver.open(device);
  backend.hold();
  const read = driver.submit({ type: blk.VIRTIO_BLK_T_IN, in: 4096 });
  const big = driver.submit({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(4096, 2), sector: 100n });
  await turns();
  assertEquals(backend.held, 2);
  driver.transport.writeStatus(0);
  assertEquals(driver.transport.readStatus(), 0);

  const next = await RawDriver.open(device);
  const write = next.submit({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(4096, 3), sector: 100n });
  let answered = false;
  const done = write.answer.then(() => answered = true);
  await turns();
  assertEquals(backend.held, 2, "the new write must not overtake the old one");
  assert(!answered);
  backend.release();
  await done;
  assertSame(read.peek(), new Uint8Array(4097).fill(UNTOUCHED));
  assertSame(big.peek(), new Uint8Array(1).fill(UNTOUCHED));
  assertSame(bytes.subarray(51200, 51200 + 4096), pattern(4096, 3));
});

Deno.test("device: a request of several pieces stops at a reset", async () => {
  const bytes = new Uint8Array(4 * SIZE);
  const backend = new LaterBackend(new MemoryBackend(bytes));
  const device = new BlkDevice({ backend });
  const driver = await RawDriver.open(device);
  backend.hold();
  const out = pattern(3 * SIZE, 2);
  driver.submit({ type: blk.VIRTIO_BLK_T_OUT, out });
  await turns();
  driver.transport.writeStatus(0);
  backend.release();
  await turns();
  assertSame(bytes.subarray(0, SIZE), out.subarray(0, SIZE));
  assertSame(bytes.subarray(SIZE), new Uint8Array(3 * SIZE));
});

Deno.test("device: large requests go through buffers of bounded size, and all get their turn", async () => {
  const bytes = pattern(8 * SIZE, 1);
  const backend = new LaterBackend(new MemoryBackend(bytes));
  const device = new BlkDevice({ backend, bounceMemory: SIZE });
  const driver = await RawDriver.open(device);
  const expected = bytes.slice();
  const out = pattern(3 * SIZE, 5);
  expected.set(out, 0);
  const answers = [
    driver.request({ type: blk.VIRTIO_BLK_T_OUT, out }),
    driver.request({ type: blk.VIRTIO_BLK_T_IN, sector: BigInt(4 * SECTORS), in: 2 * SIZE }),
    ...Array.from(
      { length: 20 },
      (_, i) => driver.request({ type: blk.VIRTIO_BLK_T_IN, sector: BigInt(5000 + i), in: 512 }),
    ),
  ];
  const all = await Promise.all(answers);
  assertEquals(all.map(({ status }) => status), all.map(() => OK));
  assertSame(all[1]!.data, expected.subarray(4 * SIZE, 6 * SIZE));
  assertSame(all[7]!.data, expected.subarray(5005 * 512, 5006 * 512));
  assertSame(bytes, expected);
  assert(device.bounceMemory <= SIZE, `${device.bounceMemory} bytes of buffers`);
});

Deno.test("device: a queue reset waits for what is in flight, and the queue works again", async () => {
  const bytes = pattern(SIZE, 1);
  const backend = new LaterBackend(new MemoryBackend(bytes));
  const device = new BlkDevice({ backend });
  const driver = await RawDriver.open(device, { core: VIRTIO_F_RING_RESET });
  backend.hold();
  const read = driver.submit({ type: blk.VIRTIO_BLK_T_IN, in: 512 });
  await turns();
  const reset = driver.session.resetQueue(0);
  await turns();
  assert(driver.transport.state.queues[0]!.resetting);
  backend.release();
  await reset;
  assertSame((await read.answer).data, pattern(SIZE, 1).subarray(0, 512));
  driver.session.queue(0).enableInterrupts();
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 512 })).status, OK);
});
