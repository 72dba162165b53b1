import { assertEquals } from "@std/assert";
import { VIRTIO_F_RING_RESET, VIRTIO_F_SUSPEND } from "@virtio/device";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import * as net from "./constants.ts";
import type { CoalescingClock } from "./control/coalescing.ts";
import { NetDevice } from "./device.ts";
import { plainFrame, RawNetDriver, SpyBackend, turns } from "./testing.ts";

const WANTED = net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_NOTF_COAL |
  net.VIRTIO_NET_F_VQ_NOTF_COAL;
const TX = 0;
const RX = 1;

/** A clock that stands until a test moves it. */
class TestClock implements CoalescingClock {
  #now = 0;
  readonly timers: Map<object, { at: number; run: () => void }> = new Map();

  set(run: () => void, usecs: number): unknown {
    const handle = {};
    this.timers.set(handle, { at: this.#now + usecs, run });
    return handle;
  }

  clear(handle: unknown): void {
    this.timers.delete(handle as object);
  }

  pass(usecs: number): void {
    this.#now += usecs;
    for (const [handle, { at, run }] of [...this.timers]) {
      if (at > this.#now) continue;
      this.timers.delete(handle);
      run();
    }
  }
}

class Bench {
  readonly clock = new TestClock();
  readonly backend = new SpyBackend();
  readonly device: NetDevice = new NetDevice({ backend: this.backend, clock: this.clock });
  driver!: RawNetDriver;

  static async open(core: bigint): Promise<Bench> {
    const bench = new Bench();
    bench.driver = await RawNetDriver.open(bench.device, { wanted: WANTED, core });
    bench.driver.postMany(0, 60, 100);
    return bench;
  }

  async set(command: number, packets: number, usecs: number): Promise<number> {
    const bytes = new Uint8Array(new Uint32Array([packets, usecs]).buffer);
    return (await this.driver.control(6, command, [...bytes]))[0]!;
  }

  async receive(count: number): Promise<void> {
    for (let i = 0; i < count; i++) this.backend.give(plainFrame(60, i));
    await turns(1);
  }

  async send(count: number): Promise<void> {
    for (let i = 0; i < count; i++) this.driver.send(plainFrame(60, i));
    await turns(1);
  }

  interrupts(queue: number): number {
    return this.device.queueCounters[queue]!.interrupts;
  }

  get sent(): number {
    return this.driver.transport.queueInterrupts;
  }
}

const RINGS: readonly (readonly [name: string, core: bigint])[] = [
  ["split", 0n],
  ["split with event index", VIRTIO_F_EVENT_IDX],
  ["packed", VIRTIO_F_RING_PACKED],
  ["packed with event index", VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX],
];

for (const [name, core] of RINGS) {
  Deno.test(`${name}: the driver is notified after so many packets, in however many turns they come`, async () => {
    const bench = await Bench.open(core);
    assertEquals(await bench.set(RX, 5, 1000), 0);
    await bench.receive(1);
    await bench.receive(3);
    assertEquals([bench.interrupts(0), bench.driver.used[0]!.length], [0, 0]);
    await bench.receive(1);
    assertEquals([bench.interrupts(0), bench.driver.used[0]!.length], [1, 5]);
    assertEquals(bench.clock.timers.size, 0);
    await bench.receive(4);
    assertEquals(bench.interrupts(0), 1);
    await bench.receive(7);
    assertEquals([bench.interrupts(0), bench.driver.used[0]!.length], [2, 16]);
  });

  Deno.test(`${name}: or after so much time since the first of them`, async () => {
    const bench = await Bench.open(core);
    await bench.set(RX, 50, 1000);
    await bench.receive(1);
    bench.clock.pass(600);
    await bench.receive(1);
    bench.clock.pass(399);
    await turns(1);
    assertEquals(bench.driver.used[0]!.length, 0);
    bench.clock.pass(1);
    await turns(1);
    assertEquals([bench.interrupts(0), bench.driver.used[0]!.length], [1, 2]);
    assertEquals(bench.clock.timers.size, 0);
    bench.clock.pass(10_000);
    assertEquals(bench.interrupts(0), 1);
  });

  Deno.test(`${name}: the same for what it sends`, async () => {
    const bench = await Bench.open(core);
    await bench.set(TX, 4, 1000);
    await bench.send(3);
    assertEquals([bench.interrupts(1), bench.backend.sent.length], [0, 3]);
    await bench.send(1);
    assertEquals([bench.interrupts(1), bench.driver.used[1]!.length], [1, 4]);
    await bench.send(2);
    bench.clock.pass(1000);
    await turns(1);
    assertEquals([bench.interrupts(1), bench.driver.used[1]!.length], [2, 6]);
    await bench.receive(1);
    // Receiving is not coalesced.
    assertEquals([bench.interrupts(0), bench.clock.timers.size], [1, 0]);
  });

  Deno.test(`${name}: new parameters may make a notification due (5.1.9.5.10.4)`, async () => {
    for (const [packets, usecs] of [[2, 1000], [0, 1000], [10, 0]] as const) {
      const bench = await Bench.open(core);
      await bench.set(RX, 10, 1000);
      await bench.receive(3);
      assertEquals(bench.interrupts(0), 0);
      await bench.set(RX, packets, usecs);
      await turns(1);
      assertEquals([bench.interrupts(0), bench.driver.used[0]!.length], [1, 3]);
    }
  });

  Deno.test(`${name}: a frame that comes back while it is sent is held back as others are`, async () => {
    const bench = await Bench.open(core);
    await bench.set(RX, 6, 1000);
    await bench.set(TX, 6, 1000);
    bench.backend.onFrame = (frame) => bench.backend.peer!.deliver(frame);
    await bench.send(5);
    assertEquals([bench.interrupts(0), bench.interrupts(1), bench.clock.timers.size], [0, 0, 2]);
    await bench.send(1);
    assertEquals([bench.interrupts(0), bench.interrupts(1)], [1, 1]);
    assertEquals([bench.driver.used[0]!.length, bench.driver.used[1]!.length], [6, 6]);
  });
}

Deno.test("without parameters every turn notifies, and nothing waits", async () => {
  const bench = await Bench.open(0n);
  await bench.receive(3);
  await bench.receive(1);
  await bench.send(1);
  assertEquals([bench.interrupts(0), bench.interrupts(1), bench.clock.timers.size], [2, 1, 0]);
});

Deno.test("a suspend, and the reset of a queue, say at once what was held back", async () => {
  for (const suspend of [true, false]) {
    const bench = await Bench.open(VIRTIO_F_SUSPEND | VIRTIO_F_RING_RESET);
    await bench.set(RX, 50, 1000);
    await bench.receive(2);
    assertEquals(bench.interrupts(0), 0);
    if (suspend) await bench.driver.session.suspend();
    else bench.driver.transport.state.resetQueue(0);
    assertEquals([bench.interrupts(0), bench.clock.timers.size], [1, 0]);
  }
});

Deno.test("a suspended device has its parameters afterwards; a queue that was reset those of its kind", async () => {
  const bench = await Bench.open(VIRTIO_F_SUSPEND | VIRTIO_F_RING_RESET);
  const get = async () => [...(await bench.driver.control(6, 3, [0, 0, 0, 0], 8)).subarray(0, 2)];
  await bench.set(RX, 7, 1000);
  const vq = [0, 0, 0, 0, ...new Uint8Array(new Uint32Array([9, 1000]).buffer)];
  assertEquals([...await bench.driver.control(6, 2, vq)], [0]);
  assertEquals(await get(), [0, 9]);
  await bench.driver.session.suspend();
  await bench.driver.session.resume();
  assertEquals(await get(), [0, 9]);
  await bench.driver.session.resetQueue(0);
  assertEquals(await get(), [0, 7]);
  // And not again at the next suspend.
  await bench.driver.control(6, 2, vq);
  await bench.driver.session.suspend();
  await bench.driver.session.resume();
  assertEquals(await get(), [0, 9]);
});

Deno.test("after a reset no timer is left, and nothing is coalesced", async () => {
  const bench = await Bench.open(0n);
  await bench.set(RX, 50, 1000);
  await bench.set(TX, 50, 1000);
  await bench.receive(2);
  await bench.send(2);
  assertEquals(bench.clock.timers.size, 2);
  const { sent } = bench;
  await bench.driver.session.reset();
  assertEquals([bench.clock.timers.size, bench.sent], [0, sent]);
  bench.driver = await RawNetDriver.open(bench.device, { wanted: WANTED });
  bench.driver.postMany(0, 4, 100);
  await bench.receive(1);
  assertEquals(bench.driver.used[0]!.length, 1);
});

Deno.test("packets of this turn do not count for the device's next life", async () => {
  const bench = await Bench.open(0n);
  await bench.set(RX, 50, 1000);
  bench.backend.give(plainFrame(60));
  bench.driver.transport.state.writeStatus(0);
  await turns(2);
  assertEquals([bench.clock.timers.size, bench.interrupts(0)], [0, 0]);
});
