/** The loop that serves queues: at once, later, held, busy; a driver that never stops. */
import { assert, assertEquals } from "@std/assert";
import { type Chain, VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER } from "@virtio/vring";
import type { DriverQueue } from "@virtio/vring/driver";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import {
  BUSY,
  CORE_FEATURES,
  type Handled,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
} from "./mod.ts";
import { echo, later, LIVE, Rig, TestDevice, turns } from "./testing.ts";

for (const [name, format] of FORMATS) {
  Deno.test(`queue device, ${name}: a batch that is handled at once is one interrupt`, () => {
    const rig = new Rig();
    const queue = rig.start(format);
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    rig.state.notify(0);
    assertEquals([rig.take(queue), rig.interrupts], [[0, 1, 2, 3], [0]]);
    assertEquals(queue.usedLength, 2);
    rig.state.notify(0);
    rig.state.notify(1);
    assertEquals(rig.interrupts, [0], "a kick without buffers changes nothing");
  });

  Deno.test(`queue device, ${name}: held chains complete in any order, later, and what completes in one turn is one interrupt`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    rig.device.hold();
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    rig.state.notify(0);
    assertEquals([rig.take(queue), rig.interrupts], [[], []]);
    rig.device.release(() => [2, 0, 3, 1]);
    assertEquals(rig.interrupts, []);
    await turns(1);
    assertEquals([rig.take(queue), rig.interrupts], [[2, 0, 3, 1], [0]]);
  });

  Deno.test(`queue device, ${name}: with IN_ORDER they are used in the order that they came in`, async () => {
    const rig = new Rig();
    const queue = rig.start(format | VIRTIO_F_IN_ORDER);
    rig.device.hold();
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    rig.state.notify(0);
    const held = rig.device.held.splice(0);
    for (const i of [2, 0]) rig.device.finish(0, held[i]!.chain);
    await turns(1);
    assertEquals(rig.take(queue), [0]);
    for (const i of [3, 1]) rig.device.finish(0, held[i]!.chain);
    await turns(1);
    assertEquals(rig.take(queue), [1, 2, 3]);
  });

  Deno.test(`queue device, ${name}: a promise uses its chain when it resolves`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    const works = [later(), later(), later()];
    let next = 0;
    rig.device.handler = (chain) => {
      const work = works[next++]!;
      return work.promise.then(() => echo(chain));
    };
    for (let i = 0; i < 3; i++) rig.send(queue, i);
    rig.state.notify(0);
    works[1]!.resolve();
    await turns(1);
    assertEquals([rig.take(queue), rig.interrupts], [[1], [0]]);
    works[0]!.resolve();
    works[2]!.resolve();
    await turns(1);
    assertEquals([rig.take(queue), rig.interrupts], [[0, 2], [0, 0]]);
    assertEquals(rig.memory.readU8(0x4_0000 + 0x40 * 2 + 0x20), 2, "echoed");
  });

  Deno.test(`queue device, ${name}: a rejection and an exception cost the device, not the host, and what was used before is kept`, async () => {
    for (const kind of ["rejects", "throws"]) {
      const rig = new Rig();
      const queue = rig.start(format);
      let count = 0;
      rig.device.handler = (): Handled => {
        if (count++ < 1) return;
        if (kind === "throws") throw new Error("broken");
        return Promise.reject(new Error("broken"));
      };
      rig.send(queue, 0);
      rig.state.notify(0);
      assertEquals(rig.take(queue), [0]);
      rig.send(queue, 1);
      rig.send(queue, 2);
      rig.state.notify(0);
      await turns(1);
      assert(rig.needsReset, kind);
      assertEquals([rig.errors[0]!.message, rig.take(queue)], ["broken", []], kind);
      assertEquals(rig.interrupts.at(-1), "config");
    }
  });

  Deno.test(`queue device, ${name}: what was handled before an exception of the same kick is used, and told before it`, () => {
    const rig = new Rig();
    const queue = rig.start(format);
    let count = 0;
    rig.device.handler = () => {
      if (count++ === 2) throw new Error("broken");
    };
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    rig.state.notify(0);
    assertEquals([rig.needsReset, rig.take(queue)], [true, [0, 1]]);
    assertEquals(rig.interrupts, [0, "config"]);
  });

  Deno.test(`queue device, ${name}: BUSY leaves the chain in the queue until the device resumes`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    let room = 2;
    rig.device.handler = (chain) => {
      return room-- === 0 ? BUSY : echo(chain);
    };
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    rig.state.notify(0);
    assertEquals([rig.take(queue), rig.interrupts], [[0, 1], [0]]);
    rig.state.notify(0);
    assertEquals(rig.take(queue), [], "busy is busy");
    room = 10;
    rig.device.wake(0);
    assertEquals([rig.take(queue), rig.interrupts], [[2, 3], [0, 0]]);
    assertEquals(
      rig.device.queueCounters[0]!.chains,
      4,
      "a chain that was put back is not counted",
    );
    assertEquals(rig.device.queueCounters[0]!.descriptors, 8);
    await turns(1);
  });

  Deno.test(`queue device, ${name}: resumed while it was about to say BUSY, a device is asked again`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    let asked = 0;
    rig.device.handler = (chain) => {
      if (asked++ === 0) {
        rig.device.wake(0);
        return BUSY;
      }
      return echo(chain);
    };
    rig.send(queue, 1);
    rig.state.notify(0);
    await turns(2);
    assertEquals([rig.take(queue), asked], [[1], 2]);
  });

  Deno.test(`queue device, ${name}: a kick from inside of the handler or of the interrupt is not lost and does not nest`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    let depth = 0;
    let deepest = 0;
    let more = 3;
    rig.device.handler = (chain) => {
      deepest = Math.max(deepest, ++depth);
      if (more > 0) {
        rig.send(queue, 10 + more--);
        rig.state.notify(0);
      }
      echo(chain);
      depth--;
    };
    let sent = 0;
    const taken: number[] = [];
    rig.onInterrupt = () => {
      taken.push(...rig.take(queue));
      if (sent++ > 2) return;
      rig.send(queue, 20 + sent);
      rig.state.notify(0);
    };
    rig.send(queue, 0);
    rig.state.notify(0);
    await turns(3);
    assertEquals(taken.sort((a, b) => a - b), [0, 11, 12, 13, 21, 22, 23]);
    assertEquals(deepest, 1);
  });

  Deno.test(`queue device, ${name}: a driver that never stops adding does not keep the event loop to itself`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    let stop = false;
    let handled = 0;
    rig.device.handler = (chain) => {
      echo(chain);
      if (stop || chain.readable === 0) return;
      handled++;
      // The driver takes and adds while the device works, as one on another processor would.
      queueIsFull(rig, queue);
    };
    rig.onInterrupt = () => {
      if (!stop) queueIsFull(rig, queue);
    };
    queueIsFull(rig, queue);
    rig.state.notify(0);
    const first = handled;
    assert(first > 0 && first <= 4 * 8, `${first} in one kick`);
    const before = handled;
    await turns(3);
    assert(handled > before, "it goes on in later turns");
    stop = true;
    await turns(3);
    assertEquals(rig.status, LIVE);
  });

  Deno.test(`queue device, ${name}: counters count kicks, interrupts, chains and descriptors`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    for (let i = 0; i < 3; i++) rig.send(queue, i);
    const before = rig.device.queueCounters[0]!.kicks;
    rig.state.notify(0);
    const { kicks, interrupts, chains, descriptors } = rig.device.queueCounters[0]!;
    assertEquals([kicks - before, interrupts, chains, descriptors], [1, 1, 3, 6]);
    await turns(1);
  });

  Deno.test(`queue device, ${name}: a lazy queue is not drained; the device takes when it has something to say`, async () => {
    const rig = new Rig({ device: new TestDevice({ lazyQueues: [0] }) });
    const kicks: number[] = [];
    rig.device.onKick = (index) => kicks.push(index);
    const queue = rig.start(format);
    kicks.length = 0;
    assertEquals(rig.device.grab(0), null);
    rig.send(queue, 1);
    rig.send(queue, 2);
    rig.state.notify(0);
    assertEquals([rig.device.handled.length, kicks], [0, [0]]);
    const first = rig.device.grab(0)!;
    const second = rig.device.grab(0)!;
    rig.device.ungrab(0, second);
    first.writer.write(new Uint8Array([9, 8]));
    rig.device.finish(0, first);
    await turns(1);
    assertEquals([rig.take(queue), rig.interrupts], [[1], [0]]);
    const again = rig.device.grab(0)!;
    rig.device.finish(0, again);
    await turns(1);
    assertEquals(rig.take(queue), [2]);
    assertEquals(rig.device.grab(0), null);
    assertEquals(rig.device.queueCounters[0]!.chains, 2);
    rig.status = 0;
    rig.device.ungrab(0, again);
    assertEquals(rig.device.grab(0), null);
  });

  Deno.test(`queue device, ${name}: a lazy queue that was kicked behind the gate is told of when the gate opens`, async () => {
    const rig = new Rig({ device: new TestDevice({ lazyQueues: [0] }) });
    rig.start(format);
    const work = later();
    rig.device.work(work.promise);
    rig.status = 0;
    const queue = rig.start(format);
    let taken: unknown = null;
    rig.device.onKick = (index) => {
      if (index === 0) taken = rig.device.grab(0);
    };
    rig.send(queue, 1);
    rig.state.notify(0);
    assertEquals(taken, null);
    work.resolve();
    await turns(1);
    assert(taken !== null);
  });
}

