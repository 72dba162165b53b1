/** Suspended by the driver (3.4), paused by the host. */
import { assert, assertEquals } from "@std/assert";
import {
  CORE_FEATURES,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_SUSPEND,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_SUSPEND,
} from "./mod.ts";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { AGREED, later, LIVE, Rig, turns } from "./testing.ts";

const SUSPENDED = AGREED | VIRTIO_STATUS_SUSPEND;

for (const [name, format] of FORMATS) {
  const FEATURES = (CORE_FEATURES & ~VIRTIO_F_RING_PACKED & ~VIRTIO_F_EVENT_IDX) | format;

  Deno.test(`suspend, ${name}: an idle device is suspended at once, keeps still, and goes on where it was`, () => {
    const rig = new Rig();
    const queue = rig.start(FEATURES);
    rig.send(queue, 1);
    rig.state.notify(0);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    assertEquals(rig.status, SUSPENDED);
    rig.send(queue, 2);
    rig.state.notify(0);
    rig.status = SUSPENDED;
    assertEquals([rig.device.handled.length, rig.take(queue), rig.interrupts], [1, [1], [0]]);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    assertEquals(rig.status, LIVE);
    assertEquals([rig.take(queue), rig.interrupts], [[2], [0, 0]]);
  });

  Deno.test(`suspend, ${name}: what is in flight is finished and notified of before SUSPEND is shown, and nothing new is taken`, async () => {
    const rig = new Rig();
    const queue = rig.start(FEATURES);
    rig.device.hold();
    rig.send(queue, 1);
    rig.send(queue, 2);
    rig.state.notify(0);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    rig.send(queue, 3);
    rig.state.notify(0);
    await turns();
    assertEquals([rig.status, rig.device.held.length], [LIVE, 2]);
    const seen: number[] = [];
    rig.onInterrupt = () => seen.push(rig.status);
    rig.device.release();
    await turns();
    assertEquals([rig.status, seen, rig.take(queue)], [SUSPENDED, [LIVE], [1, 2]]);
    rig.status = LIVE;
    assertEquals([rig.status, rig.take(queue)], [LIVE, [3]]);
  });

  Deno.test(`suspend, ${name}: a queue that is reset while the device is being suspended does not stop either`, async () => {
    const rig = new Rig();
    const queue = rig.start(FEATURES);
    const other = rig.openQueue(1, FEATURES);
    assert(other.size > 0);
    rig.device.hold();
    rig.send(queue, 1);
    rig.state.notify(0);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    rig.state.resetQueue(0);
    await turns();
    assertEquals([rig.status, rig.state.queues[0]!.resetting], [LIVE, true]);
    rig.device.release();
    await rig.state.settled();
    const setup = rig.state.queues[0]!;
    assertEquals([rig.status, setup.resetting, setup.enabled], [SUSPENDED, false, false]);
    rig.status = LIVE;
    const again = rig.openQueue(0, FEATURES);
    rig.send(again, 2);
    rig.state.notify(0);
    assertEquals(rig.take(again), [2]);
    rig.status = 0;
    assertEquals(rig.status, 0);
  });

  Deno.test(`suspend, ${name}: a queue that is draining for a reset is waited for before SUSPEND is shown`, async () => {
    const rig = new Rig();
    const queue = rig.start(FEATURES);
    rig.device.hold();
    rig.send(queue, 1);
    rig.state.notify(0);
    rig.state.resetQueue(0);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    await turns();
    assertEquals(rig.status, LIVE);
    rig.device.release();
    await rig.state.settled();
    assertEquals([rig.status, rig.state.queues[0]!.enabled], [SUSPENDED, false]);
    rig.status = LIVE;
    assertEquals(rig.status, LIVE);
  });

  Deno.test(`suspend, ${name}: a reset ends a suspend that is draining, and one that is complete`, async () => {
    for (const drained of [false, true]) {
      const rig = new Rig();
      const queue = rig.start(FEATURES);
      rig.device.hold();
      if (!drained) {
        rig.send(queue, 1);
        rig.state.notify(0);
      }
      rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
      rig.status = 0;
      await rig.state.settled();
      assertEquals(rig.status, 0);
      rig.device.release();
      await turns();
      assertEquals(rig.status, 0);
      const again = rig.start(FEATURES);
      rig.send(again, 2);
      rig.state.notify(0);
      assertEquals(rig.take(again), [2]);
    }
  });

  Deno.test(`suspend, ${name}: a queue that is reset while suspended is gone, the other goes on`, () => {
    const rig = new Rig();
    rig.start(FEATURES);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    rig.state.resetQueue(0);
    assertEquals([rig.state.queues[0]!.enabled, rig.state.queues[0]!.resetting], [false, false]);
    rig.status = LIVE;
    assertEquals(rig.status, LIVE);
    const again = rig.openQueue(0, FEATURES);
    rig.send(again, 2);
    rig.state.notify(0);
    assertEquals(rig.take(again), [2]);
  });

  Deno.test(`pause, ${name}: the driver sees nothing of it, and its kicks are made good`, async () => {
    const rig = new Rig();
    const queue = rig.start(FEATURES);
    rig.device.hold();
    rig.send(queue, 1);
    rig.state.notify(0);
    let paused = false;
    const pausing = rig.state.pause().then(() => paused = true);
    await turns();
    assertEquals([paused, rig.status], [false, LIVE]);
    rig.device.release();
    await pausing;
    assertEquals(rig.take(queue), [1]);
    rig.send(queue, 2);
    rig.state.notify(0);
    rig.device.config.update(() => {});
    await turns();
    assertEquals([rig.status, rig.take(queue), rig.interrupts], [LIVE, [], [0]]);
    await rig.state.pause();
    rig.state.unpause();
    assertEquals([rig.take(queue), rig.interrupts], [[2], [0, "config", 0]]);
    rig.state.unpause();
  });

  Deno.test(`pause, ${name}: what the driver does to queues and status meanwhile counts when the host lets it go on`, async () => {
    const rig = new Rig();
    rig.start(FEATURES);
    await rig.state.pause();
    rig.state.resetQueue(0);
    assertEquals([rig.state.queues[0]!.resetting, rig.state.queues[0]!.enabled], [false, false]);
    const again = rig.openQueue(0, FEATURES, 4);
    assertEquals(rig.state.queues[0]!.enabled, true);
    rig.send(again, 1);
    rig.state.notify(0);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    await rig.state.settled();
    assertEquals([rig.status, rig.device.handled.length], [SUSPENDED, 0]);
    rig.status = LIVE;
    assertEquals([rig.status, rig.device.handled.length], [LIVE, 0], "still paused");
    rig.state.unpause();
    assertEquals(rig.take(again), [1]);
  });

  Deno.test(`pause, ${name}: a reset while paused, and while it is being paused`, async () => {
    for (const drained of [false, true]) {
      const rig = new Rig();
      const queue = rig.start(FEATURES);
      rig.device.hold();
      if (!drained) {
        rig.send(queue, 1);
        rig.state.notify(0);
      }
      const pausing = rig.state.pause();
      await turns();
      rig.status = 0;
      await pausing;
      assertEquals(rig.status, 0);
      rig.device.release();
      rig.state.unpause();
      const again = rig.start(FEATURES);
      rig.send(again, 2);
      rig.state.notify(0);
      assertEquals(rig.take(again), [2]);
    }
  });
}

