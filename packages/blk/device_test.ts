import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_STATUS_DRIVER_OK,
} from "@virtio/device";
import fc from "fast-check";
import type { BlkBackend } from "./backend.ts";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { EngineBackend } from "./backends/engine_testing.ts";
import { LaterBackend } from "./backends/later_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { header, ranges, RawDriver, turns, UNTOUCHED } from "./testing.ts";

const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK, VIRTIO_BLK_S_UNSUPP: UNSUPP } = blk;
const SIZE = 1024 * 1024;
const SECTORS = SIZE / 512;

/** The same disk, answering at once, with small pieces taken together or not, or later. */
const kinds: [string, (bytes: Uint8Array) => BlkBackend][] = [
  ["at once", (bytes) => new MemoryBackend(bytes)],
  [
    "at once, pieces together",
    (bytes) => Object.assign(new MemoryBackend(bytes), { gather: true }),
  ],
  ["later", (bytes) => new LaterBackend(new MemoryBackend(bytes))],
  ["by an engine at once", (bytes) => new EngineBackend(new MemoryBackend(bytes))],
  [
    "by an engine, later and bit by bit",
    (bytes) => new EngineBackend(new MemoryBackend(bytes), { later: true, most: 1536 }),
  ],
];

for (const [name, make] of kinds) {
  Deno.test(`device, back end answers ${name}: a read gives sectors, length and status`, async () => {
    const device = new BlkDevice({ backend: make(pattern(SIZE, 1)) });
    const driver = await RawDriver.open(device);
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_IN, sector: 3n, in: 4096 });
    assertEquals(answer.status, OK);
    assertEquals(answer.used, 4097);
    assertSame(answer.data, pattern(SIZE, 1).subarray(3 * 512, 3 * 512 + 4096));
    assertEquals(device.stats.reads, 1);
    assertEquals(device.stats.bytesRead, 4096);
  });

  Deno.test(`device, back end answers ${name}: a write writes exactly its sectors`, async () => {
    const bytes = pattern(SIZE, 1);
    const device = new BlkDevice({ backend: make(bytes) });
    const driver = await RawDriver.open(device);
    const out = pattern(1024, 2);
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, sector: 7n, out });
    assertEquals([answer.status, answer.used], [OK, 1]);
    const expected = pattern(SIZE, 1);
    expected.set(out, 7 * 512);
    assertSame(bytes, expected);
    assertEquals(device.stats.bytesWritten, 1024);
  });

  Deno.test(`device, back end answers ${name}: however a request is cut, it gives the same answer`, async () => {
    const bytes = pattern(SIZE, 1);
    const device = new BlkDevice({ backend: make(bytes), id: "serial-42" });
    const expected = bytes.slice();
    const cuts = fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 30 });
    for (const core of [0n, VIRTIO_F_RING_PACKED]) {
      const driver = await RawDriver.open(device, { core });
      await fc.assert(
        fc.asyncProperty(
          cuts,
          cuts,
          fc.integer({ min: 0, max: 12 }),
          fc.integer({ min: 0, max: SECTORS - 12 }),
          fc.nat(),
          async (readable, writable, sectors, sector, seed) => {
            const out = pattern(sectors * 512, seed);
            const common = { sector: BigInt(sector), cuts: { readable, writable } };
            const wrote = await driver.request({ ...common, type: blk.VIRTIO_BLK_T_OUT, out });
            assertEquals([wrote.status, wrote.used], [OK, 1]);
            expected.set(out, sector * 512);
            const read = await driver.request({
              ...common,
              type: blk.VIRTIO_BLK_T_IN,
              in: out.length,
            });
            assertEquals([read.status, read.used], [OK, out.length + 1]);
            assertSame(read.data, out);
            const id = await driver.request({
              type: blk.VIRTIO_BLK_T_GET_ID,
              in: 20,
              cuts: { readable, writable },
            });
            assertEquals([id.status, id.used], [OK, 21]);
            assertEquals(new TextDecoder().decode(id.data), "serial-42".padEnd(20, "\0"));
          },
        ),
        { numRuns: 60 },
      );
      assertSame(bytes, expected);
      await driver.session.reset();
    }
  });

  Deno.test(`device, back end answers ${name}: what is not within the disk fails and changes nothing`, async () => {
    const bytes = pattern(SIZE, 1);
    const device = new BlkDevice({ backend: make(bytes) });
    const driver = await RawDriver.open(device);
    const cases: [bigint, number][] = [
      [BigInt(SECTORS), 512],
      [BigInt(SECTORS) - 1n, 1024],
      [2n ** 32n, 512],
      [2n ** 44n, 512],
      [2n ** 53n / 512n, 512],
      [2n ** 53n, 512],
      [2n ** 53n + 1n, 512],
      [2n ** 55n, 512], // * 512 = 2^64
      [2n ** 64n - 1n, 512],
      [2n ** 64n - 1n, 1024],
      [0n, 511],
      [0n, 513],
      [0n, 1],
    ];
    for (const [sector, length] of cases) {
      const read = await driver.request({ type: blk.VIRTIO_BLK_T_IN, sector, in: length });
      assertEquals(read.status, IOERR, `read of ${length} at ${sector}`);
      // The length covers the status, so it covers the data, which is zeroes then.
      assertSame(read.data, new Uint8Array(length));
      assertEquals(read.used, length + 1);
      const out = new Uint8Array(length);
      const write = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, sector, out });
      assertEquals([write.status, write.used], [IOERR, 1], `write of ${length} at ${sector}`);
    }
    assertSame(bytes, pattern(SIZE, 1));
    assertEquals(device.stats.errors, 2 * cases.length);
    // Still at work.
    const read = await driver.request({
      type: blk.VIRTIO_BLK_T_IN,
      sector: BigInt(SECTORS - 1),
      in: 512,
    });
    assertEquals(read.status, OK);
  });

  Deno.test(`device, back end answers ${name}: a header that is too short is an error, not the end`, async () => {
    const device = new BlkDevice({ backend: make(new Uint8Array(SIZE)) });
    const driver = await RawDriver.open(device);
    for (const length of [0, 1, 15]) {
      const answer = await driver.request({
        type: 0,
        header: new Uint8Array(length),
        in: 512,
      });
      assertEquals([answer.status, answer.used], [IOERR, 513]);
    }
    assert(!driver.transport.needsReset);
  });

  Deno.test(`device, back end answers ${name}: types that do not exist are unsupported`, async () => {
    const device = new BlkDevice({ backend: make(new Uint8Array(SIZE)) });
    const driver = await RawDriver.open(device);
    for (const type of [2, 3, 5, 6, 7, 9, 12, 15, 17, 19, 27, 0x7fffffff, 0x80000000, 0xffffffff]) {
      const answer = await driver.request({ type, in: 512, out: new Uint8Array(512) });
      assertEquals([answer.status, answer.used], [UNSUPP, 513], `type ${type}`);
      assertSame(answer.data, new Uint8Array(512));
    }
    assertEquals(device.stats.unsupported, 14);
  });

  Deno.test(`device, back end answers ${name}: discard, write zeroes and secure erase do what they say`, async () => {
    const bytes = pattern(SIZE, 1);
    const device = new BlkDevice({ backend: make(bytes), writeZeroes: { maxSegments: 4 } });
    const driver = await RawDriver.open(device);
    const out = ranges(
      { sector: 8, sectors: 8, flags: 1 },
      { sector: 100, sectors: 1 },
      { sector: 200, sectors: 0 },
      { sector: SECTORS - 1, sectors: 1 },
    );
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_WRITE_ZEROES, out });
    assertEquals([answer.status, answer.used], [OK, 1]);
    const expected = pattern(SIZE, 1);
    expected.fill(0, 8 * 512, 16 * 512);
    expected.fill(0, 100 * 512, 101 * 512);
    expected.fill(0, SIZE - 512);
    assertSame(bytes, expected);
    for (const type of [blk.VIRTIO_BLK_T_DISCARD, blk.VIRTIO_BLK_T_SECURE_ERASE]) {
      const sector = 300 + type;
      const answer = await driver.request({ type, out: ranges({ sector, sectors: 1 }) });
      assertEquals(answer.status, OK);
      expected.fill(0, sector * 512, sector * 512 + 512);
    }
    assertSame(bytes, expected);
    assertEquals(
      [device.stats.writeZeroes, device.stats.discards, device.stats.secureErases],
      [1, 1, 1],
    );
  });

  Deno.test(`device, back end answers ${name}: ranges are checked as a whole before any is acted on`, async () => {
    const bytes = pattern(SIZE, 1);
    const limits = { maxSegments: 3, maxSectors: 64 };
    const device = new BlkDevice({
      backend: make(bytes),
      discard: limits,
      writeZeroes: limits,
      secureErase: limits,
    });
    const driver = await RawDriver.open(device);
    const good = { sector: 0, sectors: 8 };
    const types = [
      blk.VIRTIO_BLK_T_DISCARD,
      blk.VIRTIO_BLK_T_WRITE_ZEROES,
      blk.VIRTIO_BLK_T_SECURE_ERASE,
    ];
    for (const type of types) {
      const status = async (out: Uint8Array): Promise<number> =>
        (await driver.request({ type, out })).status;
      assertEquals(await status(new Uint8Array(0)), IOERR);
      assertEquals(await status(ranges(good).subarray(0, 15)), IOERR);
      assertEquals(await status(new Uint8Array([...ranges(good), 0])), IOERR);
      assertEquals(await status(ranges(good, good, good, good)), IOERR);
      assertEquals(await status(ranges(good, { sector: 0, sectors: 65 })), IOERR);
      assertEquals(await status(ranges(good, { sector: SECTORS, sectors: 1 })), IOERR);
      assertEquals(await status(ranges(good, { sector: SECTORS - 1, sectors: 2 })), IOERR);
      assertEquals(await status(ranges(good, { sector: 2n ** 64n - 1n, sectors: 1 })), IOERR);
      assertEquals(await status(ranges(good, { sector: 2n ** 64n - 1n, sectors: 2 })), IOERR);
      assertEquals(await status(ranges(good, { sector: 2n ** 53n, sectors: 1 })), IOERR);
      for (const flags of [2, 3, 0x80000000, 0xffffffff]) {
        assertEquals(await status(ranges(good, { ...good, flags })), UNSUPP);
        // Also where something else is wrong, before it or after.
        assertEquals(
          await status(ranges({ ...good, flags }, { sector: SECTORS, sectors: 1 })),
          UNSUPP,
        );
        assertEquals(
          await status(ranges({ sector: SECTORS, sectors: 1 }, { ...good, flags })),
          UNSUPP,
        );
      }
      if (type !== blk.VIRTIO_BLK_T_WRITE_ZEROES) {
        assertEquals(await status(ranges(good, { ...good, flags: 1 })), UNSUPP);
      }
    }
    assertSame(bytes, pattern(SIZE, 1));
  });

  Deno.test(`device, back end answers ${name}: features that were not negotiated are not there`, async () => {
    const device = new BlkDevice({ backend: make(pattern(SIZE, 1)) });
    const driver = await RawDriver.open(device, { wanted: 0n });
    const out = ranges({ sector: 0, sectors: 1 });
    for (
      const request of [
        { type: blk.VIRTIO_BLK_T_FLUSH },
        { type: blk.VIRTIO_BLK_T_DISCARD, out },
        { type: blk.VIRTIO_BLK_T_WRITE_ZEROES, out },
        { type: blk.VIRTIO_BLK_T_SECURE_ERASE, out },
        { type: blk.VIRTIO_BLK_T_GET_LIFETIME, in: 6 },
      ]
    ) {
      assertEquals((await driver.request(request)).status, UNSUPP);
    }
  });

  Deno.test(`device, back end answers ${name}: a device id is 20 bytes, asked for as 20 bytes`, async () => {
    const device = new BlkDevice({
      backend: make(new Uint8Array(SIZE)),
      id: "01234567890123456789",
    });
    const driver = await RawDriver.open(device);
    const type = blk.VIRTIO_BLK_T_GET_ID;
    const answer = await driver.request({ type, in: 20 });
    assertEquals([answer.status, answer.used], [OK, 21]);
    assertEquals(new TextDecoder().decode(answer.data), "01234567890123456789");
    assertEquals((await driver.request({ type, in: 19 })).status, IOERR);
    assertEquals((await driver.request({ type, in: 21 })).status, IOERR);
    assertEquals((await driver.request({ type, in: 0 })).status, IOERR);
  });

  Deno.test(`device, back end answers ${name}: a read-only device refuses writes`, async () => {
    const bytes = pattern(SIZE, 1);
    const device = new BlkDevice({ backend: make(bytes), readonly: true });
    assertEquals(device.features & blk.VIRTIO_BLK_F_RO, blk.VIRTIO_BLK_F_RO);
    assertEquals(device.features & blk.VIRTIO_BLK_F_DISCARD, 0n);
    assertEquals(device.features & blk.VIRTIO_BLK_F_WRITE_ZEROES, 0n);
    assertEquals(device.features & blk.VIRTIO_BLK_F_SECURE_ERASE, 0n);
    for (const wanted of [blk.VIRTIO_BLK_F_RO, 0n]) {
      const driver = await RawDriver.open(device, { wanted });
      const out = new Uint8Array(512);
      const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out });
      assertEquals(answer.status, IOERR);
      const zeroes = {
        type: blk.VIRTIO_BLK_T_WRITE_ZEROES,
        out: ranges({ sector: 0, sectors: 1 }),
      };
      assertEquals((await driver.request(zeroes)).status, UNSUPP);
      assertSame(bytes, pattern(SIZE, 1));
      await driver.session.reset();
    }
  });
}

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

