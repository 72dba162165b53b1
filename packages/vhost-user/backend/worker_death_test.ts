/** Workers that die: others go on where they were, as often as is reasonable. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { EventFd, MemoryFile } from "@virtio/linux";
import { ProtocolFeature as P } from "../protocol/features.ts";
import { FrontEndRequest as Request } from "../protocol/messages.ts";
import * as payloads from "../protocol/payloads.ts";
import { Front, settle, until } from "./front_testing.ts";
import type { EchoWorkerData } from "./testing/echo_worker.ts";
import { VhostUserWorkers, type VhostUserWorkersOptions } from "./worker_device.ts";

const SPLIT = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
const PACKED = SPLIT | VIRTIO_F_RING_PACKED;
/** Requests that fit into a queue at once. */
const BATCH = 15;
const state = (index: number, value: number) => payloads.encodeVringState({ index, value });

/** A device in workers that die, what it told of that, and all workers that it ever had. */
async function open(
  data: Partial<EchoWorkerData>,
  options: Partial<VhostUserWorkersOptions> = {},
): Promise<{ device: VhostUserWorkers; troubles: string[]; workers: Worker[] }> {
  const { events = true } = data;
  const workers: Worker[] = [];
  const device = await VhostUserWorkers.open({
    worker: () => {
      const worker = new Worker(import.meta.resolve("./testing/echo_worker.ts"), {
        type: "module",
        name: events ? "turning" : "blocking",
      });
      workers.push(worker);
      return worker;
    },
    data: { device: "dying", events, ...data },
    ...options,
  });
  const troubles: string[] = [];
  device.trouble = ({ message }) => troubles.push(message);
  return { device, troubles, workers };
}

/** A front end that keeps notes of what is in flight, and its four queues. */
async function noted(device: VhostUserWorkers, features: bigint, queues = 4): Promise<Front> {
  const front = new Front(device, { patience: 5000 });
  const protocol = P.MQ | P.INFLIGHT_SHMFD | P.STATUS | P.REPLY_ACK | P.CONFIG;
  await front.negotiate(features, protocol);
  const wanted = payloads.encodeInflight({ size: 0n, offset: 0n, queues: 4, queueSize: 64 });
  const answer = await front.ask(Request.GET_INFLIGHT_FD, wanted);
  const notes = new MemoryFile(answer.take(0));
  assert(await front.done(Request.SET_INFLIGHT_FD, answer.payload, [notes.descriptor]));
  notes.close();
  front.share();
  for (let index = 0; index < queues; index++) {
    front.setUp(index, features);
    front.enable(index);
  }
  return front;
}

const sorted = (tokens: number[]) => tokens.sort((a, b) => a - b);
const all = Array.from({ length: BATCH }, (_, token) => token);

for (const events of [true, false]) {
  for (const [name, features] of [["split", SPLIT], ["packed", PACKED]] as const) {
    const how = events ? "whose event loops turn" : "that sleep in poll";
    Deno.test(`Workers ${how} die with chains of ${name} rings in their hands: each is used once`, async () => {
      const { device, troubles, workers } = await open({ events, diesAt: 100 }, {
        workers: 2,
        restarts: 100,
      });
      const front = await noted(device, features);
      // Whoever forgets one waits for it in vain; whoever uses one twice tells a token that is not there.
      for (let round = 0; round < 16; round++) {
        for (let index = 0; index < 4; index++) {
          for (let token = 0; token < BATCH; token++) front.request(index, token);
        }
        for (let index = 0; index < 4; index++) {
          assertEquals(sorted(await front.used(index, BATCH)), all);
        }
      }
      // Each of two had 480 chains, and dies with its hundredth; what came with that is used before.
      assert(troubles.length >= 6 && troubles.length <= 8, `${troubles.length} deaths`);
      assertEquals(workers.length, troubles.length + 2);
      for (const trouble of troubles) {
        assert(trouble.includes("It broke") && trouble.includes("takes over"), trouble);
      }
      assertEquals(front.errors, []);
      for (let index = 0; index < 4; index++) {
        const answer = await front.ask(Request.GET_VRING_BASE, state(index, 0));
        if (features === SPLIT) {
          assertEquals(payloads.decodeVringState(answer.payload).value, 16 * BATCH);
        }
      }
      await front.close();
      await device.close();
    });
  }
}

Deno.test("A worker that is ended from outside, asleep or not yet in use, is replaced too", async () => {
  const { device, troubles, workers } = await open({ device: "echo" }, { restarts: 100 });
  workers[0]!.terminate();
  await until(() => troubles.length === 1, "the first death");
  const front = await noted(device, SPLIT, 1);
  for (let round = 0; round < 2; round++) {
    for (let token = 0; token < BATCH; token++) front.request(0, token);
    assertEquals(await front.used(0, BATCH), all);
    workers.at(-1)!.terminate();
    await until(() => troubles.length === 2 + round, "another death");
  }
  front.request(0, 3);
  assertEquals(await front.used(0, 1), [3]);
  assertEquals([front.errors, workers.length], [[], 4]);
  await front.close();
  await device.close();
});

