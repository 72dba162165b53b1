import { VIRTIO_F_RING_RESET } from "@virtio/device";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { SavedMmio } from "./mmio/mod.ts";
import * as mmio from "./mmio/mod.ts";
import type { SavedPci } from "./pci/mod.ts";
import * as pci from "./pci/mod.ts";
import { MmioBench, MSIX_BAR, PciBench } from "./testing/bench.ts";

const OPTIONS = { features: VIRTIO_F_RING_RESET, msix: 3 } as const;

/** A PCI device in the middle of its life: a message pending, a request in its queue. */
async function runningPci(): Promise<{ bench: PciBench; saved: SavedPci }> {
  const bench = new PciBench(OPTIONS);
  bench.transport.configWrite(pci.PCI_BASE_ADDRESS_0 + 8, 4, 0xe000_0000);
  bench.transport.configWrite(pci.PCI_INTERRUPT_LINE, 1, 11);
  bench.setMsix(pci.PCI_MSIX_FLAGS_ENABLE);
  bench.setVector(1, 0x41, true);
  bench.setVector(2, 0x42);
  bench.setCommon(pci.CommonCfg.configMsixVector, 2, 0);
  for (const queue of [0, 1]) {
    bench.select(queue);
    bench.setCommon(pci.CommonCfg.queueMsixVector, 2, queue + 1);
  }
  bench.start();
  bench.send(0, 3);
  bench.setCommon(pci.CommonCfg.deviceFeatureSelect, 4, 1);
  bench.setCommon(pci.CommonCfg.driverFeatureSelect, 4, 2);
  bench.select(1);
  bench.device.config.update((view) => view.setUint8(0, 1));
  bench.add(1, 4);
  const saved = await bench.transport.save();
  return { bench, saved };
}

Deno.test("PCI: a device goes on from its saved state, as clone-able plain data", async () => {
  const { bench, saved } = await runningPci();
  const other = new PciBench(OPTIONS);
  other.memory.write(0, bench.memory.regions[0]!.bytes);
  other.transport.restore(structuredClone(saved));
  other.transport.state.unpause();
  assertEquals(other.status, bench.status);
  assertEquals(other.transport.barAddress(2), 0xe000_0000);
  assertEquals(other.transport.configRead(pci.PCI_INTERRUPT_LINE, 1), 11);
  assertEquals(other.common(pci.CommonCfg.queueSelect, 2), 1);
  assertEquals(other.common(pci.CommonCfg.deviceFeatureSelect, 4), 1);
  assertEquals(other.common(pci.CommonCfg.driverFeatureSelect, 4), 2);
  assertEquals(other.common(pci.CommonCfg.queueMsixVector, 2), 2);
  // The driver has to look at the configuration again, since it is another device's.
  assert(other.common(pci.CommonCfg.configGeneration, 1) !== bench.common(0x15, 1));
  // The request that was there is found without a kick; the pending message waits for its vector.
  assertEquals(other.device.handled, [0, 1]);
  assertEquals(other.takeMessages(), [0x42]);
  other.setVector(1, 0x51);
  assertEquals(other.takeMessages(), [0x51]);
  assertEquals(other.readIsr(), 2);
});

Deno.test("PCI: the saved device itself goes on too", async () => {
  const { bench } = await runningPci();
  assertEquals(bench.device.handled, [1, 0]);
  bench.transport.state.unpause();
  assertEquals(bench.device.handled, [1, 1]);
});

Deno.test("PCI: a level that was up is up again", async () => {
  const bench = new PciBench();
  bench.start();
  bench.send(0);
  const other = new PciBench();
  other.memory.write(0, bench.memory.regions[0]!.bytes);
  other.transport.restore(await bench.transport.save());
  assertEquals(other.levels, [true]);
  assertEquals(other.readIsr(), 1);
});

