import { VIRTIO_F_RING_RESET } from "@virtio/device";
import { assert, assertEquals } from "@std/assert";
import { MSIX_BAR, PciBench } from "../testing/bench.ts";
import * as reg from "./mod.ts";

const { CommonCfg } = reg;
const ENABLE = reg.PCI_MSIX_FLAGS_ENABLE;
const MASKALL = reg.PCI_MSIX_FLAGS_MASKALL;

function change(bench: PciBench): void {
  bench.device.config.update((view) => view.setUint8(0, view.getUint8(0) + 1));
}

/** Vector 0 for configuration, 1 for queue 0, 2 for queue 1, with the data 0x40 + vector. */
function withVectors(): PciBench {
  const bench = new PciBench();
  bench.setMsix(ENABLE);
  for (const vector of [0, 1, 2]) bench.setVector(vector, 0x40 + vector);
  bench.setCommon(CommonCfg.configMsixVector, 2, 0);
  for (const queue of [0, 1]) {
    bench.select(queue);
    bench.setCommon(CommonCfg.queueMsixVector, 2, queue + 1);
  }
  bench.start();
  return bench;
}

Deno.test("INTx: ISR tells why, reading it takes the interrupt back", () => {
  const bench = new PciBench();
  bench.start();
  assertEquals(bench.readIsr(), 0);
  bench.send(0);
  assert(bench.line);
  assertEquals(bench.pciStatus & reg.PCI_STATUS_INTERRUPT, reg.PCI_STATUS_INTERRUPT);
  change(bench);
  bench.send(1);
  assertEquals(bench.readIsr(), 3);
  assert(!bench.line);
  assertEquals(bench.pciStatus & reg.PCI_STATUS_INTERRUPT, 0);
  assertEquals(bench.readIsr(), 0);
  change(bench);
  assertEquals(bench.readIsr(), 2);
  assertEquals(bench.levels, [true, false, true, false]);
  assertEquals(bench.messages, []);
});

Deno.test("INTx: the disable bit of Command lowers the line but not the status bit", () => {
  const bench = new PciBench();
  bench.start();
  bench.transport.configWrite(reg.PCI_COMMAND, 2, 0x7 | reg.PCI_COMMAND_INTX_DISABLE);
  bench.send(0);
  assert(!bench.line);
  assertEquals(bench.pciStatus & reg.PCI_STATUS_INTERRUPT, reg.PCI_STATUS_INTERRUPT);
  bench.transport.configWrite(reg.PCI_COMMAND, 2, 0x7);
  assert(bench.line);
  bench.transport.configWrite(reg.PCI_COMMAND + 1, 1, 0x4);
  assert(!bench.line);
  assertEquals(bench.readIsr(), 1);
});

Deno.test("INTx: a reset of the device lowers the line and clears ISR", () => {
  const bench = new PciBench();
  bench.start();
  bench.send(0);
  bench.status = 0;
  assert(!bench.line);
  assertEquals(bench.readIsr(), 0);
  assertEquals(bench.pciStatus & reg.PCI_STATUS_INTERRUPT, 0);
});

Deno.test("INTx: writing ISR does nothing", () => {
  const bench = new PciBench({ layout: "io" });
  bench.start();
  bench.send(0);
  bench.transport.barWrite(0, 0x40, 1, 0xff);
  assert(bench.line);
  assertEquals(bench.readIsr(), 1);
});

Deno.test("MSI-X: each event sends the message of its vector, and INTx stays down", () => {
  const bench = withVectors();
  bench.send(0);
  bench.send(1);
  change(bench);
  assertEquals(bench.messages, [
    [0xfee0_0000, 1, 0x41],
    [0xfee0_0000, 1, 0x42],
    [0xfee0_0000, 1, 0x40],
  ]);
  assertEquals(bench.levels, []);
  assertEquals(bench.pciStatus & reg.PCI_STATUS_INTERRUPT, 0);
  // 4.1.4.5.1 wants the configuration bit with MSI-X too, but not the queue bit.
  assertEquals(bench.readIsr(), 2);
});

Deno.test("MSI-X: unmapped events send nothing", () => {
  const bench = withVectors();
  bench.select(0);
  bench.setCommon(CommonCfg.queueMsixVector, 2, reg.VIRTIO_MSI_NO_VECTOR);
  bench.setCommon(CommonCfg.configMsixVector, 2, reg.VIRTIO_MSI_NO_VECTOR);
  bench.send(0);
  change(bench);
  assertEquals(bench.messages, []);
  bench.send(1);
  assertEquals(bench.takeMessages(), [0x42]);
});

Deno.test("MSI-X: a masked vector is pending until it is unmasked", () => {
  const bench = withVectors();
  const pending = () => bench.transport.barRead(MSIX_BAR, 0x1000, 4);
  bench.setVector(1, 0x41, true);
  bench.send(0);
  bench.take(0);
  bench.send(0);
  assertEquals(bench.messages, []);
  assertEquals(pending(), 1 << 1);
  // Pending bits are the device's.
  bench.transport.barWrite(MSIX_BAR, 0x1000, 4, 0);
  assertEquals(pending(), 1 << 1);
  // What is sent is what the entry holds when it is unmasked.
  bench.setVector(1, 0x51);
  assertEquals(bench.takeMessages(), [0x51]);
  assertEquals(pending(), 0);
  bench.setVector(1, 0x51, true);
  bench.setVector(1, 0x51);
  assertEquals(bench.messages, []);
});

