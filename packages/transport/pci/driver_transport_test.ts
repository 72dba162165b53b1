import {
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { FOUND, MEMORY, PciBench, ringAddress } from "../testing/bench.ts";
import { FakePci, RecordingPci } from "../testing/fake_pci.ts";
import { type Message, PciConfigWindow, PciDriverTransport, ProbeError } from "./driver.ts";
import * as reg from "./mod.ts";

const { CommonCfg } = reg;

function config(queue: number, size = 8) {
  const base = ringAddress(queue);
  return { size, descriptorArea: base, driverArea: base + 0x400, deviceArea: base + 0x800 };
}

/** As many messages as wanted; the data is the vector. */
function messages(limit = 0x800): { allocate(vector: number): Message | null } {
  return {
    allocate: (vector) =>
      vector < limit ? { addressLow: 0xfee0_0000, addressHigh: 0, data: vector } : null,
  };
}

/** Negotiates and enables all queues of a bench through the driver's half. */
function bringUp(driver: PciDriverTransport, bench: PciBench, features = 0n): void {
  driver.writeStatus(FOUND);
  driver.writeDriverFeatures(features | VIRTIO_F_VERSION_1);
  driver.writeStatus(FOUND | 8);
  driver.negotiated(features | VIRTIO_F_VERSION_1);
  for (let queue = 0; queue < driver.queueCount; queue++) {
    bench.ring(queue, features);
    driver.enableQueue(queue, config(queue));
  }
  driver.writeStatus(FOUND | 8 | 4);
}

function collect(driver: PciDriverTransport): (number | null | "config")[] {
  const events: (number | null | "config")[] = [];
  driver.interrupts = {
    queue: (index) => events.push(index),
    config: () => events.push("config"),
  };
  return events;
}

Deno.test("PCI driver: refuses what is no modern virtio device", () => {
  const probe = (vendor: number, device: number) =>
    assertThrows(() => PciDriverTransport.probe(new FakePci(vendor, device)), ProbeError);
  assert(probe(0x8086, 0x1041).message.includes("8086:1041"));
  probe(0x1af4, 0x1040);
  // A transitional ID without the capabilities is a legacy device.
  assert(probe(0x1af4, 0x1001).message.includes("legacy"));
  assertEquals(PciDriverTransport.probe(new FakePci(0x1af4, 0x1001).usual()).deviceType, 2);
});

Deno.test("PCI driver: probing switches decoding and bus mastering on", () => {
  const bench = new PciBench({ layout: "memory+io-notify" });
  bench.transport.configWrite(reg.PCI_COMMAND, 2, reg.PCI_COMMAND_INTX_DISABLE);
  const driver = PciDriverTransport.probe(bench.transport);
  assertEquals(bench.transport.configRead(reg.PCI_COMMAND, 2), 0x7);
  assertEquals([driver.deviceType, driver.queueCount, driver.usesMessages], [4, 2, false]);
});

Deno.test("PCI driver: features are four words each way", () => {
  const deviceFeatures = 1n << 5n | 1n << 70n | 1n << 120n;
  const bench = new PciBench({ features: 0n, deviceFeatures });
  const driver = PciDriverTransport.probe(bench.transport);
  assertEquals(driver.readDeviceFeatures(), deviceFeatures | VIRTIO_F_VERSION_1);
  driver.writeStatus(FOUND);
  driver.writeDriverFeatures(deviceFeatures);
  const words = [0, 1, 2, 3].map((word) => bench.transport.state.readDriverFeatures(word));
  assertEquals(words, [32, 0, 64, 0x0100_0000]);
});

Deno.test("PCI driver: a queue is described before it is enabled", () => {
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport);
  assertEquals([driver.queueMaxSize(1), driver.queueMaxSize(2)], [16, 0]);
  driver.enableQueue(1, {
    size: 4,
    descriptorArea: 2 ** 40,
    driverArea: 2 ** 33 + 2,
    deviceArea: 8,
  });
  const queue = bench.transport.state.queues[1]!;
  assertEquals([queue.enabled, queue.size], [true, 4]);
  assertEquals([0, 1, 2].map((area) => queue.address(area as 0)), [2 ** 40, 2 ** 33 + 2, 8]);
  assertThrows(() => driver.enableQueue(1, config(1)), TypeError, "in use");
  assertThrows(() => driver.enableQueue(2, config(2)), RangeError, "no queue 2");
  assertThrows(() => driver.enableQueue(0, config(0, 32)), RangeError, "allows 16");
  assertThrows(() => driver.enableQueue(0, config(0, 6)), RangeError, "power of two");
  driver.negotiated(VIRTIO_F_RING_PACKED);
  assertThrows(() => driver.enableQueue(0, config(0, 0)), RangeError);
});

