/**
 * Virtio 1.4, 4.1: what the device half of PCI has to do, but for the common configuration and interrupts. What the function
 * is made of, its configuration space and its BARs, is so before a device runs anywhere: in process only.
 */
import { VIRTIO_F_NOTIFICATION_DATA } from "@virtio/device";
import * as pci from "@virtio/transport/pci";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MEMORY, PciBench } from "../../packages/transport/testing/bench.ts";
import { PlacedPci } from "./placed_bench.ts";
import { everywhere } from "./places.ts";

const LAYOUTS: pci.PciLayout[] = ["memory", "io", "memory+io-notify"];
const VNDR = pci.PCI_CAP_ID_VNDR;

function benches(): PciBench[] {
  return LAYOUTS.map((layout) => new PciBench({ layout }));
}

function cap(bench: PciBench, at: number) {
  const { transport } = bench;
  return {
    len: transport.configRead(at + 2, 1),
    type: transport.configRead(at + 3, 1),
    bar: transport.configRead(at + 4, 1),
    id: transport.configRead(at + 5, 1),
    offset: transport.configRead(at + 8, 4),
    length: transport.configRead(at + 12, 4),
  };
}

Deno.test("4.1.1-D1 the function has the interface that PCI asks for", () => {
  for (const bench of benches()) {
    const { transport } = bench;
    // Header type 0, one function; a capability list; INTA#.
    assertEquals(transport.configRead(0x0e, 1), 0);
    assertEquals(transport.configRead(pci.PCI_STATUS, 2) & pci.PCI_STATUS_CAP_LIST, 0x10);
    assertEquals(transport.configRead(pci.PCI_INTERRUPT_PIN, 1), 1);
    transport.configWrite(pci.PCI_INTERRUPT_LINE, 1, 10);
    assertEquals(transport.configRead(pci.PCI_INTERRUPT_LINE, 1), 10);
    // Each BAR tells a power of two that matches, is aligned to it, and decodes only when it is switched on.
    transport.bars.forEach((bar, index) => {
      const at = pci.PCI_BASE_ADDRESS_0 + 4 * index;
      if (bar === null) return;
      const flags = transport.configRead(at, 4) & (bar.kind === "io" ? 3 : 15);
      assertEquals(flags & 1, bar.kind === "io" ? 1 : 0);
      assertEquals(flags & 6, bar.is64 ? 4 : 0);
      transport.configWrite(at, 4, 0xffff_ffff);
      const mask = transport.configRead(at, 4) & ~flags;
      assertEquals(-mask >>> 0, bar.size);
      if (bar.kind === "io") assert(bar.size <= 256);
      transport.configWrite(at, 4, 0x1000_0000);
      assertEquals(transport.barAddress(index), 0x1000_0000);
      transport.configWrite(pci.PCI_COMMAND, 2, 0);
      assertEquals(transport.barAddress(index), null);
      transport.configWrite(pci.PCI_COMMAND, 2, 7);
    });
    // The list: word-aligned, behind the header, with an end.
    let at = transport.configRead(pci.PCI_CAPABILITY_LIST, 1);
    for (let i = 0; at !== 0; i++) {
      assert(at >= 0x40 && at % 4 === 0 && i < 48);
      at = transport.configRead(at + 1, 1);
    }
  }
});

Deno.test("4.1.2.1-D1 the PCI Vendor ID is 0x1AF4", () => {
  for (const { transport } of benches()) assertEquals(transport.configRead(0, 2), 0x1af4);
});

Deno.test("4.1.2.1-D2 4.1.2.1-D4 the PCI Device ID is 0x1040 and the device type, in 0x1040 to 0x107f", () => {
  for (const type of [1, 2, 3, 4, 0x3f]) {
    const id = new PciBench({ type }).transport.configRead(pci.PCI_DEVICE_ID, 2);
    assertEquals(id, 0x1040 + type);
    assert(id >= 0x1040 && id <= 0x107f);
  }
  assertThrows(() => new PciBench({ type: 0x40 }), RangeError);
});

Deno.test("4.1.2.1-D3 the subsystem IDs can be the environment's", () => {
  const { transport } = new PciBench({ subsystemVendorId: 0x1028, subsystemId: 0x1234 });
  assertEquals(transport.configRead(pci.PCI_SUBSYSTEM_VENDOR_ID, 2), 0x1028);
  assertEquals(transport.configRead(pci.PCI_SUBSYSTEM_ID, 2), 0x1234);
});

Deno.test("4.1.2.1-D5 the Revision ID is at least 1", () => {
  for (const { transport } of benches()) {
    assert(transport.configRead(pci.PCI_REVISION_ID, 1) >= 1);
  }
});

