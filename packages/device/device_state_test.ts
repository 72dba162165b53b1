/** The status machine: every transition, and everything that a driver may do to it in any order. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  CORE_FEATURES,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
  VIRTIO_STATUS_SUSPEND,
} from "./mod.ts";
import { AGREED, echo, FOUND, later, LIVE, Rig, turns } from "./testing.ts";

const NEEDS_RESET = VIRTIO_STATUS_DEVICE_NEEDS_RESET;

Deno.test("device state: step by step to DRIVER_OK, each bit stays", () => {
  const rig = new Rig();
  assertEquals(rig.status, 0);
  rig.status = VIRTIO_STATUS_ACKNOWLEDGE;
  assertEquals(rig.status, VIRTIO_STATUS_ACKNOWLEDGE);
  rig.status = FOUND;
  assertEquals(rig.status, FOUND);
  rig.accept(VIRTIO_F_VERSION_1);
  rig.status = AGREED;
  assertEquals([rig.status, rig.state.features], [AGREED, VIRTIO_F_VERSION_1]);
  assertEquals([rig.device.starts, rig.state.live], [0, false]);
  rig.status = LIVE;
  assertEquals([rig.status, rig.device.starts, rig.state.live], [LIVE, 1, true]);
  rig.status = LIVE;
  assertEquals([rig.status, rig.device.starts], [LIVE, 1]);
});

Deno.test("device state: all bits in one write take effect in their order", () => {
  const rig = new Rig();
  rig.accept(VIRTIO_F_VERSION_1);
  rig.status = LIVE;
  assertEquals([rig.status, rig.device.starts], [LIVE, 1]);
});

Deno.test("device state: all bits and SUSPEND in one write run the device and then suspend it", async () => {
  const rig = new Rig();
  rig.accept(CORE_FEATURES);
  rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
  await rig.state.settled();
  assertEquals([rig.status, rig.device.starts], [AGREED | VIRTIO_STATUS_SUSPEND, 1]);
});

Deno.test("device state: a bit that the driver leaves out of a write stays set", () => {
  const rig = new Rig();
  rig.start();
  rig.status = VIRTIO_STATUS_ACKNOWLEDGE;
  assertEquals(rig.status, LIVE);
  assert(rig.state.live);
});

Deno.test("device state: DEVICE_NEEDS_RESET and undefined bits are not the driver's to set", () => {
  const rig = new Rig();
  rig.status = NEEDS_RESET | 0x20 | VIRTIO_STATUS_ACKNOWLEDGE;
  assertEquals(rig.status, VIRTIO_STATUS_ACKNOWLEDGE);
  rig.status = 0x1_0000_0000 + 0x100;
  assertEquals(rig.status, 0, "only the low byte counts, and a 0 is a reset");
});

Deno.test("device state: a kick before DRIVER_OK does nothing then, and is made good at DRIVER_OK", () => {
  const rig = new Rig();
  rig.negotiate();
  const queue = rig.openQueue(0);
  rig.send(queue, 1);
  rig.state.notify(0);
  assertEquals([rig.device.handled.length, rig.interrupts.length], [0, 0]);
  rig.status = LIVE;
  assertEquals([rig.take(queue), rig.interrupts], [[1], [0]]);
});

Deno.test("device state: kicks of queues that do not exist or are not enabled are ignored", () => {
  const rig = new Rig();
  rig.negotiate();
  const queue = rig.openQueue(0);
  rig.status = LIVE;
  rig.send(queue, 1);
  for (const index of [1, 2, 0xffff, -1, 0.5, NaN]) rig.state.notify(index);
  assertEquals(rig.device.handled, []);
  rig.state.notify(0);
  assertEquals(rig.take(queue), [1]);
});

Deno.test("device state: FAILED is kept, and the device can only be reset then", () => {
  const rig = new Rig();
  rig.status = FOUND | VIRTIO_STATUS_FAILED;
  rig.accept(VIRTIO_F_VERSION_1);
  rig.status = LIVE | VIRTIO_STATUS_FAILED;
  assertEquals(rig.status, AGREED | VIRTIO_STATUS_FAILED);
  assertEquals(rig.device.starts, 0);
  rig.status = 0;
  assertEquals(rig.status, 0);
  rig.start();
  assertEquals(rig.status, LIVE);
});

Deno.test("device state: bad queue addresses and sizes cost the device when it starts, with the clause in the error", () => {
  const cases: [string, number, [number, number, number], string][] = [
    ["size 0", 0, [0x1000, 0x2000, 0x3000], "2.7"],
    ["not a power of two", 6, [0x1000, 0x2000, 0x3000], "2.7"],
    ["larger than the device takes", 16, [0x1000, 0x2000, 0x3000], "2.7"],
    ["misaligned descriptor area", 8, [0x1008, 0x2000, 0x3000], "2.7.1"],
    ["misaligned driver area", 8, [0x1000, 0x2001, 0x3000], "2.7.1"],
    ["misaligned device area", 8, [0x1000, 0x2000, 0x3002], "2.7.1"],
    ["out of memory", 8, [0x10_0000, 0x2000, 0x3000], "2.7.1"],
    ["across the end", 8, [0x1000, 0x2000, 0x10_0000 - 32], "2.7.1"],
    ["beyond 2^53", 8, [0x1000, 0x2000, 2 ** 63], "2.7.1"],
  ];
  for (const [name, size, [descriptorArea, driverArea, deviceArea], clause] of cases) {
    const rig = new Rig();
    rig.negotiate();
    rig.enable(1, { size, descriptorArea, driverArea, deviceArea });
    assert(!rig.needsReset, name);
    rig.status = LIVE;
    assertEquals([rig.status, rig.interrupts], [LIVE | NEEDS_RESET, ["config"]], name);
    assert(rig.errors[0]!.message.includes(`virtio 1.4, ${clause})`), rig.errors[0]!.message);
  }
});

Deno.test("device state: an interrupt that resets the device inside of a start is safe", () => {
  const rig = new Rig();
  rig.negotiate();
  const queue = rig.openQueue(0);
  rig.openQueue(1);
  rig.send(queue, 1);
  rig.onInterrupt = () => rig.status = 0;
  rig.status = LIVE;
  assertEquals([rig.status, rig.device.stops, rig.interrupts], [0, 1, [0]]);
  rig.onInterrupt = () => {};
  const again = rig.start();
  rig.send(again, 2);
  rig.state.notify(0);
  assertEquals(rig.take(again), [2]);
});

Deno.test("device state: a device whose own code throws is asked for a reset; nothing reaches the register access", () => {
  const boom = (): never => {
    throw new Error("device bug");
  };
  const cases: [string, (rig: Rig) => void][] = [
    ["start", (rig) => {
      rig.device.starting = boom;
      rig.start();
    }],
    ["handle", (rig) => {
      rig.device.handler = boom;
      rig.send(rig.start(), 1);
      rig.state.notify(0);
    }],
    ["kicked", (rig) => {
      rig.start();
      rig.device.onKick = boom;
      rig.state.notify(0);
    }],
    ["kicked, at DRIVER_OK", (rig) => {
      rig.device.onKick = boom;
      rig.start();
    }],
    ["accepts", (rig) => {
      rig.device.acceptable = boom;
      rig.start();
    }],
    ["a configuration write", (rig) => {
      rig.start();
      rig.device.config.write = boom;
      rig.state.writeConfig(0, 1, 1);
    }],
    ["stopQueue", (rig) => {
      rig.start(CORE_FEATURES & ~VIRTIO_F_RING_PACKED);
      rig.device.stopQueue = boom;
      rig.state.resetQueue(0);
    }],
  ];
  for (const [name, run] of cases) {
    const rig = new Rig();
    run(rig);
    assert(rig.needsReset, name);
    assertEquals(rig.errors.map((error) => error.message), ["device bug"], name);
    rig.status = 0;
    assertEquals(rig.status, 0, name);
  }
});

Deno.test("device state: the configuration can be read at any time and written from FEATURES_OK on", () => {
  const rig = new Rig();
  rig.device.config.view.setUint32(4, 0xabcd, true);
  assertEquals(rig.state.readConfig(4, 4), 0xabcd);
  rig.state.writeConfig(0, 1, 5);
  rig.status = FOUND;
  rig.state.writeConfig(0, 1, 5);
  assertEquals(rig.state.readConfig(0, 1), 0);
  rig.negotiate();
  rig.state.writeConfig(0, 1, 5);
  assertEquals(rig.state.readConfig(0, 1), 5);
});

Deno.test("device state: a changed configuration interrupts a live device only", () => {
  const rig = new Rig();
  const change = (): void => rig.device.config.update((view) => view.setUint8(0, 1));
  change();
  rig.negotiate();
  change();
  assertEquals(rig.interrupts, []);
  const before = rig.state.configGeneration;
  rig.status = LIVE;
  change();
  assertEquals([rig.interrupts, rig.state.configGeneration], [["config"], before + 1]);
  rig.status = 0;
  change();
  assertEquals(rig.interrupts, ["config"]);
});

/** One thing that a driver, the device or the host may do. */
type Act = { what: number; value: number };

