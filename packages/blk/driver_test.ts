import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  ConfigSpace,
  CORE_FEATURES,
  type FeatureSet,
  HOLD,
  QueueDevice,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { type Chain, VirtqueueError } from "@virtio/vring";
import { DmaPool } from "@virtio/vring/driver";
import fc from "fast-check";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { FileBackend } from "./backends/file.ts";
import { LaterBackend } from "./backends/later_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { BlkDriver, type BlkDriverOptions, BlkError } from "./driver.ts";
import type { BlkDeviceOptions } from "./options.ts";
import { LocalTransport, turns } from "./testing.ts";

const SIZE = 1024 * 1024;
const SECTORS = SIZE / 512;

async function join(
  device: QueueDevice,
  options: Partial<BlkDriverOptions> = {},
): Promise<{ driver: BlkDriver; transport: LocalTransport; memory: GuestMemory; dma: DmaPool }> {
  const memory = GuestMemory.allocate(8 * 2 ** 20);
  const transport = new LocalTransport(device, memory);
  const dma = new DmaPool(memory, 4096, 7 * 2 ** 20);
  const driver = await BlkDriver.open(transport, { dma, ...options });
  return { driver, transport, memory, dma };
}

/** A block device as no one should build it: it answers as the test says. */
class OddDevice extends QueueDevice {
  answer: (chain: Chain, device: OddDevice) => void | typeof HOLD;

  constructor(answer: (chain: Chain, device: OddDevice) => void | typeof HOLD, features = 0n) {
    const config = new ConfigSpace(72);
    config.view.setUint32(0, SECTORS, true);
    super({ type: 2, features, queueSizes: [64], config });
    this.answer = answer;
  }

  protected override handle(chain: Chain): void | typeof HOLD {
    return this.answer(chain, this);
  }

  finish(chain: Chain): void {
    this.complete(0, chain);
  }

  breakDown(): void {
    this.activation!.fail(new Error("odd"));
  }
}

const rings: [string, FeatureSet][] = [
  ["split", 0n],
  ["packed", VIRTIO_F_RING_PACKED],
  ["split, indirect, event index", VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX],
  ["packed, all", CORE_FEATURES],
  ["split, in order", VIRTIO_F_IN_ORDER],
];

for (const [name, core] of rings) {
  for (const later of [false, true]) {
    const kind = `${name}, ${later ? "asynchronous" : "synchronous"} back end`;
    const make = (
      bytes: Uint8Array,
      options: Partial<BlkDeviceOptions> = {},
    ): BlkDevice => {
      const memory = new MemoryBackend(bytes);
      return new BlkDevice({ backend: later ? new LaterBackend(memory) : memory, ...options });
    };

    Deno.test(`driver, ${kind}: any requests leave what an array would hold`, async () => {
      const bytes = pattern(SIZE, 1);
      const model = bytes.slice();
      const device = make(bytes, { queues: 2, sizeMax: 5000, writeZeroes: { maxSectors: 100 } });
      const { driver, dma } = await join(device, { core, transferSize: 16384, buffers: 4 });
      const step = fc.record({
        kind: fc.constantFrom("read", "write", "zero", "flush"),
        sector: fc.integer({ min: 0, max: SECTORS - 1 }),
        count: fc.integer({ min: 1, max: 150 }),
        seed: fc.nat(),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
          for (const { kind, sector, count, seed } of steps) {
            const sectors = Math.min(count, SECTORS - sector);
            const [start, end] = [sector * 512, (sector + sectors) * 512];
            if (kind === "write") {
              model.set(pattern(end - start, seed), start);
              await driver.write(sector, pattern(end - start, seed));
            } else if (kind === "read") {
              const into = new Uint8Array(end - start);
              await driver.read(sector, into);
              assertSame(into, model.subarray(start, end));
            } else if (kind === "zero") {
              model.fill(0, start, end);
              await driver.writeZeroes({ sector, sectors }, seed % 2 === 1);
            } else {
              await driver.flush();
            }
          }
          assertSame(bytes, model);
        }),
        { numRuns: 20 },
      );
      await driver.close();
      assertEquals(dma.available, 7 * 2 ** 20, "all memory came back");
    });

    Deno.test(`driver, ${kind}: many requests at once, more than there is room for`, async () => {
      const bytes = pattern(SIZE, 1);
      const { driver } = await join(make(bytes), { core, queueSize: 16, buffers: 5 });
      const results = Array.from({ length: 200 }, async (_, i) => {
        const into = new Uint8Array(1024);
        await driver.read(i * 3, into);
        assertSame(into, bytes.subarray(i * 1536, i * 1536 + 1024));
      });
      await Promise.all(results);
      await driver.close();
    });
  }
}

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