function queueIsFull(rig: Rig, queue: DriverQueue): void {
  while (queue.take() >= 0);
  let value = 0;
  while (queue.free >= 2 && rig.send(queue, value++ % 64));
}

Deno.test("queue device: completing a chain twice, or through another queue, is the device's mistake", () => {
  const rig = new Rig();
  const queue = rig.start();
  rig.device.hold();
  rig.send(queue, 1);
  rig.state.notify(0);
  const chain: Chain = rig.device.held[0]!.chain;
  let message = "";
  try {
    rig.device.finish(1, chain);
  } catch (error) {
    message = String(error);
  }
  assert(message.includes("TypeError"), message);
  rig.device.finish(0, chain);
  rig.device.finish(0, chain);
  assertEquals(rig.status, LIVE);
});

Deno.test("queue device: a queue reset lets a device that is busy go on elsewhere", () => {
  const rig = new Rig();
  const features = (CORE_FEATURES & ~VIRTIO_F_RING_PACKED & ~VIRTIO_F_EVENT_IDX) |
    VIRTIO_F_RING_RESET;
  const queue = rig.start(features);
  rig.device.handler = () => BUSY;
  rig.send(queue, 1);
  rig.state.notify(0);
  rig.state.resetQueue(0);
  assertEquals(rig.state.queues[0]!.resetting, false);
  rig.device.handler = echo;
  const again = rig.openQueue(0, features);
  rig.send(again, 2);
  rig.state.notify(0);
  assertEquals(rig.take(again), [2]);
});
