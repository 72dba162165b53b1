/** Virtio 1.4, 6: reserved feature bits. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import {
  CORE_FEATURES,
  DeviceState,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_SR_IOV,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { DriverError, DriverSession } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { PciTransport } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import { BufferList } from "@virtio/vring/driver";
import { dmaPool, FOUND, Rig, TEST_TYPE, TestDevice } from "../../packages/device/testing.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";
import { SessionBench } from "./session_bench.ts";

Deno.test("6.1-G1 the driver accepts VERSION_1, even if the caller names no core feature at all", async () => {
  for (const core of [0n, VIRTIO_F_RING_PACKED, CORE_FEATURES]) {
    const bench = new SessionBench();
    await bench.open({ core });
    assertEquals(bench.transport.accepted & VIRTIO_F_VERSION_1, VIRTIO_F_VERSION_1);
  }
});

Deno.test("6.1-G2 the driver does not operate a device that does not offer VERSION_1", async () => {
  const bench = new SessionBench();
  bench.transport.offer = (features) => features & ~VIRTIO_F_VERSION_1;
  await assertRejects(() => bench.open(), DriverError, "legacy");
});

for (const [name, format] of FORMATS) {
  Deno.test(`6.1-G4 without ACCESS_PLATFORM the addresses that the driver passes are those of guest-physical memory (${name})`, async () => {
    const bench = new SessionBench();
    const session = await bench.open({ core: format });
    assert(!session.has(VIRTIO_F_ACCESS_PLATFORM));
    const { config } = session.queue(0);
    const setup = bench.transport.state.queues[0]!;
    assertEquals(
      [setup.address(0), setup.address(1), setup.address(2)],
      [config.descriptorArea, config.driverArea, config.deviceArea],
    );
    const at = bench.dma.allocate(64);
    session.queue(0).add(new BufferList().readable(at, 8).writable(at + 16, 8), 1);
    session.publish(0);
    const view = bench.memory.regions[0]!.view;
    assertEquals(view.getBigUint64(config.descriptorArea + 16, true), BigInt(at + 16));
  });
}

Deno.test("6.1-G5 the driver accepts RING_PACKED if it is offered, and works without it", async () => {
  for (const offered of [VIRTIO_F_RING_PACKED, 0n]) {
    const bench = new SessionBench({ features: offered });
    const session = await bench.open();
    assertEquals(session.has(VIRTIO_F_RING_PACKED), offered !== 0n);
    bench.send(session, 1);
    assertEquals(session.queue(0).take(), 1);
  }
});

Deno.test("6.1-G9 the driver does not negotiate SR_IOV with a device without the capability, though it is offered and asked for", async () => {
  const bench = new SessionBench();
  bench.transport.offer = (features) => features | VIRTIO_F_SR_IOV;
  await bench.open({ core: CORE_FEATURES | VIRTIO_F_SR_IOV, wanted: VIRTIO_F_SR_IOV });
  assertEquals(bench.transport.accepted & VIRTIO_F_SR_IOV, 0n);
});

Deno.test("6.1-G12 the driver accepts NOTIF_CONFIG_DATA if it is offered, over PCI", async () => {
  const memory = GuestMemory.allocate(0x10_0000);
  const { driver } = connectPci((host) =>
    new PciTransport(new TestDevice(), { memory, host, features: CORE_FEATURES })
  );
  const session = await DriverSession.open(driver, {
    dma: dmaPool(memory),
    type: TEST_TYPE,
    wanted: 0n,
    queues: () => [{ index: 1, size: 8 }],
  });
  assert(session.has(VIRTIO_F_NOTIF_CONFIG_DATA));
  const at = session.dma.allocate(16);
  session.queue(1).add(new BufferList().writable(at, 16), 5);
  assert(session.publish(1));
  assertEquals(session.queue(1).take(), 5);
});

everywhere("6.2-D1 every device offers VERSION_1, whatever its options say", async (place) => {
  for (const features of [0n, VIRTIO_F_RING_PACKED, CORE_FEATURES]) {
    const rig = await PlacedRig.open(place, {}, { features });
    assertEquals(rig.state.readDeviceFeatures(1) & 1, 1);
  }
  const memory = GuestMemory.allocate(0x1000);
  const state = new DeviceState(new BlkDevice({ backend: new MemoryBackend(0x1000) }), {
    memory,
    carries: 0n,
    features: 0n,
    interrupt: { queue: () => {}, config: () => {} },
  });
  assertEquals(state.offered & VIRTIO_F_VERSION_1, VIRTIO_F_VERSION_1);
});

everywhere(
  "6.2-D2 a device does not operate for a driver that does not accept VERSION_1",
  async (place) => {
    const rig = await PlacedRig.open(place);
    rig.status = FOUND;
    rig.accept(VIRTIO_F_RING_PACKED);
    rig.status = 0xf;
    assertEquals([rig.status, rig.starts], [FOUND, 0]);
  },
);

for (const [name, format] of FORMATS) {
  everywhere(
    `6.2-D5 with IN_ORDER buffers are used in the order in which they were made available, in whatever order they complete (${name})`,
    async (place) => {
      const orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]];
      for (const order of orders) {
        const rig = await PlacedRig.open(place);
        const queue = rig.start(format | VIRTIO_F_IN_ORDER);
        const taken: number[] = [];
        // Twice around the ring.
        for (let round = 0; round < 4; round++) {
          rig.hold();
          for (let i = 0; i < 4; i++) rig.send(queue, 4 * round + i);
          rig.state.notify(0);
          assertEquals(rig.held, 4);
          const left = [0, 1, 2, 3];
          for (const i of order) {
            rig.finish(left.indexOf(i));
            left.splice(left.indexOf(i), 1);
            await rig.turns(1);
            taken.push(...rig.take(queue));
          }
        }
        assertEquals(taken, Array.from({ length: 16 }, (_, i) => i), order.join());
      }
      // And not so without it.
      const rig = await PlacedRig.open(place);
      const queue = rig.start(format);
      rig.hold();
      for (let i = 0; i < 4; i++) rig.send(queue, i);
      rig.state.notify(0);
      rig.release([3, 2, 1, 0]);
      await rig.turns(1);
      assertEquals(rig.take(queue), [3, 2, 1, 0]);
    },
  );
}

// In process only: it is refused before the device is anywhere.
Deno.test("6.2-D9 SR_IOV is never offered: no device here has the capability", () => {
  assertThrows(() => new Rig({ features: VIRTIO_F_SR_IOV }), TypeError, "Cannot offer");
  assertThrows(
    () => new Rig({ device: new TestDevice({ features: VIRTIO_F_SR_IOV }) }),
    TypeError,
    "of its type",
  );
  const memory = GuestMemory.allocate(0x1000);
  const host = { setInterruptLine: () => {}, sendMessage: () => {} };
  const transport = new PciTransport(new TestDevice(), { memory, host });
  assertEquals(transport.state.offered & VIRTIO_F_SR_IOV, 0n);
});