Deno.test("suspend: needs the feature, and a device that runs", () => {
  const rig = new Rig();
  rig.status = VIRTIO_STATUS_SUSPEND | 3;
  assertEquals(rig.status, 3);
  rig.negotiate(VIRTIO_F_SUSPEND);
  rig.status = AGREED | VIRTIO_STATUS_SUSPEND;
  assertEquals(rig.status, AGREED);
  rig.start();
  rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
  assertEquals(rig.status, LIVE, "not negotiated");
});

Deno.test("suspend: a device that cannot stop a queue asks for a reset instead", async () => {
  for (const kind of ["throws", "rejects"]) {
    const rig = new Rig();
    rig.start(CORE_FEATURES);
    rig.device.stopQueue = () => {
      if (kind === "throws") throw new Error("stuck");
      return Promise.reject(new Error("stuck"));
    };
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    await rig.state.settled();
    assertEquals(rig.status, LIVE | VIRTIO_STATUS_DEVICE_NEEDS_RESET, kind);
    assertEquals([rig.errors.map((e) => e.message), rig.interrupts], [["stuck"], ["config"]]);
  }
});

Deno.test("suspend: a device that cannot start a queue again asks for a reset instead", () => {
  const rig = new Rig();
  rig.start(CORE_FEATURES);
  rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
  rig.device.startQueue = () => {
    throw new Error("gone");
  };
  rig.status = LIVE;
  assertEquals(rig.status, LIVE | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
  assertEquals(rig.interrupts, ["config"]);
});

Deno.test("suspend: configuration changes of the device wait until it runs again, writes of the driver are ignored", () => {
  const rig = new Rig();
  rig.start(CORE_FEATURES);
  rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
  const before = rig.state.configGeneration;
  rig.state.writeConfig(0, 1, 7);
  rig.device.config.update((view) => view.setUint8(1, 8));
  rig.device.config.update((view) => view.setUint8(2, 9));
  assertEquals([rig.state.readConfig(0, 4), rig.state.configGeneration], [0, before]);
  assertEquals(rig.interrupts, []);
  rig.status = LIVE;
  assertEquals([rig.state.readConfig(0, 4), rig.interrupts], [0x09_08_00, ["config"]]);
  assert(rig.state.configGeneration !== before);
});

Deno.test("suspend: configuration changes that waited are there after a reset, without an interrupt", () => {
  const rig = new Rig();
  rig.start(CORE_FEATURES);
  rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
  rig.device.config.update((view) => view.setUint8(1, 8));
  rig.status = 0;
  assertEquals([rig.state.readConfig(0, 2), rig.interrupts], [0x800, []]);
});

Deno.test("suspend: a configuration change while suspending is made good when the device runs again", async () => {
  const rig = new Rig();
  const queue = rig.start(CORE_FEATURES);
  const work = later();
  rig.device.handler = () => work.promise;
  rig.send(queue, 1);
  rig.state.notify(0);
  rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
  rig.device.config.update((view) => view.setUint8(0, 8));
  work.resolve();
  await rig.state.settled();
  assertEquals([rig.status, rig.interrupts], [SUSPENDED, [0]]);
  rig.status = LIVE;
  assertEquals([rig.state.readConfig(0, 1), rig.interrupts], [8, [0, "config"]]);
});
