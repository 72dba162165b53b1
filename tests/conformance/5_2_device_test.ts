/** Virtio 1.4, 5.2.6.2: what a block device does. */
import { type BlkBackend, BlkDevice, type BlkDeviceOptions } from "@virtio/blk";
import * as blk from "@virtio/blk";
import { FileBackend } from "@virtio/blk/file";
import { MemoryBackend } from "@virtio/blk/memory";
import { OverlayBackend } from "@virtio/blk/overlay";
import type { Device } from "@virtio/device";
import { assert, assertEquals } from "@std/assert";
import { assertSame, pattern } from "../../packages/blk/backends/backend_testing.ts";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { ranges, RawDriver } from "../../packages/blk/testing.ts";
import type { BlkData } from "./placed_devices.ts";
import { everywhere, type Place } from "./places.ts";

const {
  BlkConfigOffset: at,
  VIRTIO_BLK_S_IOERR: IOERR,
  VIRTIO_BLK_S_OK: OK,
  VIRTIO_BLK_S_UNSUPP: UNSUPP,
} = blk;
const SIZE = 2 ** 20;
const SECTORS = SIZE / 512;
const CACHE = blk.VIRTIO_BLK_F_FLUSH | blk.VIRTIO_BLK_F_CONFIG_WCE;

async function inFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await action(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Every back end, over the same zeroed disk. In process only, as what follows on the host's file system. */
async function eachBackend(
  action: (backend: BlkBackend, name: string) => Promise<void>,
): Promise<void> {
  await action(new MemoryBackend(SIZE), "sparse memory");
  await action(new MemoryBackend(new Uint8Array(SIZE)), "given memory");
  await action(new LaterBackend(new MemoryBackend(SIZE)), "later");
  await action(new OverlayBackend(new MemoryBackend(pattern(SIZE, 7))), "overlay");
  await inFolder(async (folder) => {
    for (const mode of ["sync", "async"] as const) {
      for (const holes of [true, false]) {
        const path = `${folder}/${mode}-${holes}`;
        const backend = FileBackend.open(path, { create: true, size: SIZE, mode, holes });
        await action(backend, `file, ${mode}, holes ${holes}`);
        await backend.close();
      }
    }
  });
}

/** A block device over each kind of disk in memory. */
async function eachDisk(
  place: Place,
  disk: Uint8Array,
  options: NonNullable<BlkData["options"]>,
  action: (device: Device, bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  for (const later of [false, true]) {
    const buffer = new SharedArrayBuffer(disk.length);
    const bytes = new Uint8Array(buffer);
    bytes.set(disk);
    const { device } = await place.open("blk", { bytes: buffer, later, options });
    await action(device, bytes);
  }
}

everywhere(
  "5.2.6.2-D1 5.2.6.2-D2: the capacity can change while the device works, and the driver is notified",
  async (place) => {
    const { device, run, turns } = await place.open("blk", {});
    const driver = await RawDriver.open(device);
    const resize = (size: number): Promise<void> => {
      run(({ device }, size) => void device.resize(size), size);
      return turns();
    };
    const { transport } = driver;
    const request = { type: blk.VIRTIO_BLK_T_IN, sector: BigInt(SECTORS), in: 512 };
    assertEquals((await driver.request(request)).status, IOERR);
    const before = transport.configGeneration();
    await resize(SIZE + 512);
    assertEquals(transport.configInterrupts, 1);
    assert(transport.configGeneration() !== before);
    assertEquals(transport.readConfig(at.capacity, 4), SECTORS + 1);
    assertEquals((await driver.request(request)).status, OK);
    await resize(512);
    assertEquals(transport.configInterrupts, 2);
    assertEquals((await driver.request(request)).status, IOERR);
  },
);

everywhere(
  "5.2.6.2-D3: a device that offers RO fails writes with IOERR and writes nothing, negotiated or not",
  async (place) => {
    await eachDisk(place, pattern(SIZE, 1), { readonly: true }, async (device, bytes) => {
      for (const wanted of [blk.VIRTIO_BLK_F_RO, 0n, CACHE]) {
        const driver = await RawDriver.open(device, { wanted });
        for (const out of [new Uint8Array(512), new Uint8Array(8192)]) {
          const answer = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, sector: 1n, out });
          assertEquals(answer.status, IOERR);
        }
        assertSame(bytes, pattern(SIZE, 1));
        await driver.session.reset();
      }
    });
  },
);