Deno.test("PCI: each field of a saved state is checked", async () => {
  const { bench, saved } = await runningPci();
  const hostile: [string, unknown][] = [
    ["version", 2],
    ["isr", 4],
    ["isr", -1],
    ["isr", "1"],
    ["configSpace", null],
    ["configSpace", saved.configSpace.slice(1)],
    ["configSpace", saved.configSpace.map(() => 256)],
    ["configSpace", saved.configSpace.map(() => NaN)],
    ["msix", null],
    ["msix", 7],
    ["msix", { ...saved.msix, table: [] }],
    ["msix", { ...saved.msix, table: saved.msix!.table.map(() => -1) }],
    ["msix", { ...saved.msix, pending: [2 ** 32] }],
    ["msix", { table: saved.msix!.table }],
    ["common", null],
    ["common", {}],
    ["common", { ...saved.common, queueSelect: 0x1_0000 }],
    ["common", { ...saved.common, deviceFeatureSelect: 1.5 }],
    ["common", { ...saved.common, driverFeatureSelect: 2 ** 32 }],
    ["common", { ...saved.common, generation: 256 }],
    ["common", { ...saved.common, configVector: 3 }],
    ["common", { ...saved.common, queueVectors: [0] }],
    ["common", { ...saved.common, queueVectors: [0, 3] }],
    ["device", null],
    ["device", { ...saved.device, status: -1 }],
    ["device", { ...saved.device, type: 2 }],
  ];
  for (const [field, value] of hostile) {
    const other = new PciBench(OPTIONS);
    other.memory.write(0, bench.memory.regions[0]!.bytes);
    const before = await new PciBench(OPTIONS).transport.save();
    const error = assertThrows(() => other.transport.restore({ ...saved, [field]: value }));
    assert(error instanceof TypeError || error instanceof RangeError, `${field}: ${error}`);
    // Nothing of it was taken: the transport is as fresh as before.
    const after = await other.transport.save();
    assertEquals({ ...after, configSpace: [] }, { ...before, configSpace: [] });
    other.transport.restore(saved);
    assertEquals(other.status, bench.status);
  }
  // deno-lint-ignore no-explicit-any
  for (const value of [null, undefined, 1] as any[]) {
    assertThrows(() => new PciBench(OPTIONS).transport.restore(value), TypeError);
  }
  assertThrows(() => new PciBench({ msix: false }).transport.restore(saved), TypeError, "MSI-X");
  assertThrows(() => new PciBench({ msix: 2 }).transport.restore(saved), RangeError);
});

Deno.test("PCI: bits that a driver could not have set are dropped from a saved state", async () => {
  const { saved } = await runningPci();
  const other = new PciBench(OPTIONS);
  const configSpace = saved.configSpace.map((byte, i) => i < 0x40 ? 0xff : byte);
  const pending = [0xffff_ffff];
  const msix = { table: saved.msix!.table.map(() => 0xffff_ffff), pending };
  other.transport.restore({
    ...saved,
    configSpace,
    msix,
    device: (await new PciBench(OPTIONS).transport.save()).device,
  });
  assertEquals(other.transport.configRead(0, 4), 0x1044_1af4);
  assertEquals(other.transport.configRead(pci.PCI_COMMAND, 2), 0x406);
  // Pending bits of vectors that do not exist are never sent.
  for (let vector = 0; vector < 3; vector++) other.setVector(vector, vector);
  other.setMsix(pci.PCI_MSIX_FLAGS_ENABLE);
  assertEquals(other.takeMessages(), [0, 1, 2]);
  assertEquals(other.transport.barRead(MSIX_BAR, 48, 4), 0);
});

Deno.test("MMIO: a device goes on from its saved state", async () => {
  const bench = new MmioBench({ features: VIRTIO_F_RING_RESET });
  bench.start();
  bench.send(0, 1);
  bench.write(mmio.VIRTIO_MMIO_QUEUE_SEL, 1);
  bench.write(mmio.VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
  bench.add(1, 2);
  const saved = await bench.transport.save();
  const other = new MmioBench({ features: VIRTIO_F_RING_RESET });
  other.memory.write(0, bench.memory.regions[0]!.bytes);
  other.transport.restore(structuredClone(saved));
  assertEquals(other.levels, [true]);
  other.transport.state.unpause();
  assertEquals(other.device.handled, [0, 1]);
  assertEquals(other.read(mmio.VIRTIO_MMIO_QUEUE_READY), 1);
  assertEquals(other.read(mmio.VIRTIO_MMIO_DEVICE_FEATURES), 0x101);
  assertEquals(other.read(mmio.VIRTIO_MMIO_INTERRUPT_STATUS), 1);
});

Deno.test("MMIO: each field of a saved state is checked", async () => {
  const saved = await new MmioBench().transport.save();
  const hostile: Partial<Record<keyof SavedMmio, unknown>>[] = [
    { version: 0 },
    { interruptStatus: 4 },
    { interruptStatus: undefined },
    { queueSelect: -1 },
    { queueSelect: 2 ** 32 },
    { deviceFeaturesSelect: "0" },
    { driverFeaturesSelect: NaN },
    { sharedMemorySelect: 0.5 },
    { device: {} },
  ];
  for (const change of hostile) {
    const other = new MmioBench();
    const error = assertThrows(() =>
      other.transport.restore({ ...saved, ...change } as unknown as SavedMmio)
    );
    assert(error instanceof TypeError || error instanceof RangeError, JSON.stringify(change));
    assertEquals(await other.transport.save(), saved);
  }
});