Deno.test("A queue whose worker dies while it is stopped is stopped by the next, with nothing in flight", async () => {
  const { device, troubles } = await open({ diesAt: 5 });
  const front = await noted(device, SPLIT, 1);
  // Both are sent in one go: whichever comes first, all that was taken is used when the answer comes.
  for (let token = 0; token < 8; token++) front.request(0, token);
  const answer = await front.ask(Request.GET_VRING_BASE, state(0, 0));
  const { value } = payloads.decodeVringState(answer.payload);
  assertEquals((await front.used(0, value)).length, value);
  front.tell(0, value);
  front.enable(0);
  await front.used(0, 8 - value);
  assertEquals(troubles.length, 1);
  await front.close();
  await device.close();
});

Deno.test("What the driver wrote to the configuration is known to the worker that comes next", async () => {
  const { device, troubles, workers } = await open({}, { workers: 2 });
  const front = await noted(device, SPLIT, 0);
  const bytes = new Uint8Array([7, 9]);
  const written = payloads.encodeConfig({ offset: 1, flags: 0, bytes });
  assert(await front.done(Request.SET_CONFIG, written));
  const shown = async () => {
    const wanted = { offset: 0, flags: 0, bytes: new Uint8Array(4) };
    const answer = await front.ask(Request.GET_CONFIG, payloads.encodeConfig(wanted));
    return [...payloads.decodeConfig(answer.payload).bytes];
  };
  assertEquals(await shown(), [0, 7, 9, 0]);
  for (const worker of [0, 2]) {
    if (worker === 2) {
      front.setUp(0, SPLIT);
      front.enable(0);
    }
    const before = troubles.length;
    // The first one has what is shown; the one that takes its place dies too.
    workers[worker]!.terminate();
    await until(() => troubles.length > before || front.errors.length > 0, "a death");
    await until(() => workers.length === 3 + before, "another worker");
    await device.accepts(SPLIT);
    assertEquals(await shown(), [0, 7, 9, 0]);
  }
  await front.close();
  await device.close();
});

Deno.test("Without notes of what was in flight the front end is disconnected, and another finds a fresh worker", async () => {
  const { device, troubles, workers } = await open({ diesAt: 5 }, { workers: 2 });
  for (let time = 1; time <= 2; time++) {
    const front = new Front(device);
    await front.negotiate(PACKED, P.MQ | P.STATUS);
    front.share();
    for (let index = 0; index < 2; index++) {
      front.setUp(index, PACKED);
      front.enable(index);
    }
    for (let token = 0; token < 4; token++) front.request(1, token);
    assertEquals(await front.used(1, 4), [0, 1, 2, 3]);
    front.request(1, 4);
    await front.session.ended;
    assertEquals(front.errors.length, 1);
    const [{ message }] = front.errors as [Error];
    assert(message.includes("It broke") && message.includes("disconnected"), message);
    assertEquals(troubles, []);
    await front.close();
  }
  assertEquals(workers.length, 4);
  await device.close();
});

for (const restarts of [0, 3]) {
  Deno.test(`A request that no worker survives makes the device ask for a reset, after ${restarts} others tried`, async () => {
    const { device, troubles, workers } = await open({ poison: 7 }, { restarts });
    const front = await noted(device, SPLIT, 1);
    const broken = EventFd.create();
    const which = payloads.encodeVringDescriptor({ index: 0, none: false });
    front.send(Request.SET_VRING_ERR, which, [broken.descriptor]);
    front.request(0, 1);
    assertEquals(await front.used(0, 1), [1]);
    front.request(0, 7);
    await until(() => front.errors.length > 0, "the error");
    assertEquals([troubles.length, workers.length], [restarts, restarts + 1]);
    const { message } = front.errors[0]!;
    assert(message.includes("It broke") && message.includes("no other"), message);
    await until(() => broken.take(), "a signal");
    const status = await front.ask(Request.GET_STATUS);
    assertEquals(payloads.decodeU64(status.payload), 64n);
    broken.close();
    await settle();
    assertEquals(workers.length, restarts + 1);
    await front.close();
    await device.close();
  });
}

Deno.test("Rings that share one event file for their kicks are served by one worker", async () => {
  const { device } = await open({ device: "echo" }, { workers: 3, spin: 0 });
  const front = new Front(device);
  await front.negotiate(SPLIT, P.MQ);
  front.share();
  const shared = EventFd.create();
  for (let index = 0; index < 4; index++) {
    front.kicks[index] = shared;
    front.setUp(index, SPLIT);
    front.enable(index);
  }
  for (let round = 0; round < 300; round++) {
    // Whoever sleeps takes the kick; were it another than the one that has this ring, the request would stay.
    if (round % 10 === 0) await settle(2);
    front.request(round % 4, round % BATCH);
    assertEquals(await front.used(round % 4, 1), [round % BATCH]);
  }
  await front.close();
  await device.close();
});

Deno.test("restarts must be a number that can be", async () => {
  await assertRejects(() => open({}, { restarts: -1 }), RangeError, "restarts");
});
