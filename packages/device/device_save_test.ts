/** Saved and restored, and saved states that nobody saved. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  CORE_FEATURES,
  type SavedDevice,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_SUSPEND,
} from "./mod.ts";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { AGREED, FOUND, LIVE, Rig, TestDevice, turns } from "./testing.ts";

const SUSPENDED = AGREED | VIRTIO_STATUS_SUSPEND;

for (const [name, format] of FORMATS) {
  const FEATURES = (CORE_FEATURES & ~VIRTIO_F_RING_PACKED & ~VIRTIO_F_EVENT_IDX) | format;

  Deno.test(`save, ${name}: a running device goes on elsewhere, in the middle of its rings`, async () => {
    let rig = new Rig();
    let queue = rig.start(FEATURES);
    rig.device.own = 42;
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 3; i++) rig.send(queue, round * 3 + i);
      rig.state.notify(0);
      assertEquals(rig.take(queue), [0, 1, 2].map((i) => round * 3 + i));
    }
    rig.device.hold();
    rig.send(queue, 61);
    rig.state.notify(0);
    const pausing = rig.state.pause();
    rig.send(queue, 62);
    rig.device.release();
    await pausing;
    const saved = structuredClone(rig.state.save());
    assertEquals(saved.status, LIVE);
    const old = rig;
    // The driver's memory is the same, so its queue object goes on with it.
    rig = new Rig({ memory: old.memory });
    rig.state.restore(saved);
    assertEquals([rig.status, rig.state.features, rig.device.own], [
      LIVE,
      FEATURES | VIRTIO_F_VERSION_1,
      42,
    ]);
    assertEquals(rig.take(queue), [61]);
    assertEquals(rig.interrupts, [], "nothing before it is let go on");
    rig.state.notify(0);
    assertEquals(rig.device.handled, []);
    rig.state.unpause();
    assertEquals(rig.take(queue), [62]);
    assertEquals(old.device.handled.length, 61);
    queue = rig.start(FEATURES);
    rig.send(queue, 1);
    rig.state.notify(0);
    assertEquals(rig.take(queue), [1]);
  });

  Deno.test(`save, ${name}: a suspended device is restored suspended, with a configuration change that waits`, async () => {
    const rig = new Rig();
    const queue = rig.start(FEATURES);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    rig.device.config.update((view) => view.setUint8(0, 1));
    rig.send(queue, 1);
    await rig.state.pause();
    const again = new Rig({ memory: rig.memory });
    again.state.restore(structuredClone(rig.state.save()));
    again.state.unpause();
    assertEquals([again.status, again.interrupts, again.take(queue)], [SUSPENDED, [], []]);
    again.status = LIVE;
    assertEquals([again.status, again.interrupts, again.take(queue)], [LIVE, ["config", 0], [1]]);
  });
}

Deno.test("save: a device that is not live yet, that failed, or that asks for a reset", async () => {
  const cases: [string, (rig: Rig) => void, number][] = [
    ["untouched", () => {}, 0],
    ["found", (rig) => rig.status = FOUND, FOUND],
    ["bits written that were not offered", (rig) => {
      rig.status = FOUND;
      for (let word = 0; word < 4; word++) rig.state.writeDriverFeatures(word, 0xffff_ffff);
    }, FOUND],
    ["any addresses and sizes", (rig) => {
      rig.negotiate();
      const setup = rig.state.queues[0]!;
      setup.setSize(12345);
      for (const area of [0, 1, 2] as const) {
        setup.writeAddress(area, 0, 0xdead_beef);
        setup.writeAddress(area, 1, 0xffff_ffff);
      }
    }, AGREED],
    ["a queue enabled", (rig) => {
      rig.negotiate();
      rig.openQueue(1);
    }, AGREED],
    ["failed", (rig) => rig.status = FOUND | VIRTIO_STATUS_FAILED, FOUND | VIRTIO_STATUS_FAILED],
    ["failed while it ran", (rig) => {
      rig.start();
      rig.status = LIVE | VIRTIO_STATUS_FAILED;
    }, LIVE | VIRTIO_STATUS_FAILED],
    ["broken", (rig) => {
      rig.start();
      rig.state.fail("x");
    }, LIVE | VIRTIO_STATUS_DEVICE_NEEDS_RESET],
  ];
  for (const [name, run, status] of cases) {
    const rig = new Rig();
    run(rig);
    await rig.state.pause();
    const saved = rig.state.save();
    const again = new Rig({ memory: rig.memory });
    again.state.restore(structuredClone(saved));
    again.state.unpause();
    assertEquals(again.status, status, name);
    assertEquals(
      [0, 1, 2, 3].map((word) => again.state.readDriverFeatures(word)),
      [0, 1, 2, 3].map((word) => rig.state.readDriverFeatures(word)),
      name,
    );
    for (const [i, setup] of rig.state.queues.entries()) {
      const copy = again.state.queues[i]!;
      assertEquals([copy.size, copy.enabled], [setup.size, setup.enabled], name);
      for (const area of [0, 1, 2] as const) {
        for (const half of [0, 1] as const) {
          assertEquals(copy.readAddress(area, half), setup.readAddress(area, half), name);
        }
      }
    }
    again.status = 0;
    const queue = again.start();
    again.send(queue, 1);
    again.state.notify(0);
    assertEquals(again.take(queue), [1], name);
  }
});

Deno.test("save: only a device that is paused or not live can be saved, and only a fresh one restored into", async () => {
  const rig = new Rig();
  const queue = rig.start();
  assertThrows(() => rig.state.save(), TypeError, "pause()");
  rig.device.hold();
  rig.send(queue, 1);
  rig.state.notify(0);
  const pausing = rig.state.pause();
  await turns();
  assertThrows(() => rig.state.save(), TypeError, "pause()");
  rig.device.release();
  await pausing;
  const saved = rig.state.save();
  assertThrows(() => rig.state.restore(saved), TypeError, "fresh");
});

/** Every way to change one leaf of a plain object, with what a leaf of that kind may become. */
function* mutations(value: unknown, path: string[] = []): Generator<[string, unknown]> {
  const replacements: unknown[] = [
    undefined,
    null,
    -1,
    0.5,
    NaN,
    "x",
    {},
    [],
    2 ** 60,
    2n ** 200n,
    -1n,
  ];
  if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      for (const [where, changed] of mutations(inner, [...path, key])) {
        const copy = Array.isArray(value) ? [...value] : { ...value };
        (copy as Record<string, unknown>)[key] = changed;
        yield [where, copy];
      }
    }
    if (Array.isArray(value)) {
      yield [`${path.join(".")} shorter`, value.slice(1)];
      yield [`${path.join(".")} longer`, [...value, value[0]]];
    }
  }
  for (const replacement of replacements) {
    if (replacement === value) continue;
    yield [`${path.join(".")} = ${String(replacement)}`, replacement];
  }
  if (typeof value === "number") yield [`${path.join(".")} + 1`, value + 1];
  if (typeof value === "bigint") yield [`${path.join(".")} + 8`, value + 8n];
}

