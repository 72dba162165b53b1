/** Reset and DEVICE_NEEDS_RESET: at once, and while the device still drains. */
import { assert, assertEquals } from "@std/assert";
import {
  type Activation,
  CORE_FEATURES,
  VIRTIO_F_RING_PACKED,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_SUSPEND,
} from "./mod.ts";
import { AGREED, FOUND, later, LIVE, Rig, TestDevice, turns } from "./testing.ts";

const NEEDS_RESET = VIRTIO_STATUS_DEVICE_NEEDS_RESET;

Deno.test("device reset: a reset brings back the initial state, from any state", () => {
  const steps: ((rig: Rig) => void)[] = [
    () => {},
    (rig) => rig.status = VIRTIO_STATUS_ACKNOWLEDGE,
    (rig) => rig.status = FOUND,
    (rig) => (rig.status = FOUND, rig.accept(CORE_FEATURES)),
    (rig) => rig.negotiate(CORE_FEATURES),
    (rig) => (rig.negotiate(), rig.openQueue(1)),
    (rig) => rig.start(VIRTIO_F_RING_PACKED),
    (rig) => (rig.start(), rig.state.fail(new Error("x"))),
    (rig) => (rig.start(), rig.status = LIVE | VIRTIO_STATUS_FAILED),
    (rig) => (rig.start(CORE_FEATURES), rig.status = LIVE | VIRTIO_STATUS_SUSPEND),
    (rig) => (rig.start(CORE_FEATURES), rig.state.resetQueue(0)),
    (rig) => rig.state.fail(new Error("x")),
  ];
  for (const step of steps) {
    const rig = new Rig();
    step(rig);
    rig.status = 0;
    assertEquals([rig.status, rig.state.features, rig.state.live], [0, 0n, false]);
    assertEquals([0, 1, 2, 3].map((word) => rig.state.readDriverFeatures(word)), [0, 0, 0, 0]);
    for (const setup of rig.state.queues) {
      assertEquals([setup.size, setup.enabled, setup.resetting, setup.address(0)], [
        8,
        false,
        false,
        0,
      ]);
    }
    const queue = rig.start();
    rig.send(queue, 3);
    rig.state.notify(0);
    assertEquals(rig.take(queue), [3]);
  }
});

Deno.test("device reset: while an asynchronous stop drains the status is what it was, and later writes wait for it", async () => {
  const rig = new Rig();
  rig.start();
  const stop = later();
  rig.device.stopping = () => stop.promise;
  rig.status = 0;
  assertEquals(rig.status, LIVE);
  assert(!rig.state.live);
  rig.state.notify(0);
  rig.state.enableQueue(0);
  rig.state.writeConfig(0, 4, 1);
  assertEquals(rig.device.config.read(0, 4), 0);
  rig.status = VIRTIO_STATUS_ACKNOWLEDGE;
  rig.status = FOUND;
  await turns();
  assertEquals([rig.status, rig.resets], [LIVE, 0]);
  stop.resolve();
  await rig.state.settled();
  assertEquals([rig.status, rig.resets, rig.device.stops], [FOUND, 1, 1]);
});

Deno.test("device reset: a second reset while one drains is one reset, and forgets what was written between", async () => {
  const rig = new Rig();
  rig.start();
  const stop = later();
  rig.device.stopping = () => stop.promise;
  rig.status = 0;
  rig.status = FOUND;
  rig.status = 0;
  stop.resolve();
  await rig.state.settled();
  assertEquals([rig.status, rig.resets, rig.device.stops], [0, 1, 1]);
});

Deno.test("device reset: a stop that fails is reported, and the reset is complete all the same", async () => {
  for (const kind of ["throws", "rejects"]) {
    const rig = new Rig();
    rig.start();
    rig.device.stopping = () => {
      if (kind === "throws") throw new Error("stop broke");
      return Promise.reject(new Error("stop broke"));
    };
    rig.status = 0;
    await rig.state.settled();
    assertEquals([rig.status, rig.errors.map((e) => e.message)], [0, ["stop broke"]]);
    rig.start();
    assertEquals(rig.status, LIVE);
  }
});

Deno.test("device reset: fail asks for a reset once, interrupts, and stops the device", () => {
  const rig = new Rig();
  const queue = rig.start();
  rig.state.fail(new Error("one"));
  rig.state.fail("two");
  assertEquals([rig.status, rig.interrupts], [LIVE | NEEDS_RESET, ["config"]]);
  assertEquals([rig.errors.map((e) => e.message), rig.device.stops], [["one"], 1]);
  rig.send(queue, 1);
  rig.state.notify(0);
  rig.device.config.update(() => {});
  assertEquals([rig.device.handled.length, rig.interrupts], [0, ["config"]]);
  rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
  assertEquals(rig.status, LIVE | NEEDS_RESET);
});

Deno.test("device reset: fail before DRIVER_OK sets the bit without an interrupt, and DRIVER_OK does not start the device", () => {
  const rig = new Rig();
  rig.negotiate();
  rig.state.fail("broken");
  assertEquals([rig.status, rig.interrupts], [AGREED | NEEDS_RESET, []]);
  assertEquals(rig.errors.map((e) => e.message), ["broken"]);
  rig.status = LIVE;
  assertEquals([rig.status, rig.device.starts], [AGREED | NEEDS_RESET, 0]);
});

Deno.test("device reset: fail with an asynchronous stop: a reset waits for it", async () => {
  const rig = new Rig();
  rig.start();
  const stop = later();
  rig.device.stopping = () => stop.promise;
  rig.state.fail("broken");
  assertEquals(rig.status, LIVE | NEEDS_RESET);
  rig.status = 0;
  await turns();
  assertEquals(rig.status, LIVE | NEEDS_RESET);
  stop.resolve();
  await rig.state.settled();
  assertEquals(rig.status, 0);
});

Deno.test("device reset: what a device kept from an earlier life can neither interrupt nor fail the next one", () => {
  const kept: Activation[] = [];
  class KeepingDevice extends TestDevice {
    override start(activation: Activation): void {
      kept.push(activation);
      super.start(activation);
    }
  }
  const rig = new Rig({ device: new KeepingDevice() });
  rig.start();
  kept[0]!.interrupt.queue(0);
  kept[0]!.interrupt.config();
  assertEquals(rig.interrupts, [0, "config"]);
  rig.status = 0;
  for (const next of [() => {}, () => void rig.start()]) {
    next();
    kept[0]!.interrupt.queue(0);
    kept[0]!.interrupt.config();
    kept[0]!.fail(new Error("late"));
    assertEquals([rig.interrupts, rig.needsReset, rig.errors], [[0, "config"], false, []]);
  }
  kept[1]!.interrupt.queue(1);
  assertEquals(rig.interrupts, [0, "config", 1]);
});
