/** The driver's order of steps, over a transport that writes down what passes. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { type QueueConfig, VIRTIO_F_INDIRECT_DESC } from "@virtio/vring";
import { BufferList } from "@virtio/vring/driver";
import { DriverError, DriverSession, type DriverSessionOptions } from "./driver.ts";
import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_SUSPEND,
} from "./mod.ts";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import {
  AGREED,
  dmaPool,
  echo,
  FOUND,
  later,
  LIVE,
  LocalTransport,
  TEST_TYPE,
  TestDevice,
  turns,
} from "./testing.ts";

/** A device, a transport to it, and the options to open a session. */
class Bench {
  readonly memory = GuestMemory.allocate(0x10_0000);
  readonly device: TestDevice;
  readonly transport: LocalTransport;
  readonly dma = dmaPool(this.memory);
  readonly used: number[] = [];
  configs = 0;
  resets = 0;

  constructor(
    features: FeatureSet = CORE_FEATURES,
    make: (device: TestDevice, bench: Bench) => LocalTransport = (device, bench) =>
      new LocalTransport(device, bench.memory, features),
    device: TestDevice = new TestDevice(),
  ) {
    this.device = device;
    this.transport = make(device, this);
  }

  options(more: Partial<DriverSessionOptions> = {}): DriverSessionOptions {
    return {
      dma: this.dma,
      type: TEST_TYPE,
      wanted: 0n,
      queues: () => [{ index: 0, size: 8 }],
      patience: 20,
      ...more,
    };
  }

  async open(more: Partial<DriverSessionOptions> = {}): Promise<DriverSession> {
    const session = await DriverSession.open(this.transport, this.options(more));
    session.handlers = {
      used: (index) => this.used.push(index),
      config: () => this.configs++,
      needsReset: () => this.resets++,
    };
    return session;
  }

  /** Adds a buffer and makes it available. */
  send(session: DriverSession, token: number, index = 0): boolean {
    const at = this.dma.allocate(32);
    session.queue(index).add(new BufferList().readable(at, 16).writable(at + 16, 16), token);
    return session.publish(index);
  }
}

/** A transport whose answers a test replaces. */
class Bent extends LocalTransport {
  offer: (features: FeatureSet) => FeatureSet = (features) => features;
  status: (status: number) => number = (status) => status;
  queueIsReset: (done: boolean) => boolean = (done) => done;
  generation: (generation: number) => number = (generation) => generation;
  override readDeviceFeatures(): FeatureSet {
    return this.offer(super.readDeviceFeatures());
  }
  override readStatus(): number {
    return this.status(super.readStatus());
  }
  override queueResetDone(index: number): boolean {
    return this.queueIsReset(super.queueResetDone(index));
  }
  override configGeneration(): number {
    return this.generation(super.configGeneration());
  }
}

function bent(features: FeatureSet = CORE_FEATURES, device?: TestDevice): Bench & {
  transport: Bent;
} {
  return new Bench(
    features,
    (made, bench) => new Bent(made, bench.memory, features),
    device,
  ) as Bench & { transport: Bent };
}

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
