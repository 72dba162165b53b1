/** Guest memory whose buffer is replaced while a device runs: a WebAssembly memory that grows. */
import { assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { HOLD } from "./mod.ts";
import { echo, LIVE, Rig, TestDevice, turns } from "./testing.ts";

function growing(): { rig: Rig; grow: () => void } {
  const wasm = new WebAssembly.Memory({ initial: 16, maximum: 64 });
  const memory = new GuestMemory([{ base: 0, buffer: wasm, size: 0x10_0000 }]);
  const device = new TestDevice({ lazyQueues: [1] });
  return { rig: new Rig({ device, memory }), grow: () => void wasm.grow(1) };
}

for (const [name, format] of FORMATS) {
  Deno.test(`moving memory, ${name}: what was made available before it moved is handled after`, () => {
    const { rig, grow } = growing();
    const queue = rig.start(format);
    rig.send(queue, 5);
    grow();
    rig.state.notify(0);
    assertEquals([rig.take(queue), queue.usedLength], [[5], 2]);
    assertEquals([rig.needsReset, rig.device.handled[0]!.bytes], [false, [5, 6]]);
  });

  Deno.test(`moving memory, ${name}: a chain that is completed after it moved is used in the new place`, async () => {
    const { rig, grow } = growing();
    const queue = rig.start(format);
    rig.device.handler = (chain, index) => {
      echo(chain);
      rig.device.held.push({ chain, queue: index });
      return HOLD;
    };
    for (const token of [3, 4]) rig.send(queue, token);
    rig.state.notify(0);
    for (const { chain } of rig.device.held) {
      grow();
      rig.device.finish(0, chain);
    }
    // Between the completion and what publishes it.
    grow();
    await turns(1);
    assertEquals([rig.take(queue), queue.usedLength, rig.interrupts], [[3, 4], 2, [0]]);
    assertEquals(rig.needsReset, false);
  });

  Deno.test(`moving memory, ${name}: a lazy queue is looked at in the new place`, async () => {
    const { rig, grow } = growing();
    rig.negotiate(format);
    const queue = rig.openQueue(1, format);
    rig.status = LIVE;
    rig.send(queue, 7);
    grow();
    const chain = rig.device.grab(1)!;
    assertEquals(chain.reader.u8(), 7);
    chain.writer.u8(8);
    rig.device.finish(1, chain);
    await turns(1);
    assertEquals([rig.take(queue), queue.usedLength], [[7], 1]);
  });
}