Deno.test("device: a bad request with much room for data costs no more than a bad one with little", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(SIZE) });
  const driver = await RawDriver.open(device);
  const answer = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 4 * SIZE });
  // The length says that nothing can be relied on; the status is there all the same.
  assertEquals([answer.status, answer.used], [IOERR, 0]);
  assertSame(answer.data, new Uint8Array(4 * SIZE).fill(UNTOUCHED));
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

for (const [name, make] of kinds) {
  Deno.test(`device, back end answers ${name}: whatever bytes come as a request, it answers or asks for a reset, and then works on`, async () => {
    const small = fc.constantFrom(0, 1, 4, 8, 10, 11, 13, 14, 15, 26);
    const request = fc.record({
      header: fc.oneof(
        fc.uint8Array({ maxLength: 16 }),
        fc.record({ type: small, sector: fc.integer({ min: 0, max: SECTORS + 2 }) })
          .map(({ type, sector }) => header({ type, sector: BigInt(sector) })),
      ),
      out: fc.oneof(
        fc.uint8Array({ maxLength: 64 }),
        fc.constantFrom(0, 16, 512, 1024).map((length) => new Uint8Array(length)),
      ),
      in: fc.constantFrom(0, 1, 6, 19, 20, 511, 512, 1024),
      statusBytes: fc.constantFrom(1, 1, 1, 1, 0),
      cuts: fc.record({
        readable: fc.array(fc.integer({ min: 1, max: 600 }), { maxLength: 6 }),
        writable: fc.array(fc.integer({ min: 1, max: 600 }), { maxLength: 6 }),
      }),
    });
    const device = new BlkDevice({ backend: make(new Uint8Array(SIZE)) });
    let driver = await RawDriver.open(device);
    await fc.assert(
      fc.asyncProperty(request, async (each) => {
        if (each.header.length + each.out.length + each.in + each.statusBytes === 0) return;
        const { answer } = driver.submit({ type: 0, ...each });
        const given = await Promise.race([answer, turns(2).then(() => null)]);
        if (given === null || driver.transport.needsReset) {
          // Only what has no byte for a status cannot be answered.
          assertEquals(each.statusBytes + each.in, 0);
          assert(driver.transport.needsReset);
          driver = await RawDriver.open(device);
        } else if (each.statusBytes === 1) {
          assert(given.status <= 2, `status ${given.status}`);
          assert(given.used <= each.in + 1);
        }
        const good = await driver.request({ type: blk.VIRTIO_BLK_T_IN, sector: 5n, in: 512 });
        assertEquals([good.status, good.used], [OK, 513]);
      }),
      { numRuns: 300 },
    );
  });
}

