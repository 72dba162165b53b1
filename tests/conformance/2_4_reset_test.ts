/** Virtio 1.4, 2.4: device reset. */
import { assert, assertEquals } from "@std/assert";
import { CORE_FEATURES, VIRTIO_STATUS_SUSPEND } from "@virtio/device";
import { FOUND, LIVE } from "../../packages/device/testing.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";
import { SessionBench } from "./session_bench.ts";

everywhere("2.4.1-D1 after a reset the status is 0, whatever it was", async (place) => {
  const before: ((rig: PlacedRig) => void)[] = [
    (rig) => rig.status = FOUND,
    (rig) => rig.negotiate(),
    (rig) => rig.start(),
    (rig) => (rig.start(CORE_FEATURES), rig.status = LIVE | VIRTIO_STATUS_SUSPEND),
    (rig) => (rig.start(), rig.state.fail(new Error("broken"))),
    (rig) => (rig.start(), rig.status = 0x8f),
  ];
  for (const run of before) {
    const rig = await PlacedRig.open(place);
    run(rig);
    assert(rig.status !== 0);
    rig.status = 0;
    assertEquals(rig.status, 0);
  }
});

for (const [name, format] of FORMATS) {
  everywhere(
    `2.4.1-D2 once the status reads 0 nothing is notified of and no queue is touched, though the back end answers later (${name})`,
    async (place) => {
      for (const kind of ["hold", "promise"]) {
        const rig = await PlacedRig.open(place);
        const queue = rig.start(format);
        if (kind === "hold") rig.hold();
        if (kind === "promise") {
          rig.run(({ device, work, echo }) => {
            device.handler = (chain) =>
              work.promise.then(() => {
                if (device.owns(chain)) echo(chain);
              });
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
        rig.release();
        rig.run(({ work }) => work.resolve());
        rig.setConfig(0, 0);
        await rig.turns(3);
        assertEquals(rig.interrupts, [], kind);
        assert(rig.memory.regions[0]!.bytes.every((byte, i) => byte === image[i]), kind);
        // Until the driver initialises it again.
        const again = rig.start(format);
        rig.send(again, 3);
        rig.state.notify(0);
        await rig.turns(1);
        assertEquals(rig.take(again), [3], kind);
      }
    },
  );
}

everywhere(
  "2.4.1-D2 while work of the device may still touch memory the status does not read 0",
  async (place) => {
    const rig = await PlacedRig.open(place);
    rig.start();
    rig.run(({ device, work }) => {
      device.stopping = () => work.promise.then(() => void (device.own = "done"));
    });
    const writing = (): boolean => rig.run(({ device }) => device.own !== "done");
    rig.status = 0;
    for (let i = 0; i < 3; i++) {
      await rig.turns(1);
      assert(rig.status !== 0 && writing());
    }
    rig.run(({ work }) => work.resolve());
    await rig.turns(1);
    assertEquals([rig.status, writing()], [0, false]);
  },
);

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