Deno.test("PCI driver: kicks in all four formats", () => {
  const data = VIRTIO_F_NOTIFICATION_DATA;
  const own = VIRTIO_F_NOTIF_CONFIG_DATA;
  for (const features of [0n, data, own, data | own]) {
    const bench = new PciBench({ features, notifyData: (queue) => queue + 0x100 });
    const pci = new RecordingPci(bench.transport);
    const driver = PciDriverTransport.probe(pci);
    driver.kick(1, 0);
    bringUp(driver, bench, features);
    pci.log.length = 0;
    driver.kick(1, 0x8005);
    const value = (features & own) === 0n ? 1 : 0x101;
    assertEquals(pci.log, [
      (features & data) === 0n
        ? { write: true, bar: 2, offset: MEMORY.notify + 4, size: 2, value }
        : { write: true, bar: 2, offset: MEMORY.notify + 4, size: 4, value: 0x8005_0000 + value },
    ]);
    // Back to nothing with a reset.
    driver.writeStatus(0);
    pci.log.length = 0;
    driver.kick(1, 0);
    assertEquals(pci.log, []);
  }
});

Deno.test("PCI driver: a place for kicks outside of the structure is refused", () => {
  const bench = new PciBench();
  const pci = new RecordingPci(bench.transport);
  const driver = PciDriverTransport.probe(pci);
  pci.onRead = ({ bar, offset, value }) =>
    bar === 2 && offset === CommonCfg.queueNotifyOff ? 2 : value;
  assertThrows(() => driver.enableQueue(0, config(0)), ProbeError, "4.1.4.4.1");
  assertEquals(bench.transport.state.queues[0]!.enabled, false);
});

Deno.test("PCI driver: INTx tells queues from configuration, and whose it is", () => {
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport);
  const events = collect(driver);
  bringUp(driver, bench);
  assertEquals(driver.handleInterrupt(), false);
  bench.send(1);
  assertEquals(driver.handleInterrupt(), true);
  bench.device.config.update((view) => view.setUint8(0, 1));
  assertEquals(driver.handleInterrupt(), true);
  bench.send(0);
  bench.device.config.update((view) => view.setUint8(0, 2));
  driver.handleInterrupt();
  assertEquals(events, [null, "config", null, "config"]);
  assertEquals(driver.handleInterrupt(), false);
  driver.interrupts = null;
  bench.take(0);
  bench.send(0);
  assertEquals(driver.handleInterrupt(), true);
});

Deno.test("PCI driver: a vector for each queue where there are enough", () => {
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport, { messages: messages() });
  const events = collect(driver);
  assert(driver.usesMessages);
  bringUp(driver, bench);
  bench.send(0);
  bench.send(1);
  bench.device.config.update((view) => view.setUint8(0, 1));
  const sent = bench.takeMessages();
  assertEquals(sent, [1, 2, 0]);
  for (const data of sent) driver.handleMessage(data);
  driver.handleMessage(3);
  driver.handleMessage(-1);
  assertEquals(events, [0, 1, "config"]);
  assertEquals(driver.handleInterrupt(), false);
});

Deno.test("PCI driver: fewer vectors are shared, of the device or of the platform", () => {
  for (const [msix, limit] of [[2, 0x800], [3, 2], [0x800, 2]] as const) {
    const bench = new PciBench({ msix });
    const driver = PciDriverTransport.probe(bench.transport, { messages: messages(limit) });
    const events = collect(driver);
    bringUp(driver, bench);
    bench.send(0);
    bench.send(1);
    for (const data of bench.takeMessages()) driver.handleMessage(data);
    assertEquals(events, [null, null]);
  }
  for (const [msix, limit] of [[1, 0x800], [3, 1]] as const) {
    const bench = new PciBench({ msix });
    const driver = PciDriverTransport.probe(bench.transport, { messages: messages(limit) });
    const events = collect(driver);
    bringUp(driver, bench);
    bench.send(0);
    assertEquals(bench.takeMessages(), [0]);
    driver.handleMessage(0);
    assertEquals(events, [null, "config"]);
  }
});

Deno.test("PCI driver: no messages to be had means INTx", () => {
  for (const options of [{ messages: messages(0) }, {}]) {
    const bench = new PciBench();
    const driver = PciDriverTransport.probe(bench.transport, options);
    bringUp(driver, bench);
    bench.send(0);
    assertEquals([bench.line, driver.usesMessages, bench.messages], [true, false, []]);
  }
});

Deno.test("PCI driver: a device that maps no own vector gets the shared one, or none", () => {
  const bench = new PciBench();
  const pci = new RecordingPci(bench.transport);
  const driver = PciDriverTransport.probe(pci, { messages: messages() });
  let refuse = (vector: number): boolean => vector === 1;
  pci.onRead = ({ bar, offset, value }) =>
    bar === 2 && offset === CommonCfg.queueMsixVector && refuse(value)
      ? reg.VIRTIO_MSI_NO_VECTOR
      : value;
  const events = collect(driver);
  bringUp(driver, bench);
  bench.send(0);
  for (const data of bench.takeMessages()) driver.handleMessage(data);
  assertEquals(events, [null]);
  driver.writeStatus(0);
  refuse = () => true;
  assertThrows(() => bringUp(driver, bench), ProbeError, "4.1.5.1.2.2");
});

