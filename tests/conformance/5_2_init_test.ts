/** Virtio 1.4, 5.2.5: initialisation of block devices, both sides. */
import * as blk from "@virtio/blk";
import { BlkDriver, type BlkDriverOptions } from "@virtio/blk/driver";
import { type FeatureSet, type QueueDevice, VIRTIO_STATUS_FEATURES_OK } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { LocalTransport, RawDriver, SpyDevice } from "../../packages/blk/testing.ts";
import { everywhere } from "./places.ts";

const { BlkConfigOffset: at } = blk;
const CACHE = blk.VIRTIO_BLK_F_FLUSH | blk.VIRTIO_BLK_F_CONFIG_WCE;

async function open(
  device: QueueDevice,
  options: Partial<BlkDriverOptions> = {},
  setUp: (transport: LocalTransport) => void = () => {},
): Promise<BlkDriver> {
  const memory = GuestMemory.allocate(2 ** 20);
  const transport = new LocalTransport(device, memory);
  setUp(transport);
  return await BlkDriver.open(transport, { dma: new DmaPool(memory, 4096, 900_000), ...options });
}

Deno.test("5.2.5.1-G1: the driver that negotiates FLUSH sends flushes", async () => {
  const device = new SpyDevice(blk.VIRTIO_BLK_F_FLUSH);
  const driver = await open(device);
  assert(driver.session.has(blk.VIRTIO_BLK_F_FLUSH));
  await driver.flush();
  assertEquals(device.seen.map(({ type }) => type), [blk.VIRTIO_BLK_T_FLUSH]);
  await driver.close();
});

Deno.test("5.2.5.1-G2: without CONFIG_WCE and FLUSH the driver takes the cache for writethrough, and has nothing to flush", async () => {
  const device = new SpyDevice(CACHE);
  const driver = await open(device, { features: 0n });
  assertEquals(driver.info.writeback, false);
  await driver.flush();
  assertEquals(device.seen, []);
  await driver.close();
});

Deno.test("5.2.5.1-G3: with FLUSH and without CONFIG_WCE the driver takes the cache for writeback, whatever the field says", async () => {
  for (const field of [0, 1]) {
    const device = new SpyDevice(CACHE, (view) => view.setUint8(at.writeback, field));
    const driver = await open(device, { features: blk.VIRTIO_BLK_F_FLUSH });
    assertEquals(driver.info.writeback, true);
    await driver.flush();
    assertEquals(device.seen.length, 1);
    await driver.close();
  }
});

Deno.test("5.2.5.1-G4: the driver does not read writeback before FEATURES_OK", async () => {
  const reads: { status: number }[] = [];
  const driver = await open(new SpyDevice(CACHE), {}, (transport) => {
    transport.onConfigAccess = (offset, size, status) => {
      if (offset <= at.writeback && offset + size > at.writeback) reads.push({ status });
    };
  });
  assert(reads.length > 0, "it does read it");
  for (const { status } of reads) {
    assertEquals(status & VIRTIO_STATUS_FEATURES_OK, VIRTIO_STATUS_FEATURES_OK);
  }
  await driver.close();
});

Deno.test("5.2.5.1-G5: the driver cannot handle zones, and does not accept ZONED, even if told to", async () => {
  for (const model of [0, 1, 2]) {
    const device = new SpyDevice(blk.VIRTIO_BLK_F_ZONED, (view) => view.setUint8(92, model));
    const driver = await open(device, { features: (1n << 24n) - 1n });
    assertEquals(driver.features & blk.VIRTIO_BLK_F_ZONED, 0n);
    await driver.close();
  }
});

Deno.test("5.2.5.1-G7: the driver accepts DISCARD from a device that offers ZONED too", async () => {
  for (const model of [0, 2]) {
    const features = blk.VIRTIO_BLK_F_ZONED | blk.VIRTIO_BLK_F_DISCARD;
    const driver = await open(new SpyDevice(features, (view) => view.setUint8(92, model)));
    assert(driver.session.has(blk.VIRTIO_BLK_F_DISCARD));
    assert(!driver.session.has(blk.VIRTIO_BLK_F_ZONED));
    await driver.close();
  }
});