Deno.test("MSI-X: the function mask holds all vectors, unmasking respects each one's own mask", () => {
  const bench = withVectors();
  bench.setMsix(ENABLE | MASKALL);
  bench.setVector(2, 0x42, true);
  bench.send(0);
  bench.send(1);
  change(bench);
  assertEquals(bench.messages, []);
  assertEquals(bench.transport.barRead(MSIX_BAR, 0x1000, 1), 0b111);
  bench.setMsix(ENABLE);
  assertEquals(bench.takeMessages(), [0x40, 0x41]);
  bench.setVector(2, 0x42);
  assertEquals(bench.takeMessages(), [0x42]);
});

Deno.test("MSI-X: without bus mastering messages wait", () => {
  const bench = withVectors();
  bench.transport.configWrite(reg.PCI_COMMAND, 2, reg.PCI_COMMAND_MEMORY);
  bench.send(0);
  assertEquals(bench.messages, []);
  bench.transport.configWrite(reg.PCI_COMMAND, 2, 0x6);
  assertEquals(bench.takeMessages(), [0x41]);
});

Deno.test("MSI-X: disabling it brings INTx back, and drops what was pending", () => {
  const bench = withVectors();
  bench.setVector(1, 0x41, true);
  bench.send(0);
  bench.setMsix(0);
  assert(!bench.line);
  bench.take(0);
  bench.send(0);
  assert(bench.line);
  bench.setMsix(ENABLE);
  assert(!bench.line);
  bench.setVector(1, 0x41);
  assertEquals(bench.messages, []);
  bench.setMsix(0);
  assert(bench.line);
  assertEquals(bench.readIsr(), 1);
});

Deno.test("MSI-X: a device reset drops pending messages and keeps the table", () => {
  const bench = withVectors();
  bench.setVector(1, 0x41, true);
  bench.send(0);
  bench.status = 0;
  bench.setVector(1, 0x41);
  assertEquals(bench.messages, []);
  assertEquals(bench.transport.barRead(MSIX_BAR, 16 + 8, 4), 0x41);
});

Deno.test("MSI-X: a queue reset stops its notifications", async () => {
  const bench = new PciBench();
  bench.setMsix(ENABLE);
  bench.setVector(0, 0x40);
  bench.start(VIRTIO_F_RING_RESET);
  bench.select(0);
  bench.setCommon(CommonCfg.queueMsixVector, 2, 0);
  bench.device.hold = true;
  bench.send(0);
  bench.setCommon(CommonCfg.queueReset, 2, 1);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(bench.messages, []);
  assertEquals(bench.common(CommonCfg.queueReset, 2), 0);
});

Deno.test("MSI-X: the table reads in any aligned width, writes in whole words only", () => {
  const bench = new PciBench({ msix: 3 });
  const { transport } = bench;
  assertEquals([0, 1, 2].map((i) => transport.barRead(MSIX_BAR, 16 * i + 12, 4)), [1, 1, 1]);
  for (let offset = 0; offset < 16; offset += 4) {
    transport.barWrite(MSIX_BAR, offset, 4, 0xffff_ffff);
  }
  // Reserved bits and the lowest address bits are 0.
  assertEquals([0, 4, 8, 12].map((i) => transport.barRead(MSIX_BAR, i, 4)), [
    0xffff_fffc,
    0xffff_ffff,
    0xffff_ffff,
    1,
  ]);
  transport.barWrite(MSIX_BAR, 8, 4, 0x4433_2211);
  for (const offset of [8, 9, 10]) {
    transport.barWrite(MSIX_BAR, offset, 1, 0);
    transport.barWrite(MSIX_BAR, offset, 2, 0);
  }
  transport.barWrite(MSIX_BAR, 9, 4, 0);
  assertEquals(transport.barRead(MSIX_BAR, 8, 4), 0x4433_2211);
  assertEquals(transport.barRead(MSIX_BAR, 9, 1), 0x22);
  assertEquals(transport.barRead(MSIX_BAR, 10, 2), 0x4433);
  // Behind the last vector there is nothing.
  transport.barWrite(MSIX_BAR, 48, 4, 0x1234);
  assertEquals(transport.barRead(MSIX_BAR, 48, 4), 0);
  transport.barWrite(MSIX_BAR, 0x8000_0000, 4, 1);
  assertEquals(transport.barRead(MSIX_BAR, 0x8000_0000, 4), 0);
});

Deno.test("MSI-X: pending bits of many vectors are in their words", () => {
  const bench = new PciBench({ msix: 100 });
  bench.setMsix(ENABLE);
  bench.setCommon(CommonCfg.configMsixVector, 2, 99);
  bench.start();
  change(bench);
  const words = [0, 4, 8, 12, 16].map((i) => bench.transport.barRead(MSIX_BAR, 0x1000 + i, 4));
  assertEquals(words, [0, 0, 0, 8, 0]);
  bench.setVector(99, 0x77);
  assertEquals(bench.takeMessages(), [0x77]);
});
