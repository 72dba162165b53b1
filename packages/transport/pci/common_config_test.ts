import {
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { assert, assertEquals } from "@std/assert";
import { FOUND, IO, LIVE, MEMORY, PciBench, ringAddress } from "../testing/bench.ts";
import { CommonCfg as field, VIRTIO_MSI_NO_VECTOR } from "./mod.ts";

const FIELDS_32 = [
  field.deviceFeatureSelect,
  field.driverFeatureSelect,
  field.driverFeature,
  field.queueDesc,
  field.queueDesc + 4,
  field.queueDriver,
  field.queueDriver + 4,
  field.queueDevice,
  field.queueDevice + 4,
];

Deno.test("common configuration: four words of features, nothing for other selectors", () => {
  const bench = new PciBench({ features: 0n, deviceFeatures: 1n << 3n | 1n << 64n | 1n << 127n });
  const words = [0, 1, 2, 3, 4, 0xffff_ffff].map((word) => {
    bench.setCommon(field.deviceFeatureSelect, 4, word);
    assertEquals(bench.common(field.deviceFeatureSelect, 4), word);
    return bench.common(field.deviceFeature, 4);
  });
  assertEquals(words, [8, 1, 1, 0x8000_0000, 0, 0]);
  bench.status = FOUND;
  for (const word of [0, 1, 2, 3, 4]) {
    bench.setCommon(field.driverFeatureSelect, 4, word);
    bench.setCommon(field.driverFeature, 4, 0x8000_0000 + word);
  }
  const accepted = [0, 1, 2, 3, 4, 0xffff_ffff].map((word) => {
    bench.setCommon(field.driverFeatureSelect, 4, word);
    assertEquals(bench.common(field.driverFeatureSelect, 4), word);
    return bench.common(field.driverFeature, 4);
  });
  assertEquals(accepted, [0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_0003, 0, 0]);
});

Deno.test("common configuration: fields of the selected queue, 64-bit ones in halves", () => {
  for (const layout of ["memory", "io"] as const) {
    const bench = new PciBench({ queueSizes: [16, 32], layout });
    assertEquals(bench.common(field.numQueues, 2), 2);
    bench.select(1);
    assertEquals(bench.common(field.queueSelect, 2), 1);
    assertEquals(bench.common(field.queueSize, 2), 32);
    bench.setCommon(field.queueSize, 2, 8);
    assertEquals(bench.common(field.queueSize, 2), 8);
    assertEquals(bench.common(field.queueNotifyOff, 2), 1);
    const halves = [0, 4, 8, 12, 16, 20];
    // High halves first: the order is the driver's choice.
    for (const half of [...halves].reverse()) {
      bench.setCommon(field.queueDesc + half, 4, 0xf000_0000 + half);
    }
    for (const half of halves) {
      assertEquals(bench.common(field.queueDesc + half, 4), 0xf000_0000 + half);
    }
    bench.select(0);
    assertEquals(bench.common(field.queueSize, 2), 16);
    assertEquals(bench.common(field.queueNotifyOff, 2), 0);
    assertEquals(halves.map((half) => bench.common(field.queueDesc + half, 4)), Array(6).fill(0));
  }
});

Deno.test("common configuration: a queue that does not exist reads 0, its vector NO_VECTOR", () => {
  const bench = new PciBench({ features: VIRTIO_F_RING_RESET | VIRTIO_F_NOTIF_CONFIG_DATA });
  bench.start(VIRTIO_F_RING_RESET | VIRTIO_F_NOTIF_CONFIG_DATA);
  for (const index of [2, 3, 0xffff]) {
    bench.select(index);
    for (let offset: number = field.queueSize; offset < field.size; offset += 2) {
      bench.setCommon(offset, 2, 1);
      const expected = offset === field.queueMsixVector ? VIRTIO_MSI_NO_VECTOR : 0;
      assertEquals(bench.common(offset, 2), expected, `${index} ${offset}`);
    }
    for (const offset of [field.queueDesc, field.queueDriver + 4]) {
      bench.setCommon(offset, 4, 1);
      assertEquals(bench.common(offset, 4), 0);
    }
  }
  assertEquals(bench.status, LIVE);
});

Deno.test("common configuration: any aligned width reads, only a field's own width writes", () => {
  const bench = new PciBench();
  bench.setCommon(field.deviceFeatureSelect, 4, 0x4433_2211);
  assertEquals([0, 1, 2, 3].map((i) => bench.common(i, 1)), [0x11, 0x22, 0x33, 0x44]);
  assertEquals([0, 2].map((i) => bench.common(i, 2)), [0x2211, 0x4433]);
  assertEquals([1, 2, 3].map((i) => bench.common(i, 4)), [0, 0, 0]);
  assertEquals(bench.common(1, 2), 0);
  bench.status = 1;
  bench.select(1);
  assertEquals(bench.common(field.deviceStatus, 4), 0x0001_0001);
  const before = Array.from({ length: 16 }, (_, i) => bench.common(4 * i, 4));
  for (const offset of FIELDS_32) {
    bench.setCommon(offset, 1, 0xff);
    bench.setCommon(offset, 2, 0xffff);
    bench.setCommon(offset + 2, 2, 0xffff);
    bench.setCommon(offset + 1, 4, 0xffff_ffff);
  }
  for (let offset: number = field.configMsixVector; offset < field.queueDesc; offset += 4) {
    bench.setCommon(offset, 4, 1);
    if (offset !== field.deviceStatus) bench.setCommon(offset, 1, 1);
  }
  bench.setCommon(field.deviceStatus, 2, 0);
  bench.setCommon(field.queueReset - 2, 4, 0x1_0000);
  assertEquals(Array.from({ length: 16 }, (_, i) => bench.common(4 * i, 4)), before);
});

Deno.test("common configuration: read-only fields and the fields after the last one", () => {
  const bench = new PciBench();
  bench.start();
  const readOnly = [[4, 4], [0x12, 2], [0x15, 1], [0x1e, 2], [0x38, 2], [0x3c, 2], [0x3e, 2]];
  for (const [offset, size] of readOnly as [number, 1 | 2 | 4][]) {
    const before = bench.common(offset, size);
    bench.setCommon(offset, size, ~before);
    assertEquals(bench.common(offset, size), before, offset.toString(16));
  }
  // No administration virtqueues.
  assertEquals(bench.common(field.adminQueueIndex, 4), 0);
  assertEquals(bench.transport.barRead(MEMORY.bar, field.size, 4), 0);
  bench.transport.barWrite(MEMORY.bar, field.size, 4, 1);
  assertEquals(bench.transport.barRead(MEMORY.bar, 0x10_0000, 4), 0);
  assertEquals(bench.transport.barRead(5, 0, 4), 0);
  assertEquals(bench.transport.barRead(99, 0, 4), 0);
  bench.transport.barWrite(99, 0, 4, 0);
  bench.transport.barWrite(-1, 0, 4, 0);
  assertEquals(bench.status, LIVE);
});

Deno.test("common configuration: queue_size shows powers of two until packed rings are negotiated", () => {
  const split = new PciBench({ queueSizes: [100] });
  assertEquals(split.common(field.queueSize, 2), 64);
  for (const bad of [0, 3, 100]) {
    split.setCommon(field.queueSize, 2, bad);
    assertEquals(split.common(field.queueSize, 2), 64);
  }
  // The driver can take the size that it sees without writing it.
  split.negotiate();
  split.setCommon(field.queueDesc, 4, ringAddress(0));
  split.setCommon(field.queueDriver, 4, ringAddress(0) + 0x400);
  split.setCommon(field.queueDevice, 4, ringAddress(0) + 0x800);
  split.setCommon(field.queueEnable, 2, 1);
  split.status = LIVE;
  assertEquals([split.status, split.common(field.queueSize, 2)], [LIVE, 64]);

  const packed = new PciBench({ queueSizes: [100] });
  packed.negotiate(VIRTIO_F_RING_PACKED);
  assertEquals(packed.common(field.queueSize, 2), 100);
  packed.setCommon(field.queueSize, 2, 99);
  packed.setCommon(field.queueSize, 2, 0);
  assertEquals(packed.common(field.queueSize, 2), 99);
});

Deno.test("common configuration: an enabled queue takes no writes, and no 0 in queue_enable", () => {
  const bench = new PciBench();
  bench.start();
  bench.select(0);
  const before = [0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((i) => bench.common(i, 4));
  bench.setCommon(field.queueSize, 2, 4);
  bench.setCommon(field.queueEnable, 2, 0);
  for (let half = 0; half < 24; half += 4) bench.setCommon(field.queueDesc + half, 4, 0xdead_0000);
  const after = [0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((i) => bench.common(i, 4));
  assertEquals(after, before);
  bench.send(0, 4);
  assertEquals(bench.take(0), 4);
});

Deno.test("common configuration: queues that cannot be used cost the device, not the host", () => {
  for (const [size, address] of [[16, 0xffff_0000], [0x8000, 0x1000], [8, 0x1001]] as const) {
    const bench = new PciBench({ queueSizes: [16] });
    bench.negotiate();
    bench.setCommon(field.queueSize, 2, size);
    for (const at of [0x20, 0x28, 0x30]) bench.setCommon(at, 4, address);
    bench.setCommon(field.queueEnable, 2, 1);
    bench.status = LIVE;
    assertEquals(bench.status & 64, 64);
    assertEquals(bench.errors.length, 1);
    bench.status = 0;
    bench.start();
    bench.send(0, 1);
    assertEquals(bench.take(0), 1);
  }
});

Deno.test("common configuration: vectors out of the table read back as NO_VECTOR", () => {
  const bench = new PciBench({ msix: 4 });
  bench.select(1);
  for (const at of [field.configMsixVector, field.queueMsixVector]) {
    assertEquals(bench.common(at, 2), VIRTIO_MSI_NO_VECTOR);
    for (const vector of [0, 3]) {
      bench.setCommon(at, 2, vector);
      assertEquals(bench.common(at, 2), vector);
    }
    for (const vector of [4, 0x7ff, 0xfffe, 0xffff]) {
      bench.setCommon(at, 2, 2);
      bench.setCommon(at, 2, vector);
      assertEquals(bench.common(at, 2), VIRTIO_MSI_NO_VECTOR);
    }
    bench.setCommon(at, 2, 1);
  }
  bench.select(0);
  assertEquals(bench.common(field.queueMsixVector, 2), VIRTIO_MSI_NO_VECTOR);
  bench.status = 0;
  bench.select(1);
  assertEquals(bench.common(field.queueMsixVector, 2), VIRTIO_MSI_NO_VECTOR);
  assertEquals(bench.common(field.configMsixVector, 2), VIRTIO_MSI_NO_VECTOR);
  const none = new PciBench({ msix: false });
  none.setCommon(field.configMsixVector, 2, 0);
  assertEquals(none.common(field.configMsixVector, 2), VIRTIO_MSI_NO_VECTOR);
});

Deno.test("common configuration: config_generation changes where a changed configuration is read", () => {
  const bench = new PciBench();
  const generation = () => bench.common(field.configGeneration, 1);
  const change = () => bench.device.config.update((view) => view.setUint8(0, view.getUint8(0) + 1));
  const first = generation();
  assertEquals(generation(), first);
  // As many changes as the field has values do not bring it back.
  for (let i = 0; i < 256; i++) change();
  bench.readDevice(0, 1);
  const second = generation();
  assert(second !== first);
  bench.readDevice(0, 4);
  assertEquals(generation(), second);
  // A driver that looks at the generation after the change, and then reads, has read consistently.
  change();
  const before = generation();
  assert(before !== second);
  bench.readDevice(0, 4);
  assertEquals(generation(), before);
  // Looking often does not wear it out.
  for (let i = 0; i < 256; i++) {
    change();
    generation();
  }
  bench.readDevice(0, 1);
  assert(generation() !== before);
});

Deno.test("common configuration: config_generation wraps, and never reaches into queue_select", () => {
  const bench = new PciBench();
  bench.select(0);
  for (let i = 0; i < 600; i++) {
    bench.device.config.update((view) => view.setUint8(0, i & 0xff));
    // Before the change is read, and after: the value that is told is the same.
    const told = bench.common(field.configGeneration, 1);
    assertEquals(bench.common(field.queueSelect, 2), 0);
    assertEquals(bench.common(field.deviceStatus, 4) >>> 16, 0);
    bench.readDevice(0, 1);
    assertEquals(bench.common(field.configGeneration, 1), told);
  }
});

Deno.test("common configuration: queue_reset reads 1 while it drains, then the queue is as new", async () => {
  const bench = new PciBench({ msix: 2 });
  bench.start(VIRTIO_F_RING_RESET);
  bench.select(0);
  bench.setCommon(field.queueMsixVector, 2, 1);
  bench.device.hold = true;
  bench.send(0, 5);
  bench.setCommon(field.queueReset, 2, 1);
  bench.setCommon(field.queueReset, 2, 1);
  assertEquals(bench.common(field.queueReset, 2), 1);
  bench.setCommon(field.queueEnable, 2, 1);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(bench.common(field.queueReset, 2), 0);
  assertEquals(bench.common(field.queueEnable, 2), 0);
  assertEquals(bench.common(field.queueSize, 2), 16);
  assertEquals(bench.common(field.queueDesc, 4), 0);
  assertEquals(bench.common(field.queueMsixVector, 2), VIRTIO_MSI_NO_VECTOR);
  bench.device.hold = false;
  bench.ring(0);
  bench.enable(0);
  assertEquals(bench.common(field.queueEnable, 2), 1);
  bench.send(0, 6);
  assertEquals(bench.take(0), 6);
});

Deno.test("common configuration: queue_enable and queue_reset know 1 only", () => {
  const bench = new PciBench();
  for (const value of [0, 2, 0xffff]) bench.setCommon(field.queueEnable, 2, value);
  assertEquals(bench.common(field.queueEnable, 2), 0);
  bench.start(VIRTIO_F_RING_RESET);
  bench.select(0);
  for (const value of [0, 2, 0xffff]) bench.setCommon(field.queueReset, 2, value);
  assertEquals(bench.common(field.queueEnable, 2), 1);
});

Deno.test("common configuration: queue_reset is not there without VIRTIO_F_RING_RESET", () => {
  const bench = new PciBench();
  bench.start();
  bench.select(0);
  bench.setCommon(field.queueMsixVector, 2, 0);
  bench.setCommon(field.queueReset, 2, 1);
  assertEquals(bench.common(field.queueReset, 2), 0);
  assertEquals(bench.common(field.queueEnable, 2), 1);
  assertEquals(bench.common(field.queueMsixVector, 2), 0);
});

Deno.test("common configuration: device configuration in both spaces, nothing beyond its end", () => {
  for (const [layout, at] of [["memory", MEMORY], ["io", IO]] as const) {
    const bench = new PciBench({ layout });
    bench.negotiate();
    bench.transport.barWrite(at.bar, at.device + 4, 4, 0x4433_2211);
    bench.transport.barWrite(at.bar, at.device + 9, 1, 0x99);
    bench.transport.barWrite(at.bar, at.device + 10, 2, 0xbbaa);
    bench.transport.barWrite(at.bar, at.device + 16, 4, 0xffff_ffff);
    bench.transport.barWrite(at.bar, at.device + 14, 4, 0xffff_ffff);
    assertEquals([...bench.device.config.bytes], [
      ...[0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44],
      ...[0, 0x99, 0xaa, 0xbb, 0, 0, 0, 0],
    ]);
    assertEquals(bench.readDevice(4, 4), 0x4433_2211);
    assertEquals(bench.readDevice(6, 2), 0x4433);
    assertEquals(bench.readDevice(9, 1), 0x99);
    assertEquals(bench.readDevice(16, 1), 0);
  }
});

Deno.test("common configuration: a reset while requests drain shows the old status until they have", async () => {
  const bench = new PciBench();
  const finish = bench.device.delayStop();
  bench.start();
  bench.setCommon(field.configMsixVector, 2, 1);
  bench.send(0);
  assert(bench.line);
  bench.status = 0;
  assertEquals([bench.status, bench.line, bench.readIsr()], [LIVE, false, 0]);
  assertEquals(bench.common(field.queueEnable, 2), 1);
  finish();
  await bench.transport.state.settled();
  assertEquals(bench.status, 0);
  assertEquals(bench.common(field.queueEnable, 2), 0);
  assertEquals(bench.common(field.configMsixVector, 2), VIRTIO_MSI_NO_VECTOR);
  assertEquals(bench.transport.state.offered & VIRTIO_F_VERSION_1, VIRTIO_F_VERSION_1);
});