Deno.test("device: a resize tells the driver, and counts at once", async () => {
  for (const [, make] of kinds) {
    const later = make(new Uint8Array(0)).asynchronous;
    const memory = new MemoryBackend(SIZE);
    const device = new BlkDevice({ backend: later ? new LaterBackend(memory) : memory });
    const driver = await RawDriver.open(device);
    const { generation } = device.config;
    await device.resize(SIZE / 2);
    assertEquals(device.capacity, SIZE / 2);
    assertEquals(device.config.read(0, 4), SECTORS / 2);
    assert(device.config.generation !== generation);
    assertEquals(driver.transport.configInterrupts, 1);
    const read = { type: blk.VIRTIO_BLK_T_IN, sector: BigInt(SECTORS - 1), in: 512 };
    assertEquals((await driver.request(read)).status, IOERR);
    memory.resize(SIZE * 2); // the back end itself, behind the device
    assertEquals(device.capacity, SIZE * 2);
    assertEquals(driver.transport.configInterrupts, 2);
    assertEquals((await driver.request(read)).status, OK);
    memory.resize(SIZE * 2);
    assertEquals(driver.transport.configInterrupts, 2, "nothing changed");
    assertThrows(() => device.resize(1000), RangeError);
  }
});

Deno.test("device: a capacity beyond 2^32 sectors shows in both halves", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(2 ** 46) });
  assertEquals(device.config.read(0, 4), 0);
  assertEquals(device.config.read(4, 4), 2 ** 46 / 512 / 2 ** 32);
  const driver = await RawDriver.open(device);
  const sector = 2n ** 46n / 512n - 1n;
  const out = pattern(512, 1);
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_OUT, sector, out })).status, OK);
  const read = await driver.request({ type: blk.VIRTIO_BLK_T_IN, sector, in: 512 });
  assertSame(read.data, out);
});

