/** What the device says about itself, and keeps of itself. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { VIRTIO_STATUS_DRIVER_OK } from "@virtio/device";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { LaterBackend } from "./backends/later_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { IOERR, kinds, OK, SECTORS, SIZE } from "./disk_testing.ts";
import { RawDriver } from "./testing.ts";

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