Deno.test("driver: statuses become errors that tell them", async () => {
  for (const status of [1, 2, 3, 77, 255]) {
    const { driver } = await join(
      new OddDevice((chain) => {
        chain.writer.reserveTail(1);
        chain.writer.fill(7, chain.writer.remaining);
        chain.writer.writeTailU8(status);
      }),
    );
    const into = new Uint8Array(512);
    const error = await assertRejects(() => driver.read(0, into), BlkError);
    assertEquals(error.status, status);
    // Data of a failed request is not given out.
    assertSame(into, new Uint8Array(512));
    assertEquals(driver.broken, null);
    await driver.close();
  }
});

Deno.test("driver: a success that the used length does not cover is no success", async () => {
  const { driver } = await join(
    new OddDevice((chain) => {
      // Status without data: the length says 0.
      chain.writer.reserveTail(1);
      chain.writer.writeTailU8(0);
    }),
  );
  const error = await assertRejects(() => driver.read(0, new Uint8Array(512)), BlkError);
  assertEquals(error.status, 255);
  await driver.write(0, new Uint8Array(512)); // there it covers
  await driver.close();
});

Deno.test("driver: a device that asks for a reset is given up, with all that is in flight", async () => {
  const { driver } = await join(new OddDevice(() => HOLD), { buffers: 2 });
  const requests = [0, 1, 2, 3].map((sector) =>
    assertRejects(() => driver.read(sector, new Uint8Array(512)), DriverError, "reset")
  );
  await turns();
  (driver.session.transport as LocalTransport).state.fail(new Error("broken"));
  await Promise.all(requests);
  assert(driver.broken instanceof DriverError);
  await assertRejects(() => driver.read(0, new Uint8Array(512)), DriverError, "reset");
  await driver.close();
});

Deno.test("driver: a device that breaks the ring is given up", async () => {
  const { driver, memory } = await join(new OddDevice(() => HOLD), { core: 0n });
  const reading = assertRejects(() => driver.read(0, new Uint8Array(512)), VirtqueueError);
  await turns();
  const { deviceArea } = driver.session.queue(0).config;
  memory.writeU32(deviceArea + 4, 60); // a descriptor that was never made available
  memory.writeU16(deviceArea + 2, 1);
  driver.session.handlers!.used(0);
  await reading;
  assert(driver.broken instanceof VirtqueueError);
  await driver.close();
});

Deno.test("driver: a device that never answers is given up after the timeout", async () => {
  const { driver } = await join(new OddDevice(() => HOLD), { timeout: 20 });
  const start = performance.now();
  await assertRejects(() => driver.read(0, new Uint8Array(512)), DriverError, "unanswered");
  const took = performance.now() - start;
  assert(took >= 20 && took < 2000, `${took} ms`);
  await driver.close();
});

Deno.test("driver: one stuck request among many that work is noticed too", async () => {
  let count = 0;
  const { driver } = await join(
    new OddDevice((chain) => {
      if (count++ === 0) return HOLD;
      chain.writer.fill(0, chain.writer.remaining);
      return;
    }),
    { timeout: 20 },
  );
  let stuck = true;
  const first = assertRejects(() => driver.read(0, new Uint8Array(512)), DriverError)
    .then(() => stuck = false);
  while (stuck) {
    await driver.read(1, new Uint8Array(512)).catch(() => {});
    await turns(1);
  }
  await first;
  await driver.close();
});

Deno.test("driver: a slow device is not given up", async () => {
  const slow = new OddDevice((chain, device) => {
    setTimeout(() => {
      chain.writer.fill(0, chain.writer.remaining);
      device.finish(chain);
    }, 30);
    return HOLD;
  });
  const { driver } = await join(slow, { timeout: 40 });
  for (let i = 0; i < 5; i++) await driver.read(0, new Uint8Array(512));
  assertEquals(driver.broken, null);
  await driver.close();
});

