/** Virtio 1.4, 4.1: what the driver half of PCI has to do, seen from what it does to a device. */
import { CORE_FEATURES, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { DriverSession } from "@virtio/device/driver";
import * as pci from "@virtio/transport/pci";
import {
  deviceTypeOf,
  PciConfigWindow,
  PciDriverTransport,
  ProbeError,
} from "@virtio/transport/pci/driver";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MEMORY, PciBench } from "../../packages/transport/testing/bench.ts";
import { type Access, FakePci, RecordingPci } from "../../packages/transport/testing/fake_pci.ts";
import { type LifeOptions, recordPci } from "../../packages/transport/testing/recorded_life.ts";

import { accept, common, config, field, LIVES, lives, writesTo } from "./pci_driver_bench.ts";

/** Width of each field of the common configuration; 64-bit ones as two halves. */
const WIDTHS = new Map<number, number>([
  ...[0x00, 0x04, 0x08, 0x0c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((at) => [at, 4] as const),
  ...[0x10, 0x12, 0x16, 0x18, 0x1a, 0x1c, 0x1e, 0x38, 0x3a, 0x3c, 0x3e].map((at) =>
    [at, 2] as const
  ),
  [0x14, 1],
  [0x15, 1],
]);

Deno.test("4.1.2.2-G1 the driver matches 0x1AF4 with 0x1041 to 0x107f", () => {
  for (let id = 0x1041; id <= 0x107f; id++) assertEquals(deviceTypeOf(0x1af4, id), id - 0x1040);
  for (const [vendor, id] of [[0x1af5, 0x1042], [0x1af4, 0x1080], [0x1af4, 0x0fff]] as const) {
    assertEquals(deviceTypeOf(vendor, id), null);
    assertThrows(() => PciDriverTransport.probe(new FakePci(vendor, id).usual()), ProbeError);
  }
});

Deno.test("4.1.2.2-G2 the driver matches Transitional PCI Device IDs", () => {
  const types = { 0x1000: 1, 0x1001: 2, 0x1002: 5, 0x1003: 3, 0x1004: 8, 0x1005: 4, 0x1009: 9 };
  for (const [id, type] of Object.entries(types)) {
    const driver = PciDriverTransport.probe(new FakePci(0x1af4, Number(id)).usual());
    assertEquals(driver.deviceType, type);
  }
});

Deno.test("4.1.2.2-G3 4.1.2.2-G4 the driver matches any revision and subsystem", () => {
  for (const value of [0, 1, 2, 0x7f, 0xff]) {
    const device = new FakePci().usual();
    device.bytes[pci.PCI_REVISION_ID] = value;
    device.bytes.fill(value, pci.PCI_SUBSYSTEM_VENDOR_ID, pci.PCI_SUBSYSTEM_VENDOR_ID + 4);
    assertEquals(PciDriverTransport.probe(device).deviceType, 4);
  }
});

Deno.test("4.1.3.1-G1 the driver accesses each field in its own width, aligned", async () => {
  for (const { log } of await lives()) {
    for (const { bar, offset, size } of log) {
      if (bar !== MEMORY.bar) continue;
      assertEquals(offset % size, 0);
      if (offset < 0x1000) assertEquals(size, WIDTHS.get(offset), `offset ${offset}`);
      else if (offset < MEMORY.device) assertEquals(size, 1);
    }
    // The device-specific configuration in the widths that the caller has for its fields.
    const widths = log.filter(({ bar, offset }) =>
      bar === MEMORY.bar && offset >= MEMORY.device && offset < MEMORY.notify
    ).map(({ offset, size }) => `${offset - MEMORY.device}:${size}`);
    assertEquals([...new Set(widths)].sort(), widths.length === 0 ? [] : ["0:1", "4:4", "8:2"]);
  }
});

Deno.test("4.1.3.1-G2 the driver writes 64-bit addresses in halves", () => {
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport);
  accept(driver);
  driver.enableQueue(0, {
    size: 8,
    descriptorArea: 0x12_3456_7890,
    driverArea: 0x2_0000_0002,
    deviceArea: 4,
  });
  const halves = [0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((at) => bench.common(at, 4));
  assertEquals(halves, [0x3456_7890, 0x12, 2, 2, 4, 0]);
});

Deno.test("4.1.4.1-G1 structures of a reserved cfg_type are ignored", () => {
  for (const type of [0, 6, 7, 10, 0xff]) {
    const device = new FakePci();
    device.structure(type, 4, 0x800, 0x40);
    device.usual();
    const driver = PciDriverTransport.probe(device);
    assertEquals(driver.structures.common.offset, 0);
    assertEquals([driver.structures.device, driver.structures.sharedMemory], [null, []]);
  }
});

Deno.test("4.1.4.1-G2 the first instance of each structure is used", () => {
  const device = new FakePci();
  for (const offset of [0x100, 0x200]) {
    device.structure(1, 4, offset, 0x40);
    device.structure(2, 4, offset, 0x40, [offset]);
    device.structure(3, 4, offset, 1);
  }
  const { common, notify, isr } = PciDriverTransport.probe(device).structures;
  assertEquals([common.offset, notify.offset, isr.offset], [0x100, 0x100, 0x100]);
  assertEquals(notify.multiplier, 0x100);
});

Deno.test("4.1.4.1-G3 a larger cap_len is accepted", () => {
  const device = new FakePci();
  device.structure(1, 4, 0, 0x40, [], 20);
  device.bytes[0x40 + 2] = 40;
  const first = device.structure(3, 4, 0x1000, 1, [0, 0]);
  assertEquals(device.bytes[first + 2], 24);
  device.structure(2, 4, 0x3000, 4, [8, 0, 0]);
  const { isr, notify } = PciDriverTransport.probe(device).structures;
  assertEquals([isr.offset, notify.multiplier], [0x1000, 8]);
});

Deno.test("4.1.4.1-G4 structures in a reserved BAR are ignored", () => {
  for (const bar of [6, 7, 0x80, 0xff]) {
    const device = new FakePci();
    for (const type of [1, 2, 3, 4, 8]) device.structure(type, bar, 0, 0x40, [0, 0]);
    assertThrows(() => PciDriverTransport.probe(device), ProbeError);
  }
  const device = new FakePci();
  device.structure(1, 6, 0x700, 0x40);
  device.usual();
  assertEquals(PciDriverTransport.probe(device).structures.common.bar, 4);
});

Deno.test("4.1.4.1-G5 4.1.4.1-G6 an unexpectedly large length is handled, and no more accessed than needed", () => {
  const bench = new PciBench();
  const device = new RecordingPci(bench.transport);
  const caps = [1, 2, 3, 4].map((type) => bench.findCap(pci.PCI_CAP_ID_VNDR, type));
  device.onRead = ({ bar, offset, value }) =>
    bar === null && caps.some((at) => offset === at + pci.PciCap.length) ? 0xffff_ffff : value;
  const driver = PciDriverTransport.probe(device);
  assertEquals(driver.structures.common.length, 0xffff_ffff);
  accept(driver);
  driver.enableQueue(0, config(0));
  driver.kick(0, 0);
  driver.handleInterrupt();
  const outside = device.log.filter(({ bar, offset }) =>
    bar === MEMORY.bar &&
    !(offset < field.size || offset === MEMORY.isr || offset === MEMORY.notify)
  );
  assertEquals(outside, []);
  // And one that is too short for operation is not used.
  const short = new FakePci();
  short.structure(1, 4, 0, field.minSize - 1);
  short.usual();
  assertEquals(PciDriverTransport.probe(short).structures.common.length, 0x40);
});

Deno.test("4.1.4.1-G7 the driver writes into no capability but PCI configuration access", async () => {
  for (const { log, pci: transport } of await lives()) {
    const ranges: [number, number][] = [];
    let at = transport.configRead(pci.PCI_CAPABILITY_LIST, 1);
    while (at !== 0) {
      const structure = transport.configRead(at, 1) === pci.PCI_CAP_ID_VNDR;
      const type = transport.configRead(at + 3, 1);
      if (structure && type !== pci.VIRTIO_PCI_CAP_PCI_CFG) {
        ranges.push([at, at + transport.configRead(at + 2, 1)]);
      }
      at = transport.configRead(at + 1, 1);
    }
    assert(ranges.length >= 4);
    const writes = log.filter(({ write, bar, offset, size }) =>
      write && bar === null && ranges.some(([from, to]) => offset < to && offset + size > from)
    );
    assertEquals(writes, []);
  }
});

Deno.test("4.1.4.3.2-G1 the driver writes to no read-only field", async () => {
  for (const { log } of await lives()) {
    assert(common(log).length > 50 || log.length > 50);
    const readOnly = [
      field.deviceFeature,
      field.numQueues,
      field.configGeneration,
      field.queueNotifyOff,
      field.queueNotifConfigData,
    ];
    for (const at of readOnly) assertEquals(writesTo(log, at), []);
  }
});

Deno.test("4.1.4.3.2-G2 with packed rings the driver does not write 0 to queue_size", async () => {
  const { log } = await recordPci({ queueSizes: [24, 24] });
  const sizes = writesTo(log, field.queueSize);
  assert(sizes.length > 0 && sizes.every((size) => size > 0));
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport);
  accept(driver, VIRTIO_F_RING_PACKED);
  assertThrows(() => driver.enableQueue(0, config(0, 0)), RangeError);
  assertEquals(bench.transport.state.queues[0]!.size, 16);
});

