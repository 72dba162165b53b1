import { assertEquals } from "@std/assert";
import { MEMORY, MSIX_BAR, PciBench } from "../testing/bench.ts";
import * as reg from "./mod.ts";

/** The window of a bench, moved by hand. */
class Window {
  readonly bench: PciBench;
  readonly cap: number;

  constructor(bench: PciBench) {
    this.bench = bench;
    this.cap = bench.findCap(reg.PCI_CAP_ID_VNDR, reg.VIRTIO_PCI_CAP_PCI_CFG);
  }

  point(bar: number, offset: number, length: number): void {
    this.bench.transport.configWrite(this.cap + 4, 1, bar);
    this.bench.transport.configWrite(this.cap + 8, 4, offset);
    this.bench.transport.configWrite(this.cap + 12, 4, length);
  }

  read(size: reg.Width = 4, at = 0): number {
    return this.bench.transport.configRead(this.cap + 16 + at, size);
  }

  write(value: number, size: reg.Width = 4, at = 0): void {
    this.bench.transport.configWrite(this.cap + 16 + at, size, value);
  }
}

Deno.test("PCI configuration access: reads and writes of each width reach the BAR", () => {
  const window = new Window(new PciBench());
  const { bench } = window;
  // Also with decoding off: that is what it is for.
  bench.transport.configWrite(reg.PCI_COMMAND, 2, 0);
  window.point(MEMORY.bar, reg.CommonCfg.deviceFeatureSelect, 4);
  window.write(1);
  window.point(MEMORY.bar, reg.CommonCfg.deviceFeature, 4);
  assertEquals(window.read() & 1, 1);
  window.point(MEMORY.bar, reg.CommonCfg.queueSelect, 2);
  window.write(0xffff_0001);
  assertEquals(bench.common(reg.CommonCfg.queueSelect, 2), 1);
  window.point(MEMORY.bar, reg.CommonCfg.deviceStatus, 1);
  window.write(0xffff_ff01, 1);
  assertEquals(bench.status, 1);
  window.point(MEMORY.bar, reg.CommonCfg.numQueues, 2);
  assertEquals(window.read(2), 2);
  assertEquals(window.read(1), 2);
});

Deno.test("PCI configuration access: each access is one access to the BAR", () => {
  const window = new Window(new PciBench());
  const { bench } = window;
  bench.start();
  bench.send(0);
  window.point(MEMORY.bar, MEMORY.isr, 1);
  // The rest of the data keeps what it was.
  assertEquals(window.read() & 0xff, 1);
  assertEquals(bench.line, false);
  assertEquals(window.read(1), 0);
  bench.add(1);
  window.point(MEMORY.bar, MEMORY.notify + 4, 2);
  window.write(1, 2);
  assertEquals(bench.device.handled, [1, 1]);
});

Deno.test("PCI configuration access: an access to a part of the data is one to all of it", () => {
  const window = new Window(new PciBench());
  const { bench } = window;
  window.point(MEMORY.bar, reg.CommonCfg.deviceFeatureSelect, 4);
  window.write(0x4433_2211);
  window.write(0x99, 1, 3);
  assertEquals(bench.common(reg.CommonCfg.deviceFeatureSelect, 4), 0x9933_2211);
  bench.setCommon(reg.CommonCfg.deviceFeatureSelect, 4, 0xaabb_ccdd);
  assertEquals(window.read(1, 2), 0xbb);
  // Reaching into the data from before it counts too.
  bench.setCommon(reg.CommonCfg.deviceFeatureSelect, 4, 0x1234_5678);
  assertEquals(bench.transport.configRead(window.cap + 14, 4), 0x5678_0000);
});

Deno.test("PCI configuration access: what the driver must not ask for does nothing", () => {
  const window = new Window(new PciBench());
  const { bench } = window;
  bench.status = 1;
  for (
    const [bar, offset, length] of [
      [MEMORY.bar, reg.CommonCfg.deviceStatus, 0],
      [MEMORY.bar, reg.CommonCfg.deviceStatus, 3],
      [MEMORY.bar, reg.CommonCfg.deviceStatus, 0xffff_ffff],
      [MEMORY.bar, reg.CommonCfg.deviceStatus - 1, 2],
      [0, reg.CommonCfg.deviceStatus, 1],
      [6, reg.CommonCfg.deviceStatus, 1],
      [0xff, reg.CommonCfg.deviceStatus, 1],
      [MEMORY.bar, 0xffff_fffc, 4],
    ] as const
  ) {
    window.point(bar, offset, length);
    window.write(0);
    window.read();
    assertEquals(bench.status, 1);
  }
  window.point(MEMORY.bar, reg.CommonCfg.deviceFeatureSelect, 3);
  window.write(0x0102_0304);
  assertEquals(window.read(), 0x0102_0304);
  assertEquals(bench.common(reg.CommonCfg.deviceFeatureSelect, 4), 0);
  // The device's configuration itself would take it.
  bench.negotiate();
  window.point(MEMORY.bar, MEMORY.device + 1, 2);
  window.write(0xffff, 2);
  assertEquals(bench.device.configWrites, []);
  // The MSI-X table is in a BAR of the function too.
  window.point(MSIX_BAR, 8, 4);
  window.write(0x55);
  assertEquals(bench.transport.barRead(MSIX_BAR, 8, 4), 0x55);
});
