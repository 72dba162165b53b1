import { assert, assertEquals, assertRejects } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { type EventFd, MemoryFile, SharedMapping, UnixSocket } from "@virtio/linux";
import { DirtyBitmap } from "@virtio/memory";
import { Channel } from "../protocol/channel.ts";
import { ProtocolFeature as P, VHOST_F_LOG_ALL } from "../protocol/features.ts";
import { FrontEndRequest as Request } from "../protocol/messages.ts";
import * as payloads from "../protocol/payloads.ts";
import { Front, GUEST_BASE, settle, until } from "./front_testing.ts";
import type { EchoWorkerData } from "./testing/echo_worker.ts";
import { VhostUserWorkers, type VhostUserWorkersOptions } from "./worker_device.ts";

const SPLIT = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
const PACKED = SPLIT | VIRTIO_F_RING_PACKED;
const state = (index: number, value: number) => payloads.encodeVringState({ index, value });

function open(
  device: EchoWorkerData["device"],
  events: boolean,
  options: Partial<VhostUserWorkersOptions> = {},
): Promise<VhostUserWorkers> {
  return VhostUserWorkers.open({
    worker: () =>
      new Worker(import.meta.resolve("./testing/echo_worker.ts"), {
        type: "module",
        name: events ? "turning" : "blocking",
      }),
    data: { device, events },
    ...options,
  });
}

for (const events of [true, false]) {
  const how = events ? "whose event loop turns" : "that sleeps in poll";
  for (const [name, features] of [["split", SPLIT], ["packed", PACKED]] as const) {
    Deno.test(`A device in workers ${how} serves ${name} rings, and gives them back`, async () => {
      const device = await open("echo", events, { workers: 2, pin: [[0]] });
      const front = new Front(device);
      await front.negotiate(features, P.MQ | P.CONFIGURE_MEM_SLOTS | P.REPLY_ACK);
      front.share();
      for (let index = 0; index < 4; index++) {
        front.setUp(index, features);
        front.enable(index);
      }
      for (let round = 0; round < 4; round++) {
        for (let index = 0; index < 4; index++) {
          for (let token = 0; token < 20; token++) front.request(index, token);
        }
        for (let index = 0; index < 4; index++) {
          assertEquals((await front.used(index, 20)).length, 20);
        }
        // Long enough that the worker sleeps.
        await settle(5);
        const answer = await front.ask(Request.GET_VRING_BASE, state(round, 0));
        front.request(round, 1);
        await settle();
        assertEquals(front.queues[round]!.take(), -1);
        front.share();
        front.tell(round, payloads.decodeVringState(answer.payload).value);
        assertEquals(await front.used(round, 1), [1]);
      }
      const counters = (await device.counters())!;
      assertEquals(counters.map(({ chains }) => chains), [81, 81, 81, 81]);
      assertEquals(front.errors, []);
      await front.close();
      await device.close();
    });
  }

  Deno.test(`A device in a worker ${how} is looked at without kicks, logs what it writes and tells in band`, async () => {
    const device = await open("echo", events);
    const front = new Front(device, { inband: true });
    const protocol = P.MQ | P.LOG_SHMFD | P.REPLY_ACK | P.BACKEND_REQ | P.INBAND_NOTIFICATIONS;
    await front.negotiate(SPLIT | VHOST_F_LOG_ALL, protocol);
    const [here, there] = UnixSocket.pair();
    assert(await front.done(Request.SET_BACKEND_REQ_FD, undefined, [there.descriptor]));
    there.close();
    const back = new Channel(here);
    front.share();
    const log = MemoryFile.create(0x1000);
    const area = payloads.encodeLog({ size: 0x1000n, offset: 0n });
    await front.ask(Request.SET_LOG_BASE, area, [log.descriptor]);
    const mapping = new SharedMapping(log.descriptor, 0, 0x1000);
    front.setUp(0, SPLIT);
    const none = payloads.encodeVringDescriptor({ index: 0, none: true });
    front.send(Request.SET_VRING_CALL, none);
    front.send(Request.SET_VRING_KICK, none);
    front.enable(0);
    await front.ask(Request.GET_FEATURES);
    const [kick] = front.kicks;
    front.kicks[0] = { signal: () => true, close: () => kick!.close() } as unknown as EventFd;
    front.request(0, 9);
    assertEquals(await front.used(0, 1), [9]);
    const pages: number[] = [];
    new DirtyBitmap(mapping.buffer).drain((address) => pages.push(address));
    assert(pages.includes(GUEST_BASE + 0x4_0000) && pages.includes(GUEST_BASE + 0x4000));
    await until(() => back.receive() !== null, "an interrupt");
    back.close();
    mapping.unmap();
    log.close();
    await front.close();
    await device.close();
  });
}

Deno.test("A device in a worker that takes chains when it likes gets those that came meanwhile", async () => {
  const device = await open("lazy", true);
  const front = new Front(device);
  await front.negotiate(SPLIT, P.MQ);
  front.share();
  front.setUp(0, SPLIT);
  front.enable(0);
  for (let round = 0; round < 3; round++) {
    for (let token = 0; token < 5; token++) front.request(0, token);
    assertEquals(await front.used(0, 5), [0, 1, 2, 3, 4]);
    await settle(10);
  }
  await front.close();
  await device.close();
});

Deno.test("A device that cannot be made says why, and its workers end", async () => {
  await assertRejects(() => open("none", true, { workers: 2 }), Error, "There is no such disk");
  await assertRejects(() => open("echo", true, { workers: 0 }), RangeError, "workers");
});
