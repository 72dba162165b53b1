/** Virtio 1.4, 5.2.6.1: what a block driver sends. */
import { BlkDevice } from "@virtio/blk";
import * as blk from "@virtio/blk";
import { BlkDriver, type BlkDriverOptions, BlkError } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import type { QueueDevice } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { LocalTransport, SpyDevice, turns } from "../../packages/blk/testing.ts";

const { BlkConfigOffset: at } = blk;
const RANGES = blk.VIRTIO_BLK_F_DISCARD | blk.VIRTIO_BLK_F_WRITE_ZEROES |
  blk.VIRTIO_BLK_F_SECURE_ERASE;

async function open(
  device: QueueDevice,
  options: Partial<BlkDriverOptions> = {},
): Promise<BlkDriver> {
  const memory = GuestMemory.allocate(2 ** 20);
  const transport = new LocalTransport(device, memory);
  return await BlkDriver.open(transport, { dma: new DmaPool(memory, 4096, 900_000), ...options });
}

/** A device that takes so many ranges of so many sectors. */
function rangesDevice(segments: number, sectors: number): SpyDevice {
  return new SpyDevice(RANGES, (view) => {
    for (
      const offset of [
        at.max_discard_sectors,
        at.max_write_zeroes_sectors,
        at.max_secure_erase_sectors,
      ]
    ) {
      view.setUint32(offset, sectors, true);
      view.setUint32(offset + 4, segments, true);
    }
  });
}

/** Ranges in the order in which they were sent: sector, number, flags. */
function rangesOf(out: Uint8Array): [number, number, number][] {
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  return Array.from({ length: out.length / 16 }, (_, i) => [
    Number(view.getBigUint64(16 * i, true)),
    view.getUint32(16 * i + 8, true),
    view.getUint32(16 * i + 12, true),
  ]);
}

Deno.test("5.2.6.1-G1: the driver looks at the capacity when the configuration changes", async () => {
  const device = new SpyDevice(0n);
  const driver = await open(device);
  assertEquals(driver.sectors, 2048);
  device.config.update((view) => {
    view.setUint32(at.capacity, 5, true);
    view.setUint32(at.capacity + 4, 1, true);
  });
  await turns();
  assertEquals(driver.sectors, 2 ** 32 + 5);
  await driver.close();
});

Deno.test("5.2.6.1-G2: the driver sends no request beyond the capacity", async () => {
  const device = new SpyDevice(RANGES);
  const driver = await open(device);
  const cases: [number, number][] = [[2048, 1], [2047, 2], [0, 2049], [2 ** 53 - 1, 1], [-1, 1]];
  for (const [sector, count] of cases) {
    const bytes = new Uint8Array(count * 512);
    await assertRejects(() => driver.read(sector, bytes), RangeError);
    await assertRejects(() => driver.write(sector, bytes), RangeError);
    const range = { sector, sectors: count };
    await assertRejects(() => driver.discard(range), RangeError);
    await assertRejects(() => driver.writeZeroes(range), RangeError);
    await assertRejects(() => driver.secureErase(range), RangeError);
  }
  assertEquals(device.seen, []);
  await driver.read(2047, new Uint8Array(512));
  assertEquals(device.seen.length, 1);
  // Nor after the disk has shrunk.
  device.config.update((view) => view.setUint32(at.capacity, 8, true));
  await turns();
  await assertRejects(() => driver.write(8, new Uint8Array(512)), RangeError);
  assertEquals(device.seen.length, 1);
  await driver.close();
});

Deno.test("5.2.6.1-G3: the driver accepts RO if offered, and then writes nothing", async () => {
  for (const features of [(1n << 24n) - 1n, 0n]) {
    const device = new SpyDevice(blk.VIRTIO_BLK_F_RO | RANGES);
    const driver = await open(device, { features });
    assert(driver.session.has(blk.VIRTIO_BLK_F_RO));
    await assertRejects(() => driver.write(0, new Uint8Array(512)), TypeError, "read-only");
    await assertRejects(() => driver.discard({ sector: 0, sectors: 1 }), TypeError, "read-only");
    assertEquals(device.seen, []);
    await driver.close();
  }
});

