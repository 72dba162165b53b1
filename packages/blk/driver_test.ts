import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CORE_FEATURES, VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import { LaterBackend } from "./backends/later_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { SECTORS, SIZE } from "./disk_testing.ts";
import { join, OddDevice } from "./driver_testing.ts";
import { turns } from "./testing.ts";

Deno.test("driver: reads what the device says about itself", async () => {
  const device = new BlkDevice({
    backend: new MemoryBackend(SIZE),
    id: "a-disk",
    blockSize: 4096,
    sizeMax: 65536,
    segMax: 10,
    geometry: { cylinders: 1000, heads: 16, sectors: 63 },
    topology: { physicalBlockExp: 1, alignmentOffset: 2, minIoSize: 3, optIoSize: 4 },
    discard: { maxSectors: 1000, maxSegments: 5, alignment: 16 },
    queues: 3,
  });
  const { driver } = await join(device);
  const { info } = driver;
  assertEquals(info.sectors, SECTORS);
  assertEquals(info.blockSize, 4096);
  assertEquals(info.sizeMax, 65536);
  assertEquals(info.segMax, 10);
  assertEquals(info.geometry, { cylinders: 1000, heads: 16, sectors: 63 });
  assertEquals(info.topology, {
    physicalBlockExp: 1,
    alignmentOffset: 2,
    minIoSize: 3,
    optIoSize: 4,
  });
  assertEquals(info.discard, { maxSectors: 1000, maxSegments: 5, alignment: 16 });
  assertEquals(info.writeZeroes!.mayUnmap, true);
  assertEquals(info.queues, 3);
  assertEquals(driver.queues.length, 3);
  assertEquals(info.writeback, true);
  assertEquals(await driver.getId(), "a-disk");
  await driver.close();
});

Deno.test("driver: tells the lifetime, and refuses where there is none", async () => {
  const backend = Object.assign(new MemoryBackend(SIZE), {
    lifetime: () => ({ preEolInfo: 2, estimateTypeA: 11, estimateTypeB: 0 }),
  });
  const { driver } = await join(new BlkDevice({ backend }));
  assertEquals(await driver.lifetime(), { preEolInfo: 2, estimateTypeA: 11, estimateTypeB: 0 });
  await driver.close();
  const { driver: without } = await join(new BlkDevice({ backend: new MemoryBackend(SIZE) }));
  await assertRejects(() => without.lifetime(), TypeError);
  await without.close();
});

Deno.test("driver: refuses what the device would have to refuse", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(SIZE, { readonly: true }) });
  const { driver } = await join(device);
  const sector = new Uint8Array(512);
  await assertRejects(() => driver.write(0, sector), TypeError, "read-only");
  await assertRejects(() => driver.discard({ sector: 0, sectors: 1 }), TypeError, "read-only");
  await assertRejects(() => driver.read(SECTORS, sector), RangeError, "not within");
  await assertRejects(() => driver.read(SECTORS - 1, new Uint8Array(1024)), RangeError);
  await assertRejects(() => driver.read(-1, sector), RangeError);
  await assertRejects(() => driver.read(0.5, sector), RangeError);
  await assertRejects(() => driver.read(0, new Uint8Array(100)), RangeError, "multiple of 512");
  assertEquals(device.stats.requests, 0);
  await driver.close();
});

Deno.test("driver: cuts discards as the device's limits say", async () => {
  const seen: [number, number][] = [];
  const memory = new MemoryBackend(SIZE);
  memory.discard = (position, length) => void seen.push([position, length]);
  const device = new BlkDevice({
    backend: memory,
    discard: { maxSectors: 10, maxSegments: 2 },
  });
  const { driver } = await join(device);
  await driver.discard({ sector: 5, sectors: 25 }, { sector: 100, sectors: 1 });
  assertEquals(seen.map(([at, length]) => [at / 512, length / 512]), [[5, 10], [15, 10], [25, 5], [
    100,
    1,
  ]]);
  assertEquals(device.stats.discards, 2);
  await driver.close();
});