Deno.test("device: options are checked, and say what to do", () => {
  const backend = new MemoryBackend(SIZE);
  const make = (options: object) => () => new BlkDevice({ backend, ...options });
  assertThrows(make({ backend: undefined }), TypeError, "backend");
  assertThrows(make({ queues: 0 }), RangeError, "queues");
  assertThrows(make({ queueSize: 40000 }), RangeError, "queueSize");
  assertThrows(make({ blockSize: 513 }), RangeError, "power of two");
  assertThrows(make({ backend: new MemoryBackend(512), blockSize: 4096 }), RangeError, "multiple");
  assertThrows(make({ id: "123456789012345678901" }), RangeError, "ASCII");
  assertThrows(make({ id: "schön" }), RangeError, "ASCII");
  assertThrows(make({ cache: "unsafe", configWce: true }), RangeError, "unsafe");
  assertThrows(make({ discard: { maxSegments: 0 } }), RangeError, "maxSegments");
  assertThrows(
    make({ backend: new MemoryBackend(SIZE, { readonly: true }), readonly: false }),
    RangeError,
    "read-only",
  );
  assertThrows(make({ geometry: { cylinders: 70000, heads: 1, sectors: 1 } }), RangeError);
  assertThrows(make({ topology: { optIoSize: -1 } }), RangeError);
  const flat = new BlkDevice({ backend: new MemoryBackend(new Uint8Array(512)) });
  assertThrows(() => flat.resize(1024), TypeError);
});

