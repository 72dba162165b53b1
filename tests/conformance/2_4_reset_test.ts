/** Virtio 1.4, 2.4: device reset. */
import { assert, assertEquals } from "@std/assert";
import { CORE_FEATURES, VIRTIO_STATUS_SUSPEND } from "@virtio/device";
import { echo, FOUND, later, LIVE, Rig, turns } from "../../packages/device/testing.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { SessionBench } from "./session_bench.ts";

Deno.test("2.4.1-D1 after a reset the status is 0, whatever it was", () => {
  const before: ((rig: Rig) => void)[] = [
    (rig) => rig.status = FOUND,
    (rig) => rig.negotiate(),
    (rig) => rig.start(),
    (rig) => (rig.start(CORE_FEATURES), rig.status = LIVE | VIRTIO_STATUS_SUSPEND),
    (rig) => (rig.start(), rig.state.fail(new Error("broken"))),
    (rig) => (rig.start(), rig.status = 0x8f),
  ];
  for (const run of before) {
    const rig = new Rig();
    run(rig);
    assert(rig.status !== 0);
    rig.status = 0;
    assertEquals(rig.status, 0);
  }
});

for (const [name, format] of FORMATS) {
  Deno.test(`2.4.1-D2 once the status reads 0 nothing is notified of and no queue is touched, though the back end answers later (${name})`, async () => {
    for (const kind of ["hold", "promise"]) {
      const rig = new Rig();
      const queue = rig.start(format);
      const work = later();
      if (kind === "hold") rig.device.hold();
      if (kind === "promise") {
        rig.device.handler = (chain) =>
          work.promise.then(() => {
            if (rig.device.owns(chain)) echo(chain);
          });
      }
      rig.send(queue, 1);
      rig.state.notify(0);
      rig.send(queue, 2);
      rig.interrupts.length = 0;
      rig.status = 0;
      assertEquals(rig.status, 0);
      const image = rig.memory.regions[0]!.bytes.slice();
      rig.state.notify(0);
      rig.device.release();
      work.resolve();
      rig.device.config.update(() => {});
      await turns(3);
      assertEquals(rig.interrupts, [], kind);
      assert(rig.memory.regions[0]!.bytes.every((byte, i) => byte === image[i]), kind);
      // Until the driver initialises it again.
      const again = rig.start(format);
      rig.send(again, 3);
      rig.state.notify(0);
      await turns(1);
      assertEquals(rig.take(again), [3], kind);
    }
  });
}

Deno.test("2.4.1-D2 while work of the device may still touch memory the status does not read 0", async () => {
  const rig = new Rig();
  rig.start();
  const work = later();
  let writing = true;
  rig.device.stopping = () => work.promise.then(() => void (writing = false));
  rig.status = 0;
  for (let i = 0; i < 3; i++) {
    await turns(1);
    assert(rig.status !== 0 && writing);
  }
  work.resolve();
  await turns(1);
  assertEquals([rig.status, writing], [0, false]);
});

Deno.test("2.4.2-G1 the driver takes a reset for complete when the status reads 0, not before", async () => {
  const bench = new SessionBench();
  const session = await bench.open({ patience: 5000 });
  let reads = 0;
  bench.transport.lieStatus = (status) => status === 0 && reads++ < 5 ? 15 : status;
  let done = false;
  const resetting = session.reset().then(() => done = true);
  await Promise.resolve();
  assertEquals(done, false);
  await resetting;
  assertEquals(reads, 6);
});
