/** The driver's order of steps, over a transport that writes down what passes. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DriverError } from "./driver.ts";
import {
  CORE_FEATURES,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_FAILED,
} from "./mod.ts";
import { Bench, bent } from "./session_testing.ts";
import { AGREED, FOUND, later, LIVE, LocalTransport, TestDevice, turns } from "./testing.ts";

Deno.test("session: the steps of initialisation, in their order", async () => {
  const bench = new Bench(VIRTIO_F_VERSION_1 | VIRTIO_F_RING_RESET);
  bench.transport.state.writeStatus(FOUND);
  const session = await bench.open({
    queues: (session) => {
      assertEquals(session.features, VIRTIO_F_VERSION_1 | VIRTIO_F_RING_RESET);
      return [{ index: 1, size: 4 }, { index: 0, size: 100 }];
    },
    setup: (session) => session.transport.writeConfig(0, 1, 7),
  });
  assertEquals(bench.transport.log, [
    "status 0",
    "status is 0",
    "status is 0",
    "status 1",
    "status is 1",
    "status 3",
    "features?",
    "features 10100000000",
    "status is 3",
    "status 11",
    "status is 11",
    "queue 1?",
    "queue 1 of 4",
    "queue 0?",
    "queue 0 of 8",
    "config 0 7",
    "status is 11",
    "status 15",
  ]);
  assertEquals([session.queue(1).size, session.queue(0).size], [4, 8]);
  assertThrows(() => session.queue(2), RangeError, "was not set up");
});

Deno.test("session: a device of another type is left alone", async () => {
  const bench = new Bench();
  await assertRejects(() => bench.open({ type: 2 }), DriverError, "of type 2");
  assertEquals(bench.transport.log, []);
});

Deno.test("session: only what is offered, understood, and carried is accepted", async () => {
  const all = (1n << 128n) - 1n;
  const device = new TestDevice({ features: 0b111n | 1n << 60n });
  const bench = bent(CORE_FEATURES, device);
  // Reserved bits, bits of nothing, and bits that are not built, are offered and asked for.
  bench.transport.offer = () => all;
  let written = 0n;
  const transport = bench.transport;
  transport.writeDriverFeatures = (features) => {
    written = features;
    LocalTransport.prototype.writeDriverFeatures.call(
      transport,
      features & transport.state.offered,
    );
  };
  const session = await bench.open({ wanted: all & ~0b100n });
  const types = ((1n << 24n) - 1n) | 0b11n << 41n | ((1n << 78n) - 1n) << 50n;
  assertEquals(written, (types & ~0b100n) | CORE_FEATURES);
  assertEquals(session.features & 0b100n, 0n);
});

Deno.test("session: what the transport does not carry and what the caller does not want is not accepted", async () => {
  const bench = new Bench(
    CORE_FEATURES,
    (device, bench) => {
      const transport = new LocalTransport(device, bench.memory, CORE_FEATURES, {
        carries: CORE_FEATURES,
      });
      Object.defineProperty(transport, "carries", {
        value: CORE_FEATURES & ~VIRTIO_F_RING_RESET,
      });
      return transport;
    },
    new TestDevice({ features: 0b11n }),
  );
  const session = await bench.open({
    wanted: 0b10n,
    core: VIRTIO_F_RING_PACKED | VIRTIO_F_RING_RESET,
  });
  assertEquals(session.features, 0b10n | VIRTIO_F_RING_PACKED | VIRTIO_F_VERSION_1);
  assert(session.has(0b10n) && !session.has(0b11n));
});

Deno.test("session: a feature that needs another is not accepted without it, through any number of steps", async () => {
  const requires = [[0b100n, 0b010n], [0b010n, 0b001n], [0b1000n, 0b100n]] as const;
  for (const [features, expected] of [[0b1110n, 0n], [0b1111n, 0b1111n], [0b1101n, 0b0001n]]) {
    const bench = new Bench(VIRTIO_F_VERSION_1, undefined, new TestDevice({ features: features! }));
    const session = await bench.open({ wanted: 0xffn, requires });
    assertEquals(session.features, expected! | VIRTIO_F_VERSION_1);
  }
});

Deno.test("session: FAILED where the device is a legacy one, refuses the features, or lacks a queue; and no further step", async () => {
  const legacy = bent();
  legacy.transport.offer = (features) => features & ~VIRTIO_F_VERSION_1;
  await assertRejects(() => legacy.open(), DriverError, "VERSION_1");
  assertEquals(legacy.transport.state.status, FOUND | VIRTIO_STATUS_FAILED);
  assertEquals(legacy.transport.log.at(-1), "status 131");

  const refusing = new Bench();
  refusing.device.acceptable = () => false;
  await assertRejects(() => refusing.open(), DriverError, "refused the features");
  assertEquals(refusing.transport.state.status, FOUND | VIRTIO_STATUS_FAILED);
  assert(!refusing.transport.log.some((line) => line.startsWith("queue")));

  const lacking = new Bench();
  const free = lacking.dma.available;
  await assertRejects(
    () => lacking.open({ queues: () => [{ index: 0, size: 8 }, { index: 2, size: 8 }] }),
    DriverError,
    "no queue 2",
  );
  assertEquals(lacking.transport.state.status, AGREED | VIRTIO_STATUS_FAILED);
  assertEquals(lacking.device.starts, 0);
  assertEquals(lacking.dma.available, free, "the rings are given back");
  // It can be tried again.
  const session = await lacking.open();
  assertEquals(lacking.transport.state.status, LIVE);
  await session.reset();
  assertEquals(lacking.dma.available, free);
});

Deno.test("session: FAILED where the caller's own set-up throws", async () => {
  const bench = new Bench();
  await assertRejects(
    () =>
      bench.open({
        setup: () => {
          throw new Error("mine");
        },
      }),
    Error,
    "mine",
  );
  assertEquals(bench.transport.state.status, AGREED | VIRTIO_STATUS_FAILED);
});

Deno.test("session: a device that never finishes its reset is given up on, with FAILED", async () => {
  const bench = bent();
  bench.transport.state.writeStatus(FOUND);
  bench.transport.status = () => FOUND;
  await assertRejects(() => bench.open(), DriverError, "finish a reset");
  assertEquals(bench.transport.log.at(-1), "status 131");
});

Deno.test("session: a reset that takes its time is waited for", async () => {
  const bench = new Bench();
  const session = await bench.open();
  const work = later();
  bench.device.stopping = () => work.promise;
  bench.send(session, 5);
  let tokens: Map<number, number[]> | null = null;
  bench.device.hold();
  bench.send(session, 6);
  const resetting = session.reset().then((lost) => tokens = lost);
  await turns(2);
  assertEquals(tokens, null);
  work.resolve();
  await resetting;
  assertEquals(tokens!.get(0)!.sort(), [5, 6]);
  assertEquals([bench.transport.state.status, bench.transport.interrupts], [0, null]);
});

Deno.test("session: no kick before DRIVER_OK; what was made available in the set-up is kicked after it", async () => {
  const bench = new Bench();
  const kicks: boolean[] = [];
  const session = await bench.open({
    queues: () => [{ index: 0, size: 8 }, { index: 1, size: 8 }],
    setup: (session) => kicks.push(bench.send(session, 1, 1)),
  });
  assertEquals(kicks, [false]);
  assertEquals(bench.transport.log.slice(-2), ["status 15", "kick 1"]);
  assertEquals(session.queue(1).take(), 1);
  assert(bench.send(session, 2, 0));
  assertEquals([session.queue(0).take(), bench.transport.log.at(-1)], [2, "kick 0"]);
});
