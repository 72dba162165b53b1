/** Virtio 1.4, 2.1: device status. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { DriverError, DriverSession } from "@virtio/device/driver";
import {
  CORE_FEATURES,
  VIRTIO_F_RING_RESET,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
} from "@virtio/device";
import { AGREED, LIVE } from "../../packages/device/testing.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";
import { SessionBench, statusWrites } from "./session_bench.ts";

Deno.test("2.1.1-G1 the driver sets the status bits as it completes the steps of initialisation", async () => {
  const bench = new SessionBench();
  await bench.open();
  assertEquals(statusWrites(bench.transport.log), [0, 1, 3, 11, 15]);
  // Each only after what it stands for: FEATURES_OK after the features, DRIVER_OK after the queues.
  const at = (line: string): number => bench.transport.log.indexOf(line);
  const features = bench.transport.log.findIndex((line) => line.startsWith("features "));
  assert(at("status 3") < features && features < at("status 11"));
  assert(at("status 11") < at("queue 0 of 8") && at("queue 0 of 8") < at("status 15"));
});

Deno.test("2.1.1-G2 the driver never clears a status bit, but by a reset", async () => {
  const bench = new SessionBench();
  const session = await bench.open({ core: CORE_FEATURES });
  await session.suspend();
  await session.resume();
  await session.resetQueue(0);
  bench.device.break("broken");
  await session.suspend().catch(() => {});
  await session.reset();
  await assertRejects(() => bench.open({ queues: () => [{ index: 9, size: 8 }] }), DriverError);
  await bench.open();
  let status = 0;
  for (const line of bench.transport.log) {
    const read = /^status is (\d+)$/.exec(line)?.[1];
    if (read !== undefined) status = Number(read);
    const written = /^status (\d+)$/.exec(line)?.[1];
    if (written === undefined) continue;
    const value = Number(written);
    assert(value === 0 || (status & ~value) === 0, `${line} over status ${status}`);
  }
});

Deno.test("2.1.1-G3 after FAILED the driver resets the device before it initialises it again", async () => {
  const bench = new SessionBench();
  bench.device.acceptable = () => false;
  await assertRejects(() => bench.open(), DriverError);
  assertEquals(bench.transport.state.status & VIRTIO_STATUS_FAILED, VIRTIO_STATUS_FAILED);
  bench.device.acceptable = null;
  const from = bench.transport.log.length;
  await bench.open();
  assertEquals(bench.transport.log.slice(from, from + 3), [
    "status 0",
    "status is 0",
    "status is 0",
  ]);
  assertEquals(bench.transport.state.status, LIVE);
});

Deno.test("2.1.1-G4 when the device needs a reset, the driver is told, and gets back what it can no longer rely on", async () => {
  const bench = new SessionBench();
  const session = await bench.open();
  bench.device.hold();
  bench.send(session, 5);
  bench.device.break("broken");
  await bench.settle();
  assertEquals([bench.needsResets, bench.configs], [1, 0]);
  const tokens = await session.reset();
  assertEquals(tokens.get(0), [5]);
  const again = await DriverSession.open(bench.transport, bench.options());
  assertEquals(again.has(VIRTIO_F_RING_RESET), true);
});

for (const [name, format] of FORMATS) {
  everywhere(
    `2.1.2-D1 before DRIVER_OK the device consumes no buffer and sends no used buffer notification (${name})`,
    async (place) => {
      const rig = await PlacedRig.open(place);
      rig.negotiate(format);
      const queue = rig.openQueue(0, format);
      rig.send(queue, 1);
      for (let i = 0; i < 3; i++) rig.state.notify(0);
      rig.setConfig(0, 0);
      await rig.turns(1);
      assertEquals([rig.handled, rig.take(queue), rig.interrupts], [[], [], []]);
      rig.status = LIVE;
      assertEquals([rig.take(queue), rig.interrupts], [[1], [0]]);
    },
  );

  everywhere(
    `2.1.2-D2 2.1.2-D3 a device in an error state sets DEVICE_NEEDS_RESET and sends a configuration change notification (${name})`,
    async (place) => {
      const errors: [string, (rig: PlacedRig) => void][] = [
        ["the driver broke a rule of the ring", (rig) => {
          const raw = rig.startRaw(format);
          raw.send([{ address: 0x7fff_0000, length: 8 }]);
          rig.state.notify(0);
        }],
        ["the driver placed a ring out of memory", (rig) => {
          rig.negotiate(format);
          rig.enable(0, { size: 8, descriptorArea: 1 << 30, driverArea: 0, deviceArea: 0 });
          rig.status = LIVE;
        }],
        ["the device itself", (rig) => {
          rig.startRaw(format);
          rig.break("the back end is gone");
        }],
      ];
      for (const [what, run] of errors) {
        const rig = await PlacedRig.open(place);
        let seen = 0;
        rig.onInterrupt = () => seen = rig.status;
        run(rig);
        assertEquals(rig.status, LIVE | VIRTIO_STATUS_DEVICE_NEEDS_RESET, what);
        assertEquals(rig.interrupts.at(-1), "config", what);
        // The bit is there when the notification arrives.
        assert((seen & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0, what);
      }
    },
  );
}

everywhere("2.1.2-D3 without DRIVER_OK there is no notification", async (place) => {
  const rig = await PlacedRig.open(place);
  rig.negotiate();
  rig.state.fail(new Error("broken"));
  assertEquals(rig.status, AGREED | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
  assertEquals(rig.status & VIRTIO_STATUS_DRIVER_OK, 0);
  assertEquals(rig.interrupts, []);
});
