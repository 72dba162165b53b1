/** Virtio 1.4, 2.6.1: virtqueue reset. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { VIRTIO_F_RING_RESET } from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { BufferList } from "@virtio/vring/driver";
import { LIVE } from "../../packages/device/testing.ts";
import { FORMATS, rawDriver } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";
import { SessionBench } from "./session_bench.ts";

for (const [name, format] of FORMATS) {
  const FEATURES = format | VIRTIO_F_RING_RESET;
  const BUFFER = [{ address: 0x5_0000, length: 4 }, {
    address: 0x5_1000,
    length: 4,
    write: true,
  }];

  everywhere(
    `2.6.1.1.1-D1 after its reset a queue's requests are not executed, and it is not notified of (${name})`,
    async (place) => {
      for (const inFlight of [false, true]) {
        const rig = await PlacedRig.open(place);
        const raw = rig.startRaw(FEATURES);
        if (inFlight) {
          rig.run(({ device, work }) => {
            device.handler = () => work.promise;
          });
          raw.send(BUFFER);
          rig.state.notify(0);
        }
        rig.state.resetQueue(0);
        // Available before the reset is complete, and after it.
        raw.send(BUFFER);
        rig.state.notify(0);
        rig.run(({ work }) => work.resolve());
        await rig.turns(1);
        assertEquals(rig.state.queues[0]!.resetting, false);
        const handled = rig.handled.length;
        const interrupts = rig.interrupts.length;
        raw.send(BUFFER);
        for (let i = 0; i < 3; i++) rig.state.notify(0);
        await rig.turns(1);
        assertEquals([rig.handled.length, rig.interrupts.length], [handled, interrupts]);
        assertEquals(handled, inFlight ? 1 : 0);
        assertEquals(raw.takeUsed().length, inFlight ? 1 : 0);
        assertEquals(rig.status, LIVE);
      }
    },
  );

  everywhere(
    `2.6.1.1.1-D2 a queue that was reset starts from its default state: registers, available and used positions (${name})`,
    async (place) => {
      const rig = await PlacedRig.open(place);
      const raw = rig.startRaw(FEATURES);
      for (let i = 0; i < 5; i++) {
        raw.send(BUFFER);
        rig.state.notify(0);
      }
      rig.state.resetQueue(0);
      const setup = rig.state.queues[0]!;
      assertEquals(
        [setup.size, setup.enabled, setup.address(0), setup.address(1), setup.address(2)],
        [
          8,
          false,
          0,
          0,
          0,
        ],
      );
      // A driver that starts at index 0 and wrap counter 1 is understood, so the device is there too.
      const config = rig.place(0, 8, format);
      const again = rawDriver(rig.memory, config, format);
      rig.enable(0, config);
      again.send(BUFFER);
      rig.state.notify(0);
      assertEquals(again.takeUsed(), [{ id: 0, length: 4 }]);
      if (name === "split") {
        assertEquals(rig.memory.readU16(config.deviceArea + 2), 1);
      }
    },
  );

  everywhere(
    `2.6.1.2.1-D1 a queue that is enabled again has the size and the place that the driver gave it now (${name})`,
    async (place) => {
      const rig = await PlacedRig.open(place);
      rig.startRaw(FEATURES, 8);
      for (const [size, base] of [[4, 0x2_0000], [2, 0x2_4000], [8, 0x2_8000], [1, 0x2_c000]]) {
        rig.state.resetQueue(0);
        const config = {
          size: size!,
          descriptorArea: base!,
          driverArea: base! + 0x1000,
          deviceArea: base! + 0x2000,
        };
        const raw = rawDriver(rig.memory, config, format);
        rig.enable(0, config);
        assertEquals(rig.state.queues[0]!.size, size);
        for (let i = 0; i < 20; i++) {
          raw.send([{ address: 0x5_1000, length: 4, write: true }]);
          rig.state.notify(0);
          assertEquals(raw.takeUsed().length, 1, `size ${size}, buffer ${i}`);
        }
      }
      assertEquals(rig.status, LIVE);
    },
  );

  Deno.test(`2.6.1.1.2-G1 the driver verifies that the queue was reset before it does anything with it (${name})`, async () => {
    const bench = new SessionBench();
    const session = await bench.open({ core: FEATURES, patience: 5000 });
    let asked = 0;
    bench.transport.lieQueueReset = (done) => done && ++asked > 4;
    await session.resetQueue(0);
    const { log } = bench.transport;
    const from = log.indexOf("reset queue 0");
    const enabled = log.lastIndexOf("queue 0 of 8");
    assertEquals(
      log.slice(from + 1, enabled).filter((line) => line === "queue 0 is reset").length,
      5,
    );
    // And gives up, rather than believe it, if it never is.
    const stuck = new SessionBench();
    const other = await stuck.open({ core: FEATURES });
    stuck.transport.lieQueueReset = () => false;
    await assertRejects(() => other.resetQueue(0), DriverError);
    assertEquals(stuck.transport.log.filter((line) => line === "queue 0 of 8").length, 1);
  });

  Deno.test(`2.6.1.1.2-G2 after the reset the driver gives the queue's memory back, and not before (${name})`, async () => {
    const bench = new SessionBench();
    const session = await bench.open({ core: FEATURES, patience: 5000 });
    bench.device.hold();
    bench.send(session, 7);
    const free = bench.dma.available;
    let tokens: number[] | null = null;
    const resetting = session.resetQueue(0, 2).then((lost) => tokens = lost);
    await bench.settle();
    assertEquals([tokens, bench.dma.available], [null, free]);
    bench.device.release();
    await resetting;
    assertEquals(tokens, [7]);
    assert(bench.dma.available > free, "the ring is smaller now");
  });

  Deno.test(`2.6.1.2.2-G1 to enable a queue again the driver configures it as at first, with other parameters if it likes (${name})`, async () => {
    const bench = new SessionBench();
    const session = await bench.open({ core: FEATURES });
    const first = bench.transport.log.filter((line) => line.startsWith("queue 0"));
    assertEquals(first, ["queue 0?", "queue 0 of 8"]);
    for (const size of [4, 8, 1]) {
      const from = bench.transport.log.length;
      await session.resetQueue(0, size);
      const again = bench.transport.log.slice(from).filter((line) => line.startsWith("queue 0"));
      assertEquals(again.slice(-2), ["queue 0?", `queue 0 of ${size}`]);
      assertEquals(session.queue(0).size, size);
      const at = bench.dma.allocate(32);
      session.queue(0).add(new BufferList().writable(at, 16), 3);
      session.publish(0);
      assertEquals(session.queue(0).take(), 3);
    }
  });
}
