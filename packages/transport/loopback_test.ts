import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
} from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { connectMmio } from "./mmio/driver.ts";
import { MmioPlaceholder, MmioTransport } from "./mmio/mod.ts";
import { connectPci, type PciLoopbackOptions, ProbeError } from "./pci/driver.ts";
import { PCI_COMMAND, PCI_COMMAND_MEMORY, PciTransport, type StructureOptions } from "./pci/mod.ts";
import { EchoDevice } from "./testing/echo_device.ts";
import { EchoDriver } from "./testing/echo_driver.ts";

/** The life of a device: requests, a configuration change, a queue reset, a suspend, a reset, and again. */
async function live(
  transport: DriverTransport,
  device: EchoDevice,
  memory: GuestMemory,
  core: FeatureSet,
  oneVector = false,
): Promise<void> {
  const dma = new DmaPool(memory, 0x1000, 0x20000);
  for (let life = 0; life < 2; life++) {
    const driver = await EchoDriver.open(transport, dma, { core });
    for (let i = 0; i < 40; i++) {
      const bytes = new Uint8Array([life, i, i + 1]);
      assertEquals(await driver.echo(i & 1, bytes), bytes);
    }
    const several = await Promise.all([1, 2, 3, 4].map((i) => driver.echo(0, new Uint8Array([i]))));
    assertEquals(several.map((bytes) => bytes[0]), [1, 2, 3, 4]);
    device.config.update((view) => view.setUint8(0, life + 1));
    assertEquals(driver.session.readConfig((config) => config.readConfig(0, 1)), life + 1);
    await driver.session.suspend();
    await driver.session.resume();
    if (driver.session.has(VIRTIO_F_RING_RESET)) {
      await driver.session.resetQueue(1, 8);
      driver.session.queue(1).enableInterrupts();
    }
    assertEquals(await driver.echo(1, new Uint8Array([9])), new Uint8Array([9]));
    // One vector for everything cannot tell configuration changes from used buffers.
    assert(driver.configs === 1 || (oneVector && driver.configs > 1));
    await driver.session.reset();
  }
}

const SETS: [string, FeatureSet][] = [
  ["split", VIRTIO_F_RING_RESET | CORE_FEATURES & 1n << 43n],
  ["packed, all features", CORE_FEATURES],
  ["split, all features", CORE_FEATURES & ~VIRTIO_F_RING_PACKED],
  [
    "packed, plain kicks",
    CORE_FEATURES &
    ~(VIRTIO_F_NOTIFICATION_DATA | VIRTIO_F_NOTIF_CONFIG_DATA | VIRTIO_F_EVENT_IDX |
      VIRTIO_F_IN_ORDER),
  ],
];

const PCI: [string, StructureOptions, PciLoopbackOptions][] = [
  ["memory BAR, MSI-X", {}, {}],
  ["memory BAR, INTx", { bars64: false }, { messages: false }],
  ["memory BAR, two vectors, at once", {}, { messages: 2, delivery: "sync" }],
  ["memory BAR, one vector", { msix: 1, notifyOffMultiplier: 0 }, {}],
  ["I/O BAR, MSI-X", { layout: "io" }, {}],
  ["I/O BAR, INTx, at once", { layout: "io", msix: false }, { delivery: "sync" }],
  ["kicks in I/O space", { layout: "memory+io-notify" }, {}],
  ["kicks in I/O space, which is not there", { layout: "memory+io-notify" }, { ioSpace: false }],
  ["configuration access window", {}, { window: true }],
];

for (const [ring, core] of SETS) {
  for (const [name, structures, options] of PCI) {
    Deno.test(`loopback: PCI, ${name}; ${ring}`, async () => {
      const memory = GuestMemory.allocate(0x40000);
      const device = new EchoDevice();
      const { driver, counters } = connectPci(
        (host) =>
          new PciTransport(device, {
            memory,
            host,
            features: CORE_FEATURES,
            notifyData: (queue) => 0x1234 - queue,
            ...structures,
          }),
        options,
      );
      await live(driver, device, memory, core, structures.msix === 1);
      assert(counters.interrupts > 0 && counters.reads > 0 && counters.writes > 0);
    });
  }
  for (const delivery of ["sync", "microtask"] as const) {
    Deno.test(`loopback: MMIO, ${delivery}; ${ring}`, async () => {
      const memory = GuestMemory.allocate(0x40000);
      const device = new EchoDevice();
      const { driver, counters } = connectMmio(
        (host) => new MmioTransport(device, { memory, host, features: CORE_FEATURES }),
        { delivery },
      );
      await live(driver, device, memory, core);
      assert(counters.interrupts > 0 && counters.reads > 0 && counters.writes > 0);
    });
  }
}

Deno.test("loopback: kicks go where the first usable notification structure is", async () => {
  for (const ioSpace of [true, false]) {
    const memory = GuestMemory.allocate(0x40000);
    const { transport, driver } = connectPci(
      (host) => new PciTransport(new EchoDevice(), { memory, host, layout: "memory+io-notify" }),
      { ioSpace },
    );
    assertEquals(driver.structures.notify.bar, ioSpace ? 0 : 2);
    assertEquals(transport.barAddress(0) !== null, ioSpace);
    const echo = await EchoDriver.open(driver, new DmaPool(memory, 0x1000, 0x20000));
    assertEquals(await echo.echo(0, new Uint8Array([1])), new Uint8Array([1]));
  }
});

Deno.test("loopback: nobody answers for BARs that are switched off", () => {
  const memory = GuestMemory.allocate(0x40000);
  const { transport, driver } = connectPci((host) =>
    new PciTransport(new EchoDevice(), { memory, host })
  );
  driver.writeStatus(1);
  transport.configWrite(PCI_COMMAND, 2, 0);
  assertEquals(driver.readStatus(), 0xff);
  driver.writeStatus(3);
  transport.configWrite(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
  assertEquals(driver.readStatus(), 1);
});

Deno.test("loopback: an empty slot is no device", () => {
  assertThrows(() => connectMmio(() => new MmioPlaceholder()), ProbeError, "DeviceID");
});

Deno.test("loopback: BARs of all sizes get addresses that do not overlap", () => {
  const memory = GuestMemory.allocate(0x40000);
  // Large without taking memory: only its length is looked at.
  const bytes = { length: 0x1_8000_0000 } as unknown as Uint8Array;
  const sharedMemory = [{ id: 0, bytes, address: 0 }];
  const { transport } = connectPci((host) =>
    new PciTransport(new EchoDevice({ sharedMemory }), { memory, host, layout: "memory+io-notify" })
  );
  const ranges = transport.bars.flatMap((bar, i) =>
    bar === null || bar.kind === "io" ? [] : [[transport.barAddress(i)!, bar.size] as const]
  );
  assertEquals(ranges.map(([, size]) => size), [0x2000, 0x4000, 0x2_0000_0000]);
  for (const [address, size] of ranges) {
    assertEquals(address % size, 0);
    const overlaps = ranges.filter(([other, length]) =>
      other < address + size && address < other + length
    );
    assertEquals(overlaps.length, 1);
  }
  assert(ranges[2]![0] >= 2 ** 32);
  const region = connectPci((host) =>
    new PciTransport(new EchoDevice({ sharedMemory }), { memory, host })
  ).driver.sharedMemory(0);
  assertEquals(region?.length, 0x1_8000_0000);
});
