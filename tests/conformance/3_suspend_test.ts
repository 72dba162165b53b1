/** Virtio 1.4, 3.4: device suspend. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  CORE_FEATURES,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_SUSPEND,
} from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { AGREED, FOUND, LIVE } from "../../packages/device/testing.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";
import { SessionBench, statusWrites } from "./session_bench.ts";

const SUSPENDED = AGREED | VIRTIO_STATUS_SUSPEND;
const SUSPEND = LIVE | VIRTIO_STATUS_SUSPEND;

Deno.test("3.4.1-G1 the driver does not set SUSPEND without DRIVER_OK, nor without the feature", async () => {
  const plain = new SessionBench({ features: VIRTIO_F_VERSION_1 });
  const session = await plain.open();
  await assertRejects(() => session.suspend(), DriverError);
  const bench = new SessionBench();
  let early: Promise<unknown> = Promise.resolve();
  const other = await bench.open({
    setup: (session) => {
      early = assertRejects(() => session.suspend(), DriverError);
    },
  });
  await early;
  await other.reset();
  await assertRejects(() => other.suspend(), DriverError);
  for (const { transport } of [plain, bench]) {
    for (const status of statusWrites(transport.log)) {
      assertEquals(status & VIRTIO_STATUS_SUSPEND, 0);
    }
  }
});

Deno.test("3.4.1-G2 the driver takes the device for suspended when SUSPEND reads 1 and DRIVER_OK 0, not before", async () => {
  const bench = new SessionBench();
  const session = await bench.open({ patience: 5000 });
  const lies = [LIVE, SUSPEND, AGREED, LIVE];
  let reads = 0;
  bench.transport.lieStatus = (status) =>
    status === SUSPENDED && reads < lies.length ? lies[reads++]! : status;
  await session.suspend();
  assertEquals(reads, lies.length);
  // One that never is, is not taken for suspended.
  const stuck = new SessionBench();
  const other = await stuck.open();
  stuck.transport.lieStatus = () => SUSPEND;
  await assertRejects(() => other.suspend(), DriverError, "does not suspend");
});

for (const [name, format] of FORMATS) {
  Deno.test(`3.4.1-G3 3.4.1-G4 3.4.1-G5 from SUSPEND on the driver makes nothing available, does not notify, and writes no configuration (${name})`, async () => {
    for (const draining of [false, true]) {
      const bench = new SessionBench();
      const session = await bench.open({ core: format | VIRTIO_F_SUSPEND, patience: 5000 });
      if (draining) bench.device.hold();
      bench.send(session, 1);
      const suspending = session.suspend();
      if (!draining) await suspending;
      const { config } = session.queue(0);
      // Split: the available index. Packed: the flags of the next slot, which make it available.
      const shown = (): number =>
        bench.memory.readU16(name === "split" ? config.driverArea + 2 : config.descriptorArea + 46);
      const before = [shown(), bench.transport.kicks, bench.device.config.read(0, 1)];
      assertEquals(bench.send(session, 2), false);
      assertEquals(session.publish(0), false);
      assertThrows(() => session.writeConfig(0, 1, 77), DriverError);
      assertEquals([shown(), bench.transport.kicks, bench.device.config.read(0, 1)], before);
      if (draining) {
        bench.device.release();
        await suspending;
      }
      await session.resume();
      // And then it is made available, and the device told.
      assertEquals([session.queue(0).take(), session.queue(0).take()], [1, 2]);
    }
  });

  Deno.test(`3.4.1-G6 the driver waits until SUSPEND reads 0 and DRIVER_OK 1 before it goes on (${name})`, async () => {
    const bench = new SessionBench();
    const session = await bench.open({ core: format | VIRTIO_F_SUSPEND, patience: 5000 });
    await session.suspend();
    // The first is what the driver reads to add DRIVER_OK to.
    const lies = [SUSPENDED, SUSPENDED, SUSPEND, AGREED];
    let reads = 0;
    let lying = false;
    bench.transport.lieStatus = (status) => lying && reads < lies.length ? lies[reads++]! : status;
    const kicks = bench.transport.kicks;
    bench.send(session, 1);
    lying = true;
    const resuming = session.resume();
    bench.send(session, 2);
    assertEquals(bench.transport.kicks, kicks);
    await resuming;
    assertEquals(reads, lies.length);
    assertEquals(bench.transport.kicks, kicks + 1);
    assertEquals([session.queue(0).take(), session.queue(0).take()], [1, 2]);
  });
}

everywhere("3.4.2-D1 SUSPEND is ignored before the device is initialised", async (place) => {
  const rig = await PlacedRig.open(place);
  for (const status of [VIRTIO_STATUS_SUSPEND, FOUND | VIRTIO_STATUS_SUSPEND]) {
    rig.status = status;
    assertEquals(rig.status & VIRTIO_STATUS_SUSPEND, 0);
  }
  rig.negotiate(VIRTIO_F_SUSPEND);
  rig.status = SUSPENDED;
  assertEquals(rig.status, AGREED);
  rig.status = LIVE;
  assertEquals([rig.status, rig.starts], [LIVE, 1]);
  // After a reset it is as uninitialised as at first.
  rig.status = 0;
  rig.status = VIRTIO_STATUS_SUSPEND;
  assertEquals(rig.status, 0);
});

everywhere("3.4.2-D2 writes to the configuration are ignored while suspended", async (place) => {
  const rig = await PlacedRig.open(place);
  rig.start(CORE_FEATURES);
  rig.state.writeConfig(0, 1, 1);
  rig.status = SUSPEND;
  rig.state.writeConfig(0, 1, 2);
  assertEquals(rig.state.readConfig(0, 1), 1);
  rig.status = LIVE;
  rig.state.writeConfig(0, 1, 3);
  assertEquals(rig.state.readConfig(0, 1), 3);
});

for (const [name, format] of FORMATS) {
  const FEATURES = (CORE_FEATURES & ~VIRTIO_F_RING_PACKED & ~VIRTIO_F_EVENT_IDX) | format;

  everywhere(
    `3.4.2-D3 while suspended the device sends no notification, touches no queue, and changes no configuration (${name})`,
    async (place) => {
      const rig = await PlacedRig.open(place);
      const queue = rig.start(FEATURES);
      rig.status = SUSPEND;
      rig.send(queue, 1);
      const image = rig.memory.regions[0]!.bytes.slice();
      const config = (): number[] => [0, 4, 8, 12].map((at) => rig.state.readConfig(at, 4));
      const shown = config();
      for (let i = 0; i < 3; i++) rig.state.notify(0);
      rig.setConfig(0, 0x12);
      rig.status = SUSPENDED;
      await rig.turns(2);
      assertEquals([rig.interrupts, rig.handled, rig.status], [[], [], SUSPENDED]);
      assertEquals(config(), shown);
      assert(rig.memory.regions[0]!.bytes.every((byte, i) => byte === image[i]));
      rig.status = LIVE;
      assertEquals(rig.take(queue), [1]);
    },
  );

  everywhere(
    `3.4.2-D8 3.4.2-D9 3.4.2-D10 before SUSPEND is shown the device takes nothing new, finishes what it has, and notifies of it (${name})`,
    async (place) => {
      const rig = await PlacedRig.open(place);
      const queue = rig.start(FEATURES);
      rig.hold();
      for (let i = 0; i < 3; i++) rig.send(queue, i);
      rig.state.notify(0);
      assertEquals(rig.held, 3);
      const shown: number[] = [];
      rig.onInterrupt = () => shown.push(rig.status);
      rig.status = SUSPEND;
      rig.send(queue, 3);
      rig.state.notify(0);
      for (let left = 3; left > 0; left--) {
        await rig.turns(1);
        assertEquals([rig.status, rig.held], [LIVE, left]);
        rig.finish();
      }
      await rig.turns(1);
      assertEquals([rig.status, shown, rig.interrupts.at(-1)], [SUSPENDED, [LIVE, LIVE, LIVE], 0]);
      assertEquals(rig.take(queue), [0, 1, 2]);
    },
  );
}

everywhere(
  "3.4.2-D4 3.4.2-D5 a configuration that changes meanwhile is notified of when the device runs again",
  async (place) => {
    const rig = await PlacedRig.open(place);
    rig.start(CORE_FEATURES);
    rig.status = SUSPEND;
    const before = rig.state.configGeneration;
    for (let i = 1; i < 4; i++) rig.setConfig(0, i);
    assertEquals(rig.interrupts, []);
    let seen = 0;
    rig.onInterrupt = () => seen = rig.status;
    rig.status = LIVE;
    assertEquals([rig.interrupts, seen, rig.state.readConfig(0, 1)], [["config"], LIVE, 3]);
    assert(rig.state.configGeneration !== before);
    // Once: not again after the next.
    rig.status = SUSPEND;
    rig.status = LIVE;
    assertEquals(rig.interrupts, ["config"]);
  },
);

everywhere("3.4.2-D6 the device suspends, or asks for a reset if it cannot", async (place) => {
  const rig = await PlacedRig.open(place);
  rig.start(CORE_FEATURES);
  rig.status = SUSPEND;
  assertEquals(rig.status, SUSPENDED);
  for (const later of [false, true]) {
    const other = await PlacedRig.open(place);
    other.start(CORE_FEATURES);
    other.run(({ device }, later) => {
      device.stopQueue = () => {
        const error = new Error("stuck");
        if (later) return Promise.reject(error);
        throw error;
      };
    }, later);
    other.status = SUSPEND;
    await other.state.settled();
    assertEquals(other.status, LIVE | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
  }
});

everywhere("3.4.2-D7 the device resumes, or asks for a reset if it cannot", async (place) => {
  const rig = await PlacedRig.open(place);
  const queue = rig.start(CORE_FEATURES);
  rig.status = SUSPEND;
  rig.status = LIVE;
  assertEquals(rig.status, LIVE);
  rig.send(queue, 1);
  rig.state.notify(0);
  assertEquals(rig.take(queue), [1]);
  rig.status = SUSPEND;
  rig.run(({ device }) => {
    device.startQueue = () => {
      throw new Error("gone");
    };
  });
  rig.status = LIVE;
  assert(rig.needsReset);
});