Deno.test("4.1.2.1-D6 the Subsystem Device ID is at least 0x40", () => {
  for (const { transport } of benches()) {
    assert(transport.configRead(pci.PCI_SUBSYSTEM_ID, 2) >= 0x40);
  }
  assertThrows(() => new PciBench({ subsystemId: 2 }), RangeError, "subsystemId");
});

Deno.test("4.1.4.2-D1 cap_len covers the extra data", () => {
  const bench = new PciBench({
    layout: "memory+io-notify",
    sharedMemory: [{ id: 1, bytes: new Uint8Array(16), address: 0 }],
    vendorData: [{ vendorId: 1, bytes: new Uint8Array(7) }],
  });
  const lengths = bench.findCaps(VNDR).map((at) => [cap(bench, at).type, cap(bench, at).len]);
  assertEquals(lengths, [[1, 16], [3, 16], [4, 16], [2, 20], [2, 20], [5, 20], [8, 24], [9, 16]]);
});

Deno.test("4.1.4.2-D2 structures may be longer than the fields in them", () => {
  // The notification structure has room for 32-bit kicks also where only 16-bit ones were offered.
  const bench = new PciBench({ queueSizes: [8] });
  const { length } = cap(bench, bench.findCap(VNDR, pci.VIRTIO_PCI_CAP_NOTIFY_CFG));
  assert(length > 2);
});

Deno.test("4.1.4.2-D3 the notification structure in I/O space comes before the one in memory", () => {
  const bench = new PciBench({ layout: "memory+io-notify" });
  const bars = bench.findCaps(VNDR, pci.VIRTIO_PCI_CAP_NOTIFY_CFG)
    .map((at) => bench.transport.bars[cap(bench, at).bar]!.kind);
  assertEquals(bars, ["io", "memory"]);
});

Deno.test("4.1.4.3.1-D1 4.1.4.6.1-D1 common and device-specific configuration are 4-byte aligned", () => {
  for (const layout of LAYOUTS) {
    for (const notifyOffMultiplier of [0, 2, 4]) {
      for (const queueSizes of [[8], [8, 8], [8, 8, 8]]) {
        const bench = new PciBench({ layout, notifyOffMultiplier, queueSizes });
        for (const type of [pci.VIRTIO_PCI_CAP_COMMON_CFG, pci.VIRTIO_PCI_CAP_DEVICE_CFG]) {
          const found = bench.findCaps(VNDR, type);
          assert(found.length > 0);
          for (const at of found) assertEquals(cap(bench, at).offset % 4, 0);
        }
      }
    }
  }
});

Deno.test("4.1.4.3.1-D2 4.1.4.4.1-D1 4.1.4.5.1-D1 4.1.4.9.1-D1 one capability at least of each type", () => {
  for (const bench of benches()) {
    for (const type of [1, 2, 3, 5]) assert(bench.findCaps(VNDR, type).length >= 1);
  }
});

Deno.test("4.1.4.4.1-D2 4.1.4.4.1-D3 4.1.4.4.1-D4 4.1.4.4.1-D5 notification structure without NOTIFICATION_DATA", () => {
  for (const layout of LAYOUTS) {
    for (const notifyOffMultiplier of [0, 2, 4, 16]) {
      const queueSizes = [8, 8, 8];
      const bench = new PciBench({ layout, notifyOffMultiplier, queueSizes });
      for (const at of bench.findCaps(VNDR, pci.VIRTIO_PCI_CAP_NOTIFY_CFG)) {
        const { offset, length } = cap(bench, at);
        const multiplier = bench.transport.configRead(at + 16, 4);
        assertEquals(offset % 2, 0);
        assert(multiplier === 0 || (multiplier >= 2 && (multiplier & (multiplier - 1)) === 0));
        assert(length >= 2);
        for (let queue = 0; queue < 3; queue++) {
          bench.select(queue);
          const off = bench.common(pci.CommonCfg.queueNotifyOff, 2);
          assert(length >= off * multiplier + 2);
        }
      }
    }
  }
  for (const notifyOffMultiplier of [1, 3, 6]) {
    assertThrows(() => new PciBench({ notifyOffMultiplier }), RangeError, "notifyOffMultiplier");
  }
});