Deno.test("5.2.6.1-G4 5.2.6.1-G5: a flush has sector 0 and no data", async () => {
  const device = new SpyDevice(blk.VIRTIO_BLK_F_FLUSH);
  const driver = await open(device);
  // So that a header used before had another sector.
  await driver.write(2000, new Uint8Array(512));
  await driver.flush();
  const [, flush] = device.seen;
  assertEquals(flush!.type, blk.VIRTIO_BLK_T_FLUSH);
  assertEquals(flush!.sector, 0n);
  assertEquals([flush!.out.length, flush!.in], [0, 0]);
  await driver.close();
});

Deno.test("5.2.6.1-G6: reads and writes have multiples of 512 bytes, and others are not sent", async () => {
  const device = new SpyDevice(blk.VIRTIO_BLK_F_SIZE_MAX, (view) => {
    view.setUint32(at.size_max, 700, true);
  });
  const driver = await open(device, { transferSize: 1024 });
  for (const length of [1, 511, 513, 1000]) {
    await assertRejects(() => driver.read(0, new Uint8Array(length)), RangeError, "multiple");
    await assertRejects(() => driver.write(0, new Uint8Array(length)), RangeError, "multiple");
  }
  assertEquals(device.seen, []);
  await driver.read(3, new Uint8Array(5 * 512));
  await driver.write(3, new Uint8Array(5 * 512));
  // Cut into several requests, all of whole sectors.
  assertEquals(device.seen.map((request) => request.in + request.out.length), [
    ...[1024, 1024, 512],
    ...[1024, 1024, 512],
  ]);
  await driver.close();
});

Deno.test("5.2.6.1-G7: ranges are sent whole, as 16 bytes each", async () => {
  const device = rangesDevice(3, 10);
  const driver = await open(device);
  const wanted = [{ sector: 1, sectors: 25 }, { sector: 100, sectors: 3 }];
  await driver.discard(...wanted);
  await driver.secureErase(...wanted);
  await driver.writeZeroes(wanted, true);
  const flags = [0, 0, 1];
  const types = [
    blk.VIRTIO_BLK_T_DISCARD,
    blk.VIRTIO_BLK_T_SECURE_ERASE,
    blk.VIRTIO_BLK_T_WRITE_ZEROES,
  ];
  types.forEach((type, i) => {
    const sent = device.seen.filter((request) => request.type === type);
    assertEquals(sent.map(({ out }) => out.length % 16), [0, 0]);
    assertEquals(sent.flatMap(({ out }) => rangesOf(out)), [
      [1, 10, flags[i]],
      [11, 10, flags[i]],
      [21, 5, flags[i]],
      [100, 3, flags[i]],
    ]);
    assertEquals(sent.map(({ sector }) => sector), [0n, 0n]);
  });
  await driver.close();
});

Deno.test("5.2.6.1-G8: a request for the device ID has 20 bytes", async () => {
  const device = new SpyDevice(0n);
  const driver = await open(device);
  assertEquals(await driver.getId(), "");
  assertEquals(device.seen.map((request) => [request.type, request.in, request.out.length]), [
    [blk.VIRTIO_BLK_T_GET_ID, 20, 0],
  ]);
  await driver.close();
});

for (
  const [id, type, send] of [
    ["5.2.6.1-G9", blk.VIRTIO_BLK_T_DISCARD, "discard"],
    ["5.2.6.1-G10", blk.VIRTIO_BLK_T_SECURE_ERASE, "secureErase"],
    ["5.2.6.1-G11", blk.VIRTIO_BLK_T_WRITE_ZEROES, "writeZeroes"],
  ] as const
) {
  Deno.test(`${id}: no request has more ranges than the device takes`, async () => {
    for (const segments of [1, 3, 8]) {
      const device = rangesDevice(segments, 1000);
      const driver = await open(device);
      const wanted = Array.from({ length: 10 }, (_, i) => ({ sector: 10 * i, sectors: 2 }));
      if (send === "writeZeroes") await driver.writeZeroes(wanted);
      else await driver[send](...wanted);
      const sent = device.seen.filter((request) => request.type === type);
      assertEquals(sent.length, Math.ceil(10 / segments));
      for (const { out } of sent) assert(rangesOf(out).length <= segments);
      assertEquals(sent.flatMap(({ out }) => rangesOf(out).map(([sector]) => sector)), [
        ...wanted.map(({ sector }) => sector),
      ]);
      await driver.close();
    }
  });
}