Deno.test("4.1.4.3.2-G3 with split rings the driver writes powers of 2 to queue_size", async () => {
  const core = CORE_FEATURES & ~VIRTIO_F_RING_PACKED;
  const { log } = await recordPci({ queueSizes: [24, 24], core });
  const sizes = writesTo(log, field.queueSize);
  assert(sizes.length > 0 && sizes.every((size) => size > 0 && (size & (size - 1)) === 0));
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport);
  accept(driver);
  for (const size of [0, 3, 5, 12]) {
    assertThrows(() => driver.enableQueue(0, config(0, size)), RangeError, "power of two");
  }
});

Deno.test("4.1.4.3.2-G4 the driver configures the other fields of a queue before it enables it", async () => {
  for (const { log } of await lives()) {
    let since: number[] = [];
    for (const { write, offset } of common(log)) {
      if (!write) continue;
      if (offset === field.queueSelect) since = [];
      if (offset === field.queueEnable) {
        for (const at of [field.queueSize, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34]) {
          assert(since.includes(at), `${at} is written before queue_enable`);
        }
      }
      // Nothing of the queue is written after it was enabled.
      const own = offset >= field.queueSize && offset < field.queueNotifConfigData;
      assert(!own || !since.includes(field.queueEnable));
      since.push(offset);
    }
  }
});