Deno.test("device: what the embedder says shows in the configuration", () => {
  const at = blk.BlkConfigOffset;
  const device = new BlkDevice({
    backend: new MemoryBackend(SIZE),
    blockSize: 4096,
    sizeMax: 65536,
    segMax: 100,
    geometry: { cylinders: 1000, heads: 16, sectors: 63 },
    topology: { physicalBlockExp: 1, alignmentOffset: 2, minIoSize: 3, optIoSize: 4 },
    discard: { maxSectors: 1000, maxSegments: 5, alignment: 16 },
    writeZeroes: { maxSectors: 2000, maxSegments: 6 },
    secureErase: { maxSectors: 3000, maxSegments: 7, alignment: 32 },
  });
  const { config } = device;
  assertEquals(config.bytes.length, 72);
  assertEquals(config.read(at.size_max, 4), 65536);
  assertEquals(config.read(at.seg_max, 4), 100);
  assertEquals(config.read(at.geometry_cylinders, 2), 1000);
  assertEquals(config.read(at.geometry_heads, 1), 16);
  assertEquals(config.read(at.geometry_sectors, 1), 63);
  assertEquals(config.read(at.blk_size, 4), 4096);
  assertEquals(config.read(at.topology_physical_block_exp, 1), 1);
  assertEquals(config.read(at.topology_alignment_offset, 1), 2);
  assertEquals(config.read(at.topology_min_io_size, 2), 3);
  assertEquals(config.read(at.topology_opt_io_size, 4), 4);
  assertEquals(config.read(at.max_discard_sectors, 4), 1000);
  assertEquals(config.read(at.max_discard_seg, 4), 5);
  assertEquals(config.read(at.discard_sector_alignment, 4), 16);
  assertEquals(config.read(at.max_write_zeroes_sectors, 4), 2000);
  assertEquals(config.read(at.max_write_zeroes_seg, 4), 6);
  assertEquals(config.read(at.write_zeroes_may_unmap, 1), 1);
  assertEquals(config.read(at.max_secure_erase_sectors, 4), 3000);
  assertEquals(config.read(at.max_secure_erase_seg, 4), 7);
  assertEquals(config.read(at.secure_erase_sector_alignment, 4), 32);
  const bit = (feature: bigint): boolean => (device.features & feature) !== 0n;
  assert(bit(blk.VIRTIO_BLK_F_SIZE_MAX) && bit(blk.VIRTIO_BLK_F_GEOMETRY));
  assert(bit(blk.VIRTIO_BLK_F_TOPOLOGY) && !bit(blk.VIRTIO_BLK_F_MQ) && !bit(blk.VIRTIO_BLK_F_RO));
});

