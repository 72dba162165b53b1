/** Devices that fail, lie, or never answer. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { HOLD } from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { VirtqueueError } from "@virtio/vring";
import { assertSame } from "./backends/backend_testing.ts";
import * as blk from "./constants.ts";
import { BlkError } from "./driver.ts";
import { join, OddDevice } from "./driver_testing.ts";
import { type LocalTransport, turns } from "./testing.ts";

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