Deno.test("4.1.4.3.2-G5 after writing 0 to device_status the driver waits until it reads 0", async () => {
  const { log } = await recordPci();
  const accesses = common(log);
  let resets = 0;
  accesses.forEach(({ write, offset, value }, i) => {
    if (!write || offset !== field.deviceStatus || value !== 0) return;
    resets++;
    const next = accesses[i + 1]!;
    assertEquals([next.write, next.offset], [false, field.deviceStatus]);
  });
  assert(resets >= 4);
  // A device that takes its time.
  const bench = new PciBench();
  const finish = bench.device.delayStop();
  bench.start();
  const recorder = new RecordingPci(bench.transport);
  const opened = DriverSession.open(PciDriverTransport.probe(recorder), {
    dma: new DmaPool(bench.memory, 0x1000, 0x8000),
    type: 4,
    wanted: 0n,
    queues: () => [],
  });
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setTimeout(resolve, 0));
  const early = common(recorder.log).filter((access) => access.write);
  assertEquals(early.map(({ offset, value }) => [offset, value]), [[field.deviceStatus, 0]]);
  finish();
  await opened;
  assert(common(recorder.log).filter((access) => access.write).length > 3);
});

Deno.test("4.1.4.3.2-G6 the driver does not write 0 to queue_enable", async () => {
  for (const { log } of await lives()) {
    assert(writesTo(log, field.queueEnable).every((value) => value === 1));
  }
});

Deno.test("4.1.4.3.2-G7 4.1.4.3.2-G8 4.1.4.3.2-G9 a queue reset is over when queue_reset reads 0; then the queue is enabled again, smaller", async () => {
  for (const options of LIVES.filter((options) => options.window !== true)) {
    const { log } = await recordPci(options);
    const accesses = common(log);
    let resets = 0;
    accesses.forEach(({ write, offset, value }, i) => {
      if (!write || offset !== field.queueReset) return;
      assertEquals(value, 1);
      resets++;
      const after = accesses.slice(i + 1);
      const enabled = after.findIndex((a) => a.write && a.offset === field.queueEnable);
      const done = after.findIndex((a) =>
        !a.write && a.offset === field.queueReset && a.value === 0
      );
      assert(done >= 0 && enabled > done);
      const size = after.slice(done, enabled).find((a) => a.write && a.offset === field.queueSize);
      assertEquals(size?.value, 8);
    });
    assertEquals(resets, 2);
  }
  // While the device drains, the driver does not take it for complete.
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport);
  bench.start(1n << 40n);
  bench.device.hold = true;
  bench.send(0);
  driver.resetQueue(0);
  assertEquals(driver.queueResetDone(0), false);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(driver.queueResetDone(0), true);
});