for (const [name, format] of FORMATS) {
  for (const state of ["running", "suspended", "negotiated"]) {
    Deno.test(`save, ${name}, ${state}: with any one field changed the state is refused, or stands for one that could be; never a half-restored device`, async () => {
      const features = format | VIRTIO_F_SUSPEND;
      const rig = new Rig();
      rig.device.own = 7;
      if (state === "negotiated") {
        rig.negotiate(features);
        rig.openQueue(0, features);
      } else {
        const queue = rig.start(features);
        rig.send(queue, 1);
        rig.state.notify(0);
        if (state === "suspended") rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
      }
      await rig.state.pause();
      const saved = rig.state.save();
      let refused = 0;
      let taken = 0;
      for (const [where, changed] of mutations(saved)) {
        const again = new Rig({ memory: rig.memory });
        try {
          again.state.restore(changed as SavedDevice);
        } catch (error) {
          refused++;
          assert(error instanceof TypeError || error instanceof RangeError, `${where}: ${error}`);
          const engine = /is not (a function|iterable|defined)|Cannot (read|mix|convert)/;
          assert(!engine.test((error as Error).message), `${where}: ${error}`);
          assertEquals([again.status, again.state.features, again.state.live], [0, 0n, false]);
          again.state.unpause();
          assertEquals(again.interrupts, [], where);
          // It is as good as new.
          const queue = again.start(features);
          again.send(queue, 1);
          again.state.notify(0);
          assertEquals([again.status, again.take(queue)], [LIVE, [1]], where);
          continue;
        }
        taken++;
        again.state.unpause();
        again.state.notify(0);
        await again.state.pause();
        again.state.save();
        again.status = 0;
        await again.state.settled();
        assertEquals(again.status, 0, where);
      }
      assert(refused > 100, `${refused} refused, ${taken} taken`);
    });
  }
}

