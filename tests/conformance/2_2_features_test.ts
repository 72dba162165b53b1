/** Virtio 1.4, 2.2: feature bits. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  CORE_FEATURES,
  type Device,
  DeviceState,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_FAILED,
} from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { AGREED, FOUND, LIVE, TestDevice } from "../../packages/device/testing.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere } from "./places.ts";
import { SessionBench, statusWrites } from "./session_bench.ts";

const ALL = (1n << 128n) - 1n;
/** Bits that 2.2 gives to device types. */
const TYPE_BITS = (0xff_ffffn) | (0b11n << 41n) | (ALL & ~((1n << 50n) - 1n));

Deno.test("2.2.1-G1 the driver accepts no feature that was not offered, and none without the feature that it requires", async () => {
  const requires = [[0b010n, 0b001n], [0b100n, 0b010n]] as const;
  for (let offered = 0n; offered < 8n; offered++) {
    const bench = new SessionBench({
      features: VIRTIO_F_VERSION_1 | VIRTIO_F_RING_RESET,
      device: new TestDevice({ features: offered }),
    });
    // The caller wants everything, whatever is offered.
    const session = await bench.open({ wanted: ALL, core: ALL, requires });
    const { accepted } = bench.transport;
    assertEquals(accepted & ~bench.transport.state.offered, 0n);
    for (const [feature, needed] of requires) {
      assert((accepted & feature) === 0n || (accepted & needed) === needed, `${offered}`);
    }
    assertEquals(session.features, accepted);
  }
});

Deno.test("2.2.1-G2 the driver validates what is offered: no VERSION_1, no initialisation", async () => {
  const bench = new SessionBench();
  bench.transport.offer = (features) => features & ~VIRTIO_F_VERSION_1;
  await assertRejects(() => bench.open(), DriverError, "VERSION_1");
  assertEquals(bench.transport.accepted, 0n);
});

Deno.test("2.2.1-G3 2.2.1-G4 2.2.1-G8 bits that are reserved or not described are ignored, and the driver goes on", async () => {
  const bench = new SessionBench({ device: new TestDevice({ features: 0b11n }) });
  bench.transport.offer = () => ALL;
  const session = await bench.open({ wanted: 0b11n });
  assertEquals(bench.transport.accepted, 0b11n | CORE_FEATURES);
  assertEquals(bench.transport.state.status, LIVE);
  assert(session.has(0b11n));
  // Not even if the caller asks for them: 24 to 40 and 43 are not the device type's, 44 to 49 nobody's.
  const greedy = new SessionBench();
  greedy.transport.offer = () => ALL;
  await greedy.open({ wanted: ALL, core: ALL });
  assertEquals(greedy.transport.accepted & ~TYPE_BITS & ~CORE_FEATURES, 0n);
});

Deno.test("2.2.1-G5 a bit that the transport does not support is not accepted, though it is offered", async () => {
  const bench = new SessionBench({ carries: CORE_FEATURES & ~VIRTIO_F_NOTIF_CONFIG_DATA });
  bench.transport.offer = () => ALL;
  await bench.open({ core: CORE_FEATURES });
  assertEquals(bench.transport.accepted, CORE_FEATURES & ~VIRTIO_F_NOTIF_CONFIG_DATA);
  // MMIO in earnest.
  const memory = GuestMemory.allocate(0x1000);
  const { driver } = connectMmio((host) =>
    new MmioTransport(new TestDevice(), { memory, host, features: CORE_FEATURES })
  );
  assertEquals(driver.carries & VIRTIO_F_NOTIF_CONFIG_DATA, 0n);
});

Deno.test("2.2.1-G6 a bit that the driver does not know of the device type is not accepted", async () => {
  const bench = new SessionBench({ device: new TestDevice({ features: TYPE_BITS }) });
  await bench.open({ wanted: 1n << 3n | 1n << 70n });
  assertEquals(bench.transport.accepted & TYPE_BITS, 1n << 3n | 1n << 70n);
});

Deno.test("2.2.1-G7 where a feature is lacking that it cannot do without, the driver sets FAILED and takes no further step", async () => {
  const bench = new SessionBench();
  bench.transport.offer = (features) => features & ~VIRTIO_F_VERSION_1;
  await assertRejects(() => bench.open(), DriverError);
  assertEquals(statusWrites(bench.transport.log), [0, 1, 3, 3 | VIRTIO_STATUS_FAILED]);
  assert(!bench.transport.log.some((line) => line.startsWith("queue")));
  // One that the device type's driver asks for itself.
  const picky = new SessionBench();
  await assertRejects(() =>
    picky.open({
      wanted: 1n,
      queues: (session) => {
        if (!session.has(1n)) throw new DriverError("Cannot do without feature 0");
        return [];
      },
    }), DriverError);
  assertEquals(picky.transport.state.status, AGREED | VIRTIO_STATUS_FAILED);
});