Deno.test("PCI driver: a message is no configuration change where that could not be mapped", () => {
  const bench = new PciBench({ msix: 1 });
  const pci = new RecordingPci(bench.transport);
  const driver = PciDriverTransport.probe(pci, { messages: messages() });
  pci.onRead = ({ bar, offset, value }) =>
    bar === 2 && offset === CommonCfg.configMsixVector ? reg.VIRTIO_MSI_NO_VECTOR : value;
  const events = collect(driver);
  bringUp(driver, bench);
  driver.handleMessage(0);
  assertEquals(events, [null]);
});

Deno.test("PCI driver: nothing goes out while the table is written, and after a reset nobody listens", () => {
  const bench = new PciBench();
  const pci = new RecordingPci(bench.transport);
  const driver = PciDriverTransport.probe(pci, { messages: messages() });
  const control = bench.findCap(reg.PCI_CAP_ID_MSIX) + 2;
  const steps = pci.log.filter(({ write, bar, offset }) =>
    write && (bar === 1 || (bar === null && offset === control))
  );
  const kinds = steps.map(({ bar, value }) => bar === 1 ? "table" : value & 0xc000);
  assertEquals(kinds, [0xc000, ...Array(12).fill("table"), 0x8000]);
  const events = collect(driver);
  bringUp(driver, bench);
  driver.writeStatus(0);
  for (const vector of [0, 1, 2]) driver.handleMessage(vector);
  assertEquals(events, []);
});

Deno.test("PCI driver: after a reset the configuration's vector is mapped again", () => {
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport, { messages: messages() });
  const events = collect(driver);
  for (let i = 0; i < 2; i++) {
    bringUp(driver, bench);
    bench.device.config.update((view) => view.setUint8(0, i + 1));
    for (const data of bench.takeMessages()) driver.handleMessage(data);
    assertEquals(events.splice(0), ["config"]);
    driver.writeStatus(0);
  }
});

Deno.test("PCI driver: a queue reset is complete when the device says so", async () => {
  const bench = new PciBench();
  const driver = PciDriverTransport.probe(bench.transport);
  bringUp(driver, bench, VIRTIO_F_RING_RESET);
  bench.device.hold = true;
  bench.send(0);
  driver.resetQueue(0);
  assertEquals([driver.queueResetDone(0), driver.queueResetDone(1)], [false, true]);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(driver.queueResetDone(0), true);
  driver.enableQueue(0, config(0));
});

Deno.test("PCI driver: configuration, shared memory and vendor data", () => {
  const bench = new PciBench({
    sharedMemory: [{ id: 9, bytes: new Uint8Array(0x3000), address: 0 }],
    vendorData: [
      { vendorId: 1, bytes: new Uint8Array([1]) },
      { vendorId: 2, bytes: new Uint8Array([5, 6, 7]) },
    ],
  });
  const driver = PciDriverTransport.probe(bench.transport);
  driver.writeStatus(FOUND);
  driver.writeDriverFeatures(VIRTIO_F_VERSION_1);
  driver.writeStatus(FOUND | 8);
  driver.writeConfig(4, 4, 0x4433_2211);
  driver.writeConfig(16, 1, 1);
  assertEquals(driver.readConfig(6, 2), 0x4433);
  assertEquals(driver.readConfig(14, 4), 0);
  const generation = driver.configGeneration();
  bench.device.config.update((view) => view.setUint8(0, 1));
  assertEquals(driver.readConfig(0, 1), 1);
  assert(driver.configGeneration() !== generation);
  assertEquals(driver.sharedMemory(9)?.length, 0x3000);
  assertEquals(driver.sharedMemory(8), null);
  assertEquals(driver.vendorData(2), new Uint8Array([5, 6, 7, 0, 0, 0]));
  assertEquals(driver.vendorData(3), null);
  const none = PciDriverTransport.probe(new PciBench({ configSize: 0 }).transport);
  assertEquals(none.readConfig(0, 1), 0);
  none.writeConfig(0, 1, 1);
});

Deno.test("PCI driver: the window reaches only virtio structures, aligned", () => {
  const bench = new PciBench();
  const window = new PciConfigWindow(bench.transport);
  window.barWrite(2, CommonCfg.deviceFeatureSelect, 4, 3);
  assertEquals(bench.common(CommonCfg.deviceFeatureSelect, 4), 3);
  assertEquals(window.barRead(2, CommonCfg.numQueues, 2), 2);
  for (const [bar, offset, size] of [[2, 2, 4], [2, 0x40, 4], [1, 0, 4], [2, 0x3e, 4]] as const) {
    assertThrows(() => window.barRead(bar, offset, size), RangeError, "4.1.4.9.2");
    assertThrows(() => window.barWrite(bar, offset, size, 0), RangeError, "4.1.4.9.2");
  }
  assertThrows(() => new PciConfigWindow(new FakePci().usual()), ProbeError, "4.1.4.9");
});
