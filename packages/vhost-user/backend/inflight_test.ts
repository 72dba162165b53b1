import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { MemoryFile } from "@virtio/linux";
import { GuestMemory } from "@virtio/memory";
import { type Chain, openQueue, type Queue } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import { ProtocolError } from "../protocol/errors.ts";
import { ProtocolFeature as P } from "../protocol/features.ts";
import { FrontEndRequest as Request } from "../protocol/messages.ts";
import * as payloads from "../protocol/payloads.ts";
import { EchoDevice, Front, until } from "./front_testing.ts";
import { type Inflight, type InflightPlace, inflightSize, openInflight } from "./inflight.ts";
import { ServedQueue } from "./served_queue.ts";

const SIZE = 8;
const CONFIG = { size: SIZE, descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };

/** What happens to a queue: requests of so many descriptors, some taken, some used in any order, and deaths. */
type Step =
  | { readonly do: "add"; readonly descriptors: number }
  | { readonly do: "pop" }
  | { readonly do: "push"; readonly which: number }
  | { readonly do: "undo" }
  | { readonly do: "flush" }
  | {
    readonly do: "die";
    readonly at: "between" | "beforePublishing" | "afterPublishing";
    readonly seen: boolean;
  };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("add"), descriptors: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 5, arbitrary: fc.constant({ do: "pop" as const }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("push"), which: fc.nat(7) }) },
  { weight: 1, arbitrary: fc.constant({ do: "undo" as const }) },
  { weight: 3, arbitrary: fc.constant({ do: "flush" as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("die"),
      at: fc.constantFrom("between", "beforePublishing", "afterPublishing"),
      seen: fc.boolean(),
    }),
  },
) as fc.Arbitrary<Step>;

class Death extends Error {}

/** Dies in the middle of `flush`, before the driver can see anything of it or after it can see all. */
function flushAndDie(inflight: Inflight, queue: Queue, publishes: boolean): void {
  assertThrows(() =>
    inflight.flush(
      new Proxy(queue, {
        get: (target, name) => {
          const value = Reflect.get(target, name, target);
          if (name !== "flush") return typeof value === "function" ? value.bind(target) : value;
          return () => {
            if (publishes) target.flush();
            throw new Death();
          };
        },
      }),
    ), Death);
}

