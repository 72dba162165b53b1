/** Virtio 1.4, 2.5: device configuration space. */
import { assert, assertEquals } from "@std/assert";
import * as blk from "@virtio/blk";
import { BLK_DRIVER_FEATURES, BlkDriver } from "@virtio/blk/driver";
import { ConfigSpace, type FeatureSet } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { dmaPool, LocalTransport, TestDevice } from "../../packages/device/testing.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";
import { SessionBench } from "./session_bench.ts";

const { BlkConfigOffset: at } = blk;

Deno.test("2.5.1-G1 the driver reads fields of more than 32 bits, and several fields, again if the generation changed", async () => {
  const bench = new SessionBench();
  const session = await bench.open();
  const set = (value: number): void =>
    bench.device.config.update((view) => {
      view.setUint32(0, value, true);
      view.setUint32(4, value, true);
      view.setUint16(8, value, true);
    });
  set(1);
  let next = 2;
  const seen = session.readConfig((transport) => {
    const low = transport.readConfig(0, 4);
    // The device changes all of it between the halves, three times.
    if (next < 5) set(next++);
    return [low, transport.readConfig(4, 4), transport.readConfig(8, 2)];
  });
  assertEquals(seen, [4, 4, 4]);
});

Deno.test("2.5.1-G1 the block driver reads its capacity so", async () => {
  const memory = GuestMemory.allocate(0x10_0000);
  const config = new ConfigSpace(96);
  config.view.setBigUint64(0, 0x1_0000_0002n, true);
  const transport = new LocalTransport(new TestDevice({ type: 2, config }), memory);
  let changes = 2;
  transport.onConfigAccess = (offset) => {
    if (offset === 0 && changes-- > 0) {
      config.update((view) => view.setBigUint64(0, 0x2_0000_0003n, true));
    }
  };
  const driver = await BlkDriver.open(transport, { dma: dmaPool(memory) });
  assertEquals(driver.sectors, 0x2_0000_0003);
  await driver.close();
});

/** Where in the configuration each feature of a block device has its fields (5.2.4). */
const FIELDS: readonly [FeatureSet, number, number][] = [
  [blk.VIRTIO_BLK_F_SIZE_MAX, at.size_max, at.seg_max],
  [blk.VIRTIO_BLK_F_SEG_MAX, at.seg_max, 16],
  [blk.VIRTIO_BLK_F_GEOMETRY, 16, at.blk_size],
  [blk.VIRTIO_BLK_F_BLK_SIZE, at.blk_size, 24],
  [blk.VIRTIO_BLK_F_TOPOLOGY, 24, at.writeback],
  [blk.VIRTIO_BLK_F_CONFIG_WCE, at.writeback, 33],
  [blk.VIRTIO_BLK_F_MQ, at.num_queues, 36],
  [blk.VIRTIO_BLK_F_DISCARD, 36, 48],
  [blk.VIRTIO_BLK_F_WRITE_ZEROES, 48, 57],
  [blk.VIRTIO_BLK_F_SECURE_ERASE, 60, 72],
];

/** Opens a block driver; gives the bytes of the configuration that it touched. */
async function touched(offered: FeatureSet, config: ConfigSpace): Promise<Set<number>> {
  const memory = GuestMemory.allocate(0x10_0000);
  const device = new TestDevice({ type: 2, features: offered, config, queueSizes: [64, 64] });
  const transport = new LocalTransport(device, memory);
  const bytes = new Set<number>();
  transport.onConfigAccess = (offset, size) => {
    for (let i = 0; i < size; i++) bytes.add(offset + i);
  };
  const driver = await BlkDriver.open(transport, { dma: dmaPool(memory) });
  await driver.close();
  return bytes;
}

function blkConfig(size: number): ConfigSpace {
  const config = new ConfigSpace(size, () => true);
  for (let i = 0; i + 4 <= size; i += 4) config.view.setUint32(i, 4096, true);
  config.view.setUint32(4, 0, true);
  if (size >= 24) config.view.setUint32(at.blk_size, 512, true);
  if (size >= 36) config.view.setUint16(at.num_queues, 2, true);
  return config;
}

Deno.test("2.5.1-G2 a field that belongs to a feature is touched only if the feature is offered", async () => {
  for (const [feature, from, to] of FIELDS) {
    const without = await touched(BLK_DRIVER_FEATURES & ~feature, blkConfig(96));
    for (let i = from; i < to; i++) assert(!without.has(i), `byte ${i} without ${feature}`);
    const alone = await touched(feature, blkConfig(96));
    assert(alone.has(from), `byte ${from} with ${feature}`);
    for (const byte of alone) assert(byte < 8 || (byte >= from && byte < to), `byte ${byte}`);
  }
  assertEquals([...await touched(0n, blkConfig(96))].sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
});

Deno.test("2.5.1-G3 2.5.1-G4 the driver works with a configuration that is larger than it knows, and with one that has only what it needs", async () => {
  const large = await touched(BLK_DRIVER_FEATURES, blkConfig(4096));
  assert(Math.max(...large) < 96);
  assertEquals((await touched(0n, blkConfig(8))).size, 8);
  const some = blk.VIRTIO_BLK_F_BLK_SIZE | blk.VIRTIO_BLK_F_SEG_MAX;
  assert(Math.max(...await touched(some, blkConfig(24))) < 24);
});

everywhere(
  "2.5.2-D1 every field can be read before FEATURES_OK, right after a reset too",
  async (place) => {
    const config = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
    const rig = await PlacedRig.open(place, { config });
    const read = (): number[] => Array.from({ length: 16 }, (_, i) => rig.state.readConfig(i, 1));
    const expected = Array.from({ length: 16 }, (_, i) => i + 1);
    assertEquals(read(), expected);
    for (const status of [1, 3]) {
      rig.status = status;
      assertEquals(read(), expected);
    }
    rig.accept(1n << 32n);
    assertEquals(read(), expected);
    rig.start();
    rig.status = 0;
    assertEquals(read(), expected);
  },
);
