/** Queues that are held, and go on chain by chain: for those who look on. */
import { assertEquals } from "@std/assert";
import type { Chain } from "@virtio/vring";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { Rig, TestDevice, turns } from "./testing.ts";

for (const [name, format] of FORMATS) {
  Deno.test(`queue hook, ${name}: a held queue gives a chain a step, and the rest when it is let go`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    const hook = rig.device.queueHooks[0]!;
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    hook.held = true;
    rig.state.notify(0);
    await turns(2);
    assertEquals([rig.take(queue), rig.interrupts], [[], []]);
    hook.step();
    await turns(2);
    assertEquals(rig.take(queue), [0]);
    hook.step();
    hook.step();
    await turns(2);
    assertEquals(rig.take(queue), [1, 2]);
    rig.state.notify(0);
    await turns(2);
    assertEquals(rig.take(queue), []);
    hook.held = false;
    await turns(2);
    assertEquals(rig.take(queue), [3]);
    hook.step();
    rig.send(queue, 5);
    rig.state.notify(0);
    assertEquals(rig.take(queue), [5]);
  });

  Deno.test(`queue hook, ${name}: what is in flight when the queue is held completes`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    rig.device.hold();
    rig.send(queue, 1);
    rig.state.notify(0);
    const hook = rig.device.queueHooks[0]!;
    hook.held = true;
    assertEquals(hook.queue!.look().chains.length, 1);
    rig.device.release();
    await turns(2);
    assertEquals(rig.take(queue), [1]);
    assertEquals(hook.queue!.look().chains, []);
  });

  Deno.test(`queue hook, ${name}: a device that takes chains itself gets one a step, and several after several`, async () => {
    const device = new TakingDevice();
    const rig = new Rig({ device });
    const queue = rig.start(format);
    const hook = device.queueHooks[0]!;
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    hook.held = true;
    rig.state.notify(0);
    await turns(2);
    assertEquals(rig.take(queue), []);
    // It needs two at a time.
    hook.step();
    await turns(2);
    assertEquals(rig.take(queue), []);
    hook.step();
    await turns(2);
    assertEquals(rig.take(queue), [0, 1]);
    hook.held = false;
    await turns(2);
    assertEquals(rig.take(queue), [2, 3]);
  });
}

/** Takes two chains when it is kicked, or none. */
class TakingDevice extends TestDevice {
  constructor() {
    super({ lazyQueues: [0] });
  }

  protected override kicked(queue: number): void {
    if (queue !== 0) return;
    for (;;) {
      const taken: Chain[] = [];
      for (
        let chain = this.take(0);
        chain !== null;
        chain = taken.length < 2 ? this.take(0) : null
      ) {
        taken.push(chain);
      }
      if (taken.length < 2) {
        for (const chain of taken.reverse()) this.untake(0, chain);
        return;
      }
      for (const chain of taken) this.complete(0, chain);
    }
  }
}
