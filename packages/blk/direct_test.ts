import { assertEquals } from "@std/assert";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { EngineBackend, type TestEngineOptions } from "./backends/engine_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice, type BlkDeviceOptions } from "./mod.ts";
import { ranges, RawDriver, turns, UNTOUCHED } from "./testing.ts";

const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK } = blk;
const SIZE = 1024 * 1024;

async function open(
  options: TestEngineOptions,
  device: Omit<BlkDeviceOptions, "backend"> = {},
  wanted?: bigint,
) {
  const bytes = pattern(SIZE, 1);
  const backend = new EngineBackend(new MemoryBackend(bytes), options);
  const made = new BlkDevice({ backend, ...device });
  const driver = await RawDriver.open(made, wanted === undefined ? {} : { wanted });
  return { bytes, engine: backend.engine, device: made, driver };
}

const read = (sector: number, length: number) => ({
  type: blk.VIRTIO_BLK_T_IN,
  sector: BigInt(sector),
  in: length,
});

Deno.test("engine: a batch is begun by one submission, and answered by one interrupt", async () => {
  const { engine, device, driver } = await open({ later: true });
  engine.held = true;
  const answers = Array.from(
    { length: 32 },
    (_, i) => driver.submit({ ...read(8 * i, 4096), publish: i === 31 }).answer,
  );
  assertEquals(engine.inFlight, 32);
  assertEquals(engine.submits, 1);
  assertEquals(device.queueCounters[0]!.interrupts, 0);
  // As a thread that polls does it: no turn of the event loop is needed.
  engine.descriptor = 1;
  const [source] = device.pollSources();
  assertEquals(engine.polled, true);
  engine.held = false;
  assertEquals(source!.ready(), 32);
  assertEquals(device.queueCounters[0]!.interrupts, 1);
  assertEquals(source!.ready(), 0);
  for (const [i, answer] of (await Promise.all(answers)).entries()) {
    assertEquals([answer.status, answer.used], [OK, 4097]);
    assertSame(answer.data, pattern(SIZE, 1).subarray(4096 * i, 4096 * (i + 1)));
  }
});

Deno.test("engine: a reset waits for what is under way; nothing is written to guest memory after it", async () => {
  const { engine, driver, device } = await open({ later: true });
  engine.held = true;
  const { peek } = driver.submit(read(0, 4096));
  assertEquals(engine.inFlight, 1);
  driver.transport.state.writeStatus(0);
  // The kernel may have written by then; it does so no more.
  assertEquals(engine.inFlight, 0);
  const after = peek();
  assertEquals(after[4096], UNTOUCHED);
  await turns();
  assertSame(peek(), after);
  assertEquals(device.queueCounters[0]!.interrupts, 0);
  // And the next life uses the same objects.
  engine.held = false;
  const again = await RawDriver.open(device);
  const answer = await again.request(read(8, 512));
  assertEquals(answer.status, OK);
  assertSame(answer.data, pattern(SIZE, 1).subarray(4096, 4608));
});

Deno.test("engine: a queue is handed back when what is under way has ended, without a turn of the event loop", async () => {
  const { engine, driver, device } = await open({ later: true });
  engine.held = true;
  const { answer } = driver.submit(read(0, 4096));
  const queue = device.stopQueue(0);
  if (queue instanceof Promise) throw new Error("it was not handed back at once");
  assertEquals(queue.inFlight, 0);
  assertEquals((await answer).status, OK);
});

Deno.test("engine: errors are error statuses, with nothing of the disk in the data, and counted once", async () => {
  for (const later of [false, true]) {
    const errors: unknown[] = [];
    const { engine, driver, device } = await open({ later, most: 1024 }, {
      onError: (error) => errors.push(error),
    });
    // The second part of the read fails: what the first brought must not be seen.
    engine.failAfter = 1;
    const answer = await driver.request(read(0, 4096));
    assertEquals([answer.status, answer.used], [IOERR, 4097]);
    assertSame(answer.data, new Uint8Array(4096));
    assertEquals(errors.length, 1);
    engine.failAfter = 0;
    const out = pattern(1024, 7);
    assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out })).status, IOERR);
    engine.failAfter = 0;
    assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_FLUSH })).status, IOERR);
    assertEquals(device.stats.errors, 3);
    assertEquals((await driver.request(read(0, 512))).status, OK);
    assertEquals([device.stats.reads, device.stats.writes, device.stats.flushes], [1, 0, 0]);
  }
});

Deno.test("engine: one that gets nowhere is asked again, but not for ever", async () => {
  for (const later of [false, true]) {
    const { engine, driver } = await open({ later });
    engine.nothing = 5;
    const answer = await driver.request(read(1, 4096));
    assertEquals(answer.status, OK);
    assertSame(answer.data, pattern(SIZE, 1).subarray(512, 4608));
    engine.nothing = 1000;
    assertEquals((await driver.request(read(1, 4096))).status, IOERR);
    engine.nothing = 0;
    assertEquals((await driver.request(read(1, 4096))).status, OK);
  }
});

Deno.test("engine: in writethrough mode writes are durable, zeroes are flushed, discards are not", async () => {
  for (const later of [false, true]) {
    const { engine, driver } = await open({ later }, { cache: "writethrough" });
    await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(512, 2) });
    assertEquals(engine.log.splice(0), ["write durably"]);
    const out = ranges({ sector: 0, sectors: 8 }, { sector: 16, sectors: 8 });
    const discard = await driver.request({ type: blk.VIRTIO_BLK_T_DISCARD, out });
    assertEquals(discard.status, OK);
    assertEquals(engine.log.splice(0), ["discard", "discard"]);
    const zeroes = ranges({ sector: 24, sectors: 8 });
    await driver.request({ type: blk.VIRTIO_BLK_T_WRITE_ZEROES, out: zeroes });
    assertEquals(engine.log.splice(0), ["writeZeroes", "flush"]);
  }
});

Deno.test("engine: for a thread that polls, long batches are begun and published in parts", async () => {
  for (const later of [false, true]) {
    const { engine, driver, device } = await open({ later });
    engine.descriptor = 1;
    const [source] = device.pollSources();
    const begun: number[] = [];
    const submit = engine.submit.bind(engine);
    engine.submit = () => {
      begun.push(device.queueCounters[0]!.chains);
      submit();
    };
    const answers = Array.from(
      { length: 64 },
      (_, i) => driver.submit({ ...read(i, 4096), publish: i === 63 }).answer,
    );
    // Parts of 32, 64 and 128 KiB, and a rest: a descriptor counts as 512 bytes, a request of two of them as 5137.
    if (later) assertEquals(begun, [7, 20, 46, 64]);
    assertEquals(device.queueCounters[0]!.interrupts, later ? 0 : 4);
    while (source!.ready() > 0);
    for (const [i, answer] of (await Promise.all(answers)).entries()) {
      assertEquals([answer.status, answer.used], [OK, 4097]);
      assertSame(answer.data, pattern(SIZE, 1).subarray(512 * i, 512 * i + 4096));
    }
  }
});

Deno.test("engine: one that fails when it is told to begin costs the device, not the host", async () => {
  for (const polled of [false, true]) {
    const { engine, driver, device } = await open({ later: true });
    engine.descriptor = 1;
    if (polled) device.pollSources();
    engine.submit = () => {
      throw new Error("no more");
    };
    for (let i = 0; i < 64; i++) driver.submit({ ...read(i, 4096), publish: i === 63 });
    assertEquals(driver.transport.needsReset, true);
    assertEquals(engine.inFlight, 0);
  }
});
