/** Queues of a device that is stopped, reset and started again, with work under way. */
import { assert, assertEquals } from "@std/assert";
import { type Chain, ChainOwner } from "@virtio/vring";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { BUSY, HOLD } from "./mod.ts";
import { echo, later, LIVE, Rig, turns } from "./testing.ts";

for (const [name, format] of FORMATS) {
  Deno.test(`queue device, ${name}: a reset drops what is held, waited for or busy; completing it later does nothing`, async () => {
    const rig = new Rig();
    let queue = rig.start(format);
    const work = later();
    let count = 0;
    rig.device.handler = (chain) => {
      switch (count++) {
        case 0:
          rig.device.held.push({ chain, queue: 0 });
          return HOLD;
        case 1:
          return work.promise;
        default:
          return BUSY;
      }
    };
    for (let i = 0; i < 4; i++) rig.send(queue, i);
    rig.state.notify(0);
    rig.status = 0;
    assertEquals(rig.status, 0);
    const image = rig.memory.regions[0]!.bytes.slice();
    const chain: Chain = rig.device.held[0]!.chain;
    assertEquals([chain.owner, rig.device.owns(chain)], [ChainOwner.dropped, false]);
    rig.device.finish(0, chain);
    work.resolve();
    rig.device.wake(0);
    await turns(2);
    assertEquals(rig.memory.regions[0]!.bytes.every((byte, i) => byte === image[i]), true);
    assertEquals(rig.interrupts, []);
    // The next life starts with no memory of this one.
    rig.device.handler = echo;
    queue = rig.start(format);
    rig.device.finish(0, chain);
    rig.send(queue, 5);
    rig.state.notify(0);
    await turns(1);
    assertEquals([rig.take(queue), rig.interrupts], [[5], [0]]);
  });

  Deno.test(`queue device, ${name}: a promise of an earlier life that rejects does not hurt the next`, async () => {
    const rig = new Rig();
    let queue = rig.start(format);
    const work = later();
    rig.device.handler = () => work.promise;
    rig.send(queue, 1);
    rig.state.notify(0);
    rig.status = 0;
    rig.device.handler = echo;
    queue = rig.start(format);
    work.reject();
    await turns(1);
    assertEquals([rig.status, rig.errors], [LIVE, []]);
    rig.send(queue, 2);
    rig.state.notify(0);
    assertEquals(rig.take(queue), [2]);
  });

  Deno.test(`queue device, ${name}: after a reset no chain is handled before the work of the life before has settled`, async () => {
    const rig = new Rig();
    let queue = rig.start(format);
    const works = [later(), later()];
    let next = 0;
    rig.device.handler = () => works[next++]!.promise;
    rig.send(queue, 1);
    rig.send(queue, 2);
    rig.state.notify(0);
    rig.status = 0;
    assertEquals(rig.status, 0, "the reset itself does not wait");
    rig.device.handler = echo;
    queue = rig.start(format);
    rig.send(queue, 3);
    rig.state.notify(0);
    works[0]!.resolve();
    await turns(2);
    assertEquals([rig.device.handled.length, rig.take(queue)], [2, []]);
    works[1]!.reject();
    await turns(2);
    assertEquals([rig.device.handled.length, rig.take(queue)], [3, [3]]);
  });

  Deno.test(`queue device, ${name}: work of two lives before is waited for as well`, async () => {
    const rig = new Rig();
    const works = [later(), later()];
    for (const work of works) {
      const queue = rig.start(format);
      rig.device.handler = () => work.promise;
      rig.send(queue, 1);
      rig.state.notify(0);
      // The second life's chain is behind the gate, so its work is tracked by hand.
      if (work === works[1]) rig.device.work(work.promise);
      rig.status = 0;
    }
    rig.device.handler = echo;
    const queue = rig.start(format);
    rig.send(queue, 3);
    rig.state.notify(0);
    works[1]!.resolve();
    await turns(2);
    assertEquals(rig.take(queue), []);
    works[0]!.resolve();
    await turns(2);
    assertEquals(rig.take(queue), [3]);
  });

  Deno.test(`queue device, ${name}: reset and started again from inside of its own handler, the new life is served`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    let again = queue;
    rig.device.handler = () => {
      rig.device.handler = echo;
      rig.status = 0;
      again = rig.start(format);
      rig.send(again, 7);
      rig.state.notify(0);
    };
    rig.send(queue, 1);
    rig.state.notify(0);
    await turns(3);
    assertEquals([rig.status, rig.take(again)], [LIVE, [7]]);
  });

  Deno.test(`queue device, ${name}: stopping waits for all that is in flight, flushes, and then hands the queue back`, async () => {
    const rig = new Rig();
    const queue = rig.start(format);
    rig.device.hold();
    for (let i = 0; i < 3; i++) rig.send(queue, i);
    rig.state.notify(0);
    const stopping = rig.device.stopQueue(0) as Promise<unknown>;
    const twice = rig.device.stopQueue(0) as Promise<unknown>;
    rig.send(queue, 3);
    rig.state.notify(0);
    assertEquals(rig.device.held.length, 3, "nothing new is taken");
    rig.device.release();
    const [back, other] = await Promise.all([stopping, twice]);
    assert(back === other);
    assertEquals([rig.take(queue), rig.interrupts], [[0, 1, 2], [0]]);
  });
}
