import { assert, assertEquals, assertThrows } from "@std/assert";
import { IO, MEMORY, PciBench } from "../testing/bench.ts";
import * as reg from "./mod.ts";

const BAR0 = reg.PCI_BASE_ADDRESS_0;

function bar(bench: PciBench, index: number): number {
  return bench.transport.configRead(BAR0 + 4 * index, 4);
}

function setBar(bench: PciBench, index: number, value: number): void {
  bench.transport.configWrite(BAR0 + 4 * index, 4, value);
}

Deno.test("PCI: the header identifies a modern virtio device", () => {
  const { transport } = new PciBench({ type: 2 });
  assertEquals(transport.configRead(0x00, 4), 0x1042_1af4);
  assertEquals(transport.configRead(reg.PCI_REVISION_ID, 1), 1);
  assertEquals(transport.configRead(0x08, 4), 0x0180_0001);
  assertEquals(transport.configRead(0x0e, 1), 0);
  assertEquals(transport.configRead(reg.PCI_SUBSYSTEM_VENDOR_ID, 2), 0x1af4);
  assertEquals(transport.configRead(reg.PCI_SUBSYSTEM_ID, 2), 0x1042);
  assertEquals(transport.configRead(reg.PCI_INTERRUPT_PIN, 1), 1);
  assertEquals(transport.configRead(reg.PCI_STATUS, 2), 0x10);
  const own = new PciBench({ subsystemVendorId: 0x1234, subsystemId: 0x40, classCode: 0xabcdef });
  assertEquals(own.transport.configRead(reg.PCI_SUBSYSTEM_VENDOR_ID, 4), 0x0040_1234);
  assertEquals(own.transport.configRead(0x08, 4), 0xabcd_ef01);
  assertEquals(new PciBench({ type: 1 }).transport.configRead(0x08, 4), 0x0200_0001);
});

Deno.test("PCI: identifiers out of range are refused", () => {
  assertThrows(() => new PciBench({ subsystemId: 0x3f }), RangeError, "subsystemId");
  assertThrows(() => new PciBench({ subsystemVendorId: 0x1_0000 }), RangeError);
  assertThrows(() => new PciBench({ classCode: 1.5 }), RangeError, "classCode");
  assertThrows(() => new PciBench({ type: 0x40 }), RangeError, "device type");
});