everywhere(
  "5.2.6.2-D4 5.2.6.2-D5: an unknown flag makes discard, secure erase and write zeroes UNSUPP, and so does unmap in a discard",
  async (place) => {
    const options = { writeZeroes: { maxSegments: 4 }, secureErase: { maxSegments: 4 } };
    await eachDisk(place, pattern(SIZE, 1), options, async (device, bytes) => {
      const driver = await RawDriver.open(device);
      const types: [number, number[]][] = [
        [blk.VIRTIO_BLK_T_DISCARD, [1]],
        [blk.VIRTIO_BLK_T_SECURE_ERASE, []],
        [blk.VIRTIO_BLK_T_WRITE_ZEROES, []],
      ];
      for (const [type, more] of types) {
        const unknown = Array.from({ length: 31 }, (_, i) => 2 ** (i + 1));
        for (const flags of [...more, ...unknown, 0xffffffff, 0xfffffffe]) {
          // In the last range: the good ones before it must not be acted on either.
          const out = ranges(
            { sector: 0, sectors: 1 },
            { sector: 1, sectors: 1 },
            { sector: 2, sectors: 1, flags },
          );
          assertEquals((await driver.request({ type, out })).status, UNSUPP);
        }
      }
      assertSame(bytes, pattern(SIZE, 1));
    });
  },
);

everywhere("5.2.6.2-D6: a discard gives the storage of its range back", async (place) => {
  const { device, run } = await place.open("blk", {});
  const driver = await RawDriver.open(device);
  const allocated = (): number => run(({ memory }) => memory.allocated);
  await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(262144, 1) });
  assertEquals(allocated(), 262144);
  const out = ranges({ sector: 128, sectors: 256 });
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_DISCARD, out })).status, OK);
  assertEquals(allocated(), 131072);
});

Deno.test("5.2.6.2-D7: write zeroes with unmap gives storage back where the back end says that it can", async () => {
  for (const mode of ["sync", "async"] as const) {
    await inFolder(async (folder) => {
      const path = `${folder}/disk`;
      const backend = FileBackend.open(path, { create: true, size: SIZE, mode });
      if (!backend.writeZeroesMayUnmap) return await backend.close(); // this host has no holes
      const driver = await RawDriver.open(new BlkDevice({ backend }));
      await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(SIZE, 1) });
      await driver.request({ type: blk.VIRTIO_BLK_T_FLUSH });
      const full = (await Deno.stat(path)).blocks!;
      const zero = async (flags: number): Promise<number> => {
        const out = ranges({ sector: 256, sectors: 512, flags });
        const type = blk.VIRTIO_BLK_T_WRITE_ZEROES;
        assertEquals((await driver.request({ type, out })).status, OK);
        await driver.request({ type: blk.VIRTIO_BLK_T_FLUSH });
        return (await Deno.stat(path)).blocks!;
      };
      assertEquals(await zero(0), full, "without unmap the space is kept");
      assertEquals(await zero(1), full - 512);
      await backend.close();
    });
  }
});

/** Writes zeroes in several places of a zeroed disk that was written. */
async function checkZeroes(device: Device, name: string): Promise<void> {
  const driver = await RawDriver.open(device);
  const expected = pattern(SIZE, 3);
  const wrote = await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: expected.slice() });
  assertEquals(wrote.status, OK, name);
  for (const [flags, sector] of [[0, 7], [1, 300], [0, 1000], [1, 1500]] as const) {
    const sectors = 200;
    const out = ranges({ sector, sectors, flags }, { sector: 2000, sectors: 48, flags });
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_WRITE_ZEROES, out });
    assertEquals(answer.status, OK, name);
    expected.fill(0, sector * 512, (sector + sectors) * 512);
    expected.fill(0, 2000 * 512);
  }
  const read = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: SIZE });
  assertSame(read.data, expected);
}

Deno.test("5.2.6.2-D8: after write zeroes the ranges read as zeroes, with unmap and without, and nothing else changes", async () => {
  const options = { writeZeroes: { maxSegments: 4 } };
  await eachBackend((backend, name) => checkZeroes(new BlkDevice({ backend, ...options }), name));
});

everywhere("5.2.6.2-D8: write zeroes of a disk in memory", async (place) => {
  const options = { writeZeroes: { maxSegments: 4 } };
  await eachDisk(place, new Uint8Array(SIZE), options, (device) => checkZeroes(device, "disk"));
});

Deno.test("5.2.6.2-D9: write_zeroes_may_unmap is set if and only if write zeroes can give storage back", async () => {
  const field = (backend: BlkBackend, options: Partial<BlkDeviceOptions> = {}): number =>
    new BlkDevice({ backend, ...options }).config.read(at.write_zeroes_may_unmap, 1);
  assertEquals(field(new MemoryBackend(SIZE)), 1);
  assertEquals(field(new MemoryBackend(new Uint8Array(SIZE))), 0);
  assertEquals(field(new LaterBackend(new MemoryBackend(SIZE))), 1);
  assertEquals(field(new OverlayBackend(new MemoryBackend(SIZE))), 1);
  // Where write zeroes is not offered, nothing can result from it.
  assertEquals(field(new MemoryBackend(SIZE), { writeZeroes: false }), 0);
  assertEquals(field(new MemoryBackend(SIZE), { readonly: true }), 0);
  await inFolder(async (folder) => {
    for (const holes of [true, false]) {
      const path = `${folder}/${holes}`;
      const backend = FileBackend.open(path, { create: true, size: SIZE, holes });
      const { blocks } = await Deno.stat(path);
      assertEquals(field(backend), backend.writeZeroesMayUnmap ? 1 : 0);
      if (!holes) {
        assertEquals(field(backend), 0);
        const driver = await RawDriver.open(new BlkDevice({ backend }));
        await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out: pattern(65536, 1) });
        await backend.flush();
        const full = (await Deno.stat(path)).blocks!;
        assert(full > blocks!);
        const out = ranges({ sector: 0, sectors: 128, flags: 1 });
        await driver.request({ type: blk.VIRTIO_BLK_T_WRITE_ZEROES, out });
        await backend.flush();
        assertEquals((await Deno.stat(path)).blocks, full);
      }
      await backend.close();
    }
  });
});

