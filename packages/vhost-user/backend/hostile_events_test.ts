/** Front ends that do to event files what stops whoever writes to them: the server, and its other guests, go on. */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_VERSION_1 } from "@virtio/device";
import { EventFd, fixedBytes, loadLibc } from "@virtio/linux";
import { ProtocolFeature as P } from "../protocol/features.ts";
import { FrontEndRequest as Request } from "../protocol/messages.ts";
import * as payloads from "../protocol/payloads.ts";
import { EchoDevice, Front, until } from "./front_testing.ts";
import { VhostUserWorkers } from "./worker_device.ts";

const { fcntl, write } = loadLibc({
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
});
const F_SETFL = 4;

/** Fills the counter, and has writes wait for room. */
function fill(event: EventFd): void {
  const most = fixedBytes(8);
  new BigUint64Array(most.buffer)[0] = 2n ** 64n - 2n;
  event.take();
  assertEquals(write(event.descriptor, most, 8n), 8);
  assertEquals(fcntl(event.descriptor, F_SETFL, 0n), 0);
}

for (const where of ["this thread", "a worker"]) {
  Deno.test(`An event file that is full, and waits for room, does not stop a device in ${where}`, async () => {
    const device = where === "a worker"
      ? await VhostUserWorkers.open({
        worker: () =>
          new Worker(import.meta.resolve("./testing/echo_worker.ts"), { type: "module" }),
        data: { device: "echo", events: true },
      })
      : new EchoDevice();
    const front = new Front(device);
    await front.negotiate(VIRTIO_F_VERSION_1, P.MQ);
    front.share();
    for (let index = 0; index < 2; index++) {
      front.setUp(index, VIRTIO_F_VERSION_1);
      front.enable(index);
    }
    await front.ask(Request.GET_FEATURES);
    fill(front.calls[0]!);
    for (let token = 0; token < 10; token++) front.request(0, token);
    assertEquals((await front.used(0, 10)).length, 10);
    // The other ring has an event file in good order.
    front.request(1, 3);
    assertEquals(await front.used(1, 1), [3]);
    await until(() => front.calls[1]!.take(), "an interrupt");
    assert(front.calls[0]!.take());
    await front.close();
    if (device instanceof VhostUserWorkers) await device.close();
  });
}

Deno.test("An event file for errors that is full, and waits for room, stops nobody", async () => {
  const front = new Front(new EchoDevice());
  await front.negotiate(VIRTIO_F_VERSION_1, P.MQ);
  front.share();
  const broken = EventFd.create();
  const which = payloads.encodeVringDescriptor({ index: 0, none: false });
  front.send(Request.SET_VRING_ERR, which, [broken.descriptor]);
  front.setUp(0, VIRTIO_F_VERSION_1);
  front.enable(0);
  await front.ask(Request.GET_FEATURES);
  fill(broken);
  // More available than the ring has.
  front.memory.writeU16(front.config(0).driverArea + 2, 1000);
  front.kicks[0]!.signal();
  await until(() => front.errors.length > 0, "the error");
  broken.close();
  await front.close();
});