Deno.test("5.2.6.1-G12: with CONFIG_WCE the driver can switch the cache to writethrough and back", async () => {
  const device = new BlkDevice({ backend: new MemoryBackend(2 ** 20) });
  const driver = await open(device);
  assertEquals(driver.setWriteback(false), false);
  assertEquals(device.config.bytes[at.writeback], 0);
  assertEquals(driver.setWriteback(true), true);
  assertEquals(device.config.bytes[at.writeback], 1);
  await driver.close();
});

Deno.test("5.2.6.1-G13: after a switch to writethrough the driver still flushes what was written before", async () => {
  const device = new SpyDevice(blk.VIRTIO_BLK_F_FLUSH | blk.VIRTIO_BLK_F_CONFIG_WCE, (view) => {
    view.setUint8(at.writeback, 1);
  });
  const driver = await open(device);
  await driver.write(0, new Uint8Array(512));
  assertEquals(driver.setWriteback(false), false);
  await driver.flush();
  assertEquals(device.seen.map(({ type }) => type), [
    blk.VIRTIO_BLK_T_OUT,
    blk.VIRTIO_BLK_T_FLUSH,
  ]);
  await driver.close();
});

Deno.test("5.2.6.1-G14: discards have the unmap bit clear", async () => {
  const device = rangesDevice(4, 10);
  const driver = await open(device);
  await driver.writeZeroes({ sector: 0, sectors: 30 }, true);
  await driver.discard({ sector: 0, sectors: 30 });
  const [zeroes, discard] = device.seen;
  assert(rangesOf(zeroes!.out).every(([, , flags]) => flags === 1));
  assert(rangesOf(discard!.out).every(([, , flags]) => flags === 0));
  await driver.close();
});

Deno.test("5.2.6.1-G15: after a discard the driver reads what the device has, whatever that is", async () => {
  const memory = new MemoryBackend(2 ** 20);
  // What a discard leaves is the device's choice: here it is something odd.
  memory.discard = (position, length) => {
    memory.write(position, new Uint8Array(length).fill(0x5a), 0, length);
  };
  const driver = await open(new BlkDevice({ backend: memory }));
  await driver.write(8, new Uint8Array(512).fill(1));
  await driver.discard({ sector: 8, sectors: 1 });
  const into = new Uint8Array(512);
  await driver.read(8, into);
  assertEquals(into, new Uint8Array(512).fill(0x5a));
  await driver.close();
});

Deno.test("5.2.6.1-G16: when a request of several ranges fails, the driver says no more than that", async () => {
  for (const type of [blk.VIRTIO_BLK_T_DISCARD, blk.VIRTIO_BLK_T_WRITE_ZEROES]) {
    const memory = new MemoryBackend(2 ** 20);
    let count = 0;
    const second = (position: number, length: number): void => {
      if (count++ === 1) throw new Error("bad sector");
      memory.write(position, new Uint8Array(length), 0, length);
    };
    memory.discard = second;
    memory.writeZeroes = second;
    const device = new BlkDevice({ backend: memory, writeZeroes: { maxSegments: 8 } });
    const driver = await open(device);
    await driver.write(0, new Uint8Array(3 * 512).fill(1));
    const ranges = [0, 1, 2].map((sector) => ({ sector, sectors: 1 }));
    const error = await assertRejects(
      () =>
        type === blk.VIRTIO_BLK_T_DISCARD ? driver.discard(...ranges) : driver.writeZeroes(ranges),
      BlkError,
    );
    assertEquals(error.status, blk.VIRTIO_BLK_S_IOERR);
    // The first was done, the second failed, the third was not tried: only the device knows.
    const into = new Uint8Array(3 * 512);
    await driver.read(0, into);
    assertEquals([into[0], into[512], into[1024]], [0, 1, 1]);
    await driver.close();
  }
});