Deno.test("save: states that contradict themselves are refused", async () => {
  const rig = new Rig();
  const features = VIRTIO_F_SUSPEND;
  rig.start(features);
  await rig.state.pause();
  const good = rig.state.save();
  const queue = good.queues[0]!;
  const withQueue = (change: object): SavedDevice => ({
    ...good,
    queues: [{ ...queue, ...change }, good.queues[1]!],
  });
  const bad: [string, SavedDevice][] = [
    ["another type", { ...good, type: 5 }],
    ["more queues", { ...good, queues: [...good.queues, queue] }],
    ["running without features", { ...good, status: 7 }],
    ["running and suspended", { ...good, status: LIVE | VIRTIO_STATUS_SUSPEND }],
    ["suspended without the feature", { ...good, status: SUSPENDED, accepted: VIRTIO_F_VERSION_1 }],
    ["an undefined status bit", { ...good, status: LIVE | 0x20 }],
    ["features that were not offered", { ...good, accepted: good.accepted | (1n << 60n) }],
    ["no VERSION_1", { ...good, accepted: VIRTIO_F_SUSPEND }],
    ["bits beyond 127", { ...good, status: FOUND, accepted: 1n << 128n }],
    ["a queue of no size", withQueue({ size: 0 })],
    ["a queue that is too large", withQueue({ size: 16 })],
    ["a queue out of memory", withQueue({ addresses: [1n << 40n, 0n, 0n] })],
    ["an enabled queue that was not live", withQueue({ position: null })],
    ["a live queue that was not enabled", withQueue({ enabled: false })],
    ["a position beyond 65535", withQueue({ position: { ...queue.position, nextAvail: 65536 } })],
    ["chains in flight", withQueue({ position: { ...queue.position, nextAvail: 3 } })],
    ["a position of a device that is not live", { ...good, status: AGREED }],
  ];
  for (const [name, saved] of bad) {
    const again = new Rig({ memory: rig.memory });
    assertThrows(() => again.state.restore(saved), Error, "", name);
    assertEquals(again.status, 0, name);
  }
});

Deno.test("save: at any point of a run, and restored, the rest of the run is the same", async () => {
  type Step = "send" | "kick" | "take" | "suspend" | "resume" | "reset queue" | "enable" | "config";
  const step = fc.constantFrom<Step>(
    "send",
    "send",
    "send",
    "kick",
    "kick",
    "take",
    "suspend",
    "resume",
    "reset queue",
    "enable",
    "config",
  );
  const run = async (steps: Step[], features: bigint, savePoints: Set<number>) => {
    let rig = new Rig();
    let queue = rig.start(features);
    const out: unknown[] = [];
    let value = 0;
    let config = 0;
    for (const [i, step] of steps.entries()) {
      if (savePoints.has(i)) {
        await rig.state.pause();
        const interrupts = rig.interrupts;
        const next = new Rig({ memory: rig.memory });
        // What it shows is the device's business, who is told of it and when is not.
        next.device.config.view.setUint8(0, config);
        next.interrupts.push(...interrupts);
        next.device.handled.push(...rig.device.handled);
        next.state.restore(structuredClone(rig.state.save()));
        next.state.unpause();
        rig = next;
      }
      if (step === "send") rig.send(queue, value++ % 64);
      else if (step === "kick") rig.state.notify(0);
      else if (step === "take") out.push(rig.take(queue));
      else if (step === "suspend") rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
      else if (step === "resume") rig.status = LIVE;
      else if (step === "reset queue") rig.state.resetQueue(0);
      else if (step === "enable") {
        if (!rig.state.queues[0]!.enabled && rig.status === LIVE) {
          queue = rig.openQueue(0, features);
        }
      } else rig.device.config.update((view) => view.setUint8(0, config = i));
      out.push(rig.status);
    }
    rig.status = LIVE;
    rig.state.notify(0);
    out.push(rig.take(queue), rig.device.handled, rig.state.readConfig(0, 1));
    return out;
  };
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 30 }),
      fc.array(fc.nat(30), { maxLength: 3 }),
      fc.boolean(),
      async (steps, points, packed) => {
        // A kick is made good when a device goes on, so without the notification of a kick the runs could differ.
        const features = CORE_FEATURES & ~(packed ? 0n : VIRTIO_F_RING_PACKED);
        const kicked = steps.flatMap((step): Step[] => step === "send" ? ["send", "kick"] : [step]);
        const plain = await run(kicked, features, new Set());
        const moved = await run(kicked, features, new Set(points));
        assertEquals(moved, plain);
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("save: a device's own state that is malformed is refused by the device, and nothing is restored", async () => {
  const rig = new Rig();
  rig.start();
  rig.device.own = 5;
  await rig.state.pause();
  const saved = { ...rig.state.save(), device: "not a number" };
  const again = new Rig({ memory: rig.memory, device: new TestDevice() });
  assertThrows(() => again.state.restore(saved), TypeError, "is a number");
  assertEquals([again.status, again.device.starts], [0, 0]);
});