Deno.test("driver: a configuration that never stands still, or cannot be, is no reason to hang", async () => {
  const restless = new OddDevice(() => HOLD);
  Object.defineProperty(restless.config, "generation", {
    get: () => Math.floor(Math.random() * 1e9),
  });
  await assertRejects(() => join(restless), DriverError, "stands still");
  const tiny = new OddDevice(() => HOLD, blk.VIRTIO_BLK_F_SIZE_MAX | blk.VIRTIO_BLK_F_SEG_MAX);
  tiny.config.view.setUint32(blk.BlkConfigOffset.size_max, 100, true);
  tiny.config.view.setUint32(blk.BlkConfigOffset.seg_max, 5, true);
  await assertRejects(() => join(tiny), DriverError, "no room for a sector");
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

Deno.test("driver: requests of one turn are one kick", async () => {
  const { driver, transport } = await join(
    new BlkDevice({ backend: new MemoryBackend(SIZE) }),
    { queues: 1 },
  );
  const before = transport.kicks;
  await Promise.all([0, 1, 2, 3, 4].map((i) => driver.read(i, new Uint8Array(512))));
  assertEquals(transport.kicks - before, 1);
  await driver.close();
});

for (const mode of ["sync", "async"] as const) {
  Deno.test(`driver: an image file, ${mode}, with every command, holds what was written`, async () => {
    const folder = await Deno.makeTempDir();
    const path = `${folder}/disk`;
    const backend = FileBackend.open(path, { create: true, size: SIZE, mode });
    const device = new BlkDevice({ backend, queues: 2 });
    const { driver } = await join(device);
    const model = new Uint8Array(SIZE);
    const writes = Array.from({ length: 60 }, (_, i) => {
      const bytes = pattern(512 * (1 + i % 30), i);
      model.set(bytes, i * 30 * 512);
      return driver.write(i * 30, bytes);
    });
    await Promise.all(writes);
    await driver.writeZeroes([{ sector: 100, sectors: 200 }], true);
    await driver.writeZeroes([{ sector: 400, sectors: 50 }], false);
    model.fill(0, 100 * 512, 300 * 512).fill(0, 400 * 512, 450 * 512);
    await driver.flush();
    assertSame(await Deno.readFile(path), model);
    const into = new Uint8Array(SIZE);
    await driver.read(0, into);
    assertSame(into, model);
    // The file is cut off: reads beyond fail, the others go on.
    await Deno.truncate(path, SIZE / 2);
    const error = await assertRejects(
      () => driver.read(SECTORS - 8, new Uint8Array(512)),
      BlkError,
    );
    assertEquals(error.status, blk.VIRTIO_BLK_S_IOERR);
    await driver.read(0, new Uint8Array(512));
    await driver.close();
    await backend.close();
    await Deno.remove(folder, { recursive: true });
  });
}

Deno.test("driver: what is used while it asks for interrupts is found at once", async () => {
  for (const core of [0n, CORE_FEATURES]) {
    const device = new BlkDevice({ backend: new MemoryBackend(SIZE) });
    const { driver, dma } = await join(device, { core });
    const queue = driver.queues[0]!;
    const address = dma.allocate(4096);
    const done: number[] = [];
    const settled = (status: number): void => void done.push(status);
    const note = { settled, failed: () => {}, lost: () => {} };
    queue.disableInterrupts();
    // The device is done right before the driver's request for interrupts can be seen, so it sends none.
    const atomics = Atomics as { store: unknown };
    const { store } = Atomics;
    atomics.store = (array: Uint16Array, index: number, value: number): number => {
      atomics.store = store;
      queue.submit(blk.VIRTIO_BLK_T_IN, 0, address, 512, true, note);
      queue.publish();
      return store(array, index, value);
    };
    try {
      queue.collect();
    } finally {
      atomics.store = store;
    }
    assertEquals(done, [blk.VIRTIO_BLK_S_OK]);
    await driver.close();
  }
});

Deno.test("driver: by token, without promises", async () => {
  const bytes = pattern(SIZE, 1);
  for (const core of [0n, CORE_FEATURES]) {
    const { driver, memory, dma } = await join(
      new BlkDevice({ backend: new MemoryBackend(bytes) }),
      { core, queueSize: 16 },
    );
    const queue = driver.queues[0]!;
    queue.disableInterrupts();
    const buffers = Array.from({ length: 20 }, () => dma.allocate(4096));
    const sectorOf = new Map<number, number>();
    let submitted = 0;
    for (; submitted < 20; submitted++) {
      const token = queue.submit(blk.VIRTIO_BLK_T_IN, submitted, buffers[submitted]!, 4096);
      if (token < 0) break;
      sectorOf.set(token, submitted);
    }
    assertEquals(submitted, core === 0n ? 5 : 16);
    assertEquals(queue.poll(), -1);
    queue.publish();
    for (let done = 0; done < submitted; done++) {
      const token = queue.poll();
      assertEquals(queue.status, blk.VIRTIO_BLK_S_OK);
      const sector = sectorOf.get(token)!;
      sectorOf.delete(token);
      const data = new Uint8Array(4096);
      memory.read(buffers[sector]!, data);
      assertSame(data, pattern(SIZE, 1).subarray(sector * 512, sector * 512 + 4096));
    }
    assertEquals(queue.poll(), -1);
    assertEquals(queue.inFlight, 0);
    queue.collect(); // interrupts again
    // What an interrupt finds first is kept for poll, beside what belongs to promises.
    const token = queue.submit(blk.VIRTIO_BLK_T_IN, 0, buffers[0]!, 512);
    await driver.read(1, new Uint8Array(512));
    assertEquals(queue.poll(), token);
    assertThrows(() => queue.submit(blk.VIRTIO_BLK_T_IN, 0, buffers[0]!, 2 ** 40), RangeError);
    await driver.close();
  }
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