everywhere(
  "5.2.6.2-D10: the driver is notified when write_zeroes_may_unmap changes",
  async (place) => {
    const { device, run } = await place.open("blk", {});
    const { transport } = await RawDriver.open(device);
    assertEquals(transport.readConfig(at.write_zeroes_may_unmap, 1), 1);
    const before = transport.configGeneration();
    run(({ memory }) => {
      Object.defineProperty(memory, "writeZeroesMayUnmap", { get: () => false });
      memory.onChange!();
    });
    assertEquals(transport.readConfig(at.write_zeroes_may_unmap, 1), 0);
    assertEquals(transport.configInterrupts, 1);
    assert(transport.configGeneration() !== before);
  },
);

everywhere(
  "5.2.6.2-D13 5.2.6.2-D14: LIFETIME is offered if and only if the storage has lifetime metrics",
  async (place) => {
    const lifetime = { preEolInfo: 1, estimateTypeA: 3, estimateTypeB: 11 };
    for (const later of [false, true]) {
      const { device } = await place.open("blk", { later, lifetime });
      assert((device.features & blk.VIRTIO_BLK_F_LIFETIME) !== 0n);
      const driver = await RawDriver.open(device);
      const { status, used, data } = await driver.request({
        type: blk.VIRTIO_BLK_T_GET_LIFETIME,
        in: 6,
        cuts: { readable: [3], writable: [1, 2, 2] },
      });
      assertEquals([status, used], [OK, 7]);
      assertEquals([...data], [1, 0, 3, 0, 11, 0]);
      const short = await driver.request({ type: blk.VIRTIO_BLK_T_GET_LIFETIME, in: 5 });
      assertEquals(short.status, IOERR);
    }
    const { device } = await place.open("blk", {});
    assertEquals(device.features & blk.VIRTIO_BLK_F_LIFETIME, 0n);
  },
);

Deno.test("5.2.6.2-D13 5.2.6.2-D14: no back end here has lifetime metrics", async () => {
  await eachBackend(async (backend, name) => {
    const device = new BlkDevice({ backend });
    assertEquals(device.features & blk.VIRTIO_BLK_F_LIFETIME, 0n, name);
    const driver = await RawDriver.open(device);
    const answer = await driver.request({ type: blk.VIRTIO_BLK_T_GET_LIFETIME, in: 6 });
    assertEquals(answer.status, UNSUPP, name);
  });
});

everywhere("5.2.6.2-D15: reserved values of the lifetime are not sent", async (place) => {
  const good = { preEolInfo: 1, estimateTypeA: 1, estimateTypeB: 1 };
  const bad = [
    { ...good, preEolInfo: 4 },
    { ...good, estimateTypeA: 12 },
    { ...good, estimateTypeB: 12 },
    { ...good, estimateTypeB: 0xffff },
    { ...good, preEolInfo: -1 },
    { ...good, estimateTypeA: 1.5 },
  ];
  for (const lifetime of bad) {
    for (const later of [false, true]) {
      const { device, run } = await place.open("blk", { later, lifetime });
      const driver = await RawDriver.open(device);
      const answer = await driver.request({ type: blk.VIRTIO_BLK_T_GET_LIFETIME, in: 6 });
      assertEquals(answer.status, IOERR);
      assertEquals([...answer.data], [0, 0, 0, 0, 0, 0]);
      assertEquals(run(({ errors }) => errors.length), 1);
    }
  }
});

everywhere("5.2.6.2-D16: zone requests are UNSUPP", async (place) => {
  await eachDisk(place, pattern(SIZE, 1), {}, async (device) => {
    const driver = await RawDriver.open(device);
    // APPEND, REPORT, OPEN, CLOSE, FINISH, RESET, RESET_ALL.
    for (const type of [15, 16, 18, 20, 22, 24, 26]) {
      const answer = await driver.request({ type, out: new Uint8Array(512), in: 512 });
      assertEquals(answer.status, UNSUPP, `type ${type}`);
    }
    const read = await driver.request({ type: blk.VIRTIO_BLK_T_IN, in: SIZE });
    assertSame(read.data, pattern(SIZE, 1));
  });
});