everywhere("5.2.5.2-D1: FLUSH is offered, and always where CONFIG_WCE is", async (place) => {
  const caches = ["writeback", "writethrough", "unsafe"] as const;
  for (const cache of caches) {
    for (const configWce of cache === "unsafe" ? [false] : [true, false]) {
      for (const readonly of [true, false]) {
        const { device } = await place.open("blk", { options: { cache, configWce, readonly } });
        const { features } = device;
        const flush = (features & blk.VIRTIO_BLK_F_FLUSH) !== 0n;
        const wce = (features & blk.VIRTIO_BLK_F_CONFIG_WCE) !== 0n;
        assertEquals(flush, cache !== "unsafe");
        assertEquals(wce, configWce);
        assert(flush || !wce);
      }
    }
  }
  // Not chosen by the embedder: both.
  const { features } = (await place.open("blk", {})).device;
  assertEquals(features & CACHE, CACHE);
});

everywhere(
  "5.2.5.2-D2: with CONFIG_WCE and without FLUSH, writeback is 0 from FEATURES_OK on",
  async (place) => {
    for (const cache of ["writeback", "writethrough"] as const) {
      const { device } = await place.open("blk", { options: { cache } });
      const cases: [FeatureSet, number][] = [
        [blk.VIRTIO_BLK_F_CONFIG_WCE, 0],
        [CACHE, cache === "writeback" ? 1 : 0],
        [blk.VIRTIO_BLK_F_CONFIG_WCE, 0],
      ];
      for (const [wanted, expected] of cases) {
        const transport = new LocalTransport(device, GuestMemory.allocate(65536), 1n << 32n);
        transport.writeStatus(0);
        transport.writeStatus(1);
        transport.writeStatus(3);
        transport.writeDriverFeatures(wanted | 1n << 32n);
        transport.writeStatus(3 | VIRTIO_STATUS_FEATURES_OK);
        assertEquals(transport.readStatus(), 3 | VIRTIO_STATUS_FEATURES_OK);
        assertEquals(transport.readConfig(at.writeback, 1), expected);
        transport.writeStatus(0);
      }
    }
  },
);

everywhere(
  "5.2.5.2-D3: the padding bytes unused0 and unused1 are 0, and stay so whatever the driver writes",
  async (place) => {
    const { device } = await place.open("blk", {
      options: {
        queues: 2,
        geometry: { cylinders: 65535, heads: 255, sectors: 255 },
        topology: {
          physicalBlockExp: 31,
          alignmentOffset: 255,
          minIoSize: 65535,
          optIoSize: 0xffffffff,
        },
      },
    });
    const padding = [33, 57, 58, 59];
    const { transport } = await RawDriver.open(device);
    for (const offset of padding) assertEquals(transport.readConfig(offset, 1), 0);
    for (const offset of padding) transport.writeConfig(offset, 1, 0xff);
    transport.writeConfig(at.writeback, 2, 0xff01);
    transport.writeConfig(at.writeback, 4, 0xffffff01);
    transport.writeConfig(at.write_zeroes_may_unmap, 4, 0xffffffff);
    for (const offset of padding) assertEquals(transport.readConfig(offset, 1), 0);
  },
);

everywhere("5.2.5.2-D4: a device without zones does not offer ZONED", async (place) => {
  for (const queues of [1, 4]) {
    const { features } = (await place.open("blk", { options: { queues } })).device;
    assertEquals(features & blk.VIRTIO_BLK_F_ZONED, 0n);
  }
});

everywhere(
  "5.2.5.2-D6: without ZONED the device starts, and the zoned characteristics read as 0",
  async (place) => {
    const { transport } = await RawDriver.open((await place.open("blk", {})).device);
    assertEquals(transport.readStatus() & VIRTIO_STATUS_FEATURES_OK, VIRTIO_STATUS_FEATURES_OK);
    for (let offset = 72; offset < 96; offset++) assertEquals(transport.readConfig(offset, 1), 0);
  },
);