Deno.test("4.1.4.4.1-D6 4.1.4.4.1-D7 4.1.4.4.1-D8 4.1.4.4.1-D9 notification structure with NOTIFICATION_DATA", () => {
  const features = VIRTIO_F_NOTIFICATION_DATA;
  for (const layout of LAYOUTS) {
    for (const notifyOffMultiplier of [0, 4, 8, 32]) {
      const queueSizes = [8, 8, 8];
      const bench = new PciBench({ features, layout, notifyOffMultiplier, queueSizes });
      for (const at of bench.findCaps(VNDR, pci.VIRTIO_PCI_CAP_NOTIFY_CFG)) {
        const { offset, length } = cap(bench, at);
        const multiplier = bench.transport.configRead(at + 16, 4);
        assertEquals([offset % 4, multiplier % 4, multiplier & (multiplier - 1)], [0, 0, 0]);
        assert(length >= 4);
        for (let queue = 0; queue < 3; queue++) {
          bench.select(queue);
          const off = bench.common(pci.CommonCfg.queueNotifyOff, 2);
          assert(length >= off * multiplier + 4);
        }
      }
    }
  }
  for (const notifyOffMultiplier of [1, 2, 3, 6, 12]) {
    assertThrows(() => new PciBench({ features, notifyOffMultiplier }), RangeError, "4.1.4.4.1");
  }
});

everywhere(
  "4.1.4.5.1-D2 the configuration bit of ISR is set before the notification is sent",
  async (place) => {
    for (const messages of [false, true]) {
      const bench = await PlacedPci.open(place);
      const seen: number[] = [];
      if (messages) {
        bench.setMsix(pci.PCI_MSIX_FLAGS_ENABLE);
        bench.setVector(0, 1);
        bench.setCommon(pci.CommonCfg.configMsixVector, 2, 0);
        bench.messages.push = () => seen.push(bench.readIsr());
      } else {
        bench.levels.push = (level) => level ? seen.push(bench.readIsr()) : 0;
      }
      bench.start();
      bench.echo.change();
      assertEquals(seen, [pci.VIRTIO_PCI_ISR_CONFIG]);
    }
  },
);

everywhere(
  "4.1.4.5.1-D3 without MSI-X the queue bit of ISR is set before the notification is sent",
  async (place) => {
    for (const msix of [false, 3] as const) {
      const bench = await PlacedPci.open(place, { msix });
      const seen: number[] = [];
      bench.levels.push = (level) => level ? seen.push(bench.readIsr()) : 0;
      bench.start();
      bench.send(1);
      assertEquals(seen, [pci.VIRTIO_PCI_ISR_QUEUE]);
    }
  },
);

everywhere(
  "4.1.4.5.1-D4 without MSI-X the Interrupt Status bit is the OR of the bits of ISR",
  async (place) => {
    const bench = await PlacedPci.open(place);
    const interrupt = () => (bench.pciStatus & pci.PCI_STATUS_INTERRUPT) !== 0;
    bench.start();
    for (const cause of [() => bench.send(0), () => bench.echo.change(), () => bench.send(1)]) {
      assertEquals(interrupt(), false);
      cause();
      assertEquals(interrupt(), true);
      // Masking INTx does not touch it.
      bench.transport.configWrite(pci.PCI_COMMAND, 2, 7 | pci.PCI_COMMAND_INTX_DISABLE);
      assertEquals([interrupt(), bench.line], [true, false]);
      bench.transport.configWrite(pci.PCI_COMMAND, 2, 7);
      assertEquals([interrupt(), bench.line], [true, true]);
      bench.readIsr();
    }
    assertEquals([interrupt(), bench.line], [false, false]);
  },
);

everywhere("4.1.4.5.1-D5 reading ISR resets it to 0", async (place) => {
  const bench = await PlacedPci.open(place);
  bench.start();
  bench.send(0);
  bench.echo.change();
  assertEquals([bench.readIsr(), bench.readIsr(), bench.line], [3, 0, false]);
});

Deno.test("4.1.4.7.1-D1 4.1.4.7.1-D2 shared memory lies within its BAR, under an id of its own", () => {
  const sharedMemory = [
    { id: 0, bytes: new Uint8Array(0x1800), address: 0 },
    { id: 200, bytes: new Uint8Array(0x5000), address: 0 },
    // Only its length is looked at.
    { id: 3, bytes: { length: 0x2_0000_0001 } as unknown as Uint8Array, address: 0 },
  ];
  const bench = new PciBench({ sharedMemory });
  const found = bench.findCaps(VNDR, pci.VIRTIO_PCI_CAP_SHARED_MEMORY_CFG);
  assertEquals(found.length, 3);
  let end = 0;
  const ids = new Set<number>();
  for (const [i, at] of found.entries()) {
    const { bar, id, offset, length } = cap(bench, at);
    const start = offset + bench.transport.configRead(at + 16, 4) * 2 ** 32;
    const size = length + bench.transport.configRead(at + 20, 4) * 2 ** 32;
    assertEquals(size, sharedMemory[i]!.bytes.length);
    assert(start >= end && start + size <= bench.transport.bars[bar]!.size);
    end = start + size;
    ids.add(id);
  }
  assertEquals(ids.size, 3);
  const twice = [sharedMemory[0]!, sharedMemory[0]!];
  assertThrows(() => new PciBench({ sharedMemory: twice }), RangeError, "shmid");
});

