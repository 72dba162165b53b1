/** Requests of a driver, over every ring and to several back ends. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "@virtio/device";
import fc from "fast-check";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { FileBackend } from "./backends/file.ts";
import { LaterBackend } from "./backends/later_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { SECTORS, SIZE } from "./disk_testing.ts";
import { BlkError } from "./driver.ts";
import { join } from "./driver_testing.ts";
import type { BlkDeviceOptions } from "./options.ts";

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
