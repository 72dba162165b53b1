/** What a queue is after its worker stopped at any store of a publication: published as a whole, or as it was. */
import { GuestMemory } from "@virtio/memory";
import { openQueue, type QueueState, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { allocateJournals, Journal } from "./journal.ts";
import { JournaledQueue } from "./journaled_queue.ts";

/** Thrown instead of a store: the worker is dead. */
class Dead extends Error {}

for (const [format, features] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  /** Pops six chains and publishes three, and dies at some point of it. @returns Whether it did. */
  const run = (dieAt: number): boolean => {
    const memory = GuestMemory.allocate(0x1_0000);
    const config = { size: 16, descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };
    const driver = openDriverQueue(memory, config, features);
    const start = openQueue(memory, config, features).snapshot();
    const buffer = allocateJournals();
    const journal = new Journal(buffer, 3);
    const queue = new JournaledQueue(memory, start, features, journal);
    const add = (token: number): void => {
      const list = new BufferList();
      list.readable(0x4000 + token, 16).writable(0x5000 + 32 * token, 32);
      driver.add(list, token);
      driver.publish();
    };
    // One round of the ring, so that wrap counters have changed.
    for (let token = 0; token < 7; token++) {
      add(token);
      const chain = queue.pop()!;
      queue.push(chain, 5);
      queue.flush();
      assertEquals(driver.take(), token);
    }
    for (let token = 0; token < 6; token++) add(token);
    const chains = Array.from({ length: 6 }, () => queue.pop()!);
    // Done in another order: the fourth stays behind the third.
    for (const i of [4, 2, 0, 1]) queue.push(chains[i]!, 7);
    let steps = 0;
    const dying = (memory: object, name: string): void => {
      const real = (memory as Record<string, (...values: unknown[]) => unknown>)[name]!;
      (memory as Record<string, unknown>)[name] = (...values: unknown[]) => {
        if (steps++ === dieAt) throw new Dead();
        return real.apply(memory, values);
      };
    };
    for (const name of ["prepare", "keep", "publishing", "published"]) dying(journal, name);
    memory.tracker = {
      mark() {
        if (steps++ === dieAt) throw new Dead();
      },
    };
    let died = false;
    try {
      queue.flush();
    } catch (error) {
      if (!(error instanceof Dead)) throw error;
      died = true;
    }
    memory.tracker = null;
    const told: number[] = [];
    const hear = (): void => {
      for (let token = driver.take(); token >= 0; token = driver.take()) told.push(token);
    };
    // The driver may be quicker than the one that takes over.
    if (dieAt % 2 === 0) hear();
    // Another thread's view of the same words.
    const seen = new Journal(buffer, 3);
    const state: QueueState = seen.recover(memory, start, features);
    const next = new JournaledQueue(memory, state, features, seen);
    for (let chain = next.pop(); chain !== null; chain = next.pop()) {
      assertEquals([chain.readable, chain.writable], [16, 32]);
      next.push(chain, 7);
    }
    next.flush();
    hear();
    assertEquals(told, [0, 1, 2, 3, 4, 5], `died at ${dieAt}`);
    return died;
  };

  Deno.test(`journal, ${format}: a worker that ends at any point of a publication leaves a queue that goes on`, () => {
    let dieAt = 0;
    while (run(dieAt)) dieAt++;
    assert(dieAt > 6, `there are ${dieAt} points`);
  });
}
