/** Queues enabled, disabled and reset, at any moment. */
import { assert, assertEquals } from "@std/assert";
import {
  CORE_FEATURES,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "./mod.ts";
import { FORMATS, rawDriver } from "../vring/testing/raw_driver.ts";
import { AGREED, LIVE, Rig, turns } from "./testing.ts";

for (const [name, format] of FORMATS) {
  const RESET = format | VIRTIO_F_RING_RESET;

  Deno.test(`queues, ${name}: a queue reset brings back its initial registers, and the queue works again with another size`, () => {
    const rig = new Rig();
    const queue = rig.start(RESET, 8);
    rig.send(queue, 1);
    rig.state.notify(0);
    rig.state.resetQueue(0);
    const setup = rig.state.queues[0]!;
    assertEquals([setup.enabled, setup.resetting, setup.size, setup.address(0)], [
      false,
      false,
      8,
      0,
    ]);
    assert(rig.state.queues[1]!.enabled, "the other queue goes on");
    const again = rig.openQueue(0, RESET, 4);
    assert(setup.enabled);
    rig.send(again, 2);
    rig.state.notify(0);
    assertEquals(rig.take(again), [2]);
    assertEquals(rig.status, LIVE);
  });

  Deno.test(`queues, ${name}: what was kicked early is handled when the queue is enabled again`, () => {
    const rig = new Rig();
    rig.start(RESET, 8);
    rig.state.resetQueue(0);
    const config = rig.place(0, 8, format);
    const raw = rawDriver(rig.memory, config, format);
    raw.send([{ address: 0x5_0000, length: 4 }, { address: 0x5_1000, length: 4, write: true }]);
    rig.state.notify(0);
    assertEquals(rig.device.handled, []);
    rig.enable(0, config);
    assertEquals(raw.takeUsed().length, 1);
  });

  Deno.test(`queues, ${name}: a queue reset waits for what is in flight, and then nothing happens to the queue any more`, async () => {
    const rig = new Rig();
    const queue = rig.start(RESET, 8);
    rig.device.hold();
    rig.send(queue, 1);
    rig.send(queue, 2);
    rig.state.notify(0);
    rig.state.resetQueue(0);
    const setup = rig.state.queues[0]!;
    rig.state.resetQueue(0);
    rig.state.enableQueue(0);
    await turns();
    assertEquals([setup.resetting, rig.device.held.length], [true, 2]);
    rig.send(queue, 3);
    rig.state.notify(0);
    const held = rig.device.held.slice();
    rig.device.release();
    await turns();
    assertEquals([setup.resetting, setup.enabled], [false, false]);
    assertEquals(rig.take(queue), [1, 2]);
    const before = rig.interrupts.length;
    for (const { chain, queue } of held) rig.device.finish(queue, chain);
    await turns();
    assertEquals([rig.interrupts.length, rig.device.handled.length], [before, 2]);
  });

  Deno.test(`queues, ${name}: a queue reset inside of its own interrupt, and inside of its own handler`, async () => {
    for (const where of ["interrupt", "handler"]) {
      const rig = new Rig();
      const queue = rig.start(RESET, 8);
      let done = false;
      const reset = (): void => {
        if (!done) rig.state.resetQueue(0);
        done = true;
      };
      if (where === "interrupt") rig.onInterrupt = reset;
      else rig.device.handler = reset;
      rig.send(queue, 1);
      rig.send(queue, 2);
      rig.state.notify(0);
      await turns();
      assertEquals(rig.state.queues[0]!.resetting, false, where);
      assertEquals(rig.device.handled.length, where === "interrupt" ? 2 : 1);
      const again = rig.openQueue(0, RESET);
      rig.send(again, 5);
      rig.state.notify(0);
      assertEquals([rig.take(again), rig.status], [[5], LIVE], where);
    }
  });

  Deno.test(`queues, ${name}: a device reset while a queue reset drains: both end, in whatever order the chains do`, async () => {
    const rig = new Rig();
    const queue = rig.start(RESET, 8);
    rig.device.hold();
    rig.send(queue, 1);
    rig.state.notify(0);
    rig.state.resetQueue(0);
    rig.status = 0;
    await rig.state.settled();
    assertEquals(rig.status, 0);
    rig.device.release();
    await turns();
    assertEquals(rig.take(queue), []);
    const again = rig.start(RESET);
    rig.send(again, 7);
    rig.state.notify(0);
    assertEquals(rig.take(again), [7]);
  });
}

Deno.test("queues: without VIRTIO_F_RING_RESET a queue cannot be reset, nor enabled once the device runs", () => {
  const rig = new Rig();
  rig.negotiate();
  rig.openQueue(0);
  rig.status = LIVE;
  rig.state.resetQueue(0);
  assertEquals([rig.state.queues[0]!.enabled, rig.state.queues[0]!.resetting], [true, false]);
  rig.state.enableQueue(1);
  assertEquals(rig.state.queues[1]!.enabled, false);
});

Deno.test("queues: indexes that do not exist are ignored everywhere", () => {
  const rig = new Rig();
  rig.start(CORE_FEATURES);
  for (const index of [2, 0xffff, 0xffff_ffff, -1, 0.5, NaN]) {
    rig.state.enableQueue(index);
    rig.state.disableQueue(index);
    rig.state.resetQueue(index);
    rig.state.notify(index);
  }
  assertEquals(rig.status, LIVE);
});

Deno.test("queues: disabled before DRIVER_OK, a queue is not started", () => {
  const rig = new Rig();
  rig.negotiate();
  const queue = rig.openQueue(0);
  rig.state.disableQueue(0);
  rig.send(queue, 1);
  rig.status = LIVE;
  rig.state.notify(0);
  assertEquals(rig.device.handled, []);
});

Deno.test("queues: disabled while it is in flight, a queue stays enabled until it is drained, and can then be moved", async () => {
  const rig = new Rig();
  const features = CORE_FEATURES & ~VIRTIO_F_RING_PACKED;
  const queue = rig.start(features);
  rig.device.hold();
  rig.send(queue, 1);
  rig.state.notify(0);
  rig.state.disableQueue(0);
  rig.state.disableQueue(0);
  const setup = rig.state.queues[0]!;
  setup.setSize(2);
  await turns();
  assertEquals([setup.enabled, setup.size], [true, 8]);
  rig.device.release();
  await turns();
  assertEquals([setup.enabled, rig.take(queue)], [false, [1]]);
  const again = rig.openQueue(0, features, 2);
  rig.send(again, 4);
  rig.state.notify(0);
  assertEquals(rig.take(again), [4]);
});

Deno.test("queues: disabled and reset while it drains, a queue is reset in the end", async () => {
  const rig = new Rig();
  const queue = rig.start(CORE_FEATURES);
  rig.device.hold();
  rig.send(queue, 1);
  rig.state.notify(0);
  rig.state.disableQueue(0);
  rig.state.resetQueue(0);
  assert(rig.state.queues[0]!.resetting);
  rig.device.release();
  await turns();
  const setup = rig.state.queues[0]!;
  assertEquals([setup.resetting, setup.enabled, setup.address(0)], [false, false, 0]);
});

Deno.test("queues: bad addresses of a queue that is enabled while the device runs cost the device", () => {
  const rig = new Rig();
  rig.start(CORE_FEATURES);
  rig.state.resetQueue(0);
  rig.enable(0, { size: 8, descriptorArea: 0x7fff_fff0, driverArea: 0, deviceArea: 0 });
  assertEquals(rig.status, LIVE | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
});

Deno.test("queues: enabled before the features are known, they are opened in the format that is agreed on later", () => {
  for (const [, format] of FORMATS) {
    const rig = new Rig();
    const config = rig.place(0, 8, format);
    const raw = rawDriver(rig.memory, config, format);
    rig.enable(0, config);
    raw.send([{ address: 0x5_0000, length: 4 }, { address: 0x5_1000, length: 4, write: true }]);
    rig.negotiate(format);
    assertEquals(rig.status, AGREED);
    rig.status = LIVE;
    assertEquals(raw.takeUsed().length, 1);
  }
});