Deno.test("device: writeback is the driver's to write with CONFIG_WCE only, one byte of 0 or 1", async () => {
  const { FLUSH, CONFIG_WCE } = {
    FLUSH: blk.VIRTIO_BLK_F_FLUSH,
    CONFIG_WCE: blk.VIRTIO_BLK_F_CONFIG_WCE,
  };
  for (const wanted of [FLUSH, FLUSH | CONFIG_WCE]) {
    const device = new BlkDevice({ backend: new MemoryBackend(SIZE) });
    const { transport } = await RawDriver.open(device, { wanted });
    const at = blk.BlkConfigOffset.writeback;
    assertEquals(transport.readConfig(at, 1), 1);
    for (const value of [2, 0x80, 0xff]) transport.writeConfig(at, 1, value);
    transport.writeConfig(at, 2, 0);
    transport.writeConfig(at - 1, 2, 0);
    assertEquals(transport.readConfig(at, 1), 1);
    transport.writeConfig(at, 1, 0);
    assertEquals(transport.readConfig(at, 1), wanted === FLUSH ? 1 : 0);
  }
});

Deno.test("device: a saved device goes on in a fresh one, in the cache mode that the driver chose", async () => {
  const bytes = pattern(SIZE, 1);
  const device = new BlkDevice({ backend: new MemoryBackend(bytes) });
  const driver = await RawDriver.open(device);
  driver.transport.writeConfig(blk.BlkConfigOffset.writeback, 1, 0);
  await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: 512 });
  await driver.transport.state.pause();
  const saved = structuredClone(driver.transport.state.save());

  const other = new BlkDevice({ backend: new MemoryBackend(bytes) });
  const { LocalTransport } = await import("./testing.ts");
  const transport = new LocalTransport(other, driver.memory, 1n << 32n);
  transport.state.restore(saved);
  assertEquals(other.writeback, false);
  transport.interrupts = driver.transport.interrupts;
  transport.state.unpause();
  assertEquals(transport.readStatus() & VIRTIO_STATUS_DRIVER_OK, VIRTIO_STATUS_DRIVER_OK);
  const submitted = driver.submit({ type: blk.VIRTIO_BLK_T_IN, sector: 5n, in: 512 });
  transport.kick(0, 0);
  assertSame((await submitted.answer).data, pattern(SIZE, 1).subarray(2560, 3072));

  const smaller = new BlkDevice({ backend: new MemoryBackend(512) });
  const wrong = new LocalTransport(smaller, driver.memory, 1n << 32n);
  assertThrows(() => wrong.state.restore(saved), RangeError, "resize");
  assertThrows(() => other.restore({}), TypeError, "malformed");
});