for (const [name, features] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  Deno.test(`Whenever its process dies, a ${name} queue's requests are all answered, and once`, () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 120 }), (steps) => {
        const memory = GuestMemory.allocate(0x2_0000);
        const driver = openDriverQueue(memory, CONFIG, features);
        const place: InflightPlace = {
          buffer: new SharedArrayBuffer(inflightSize(SIZE, true)),
          offset: 0,
          entries: SIZE,
        };
        const start = features === 0n
          ? { nextAvail: 0, nextUsed: 0, availWrap: 0, usedWrap: 0 }
          : { nextAvail: 0, nextUsed: 0, availWrap: 1, usedWrap: 1 };
        let inflight = openInflight(place, features);
        let queue: Queue = openQueue(memory, { ...CONFIG, position: start }, features);
        inflight.begin(memory, { ...CONFIG, position: start });
        let popped: { readonly chain: Chain; readonly token: number }[] = [];
        let unpublished: number[] = [];
        const outstanding = new Set<number>();
        let token = 0;
        const take = (): void => {
          for (let got = driver.take(); got >= 0; got = driver.take()) {
            assert(outstanding.delete(got), `${got} was answered twice`);
            assertEquals(driver.usedLength, 4);
          }
        };
        const again = (): void => {
          inflight = openInflight(place, features);
          const position = inflight.recover(memory, CONFIG);
          assert(position !== null);
          queue = openQueue(memory, { ...CONFIG, position: position! }, features);
          popped = [];
          unpublished = [];
        };
        const pop = (): boolean => {
          const chain = queue.pop();
          if (chain === null) return false;
          inflight.popped(chain);
          const bytes = new Uint8Array(4);
          chain.reader.read(bytes);
          const token = new DataView(bytes.buffer).getUint32(0, true);
          assert(token > (popped.at(-1)?.token ?? -1), "Not in the order in which they came");
          popped.push({ chain, token });
          return true;
        };
        const push = (which: number): void => {
          const [{ chain, token }] = popped.splice(which % popped.length, 1) as [typeof popped[0]];
          inflight.push(queue, chain, 4);
          unpublished.push(token);
        };
        for (const each of steps) {
          if (each.do === "add") {
            if (driver.free < each.descriptors + 1) take();
            const at = 0x8000 + 64 * (token % 256);
            memory.writeU32(at, token);
            const list = new BufferList();
            for (let i = 0; i < each.descriptors; i++) list.readable(at + 4 * i, 4);
            if (!driver.add(list.writable(at + 32, 4), token)) continue;
            outstanding.add(token++);
            driver.publish();
          } else if (each.do === "pop") {
            pop();
          } else if (each.do === "push") {
            if (popped.length > 0) push(each.which);
          } else if (each.do === "undo") {
            // What was popped last, if it is still there.
            const last = popped.at(-1);
            if (last === undefined || unpublished.length > 0) continue;
            if (!pop()) continue;
            const { chain } = popped.pop()!;
            inflight.undone(chain);
            queue.undo(chain);
          } else if (each.do === "flush") {
            inflight.flush(queue);
            unpublished = [];
          } else {
            if (each.at !== "between" && unpublished.length > 0) {
              flushAndDie(inflight, queue, each.at === "afterPublishing");
            }
            // The driver may look before the next process does.
            if (each.seen) take();
            again();
          }
          take();
        }
        again();
        while (pop());
        while (popped.length > 0) push(popped.length - 1);
        inflight.flush(queue);
        take();
        assertEquals([...outstanding], [], "Requests were lost");
      }),
      { numRuns: 300 },
    );
  });

  Deno.test(`Notes of a ${name} queue that nobody could have written do no harm`, () => {
    const memory = GuestMemory.allocate(0x2_0000);
    openDriverQueue(memory, CONFIG, features);
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 320, maxLength: 320, max: 9 }),
        fc.nat(0xffff),
        (bytes, index) => {
          memory.writeU16(CONFIG.driverArea + 2, index);
          const buffer = new SharedArrayBuffer(320);
          new Uint8Array(buffer).set(bytes);
          new DataView(buffer).setUint16(8, 1, true);
          const inflight = openInflight({ buffer, offset: 0, entries: SIZE }, features);
          try {
            const queue = new ServedQueue(memory, CONFIG, features, inflight);
            for (let i = 0; i < 20; i++) {
              const chain = queue.pop();
              if (chain === null) break;
              queue.push(chain, 0);
            }
            queue.flush();
          } catch (error) {
            const expected = error instanceof ProtocolError ||
              (error as Error).name === "VirtqueueError";
            if (!expected) throw error;
          }
        },
      ),
      { numRuns: 1000 },
    );
  });

  Deno.test(`A session that ends with ${name} requests in flight leaves them to the next`, async () => {
    const core = VIRTIO_F_VERSION_1 | features;
    const first = new EchoDevice();
    const front = new Front(first);
    await front.negotiate(core, P.MQ | P.INFLIGHT_SHMFD);
    const wanted = payloads.encodeInflight({ size: 0n, offset: 0n, queues: 2, queueSize: 64 });
    const answer = await front.ask(Request.GET_INFLIGHT_FD, wanted);
    assertEquals(answer.descriptorCount, 1);
    const area = answer.payload.slice();
    const notes = new MemoryFile(answer.take(0));
    front.send(Request.SET_INFLIGHT_FD, area, [notes.descriptor]);
    front.share();
    front.setUp(0, core);
    front.enable(0);
    first.hold = true;
    for (let token = 0; token < 6; token++) front.request(0, token);
    await until(() => first.held.length === 6, "all requests");
    first.release(4);
    first.release(2);
    assertEquals(await front.used(0, 2), [4, 2]);
    // The first process hangs until it is given up.
    front.channel.close();
    await front.session.ended;

    const second = new EchoDevice();
    const next = new Front(second);
    // The same guest.
    next.mapping.unmap();
    next.file.close();
    Object.assign(next, {
      file: front.file,
      mapping: front.mapping,
      memory: front.memory,
      queues: front.queues,
    });
    await next.negotiate(core, P.MQ | P.INFLIGHT_SHMFD);
    next.send(Request.SET_INFLIGHT_FD, area, [notes.descriptor]);
    next.share();
    next.tell(0, features === 0n ? 2 : null);
    next.enable(0);
    assertEquals(await next.used(0, 4), [0, 1, 3, 5]);
    next.request(0, 6);
    assertEquals(await next.used(0, 1), [6]);
    assertEquals(second.handled, 5);
    notes.close();
    for (const event of [...front.kicks, ...front.calls]) event.close();
    await next.close();
  });
}

Deno.test("After a reset nothing is in flight, whatever was noted", async () => {
  const device = new EchoDevice();
  const front = new Front(device);
  await front.negotiate(VIRTIO_F_VERSION_1, P.MQ | P.INFLIGHT_SHMFD | P.RESET_DEVICE | P.REPLY_ACK);
  const wanted = payloads.encodeInflight({ size: 0n, offset: 0n, queues: 2, queueSize: 64 });
  const answer = await front.ask(Request.GET_INFLIGHT_FD, wanted);
  const notes = new MemoryFile(answer.take(0));
  assert(await front.done(Request.SET_INFLIGHT_FD, answer.payload, [notes.descriptor]));
  front.share();
  front.setUp(0, VIRTIO_F_VERSION_1);
  front.enable(0);
  device.hold = true;
  for (let token = 0; token < 5; token++) front.request(0, token);
  await until(() => device.held.length === 5, "all requests");
  assert(await front.done(Request.RESET_DEVICE));
  device.hold = false;
  front.setUp(0, VIRTIO_F_VERSION_1, 0);
  front.request(0, 9);
  assertEquals(await front.used(0, 1), [9]);
  assertEquals([front.errors, device.handled], [[], 6]);
  notes.close();
  await front.close();
});