Deno.test("PCI: read-only registers keep their values, whatever the width of a write", () => {
  const { transport } = new PciBench();
  const before = Array.from({ length: 256 }, (_, i) => transport.configRead(i, 1));
  const writable = new Set([0x04, 0x05, reg.PCI_INTERRUPT_LINE]);
  for (let i = 0x10; i < 0x28; i++) writable.add(i);
  const bench = new PciBench();
  const window = bench.findCap(reg.PCI_CAP_ID_VNDR, reg.VIRTIO_PCI_CAP_PCI_CFG);
  for (const i of [4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) writable.add(window + i);
  writable.add(bench.findCap(reg.PCI_CAP_ID_MSIX) + 3);
  for (const size of [1, 2, 4] as const) {
    for (let i = 0; i < 256; i += size) transport.configWrite(i, size, 0xffff_ffff);
  }
  for (let i = 0; i < 256; i++) {
    if (!writable.has(i)) assertEquals(transport.configRead(i, 1), before[i], i.toString(16));
  }
  assertEquals(transport.configRead(reg.PCI_COMMAND, 2), 0x406);
  assertEquals(transport.configRead(reg.PCI_INTERRUPT_LINE, 1), 0xff);
});

Deno.test("PCI: beyond configuration space nobody answers", () => {
  const { transport } = new PciBench();
  assertEquals(transport.configRead(256, 4), 0xffff_ffff);
  assertEquals(transport.configRead(254, 4), 0xffff_ffff);
  assertEquals(transport.configRead(0x1000, 2), 0xffff);
  assertEquals(transport.configRead(-1, 1), 0xff);
  transport.configWrite(256, 4, 1);
  transport.configWrite(-4, 4, 1);
});

Deno.test("PCI: BARs tell their size, kind and width, and move", () => {
  const bench = new PciBench();
  const { transport } = bench;
  assertEquals(transport.bars, [
    null,
    { kind: "memory", size: 0x2000, is64: false },
    { kind: "memory", size: 0x4000, is64: true },
    null,
    null,
    null,
  ]);
  assertEquals([0, 1, 2, 3, 4, 5].map((i) => transport.barAddress(i)), Array(6).fill(null));
  for (let i = 0; i < 6; i++) setBar(bench, i, 0xffff_ffff);
  assertEquals([0, 1, 2, 3, 4, 5].map((i) => bar(bench, i)), [
    0,
    0xffff_e000,
    0xffff_c004,
    0xffff_ffff,
    0,
    0,
  ]);
  // While it is being sized it decodes nothing.
  assertEquals(transport.barAddress(1), null);
  assertEquals(transport.barAddress(2), null);
  setBar(bench, 1, 0xe000_1234);
  setBar(bench, 2, 0x1000_0000);
  setBar(bench, 3, 0x12);
  assertEquals(bar(bench, 1), 0xe000_0000);
  assertEquals(bar(bench, 2), 0x1000_0004);
  assertEquals(transport.barAddress(1), 0xe000_0000);
  assertEquals(transport.barAddress(2), 0x12_1000_0000);
  transport.configWrite(reg.PCI_COMMAND, 2, 0);
  assertEquals(transport.barAddress(2), null);
  transport.configWrite(reg.PCI_COMMAND, 2, 2);
  setBar(bench, 3, 0);
  assertEquals(transport.barAddress(2), 0x1000_0000);
  // Half an address at a time.
  transport.configWrite(BAR0 + 4 + 2, 2, 0xd000);
  assertEquals(transport.barAddress(1), 0xd000_0000);
});

Deno.test("PCI: a 64-bit BAR whose lower half is being sized decodes nothing", () => {
  const bench = new PciBench();
  setBar(bench, 2, 0xffff_ffff);
  assertEquals(bench.transport.barAddress(2), null);
});

Deno.test("PCI: I/O BARs follow their own command bit", () => {
  const bench = new PciBench({ layout: "io" });
  const { transport } = bench;
  assertEquals(transport.bars[0], { kind: "io", size: 0x100, is64: false });
  assertEquals(transport.bars[MEMORY.bar], null);
  setBar(bench, 0, 0xffff_ffff);
  assertEquals(bar(bench, 0), 0xffff_ff01);
  assertEquals(transport.barAddress(0), null);
  setBar(bench, 0, 0xc123);
  assertEquals(bar(bench, 0), 0xc101);
  assertEquals(transport.barAddress(0), 0xc100);
  transport.configWrite(reg.PCI_COMMAND, 2, reg.PCI_COMMAND_MEMORY);
  assertEquals(transport.barAddress(0), null);
});

Deno.test("PCI: 32-bit memory BARs, and none for MSI-X where there is none", () => {
  const { transport } = new PciBench({ bars64: false, msix: false });
  assertEquals(transport.bars, [
    null,
    null,
    { kind: "memory", size: 0x4000, is64: false },
    null,
    null,
    null,
  ]);
});

Deno.test("PCI: BARs grow with queues and vectors", () => {
  const queueSizes = Array(1500).fill(8);
  const { transport } = new PciBench({ queueSizes, notifyOffMultiplier: 4096, msix: 2048 });
  assertEquals(transport.bars[2]!.size, 0x80_0000);
  assertEquals(transport.bars[1]!.size, 0x1_0000);
});

Deno.test("PCI: without an I/O BAR the I/O bit cannot be set, nor the memory bit without memory", () => {
  const memory = new PciBench();
  memory.transport.configWrite(reg.PCI_COMMAND, 2, 0xffff);
  assertEquals(memory.transport.configRead(reg.PCI_COMMAND, 2), 0x406);
  const io = new PciBench({ layout: "io", msix: false });
  io.transport.configWrite(reg.PCI_COMMAND, 2, 0xffff);
  assertEquals(io.transport.configRead(reg.PCI_COMMAND, 2), 0x405);
});

Deno.test("PCI: the capability list in each layout", () => {
  const types = (bench: PciBench) =>
    bench.findCaps(reg.PCI_CAP_ID_VNDR).map((at) => bench.transport.configRead(at + 3, 1));
  assertEquals(types(new PciBench()), [1, 3, 4, 2, 5]);
  assertEquals(types(new PciBench({ configSize: 0 })), [1, 3, 2, 5]);
  assertEquals(types(new PciBench({ layout: "io" })), [1, 3, 4, 2, 5]);
  const both = new PciBench({ layout: "memory+io-notify" });
  assertEquals(types(both), [1, 3, 4, 2, 2, 5]);
  // The cheaper way first.
  const bars = both.findCaps(reg.PCI_CAP_ID_VNDR, reg.VIRTIO_PCI_CAP_NOTIFY_CFG)
    .map((at) => both.transport.configRead(at + 4, 1));
  assertEquals(bars, [0, 2]);
  assertEquals(new PciBench({ msix: false }).findCap(reg.PCI_CAP_ID_MSIX), -1);
});

Deno.test("PCI: structure capabilities point to their structures", () => {
  for (const [layout, at] of [["memory", MEMORY], ["io", IO]] as const) {
    const bench = new PciBench({ layout });
    const places = [1, 3, 4, 2].map((type) => {
      const cap = bench.findCap(reg.PCI_CAP_ID_VNDR, type);
      return [
        bench.transport.configRead(cap + 2, 1),
        bench.transport.configRead(cap + 4, 1),
        bench.transport.configRead(cap + 8, 4),
        bench.transport.configRead(cap + 12, 4),
      ];
    });
    assertEquals(places, [
      [16, at.bar, at.common, 0x40],
      [16, at.bar, at.isr, 1],
      [16, at.bar, at.device, 16],
      [20, at.bar, at.notify, layout === "io" ? 4 : 8],
    ]);
  }
});

Deno.test("PCI: the MSI-X capability tells table and pending bits", () => {
  const bench = new PciBench({ msix: 300 });
  const cap = bench.findCap(reg.PCI_CAP_ID_MSIX);
  assertEquals(bench.transport.configRead(cap + 2, 2), 299);
  assertEquals(bench.transport.configRead(cap + 4, 4), 1);
  assertEquals(bench.transport.configRead(cap + 8, 4), 0x2001);
  bench.setMsix(0xffff);
  assertEquals(bench.transport.configRead(cap + 2, 2), 0xc000 | 299);
});

Deno.test("PCI: vendor data, padded to words, read-only", () => {
  const bench = new PciBench({
    vendorData: [
      { vendorId: 0x1234, bytes: new Uint8Array([1, 2, 3]) },
      { vendorId: 0x5678, bytes: new Uint8Array() },
    ],
  });
  const caps = bench.findCaps(reg.PCI_CAP_ID_VNDR, reg.VIRTIO_PCI_CAP_VENDOR_CFG);
  const sizes = caps.map((at) => bench.transport.configRead(at + 2, 1));
  assertEquals(sizes, [12, 8]);
  assertEquals(bench.transport.configRead(caps[0]! + 4, 4), 0x0201_1234);
  assertEquals(bench.transport.configRead(caps[0]! + 8, 4), 3);
  assertThrows(
    () => new PciBench({ vendorData: [{ vendorId: 0x1af4, bytes: new Uint8Array() }] }),
    RangeError,
    "4.1.4.8.1",
  );
  assertThrows(
    () => new PciBench({ vendorData: [{ vendorId: 0x1_0000, bytes: new Uint8Array() }] }),
    RangeError,
  );
  for (const size of [120, 300]) {
    const vendorData = [{ vendorId: 1, bytes: new Uint8Array(size) }];
    assertThrows(() => new PciBench({ vendorData }), RangeError);
  }
});

Deno.test("PCI: shared memory regions have a BAR and 64-bit capabilities", () => {
  const first = new Uint8Array(0x1001).fill(0x11);
  const second = new Uint8Array(16).fill(0x22);
  const bench = new PciBench({
    sharedMemory: [{ id: 7, bytes: first, address: 0 }, { id: 1, bytes: second, address: 0 }],
  });
  const { transport } = bench;
  assertEquals(transport.bars[4], { kind: "memory", size: 0x4000, is64: true });
  // 64 bits, prefetchable.
  assertEquals(bar(bench, 4) & 0xf, 0xc);
  const caps = bench.findCaps(reg.PCI_CAP_ID_VNDR, reg.VIRTIO_PCI_CAP_SHARED_MEMORY_CFG);
  const fields = caps.map((at) => [
    transport.configRead(at + 2, 1),
    transport.configRead(at + 4, 1),
    transport.configRead(at + 5, 1),
    ...[8, 12, 16, 20].map((field) => transport.configRead(at + field, 4)),
  ]);
  assertEquals(fields, [[24, 4, 7, 0, 0x1001, 0, 0], [24, 4, 1, 0x2000, 16, 0, 0]]);
  assertEquals(transport.barRead(4, 0x1000, 1), 0x11);
  assertEquals(transport.barRead(4, 0x1000, 4), 0x11);
  assertEquals(transport.barRead(4, 0x1004, 4), 0);
  transport.barWrite(4, 0x2004, 2, 0xabcd);
  transport.barWrite(4, 0x200e, 4, 0xffff_ffff);
  assertEquals([...second.subarray(3, 7)], [0x22, 0xcd, 0xab, 0x22]);
  assertEquals(transport.barRead(4, 0x200c, 4), 0xffff_2222);
  assertThrows(
    () =>
      new PciBench({
        sharedMemory: [{ id: 1, bytes: first, address: 0 }, { id: 1, bytes: second, address: 0 }],
      }),
    RangeError,
    "shmid",
  );
});

Deno.test("PCI: options out of range are refused", () => {
  for (const notifyOffMultiplier of [1, 3, 6, -4, 2.5, 0x2_0000]) {
    assertThrows(() => new PciBench({ notifyOffMultiplier }), RangeError, "notifyOffMultiplier");
  }
  for (const msix of [0, 2049, 1.5]) {
    assertThrows(() => new PciBench({ msix }), RangeError, "MSI-X");
  }
  // deno-lint-ignore no-explicit-any
  assertThrows(() => new PciBench({ layout: "ports" as any }), RangeError, "layout");
  assertThrows(() => new PciBench({ layout: "io", configSize: 200 }), RangeError, "I/O BAR");
  assertThrows(() => new PciBench({ notifyData: () => 1 }), RangeError, "notifyData");
  assertThrows(() => new PciBench({ notifyData: (i) => i + 0xffff }), RangeError, "notifyData");
});

Deno.test("PCI: a bus reset brings back the state of power-on", async () => {
  const bench = new PciBench();
  const { transport } = bench;
  const before = Array.from(
    { length: 64 },
    (_, i) => new PciBench().transport.configRead(4 * i, 4),
  );
  setBar(bench, 1, 0xe000_0000);
  transport.configWrite(reg.PCI_INTERRUPT_LINE, 1, 11);
  bench.setMsix(0x8000);
  bench.setVector(0, 0x41);
  bench.start();
  bench.send(0);
  await transport.reset();
  assertEquals(bench.status, 0);
  assertEquals(transport.barRead(1, 12, 4), 1);
  assertEquals(transport.barRead(1, 8, 4), 0);
  before[1] = 0x0010_0000;
  assertEquals(Array.from({ length: 64 }, (_, i) => transport.configRead(4 * i, 4)), before);
  assert(!bench.line);
});