Deno.test("4.1.4.8.1-D1 vendor data cannot have the vendor ID 0x1AF4", () => {
  const vendorData = [{ vendorId: 0x1af4, bytes: new Uint8Array(2) }];
  assertThrows(() => new PciBench({ vendorData }), RangeError, "4.1.4.8.1");
  const bench = new PciBench({ vendorData: [{ vendorId: 0x1af5, bytes: new Uint8Array(2) }] });
  const at = bench.findCap(VNDR, pci.VIRTIO_PCI_CAP_VENDOR_CFG);
  assertEquals(bench.transport.configRead(at + 4, 2), 0x1af5);
});

Deno.test("4.1.4.8.1-D2 the size of vendor data is a multiple of 4 bytes", () => {
  for (let length = 0; length < 9; length++) {
    const bench = new PciBench({ vendorData: [{ vendorId: 1, bytes: new Uint8Array(length) }] });
    const { len } = cap(bench, bench.findCap(VNDR, pci.VIRTIO_PCI_CAP_VENDOR_CFG));
    assert(len % 4 === 0 && len >= 6 + length);
  }
});

everywhere("4.1.4.8.1-D3 reading vendor data has no side effects", async (place) => {
  const bench = await PlacedPci.open(place, {
    vendorData: [{ vendorId: 1, bytes: new Uint8Array([1, 2, 3]) }],
  });
  bench.start();
  bench.send(0);
  const at = bench.findCap(VNDR, pci.VIRTIO_PCI_CAP_VENDOR_CFG);
  const state = () => [
    ...Array.from({ length: 64 }, (_, i) => bench.transport.configRead(4 * i, 4)),
    ...Array.from({ length: 16 }, (_, i) => bench.common(4 * i, 4)),
    bench.levels.length,
  ];
  const before = state();
  for (const size of [1, 2, 4] as const) {
    for (let i = 0; i < 12; i += size) bench.transport.configRead(at + i, size);
  }
  assertEquals(state(), before);
  assertEquals(bench.readIsr(), 1);
});

Deno.test("4.1.4.9.1-D2 a write to pci_cfg_data is a write of cap.length bytes in the BAR", () => {
  const bench = new PciBench();
  const at = bench.findCap(VNDR, pci.VIRTIO_PCI_CAP_PCI_CFG);
  const write = (offset: number, length: number, value: number) => {
    bench.transport.configWrite(at + 4, 1, MEMORY.bar);
    bench.transport.configWrite(at + 12, 4, length);
    bench.transport.configWrite(at + 8, 4, offset);
    bench.transport.configWrite(at + 16, 4, value);
  };
  write(pci.CommonCfg.deviceFeatureSelect, 4, 0x1234_5678);
  assertEquals(bench.common(pci.CommonCfg.deviceFeatureSelect, 4), 0x1234_5678);
  write(pci.CommonCfg.queueSelect, 2, 0xffff_0001);
  assertEquals(bench.common(pci.CommonCfg.queueSelect, 2), 1);
  write(pci.CommonCfg.deviceStatus, 1, 0xffff_ff03);
  assertEquals(bench.status, 3);
});

everywhere(
  "4.1.4.9.1-D3 a read of pci_cfg_data is a read of cap.length bytes in the BAR, stored there",
  async (place) => {
    const bench = await PlacedPci.open(place);
    bench.setCommon(pci.CommonCfg.deviceFeatureSelect, 4, 0xa1b2_c3d4);
    const at = bench.findCap(VNDR, pci.VIRTIO_PCI_CAP_PCI_CFG);
    bench.transport.configWrite(at + 4, 1, MEMORY.bar);
    bench.transport.configWrite(at + 8, 4, 0);
    for (const [length, value] of [[4, 0xa1b2_c3d4], [2, 0xc3d4], [1, 0xd4]] as const) {
      bench.transport.configWrite(at + 12, 4, length);
      assertEquals(bench.transport.configRead(at + 16, length), value);
    }
    // One read of the window is one of the register: ISR is 0 afterwards.
    bench.start();
    bench.send(0);
    bench.transport.configWrite(at + 8, 4, MEMORY.isr);
    assertEquals(bench.transport.configRead(at + 16, 1), 1);
    assertEquals(bench.readIsr(), 0);
  },
);