Deno.test("4.1.4.5.2-G1 with MSI-X the driver does not access ISR", async () => {
  for (const options of [{}, { msix: 1 }, { messages: 2 }] as LifeOptions[]) {
    const { log } = await recordPci(options);
    const isr = (access: Access) => access.bar === MEMORY.bar && access.offset === MEMORY.isr;
    assertEquals(log.filter(isr), []);
  }
  const { log } = await recordPci({ messages: false });
  assert(log.some(({ bar, offset }) => bar === MEMORY.bar && offset === MEMORY.isr));
});

Deno.test("4.1.4.8.2-G1 4.1.4.8.2-G2 the driver leaves vendor data alone, and hands it out by vendor_id only", async () => {
  const vendorData = [
    { vendorId: 0x1111, bytes: new Uint8Array(20).fill(1) },
    { vendorId: 0x2222, bytes: new Uint8Array([2, 2]) },
  ];
  const { log, pci: transport } = await recordPci({ vendorData });
  let at = transport.configRead(pci.PCI_CAPABILITY_LIST, 1);
  let seen = 0;
  while (at !== 0) {
    if (
      transport.configRead(at, 1) === pci.PCI_CAP_ID_VNDR &&
      transport.configRead(at + 3, 1) === pci.VIRTIO_PCI_CAP_VENDOR_CFG
    ) {
      seen++;
      const start = at;
      const end = at + transport.configRead(at + 2, 1);
      // The generic header has to be read to know what it is.
      const touched = log.filter(({ bar, offset, size }) =>
        bar === null && offset + size > start + 4 && offset < end
      );
      assertEquals(touched, []);
    }
    at = transport.configRead(at + 1, 1);
  }
  assertEquals(seen, 2);
  const driver = PciDriverTransport.probe(transport);
  assertEquals(driver.vendorData(0x2222), new Uint8Array([2, 2]));
  assertEquals(driver.vendorData(0x3333), null);
});

Deno.test("4.1.4.9.2-G1 4.1.4.9.2-G2 through the window only aligned accesses within structures are made", async () => {
  const { log, pci: transport } = await recordPci({ window: true });
  // The driver got its work done through configuration space alone.
  assertEquals(log.filter(({ bar }) => bar !== null), []);
  const caps: number[] = [];
  for (let at = transport.configRead(0x34, 1); at !== 0; at = transport.configRead(at + 1, 1)) {
    if (transport.configRead(at, 1) === pci.PCI_CAP_ID_VNDR) caps.push(at);
  }
  const window = caps.find((at) => transport.configRead(at + 3, 1) === pci.VIRTIO_PCI_CAP_PCI_CFG)!;
  const ranges = caps.filter((at) => at !== window).map((at) => [
    transport.configRead(at + 4, 1),
    transport.configRead(at + 8, 4),
    transport.configRead(at + 12, 4),
  ]);
  let [bar, offset, length] = [0, 0, 0];
  let accesses = 0;
  for (const { write, offset: at, size, value } of log) {
    if (write && at === window + 4) bar = value;
    if (write && at === window + 12) length = value;
    if (write && at === window + 8) {
      offset = value;
      assertEquals(offset % length, 0);
    }
    if (at !== window + 16) continue;
    accesses++;
    assertEquals(size, length);
    assert(
      ranges.some(([b, start, size]) =>
        b === bar && offset >= start! && offset + length <= start! + size!
      ),
    );
  }
  assert(accesses > 100);
  const direct = new PciConfigWindow(transport);
  assertThrows(() => direct.barRead(MEMORY.bar, 1, 2), RangeError, "4.1.4.9.2");
  assertThrows(() => direct.barWrite(MEMORY.bar, field.size, 4, 0), RangeError, "4.1.4.9.2");
  assertThrows(() => direct.barRead(1, 0, 4), RangeError, "4.1.4.9.2");
});