Deno.test("device state: no order of driver actions throws, hangs, or interrupts a device that is not live", async () => {
  const statuses = [0, 1, 3, 0xb, 0xf, 0x1f, 0x9f, 0x8f, 0xff, 0x13, 4, 8, 0x10];
  const act: fc.Arbitrary<Act> = fc.record({ what: fc.nat(15), value: fc.nat(12) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(act, { maxLength: 40 }),
      fc.boolean(),
      fc.boolean(),
      async (acts, packed, slow) => {
        const features = CORE_FEATURES & ~(packed ? 0n : VIRTIO_F_RING_PACKED);
        const rig = new Rig();
        const stops: (() => void)[] = [];
        if (slow) {
          rig.device.handler = (chain) => {
            const work = later();
            stops.push(work.resolve);
            return work.promise.then(() => {
              if (rig.device.owns(chain)) echo(chain);
            });
          };
          rig.device.stopping = () => {
            const work = later();
            stops.push(work.resolve);
            return work.promise;
          };
        }
        rig.onInterrupt = () => {
          const status = rig.state.status;
          assert((status & VIRTIO_STATUS_DRIVER_OK) !== 0, `an interrupt with status ${status}`);
        };
        let queue = rig.start(features);
        let token = 0;
        for (const { what, value } of acts) {
          const index = value % 3;
          if (what < 4) rig.status = statuses[value]!;
          else if (what === 4) rig.state.enableQueue(index);
          else if (what === 5) rig.state.disableQueue(index);
          else if (what === 6) rig.state.resetQueue(index);
          else if (what === 7) rig.accept(value % 2 === 0 ? features : VIRTIO_F_VERSION_1);
          else if (what === 8) {
            if (!rig.state.queues[0]!.enabled) queue = rig.openQueue(0, features);
          } else if (what === 9) {
            rig.send(queue, token++);
          } else if (what === 10) {
            rig.state.notify(index);
          } else if (what === 11) {
            rig.device.config.update((view) => view.setUint8(0, value));
          } else if (what === 12) {
            stops.shift()?.();
            await turns(1);
          } else if (what === 13) {
            rig.state.writeConfig(value, 1, value);
          } else if (what === 14) {
            if (value === 0) rig.state.fail("now");
          } else {
            rig.start(features);
          }
        }
        // Whatever happened, a reset ends it, and then the device works.
        rig.status = 0;
        for (let i = 0; i < 100 && (stops.length > 0 || rig.status !== 0); i++) {
          stops.splice(0).forEach((stop) => stop());
          await turns(1);
        }
        assertEquals(rig.status, 0, "the reset is complete");
        await rig.state.settled();
        rig.device.handler = echo;
        rig.device.stopping = () => {};
        const last = rig.start(features);
        rig.send(last, 1);
        rig.state.notify(0);
        await turns(1);
        assertEquals(rig.take(last), [1]);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("device state: status bits in the order of the standard, one by one or in any grouping, end alike", () => {
  const order = [
    VIRTIO_STATUS_ACKNOWLEDGE,
    VIRTIO_STATUS_DRIVER,
    VIRTIO_STATUS_FEATURES_OK,
    VIRTIO_STATUS_DRIVER_OK,
  ];
  for (let cuts = 0; cuts < 8; cuts++) {
    const rig = new Rig();
    rig.accept(VIRTIO_F_VERSION_1);
    let status = 0;
    order.forEach((bit, i) => {
      status |= bit;
      if (i === 3 || (cuts & (1 << i)) !== 0) rig.status = status;
    });
    assertEquals([rig.status, rig.device.starts], [LIVE, 1]);
  }
});
