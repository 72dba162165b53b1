import { VIRTIO_F_NOTIF_CONFIG_DATA, VIRTIO_F_NOTIFICATION_DATA } from "@virtio/device";
import { assertEquals, assertThrows } from "@std/assert";
import { MEMORY, PciBench } from "../testing/bench.ts";
import * as reg from "./mod.ts";

const { CommonCfg } = reg;

Deno.test("notify: each queue at its multiple", () => {
  for (const notifyOffMultiplier of [0, 2, 4, 64, 4096]) {
    const bench = new PciBench({ notifyOffMultiplier, queueSizes: [8, 8, 8] });
    bench.start();
    bench.send(2, 1);
    assertEquals(bench.device.handled, [0, 0, 1]);
    const cap = bench.findCap(reg.PCI_CAP_ID_VNDR, reg.VIRTIO_PCI_CAP_NOTIFY_CFG);
    assertEquals(bench.transport.configRead(cap + 16, 4), notifyOffMultiplier);
    assertEquals(bench.transport.configRead(cap + 12, 4), 2 * notifyOffMultiplier + 4);
  }
});

Deno.test("notify: through the I/O BAR too, where the layout has one", () => {
  const bench = new PciBench({ layout: "memory+io-notify" });
  bench.start();
  bench.send(0, 1);
  bench.add(1);
  bench.transport.barWrite(0, 4, 2, 1);
  assertEquals(bench.device.handled, [1, 1]);
  // Too many queues for ports of their own share one address.
  const many = new PciBench({ layout: "memory+io-notify", queueSizes: Array(100).fill(8) });
  assertEquals(many.transport.bars[0]!.size, 16);
  const caps = many.findCaps(reg.PCI_CAP_ID_VNDR, reg.VIRTIO_PCI_CAP_NOTIFY_CFG);
  assertEquals(caps.map((at) => many.transport.configRead(at + 16, 4)), [0, 4]);
});

Deno.test("notify: queues that do not exist, bytes, and reads do nothing", () => {
  const bench = new PciBench();
  bench.start();
  bench.add(0);
  bench.transport.barWrite(MEMORY.bar, MEMORY.notify, 2, 2);
  bench.transport.barWrite(MEMORY.bar, MEMORY.notify, 2, 0xffff);
  bench.transport.barWrite(MEMORY.bar, MEMORY.notify, 1, 0);
  bench.transport.barWrite(MEMORY.bar, MEMORY.notify + 8, 2, 0);
  assertEquals(bench.transport.barRead(MEMORY.bar, MEMORY.notify, 2), 0);
  assertEquals(bench.device.handled, [0, 0]);
  bench.kick(0);
  assertEquals(bench.device.handled, [1, 0]);
});

Deno.test("notify: before DRIVER_OK and after a reset nothing is consumed", () => {
  const bench = new PciBench();
  bench.negotiate();
  bench.ring(0);
  bench.enable(0);
  bench.add(0, 9);
  bench.kick(0);
  assertEquals(bench.device.kicks, [0, 0]);
  bench.status = 15;
  // The early kick is made up for.
  assertEquals(bench.take(0), 9);
  bench.status = 0;
  bench.add(0);
  bench.kick(0);
  assertEquals(bench.device.handled, [1, 0]);
});

Deno.test("notify: with NOTIFICATION_DATA the queue is in the lower half", () => {
  const bench = new PciBench({ features: VIRTIO_F_NOTIFICATION_DATA });
  bench.start(VIRTIO_F_NOTIFICATION_DATA);
  bench.add(1);
  bench.transport.barWrite(MEMORY.bar, MEMORY.notify + 4, 4, 0x8001_0001);
  assertEquals(bench.device.handled, [0, 1]);
  assertThrows(
    () => new PciBench({ features: VIRTIO_F_NOTIFICATION_DATA, notifyOffMultiplier: 2 }),
    RangeError,
    "4.1.4.4.1",
  );
});

Deno.test("notify: with NOTIF_CONFIG_DATA queues go by the device's own numbers", () => {
  const features = VIRTIO_F_NOTIF_CONFIG_DATA | VIRTIO_F_NOTIFICATION_DATA;
  const bench = new PciBench({ features, notifyData: (queue) => 0xff00 - queue });
  bench.select(1);
  assertEquals(bench.common(CommonCfg.queueNotifConfigData, 2), 0);
  bench.start(features);
  bench.select(1);
  assertEquals(bench.common(CommonCfg.queueNotifConfigData, 2), 0xfeff);
  bench.add(0);
  bench.add(1);
  const kick = (value: number) => bench.transport.barWrite(MEMORY.bar, MEMORY.notify, 4, value);
  kick(0);
  kick(1);
  assertEquals(bench.device.handled, [0, 0]);
  kick(0x0001_feff);
  assertEquals(bench.device.handled, [0, 1]);
  kick(0x8001_ff00);
  assertEquals(bench.device.handled, [1, 1]);
  // Not negotiated, they go by their indexes again.
  bench.status = 0;
  bench.start();
  bench.add(1);
  kick(0xfeff);
  assertEquals(bench.device.handled, [1, 1]);
  kick(1);
  assertEquals(bench.device.handled, [1, 2]);
});
