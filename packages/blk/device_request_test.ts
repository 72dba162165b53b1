/** What each type of request does, whichever way the back end answers. */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_RING_PACKED } from "@virtio/device";
import fc from "fast-check";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { IOERR, kinds, OK, SECTORS, SIZE, UNSUPP } from "./disk_testing.ts";
import { header, ranges, RawDriver, turns } from "./testing.ts";

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