Deno.test("driver: follows the capacity", async () => {
  const memory = new MemoryBackend(SIZE);
  const { driver } = await join(new BlkDevice({ backend: memory }));
  const told: number[] = [];
  driver.onChange = (info) => told.push(info.sectors);
  memory.resize(2 * SIZE);
  await turns();
  assertEquals(driver.sectors, 2 * SECTORS);
  await driver.read(2 * SECTORS - 1, new Uint8Array(512));
  memory.resize(512);
  await turns();
  await assertRejects(() => driver.read(1, new Uint8Array(512)), RangeError);
  assertEquals(told, [2 * SECTORS, 1]);
  await driver.close();
});

Deno.test("driver: a request that waits while the disk shrinks is not sent", async () => {
  const memory = new MemoryBackend(SIZE);
  const backend = new LaterBackend(memory);
  const device = new BlkDevice({ backend });
  const { driver } = await join(device, { buffers: 1 });
  backend.hold();
  const first = driver.read(0, new Uint8Array(512));
  const second = driver.read(SECTORS - 1, new Uint8Array(512));
  const failed = assertRejects(() => second, RangeError, "too small");
  await turns();
  assertEquals(device.stats.requests, 1);
  memory.resize(SIZE / 2);
  await turns();
  backend.release();
  await first;
  await failed;
  assertEquals(device.stats.requests, 1);
  await driver.close();
});

Deno.test("driver: honours size_max and seg_max", async () => {
  const shapes: [number, number][] = [];
  const odd = new OddDevice((chain) => {
    shapes.push([
      chain.count - chain.readableCount,
      Math.max(...chain.lengths.slice(0, chain.count)),
    ]);
    chain.writer.fill(0, chain.writer.remaining);
  }, blk.VIRTIO_BLK_F_SIZE_MAX | blk.VIRTIO_BLK_F_SEG_MAX);
  odd.config.view.setUint32(blk.BlkConfigOffset.size_max, 1000, true);
  odd.config.view.setUint32(blk.BlkConfigOffset.seg_max, 4, true);
  for (const core of [0n, VIRTIO_F_INDIRECT_DESC, CORE_FEATURES]) {
    shapes.length = 0;
    const { driver } = await join(odd, { core });
    assertEquals(driver.transferSize, 3584);
    await driver.read(0, new Uint8Array(16384));
    assertEquals(shapes.length, 5);
    // Data segments, and the status.
    assert(shapes.every(([segments, longest]) => segments <= 5 && longest <= 1000));
    // Who uses the queue by itself is told.
    assertThrows(
      () => driver.queues[0]!.submit(blk.VIRTIO_BLK_T_IN, 0, 0x1000, 4096),
      RangeError,
      "at most 4 segments",
    );
    await driver.close();
  }
});

Deno.test("driver: a size_max of 0 is no limit", async () => {
  const odd = new OddDevice((chain) => {
    chain.writer.fill(0, chain.writer.remaining);
  }, blk.VIRTIO_BLK_F_SIZE_MAX);
  const { driver } = await join(odd);
  assertEquals(driver.info.sizeMax, 0xffff_ffff);
  await driver.read(0, new Uint8Array(16384));
  await driver.close();
});

Deno.test("driver: the cache mode can be chosen where the device lets it", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(SIZE) });
  const { driver } = await join(device);
  assertEquals(driver.info.writeback, true);
  assertEquals(driver.setWriteback(false), false);
  assertEquals(driver.info.writeback, false);
  assertEquals(device.writeback, false);
  assertEquals(driver.setWriteback(true), true);
  await driver.close();
  const fixed = new BlkDevice({ backend: new MemoryBackend(SIZE), configWce: false });
  const { driver: without } = await join(fixed);
  assertThrows(() => without.setWriteback(false), TypeError);
  await without.close();
});

Deno.test("driver: options are checked", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(SIZE) });
  await assertRejects(() => join(device, { queues: 0 }), RangeError, "queues");
  await assertRejects(() => join(device, { transferSize: 100 }), RangeError, "transferSize");
  await assertRejects(() => join(device, { buffers: 0 }), RangeError, "buffers");
  await assertRejects(() => join(device, { queueSize: 2 }), RangeError, "no room");
});