function state(device: Device, features?: bigint, carries = CORE_FEATURES): DeviceState {
  return new DeviceState(device, {
    memory: GuestMemory.allocate(0x1000),
    interrupt: { queue: () => {}, config: () => {} },
    carries,
    ...(features === undefined ? {} : { features }),
  });
}

// Here and below in process only: what is refused is so before the device is anywhere.
Deno.test("2.2.2-D1 a device with a feature that requires another which is not offered cannot be put together", () => {
  const requires = [[0b010n, 0b001n], [0b100n, 0b011n]] as const;
  for (let features = 0n; features < 8n; features++) {
    const device = new TestDevice({ features, requires });
    const bad = requires.some(([feature, needed]) =>
      (features & feature) !== 0n && (features & needed) !== needed
    );
    if (bad) assertThrows(() => state(device), TypeError, "without what it requires");
    else assertEquals(state(device).offered & 7n, features);
  }
});

everywhere(
  "2.2.2-D2 every subset of what is offered is accepted, and everything else refused",
  async (place) => {
    const offered = 0b101n | VIRTIO_F_RING_PACKED | VIRTIO_F_RING_RESET | VIRTIO_F_VERSION_1;
    const bits = [1n, 0b100n, VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET];
    const rig = await PlacedRig.open(place, { features: 0b101n }, {
      features: VIRTIO_F_RING_PACKED | VIRTIO_F_RING_RESET,
    });
    assertEquals(rig.state.offered, offered);
    for (let subset = 0; subset < 16; subset++) {
      const features = bits.reduce((sum, bit, i) => (subset >> i) & 1 ? sum | bit : sum, 0n);
      rig.status = 0;
      rig.negotiate(features);
      assertEquals([rig.status, rig.state.features], [AGREED, features | VIRTIO_F_VERSION_1]);
    }
    for (let bit = 0n; bit < 128n; bit++) {
      if ((offered >> bit & 1n) === 1n) continue;
      rig.status = 0;
      rig.negotiate(1n << bit);
      assertEquals([rig.status, rig.state.features], [FOUND, 0n], `bit ${bit}`);
    }
    // A subset that is not valid, because a feature lacks what it requires.
    const needy = await PlacedRig.open(place, { features: 3n, requires: [[2n, 1n]] });
    for (const [features, status] of [[2n, FOUND], [3n, AGREED], [1n, AGREED]] as const) {
      needy.status = 0;
      needy.negotiate(features);
      assertEquals(needy.status, status);
    }
    // A subset that the device cannot work with.
    rig.run(({ device }) => {
      device.acceptable = (features) => (features & 0b101n) !== 0b001n;
    });
    rig.status = 0;
    rig.negotiate(0b001n);
    assertEquals(rig.status, FOUND);
  },
);

everywhere("2.2.2-D1 what requires something else says so wherever it runs", async (place) => {
  const requires = [[0b010n, 0b001n]] as const;
  const bad = await place.open("test", { features: 0b010n, requires });
  assertThrows(() => state(bad.device), TypeError, "without what it requires");
  const good = await place.open("test", { features: 0b011n, requires });
  assertEquals(state(good.device).offered & 7n, 0b011n);
});

Deno.test("2.2.2-D3 nothing is offered that would not be supported: no other type's or reserved bits, none that the transport cannot carry", () => {
  for (let bit = 0n; bit < 130n; bit++) {
    const features = 1n << bit;
    if ((TYPE_BITS & features) === 0n || bit >= 128n) {
      assertThrows(() => state(new TestDevice({ features })), TypeError);
    } else {
      assertEquals(state(new TestDevice({ features })).offered & TYPE_BITS, features);
    }
    if ((CORE_FEATURES & features) === 0n) {
      assertThrows(() => state(new TestDevice(), features), TypeError);
    } else if (features !== VIRTIO_F_VERSION_1) {
      const without = state(new TestDevice(), features, CORE_FEATURES & ~features);
      assertEquals(without.offered, VIRTIO_F_VERSION_1);
    }
  }
});

everywhere(
  "2.2.2-D4 features that were agreed on once are agreed on again after a reset",
  async (place) => {
    const rig = await PlacedRig.open(place, { features: 0b11n });
    for (const features of [0n, 0b11n, CORE_FEATURES, 0b1n | VIRTIO_F_RING_PACKED]) {
      for (let life = 0; life < 3; life++) {
        rig.status = 0;
        rig.negotiate(features);
        assertEquals(rig.status, AGREED);
        rig.status = LIVE;
        if (life === 1) rig.state.fail(new Error("broken"));
      }
    }
  },
);
