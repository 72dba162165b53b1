/** A driver cannot have more buffers with the device than the queue has entries (3.3.1): what it makes available beyond. */
import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { type Chain, openQueue, VirtqueueError } from "./mod.ts";
import { FORMATS, placeQueue, type RawDescriptor, rawDriver } from "./testing/raw_driver.ts";

const SIZE = 4;
const PLAIN: RawDescriptor = { address: 0x4000, length: 1 };
const EMPTY: RawDescriptor = { address: 0x4000, length: 0 };

for (const [format, features] of FORMATS) {
  const setup = () => {
    const memory = GuestMemory.allocate(0x8000);
    const config = placeQueue(SIZE, 0, format);
    return {
      driver: rawDriver(memory, config, features),
      queue: openQueue(memory, config, features),
    };
  };

  Deno.test(`${format}: with the whole ring in flight, one more is refused, one at a time or all at once`, () => {
    for (const first of [0, 1, SIZE - 1, SIZE]) {
      const { driver, queue } = setup();
      for (let i = 0; i < first; i++) driver.send([PLAIN]);
      for (let i = 0; i < first; i++) queue.pop();
      for (let i = first; i < SIZE; i++) driver.send([PLAIN]);
      for (let i = first; i < SIZE; i++) queue.pop();
      assertEquals([queue.inFlight, queue.pop()], [SIZE, null]);
      driver.send([PLAIN]);
      assertThrows(() => queue.pop(), VirtqueueError, "still in flight");
    }
  });

  Deno.test(`${format}: what is used and not published is the device's still`, () => {
    for (const used of [1, SIZE]) {
      for (const flushed of [true, false]) {
        const { driver, queue } = setup();
        const chains: Chain[] = [];
        for (let i = 0; i < SIZE; i++) driver.send([PLAIN]);
        for (let i = 0; i < SIZE; i++) chains.push(queue.pop()!);
        for (const chain of chains.slice(0, used)) queue.push(chain);
        if (flushed) queue.flush();
        driver.send([PLAIN]);
        if (flushed) assertEquals(queue.pop()!.readable, 1);
        else assertThrows(() => queue.pop(), VirtqueueError, "still in flight");
      }
    }
  });
}

Deno.test("split: plain and unusual chains go over the wrap of the available index", () => {
  for (const list of [[PLAIN], [EMPTY, PLAIN]]) {
    const memory = GuestMemory.allocate(0x8000);
    const start = { nextAvail: 65530, nextUsed: 65530, availWrap: 0, usedWrap: 0 };
    const config = { ...placeQueue(SIZE, 0, "split"), position: start };
    const driver = rawDriver(memory, config, 0n);
    driver.seek(65530, 65530);
    const queue = openQueue(memory, config, 0n);
    for (let i = 0; i < 12; i++) {
      const id = driver.send(list);
      const chain = queue.pop()!;
      assertEquals([chain.readable, queue.pop()], [1, null]);
      queue.push(chain);
      queue.flush();
      assertEquals(driver.takeUsed(), [{ id, length: 0 }]);
    }
    assertEquals(queue.snapshot().position.nextAvail, 6);
  }
});
