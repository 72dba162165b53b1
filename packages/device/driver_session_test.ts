/** A session that was opened: kicks, interrupts, configuration, queue resets, suspends. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type QueueConfig, VIRTIO_F_INDIRECT_DESC } from "@virtio/vring";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { DriverError } from "./driver.ts";
import {
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_SUSPEND,
} from "./mod.ts";
import { Bench, bent } from "./session_testing.ts";
import { AGREED, echo, LIVE, turns } from "./testing.ts";

for (const [name, format] of FORMATS) {
  Deno.test(`session, ${name}: the notification data of a kick are those of the queue`, async () => {
    const bench = new Bench();
    const session = await bench.open({ core: format });
    for (let i = 0; i < 5; i++) {
      bench.send(session, i);
      assertEquals(session.queue(0).take(), i);
    }
    // Ten descriptors of eight: the packed ring has wrapped.
    assertEquals(bench.transport.lastKick, format === 0n ? 5 : 2);
  });
}

Deno.test("session: configuration is read again until its generation stands still", async () => {
  const bench = bent();
  const session = await bench.open();
  let changes = 3;
  const reads: number[] = [];
  const value = session.readConfig((transport) => {
    const low = transport.readConfig(0, 4);
    if (changes-- > 0) {
      bench.device.config.update((view) => {
        view.setUint32(0, 10 + changes, true);
        view.setUint32(4, 10 + changes, true);
      });
    }
    reads.push(low);
    return [low, transport.readConfig(4, 4)];
  });
  assertEquals([value, reads.length], [[10, 10], 4]);
  let generation = 0;
  bench.transport.generation = () => generation++;
  assertThrows(() => session.readConfig(() => 1), DriverError, "never stands still");
});

Deno.test("session: interrupts reach the handlers; those of the configuration that are requests for a reset as such", async () => {
  const bench = new Bench();
  const session = await bench.open({
    queues: () => [{ index: 0, size: 8 }, { index: 1, size: 8 }],
    core: VIRTIO_F_RING_RESET,
  });
  bench.send(session, 1, 1);
  await turns(1);
  assertEquals(bench.used, [1]);
  bench.transport.interrupts!.queue(null);
  bench.transport.interrupts!.queue(7);
  assertEquals(
    bench.used,
    [1, 0, 1],
    "a line that cannot tell stands for all, an unknown queue for none",
  );
  bench.device.config.update(() => {});
  await turns(1);
  assertEquals([bench.configs, bench.resets], [1, 0]);
  bench.device.break("now");
  await turns(1);
  assertEquals([bench.configs, bench.resets], [1, 1]);
  session.handlers = null;
  bench.transport.interrupts!.queue(0);
  bench.transport.interrupts!.config();
});

for (const [name, format] of FORMATS) {
  Deno.test(`session, ${name}: a queue reset is verified, gives the tokens back, and the queue works with another size`, async () => {
    const bench = new Bench();
    const session = await bench.open({ core: format | VIRTIO_F_RING_RESET });
    const free = bench.dma.available;
    bench.device.hold();
    bench.send(session, 1);
    bench.send(session, 2);
    const old = session.queue(0).config;
    let tokens: number[] | null = null;
    const resetting = session.resetQueue(0, 4).then((lost) => tokens = lost);
    await turns(2);
    assertEquals(tokens, null, "the device still works on them");
    assert(!bench.transport.log.includes("queue 0 of 4"));
    bench.send(session, 3);
    const kicks = bench.transport.kicks;
    bench.device.release();
    await resetting;
    assertEquals(bench.transport.kicks, kicks, "no kick while the queue is being reset");
    assertEquals(tokens!.sort(), [1, 2, 3]);
    const { log } = bench.transport;
    assert(log.indexOf("reset queue 0") < log.indexOf("queue 0 is reset"));
    assert(log.indexOf("queue 0 is reset") < log.indexOf("queue 0 of 4"));
    assertEquals(session.queue(0).size, 4);
    bench.send(session, 9);
    assertEquals(session.queue(0).take(), 9);
    assert(old.descriptorArea >= 0 && free > 0);
  });
}

Deno.test("session: a queue reset without the feature, or that never ends, is refused", async () => {
  const plain = await new Bench().open({ core: VIRTIO_F_VERSION_1 });
  await assertRejects(() => plain.resetQueue(0), DriverError, "RING_RESET was not negotiated");
  const bench = bent();
  const session = await bench.open();
  bench.transport.queueIsReset = () => false;
  await assertRejects(() => session.resetQueue(0), DriverError, "reset queue 0");
});

Deno.test("session: suspended, it makes nothing available, does not kick, and writes no configuration; resumed, it makes that good", async () => {
  const bench = new Bench();
  const session = await bench.open();
  bench.device.hold();
  bench.send(session, 1);
  const suspending = session.suspend();
  assert(bench.transport.log.includes("status 31"));
  const index = (): number => bench.memory.readU16(session.queue(0).config.driverArea + 2);
  const flags = (): number => bench.memory.readU16(session.queue(0).config.descriptorArea + 46);
  const [beforeIndex, beforeFlags] = [index(), flags()];
  assertEquals(bench.send(session, 2), false);
  await turns(1);
  bench.device.release();
  await suspending;
  assertEquals(bench.transport.state.status, AGREED | VIRTIO_STATUS_SUSPEND);
  assertEquals(bench.send(session, 3), false);
  assertThrows(() => session.writeConfig(0, 1, 9), DriverError, "resume");
  await assertRejects(() => session.resetQueue(0), DriverError, "resume");
  assertEquals([index(), flags(), bench.transport.kicks], [beforeIndex, beforeFlags, 1]);
  assert(!bench.transport.log.some((line) => line.startsWith("config 0")));
  await session.resume();
  assertEquals(bench.transport.state.status, LIVE);
  assertEquals(bench.transport.kicks, 2);
  const tokens = [session.queue(0).take(), session.queue(0).take(), session.queue(0).take()];
  assertEquals(tokens, [1, 2, 3]);
  session.writeConfig(0, 1, 9);
  assertEquals(bench.device.config.read(0, 1), 9);
});

Deno.test("session: SUSPEND is not set without the feature, nor on a device that does not run", async () => {
  const plain = await new Bench().open({ core: VIRTIO_F_VERSION_1 });
  await assertRejects(() => plain.suspend(), DriverError, "SUSPEND was not negotiated");
  const bench = new Bench();
  let early: Promise<void> | null = null;
  const session = await bench.open({ setup: (session) => void (early = session.suspend()) });
  await assertRejects(() => early!, DriverError, "does not run");
  await session.reset();
  await assertRejects(() => session.suspend(), DriverError, "does not run");
  assert(!bench.transport.log.some((line) => line === "status 31" || line === "status 27"));
});

Deno.test("session: a device that fails to suspend, or to resume, or takes for ever, is reported", async () => {
  const bench = new Bench();
  const session = await bench.open();
  bench.device.stopQueue = () => {
    throw new Error("stuck");
  };
  await assertRejects(() => session.suspend(), DriverError, "failed to suspend");

  const other = new Bench();
  const second = await other.open();
  await second.suspend();
  other.device.startQueue = () => {
    throw new Error("gone");
  };
  await assertRejects(() => second.resume(), DriverError, "failed to resume");

  const slow = new Bench();
  const third = await slow.open();
  slow.device.hold();
  slow.send(third, 1);
  await assertRejects(() => third.suspend(), DriverError, "does not suspend");
});

Deno.test("session: reset gives all rings back, and the device can be opened again", async () => {
  const bench = new Bench();
  const free = bench.dma.available;
  for (const core of [VIRTIO_F_RING_PACKED, 0n, VIRTIO_F_INDIRECT_DESC | VIRTIO_F_SUSPEND]) {
    const session = await bench.open({ core });
    const configs: QueueConfig[] = [session.queue(0).config];
    assert(configs[0]!.descriptorArea % 16 === 0);
    bench.device.handler = echo;
    await session.reset();
    assertEquals(bench.dma.available, free);
    assertThrows(() => session.queue(0), RangeError);
  }
});
