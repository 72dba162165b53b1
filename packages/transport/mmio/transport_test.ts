import {
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_RESET,
} from "@virtio/device";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FOUND, LIVE, MmioBench, turns } from "../testing/bench.ts";
import * as reg from "./mod.ts";

Deno.test("MMIO: the identifying registers", () => {
  const bench = new MmioBench({ vendorId: 0x1234_5678, type: 2 });
  assertEquals(bench.read(0x000), 0x74726976);
  assertEquals(bench.read(0x004), 2);
  assertEquals(bench.read(0x008), 2);
  assertEquals(bench.read(0x00c), 0x1234_5678);
  assertEquals(new MmioBench().read(0x00c), 0x1af4);
  assertEquals(bench.transport.size, 0x110);
});

Deno.test("MMIO: four words of device features, nothing for other selectors", () => {
  const bench = new MmioBench({
    features: VIRTIO_F_NOTIF_CONFIG_DATA,
    deviceFeatures: 1n << 3n | 1n << 64n | 1n << 127n,
  });
  const words = [0, 1, 2, 3, 4, 0xffff_ffff].map((word) => {
    bench.write(reg.VIRTIO_MMIO_DEVICE_FEATURES_SEL, word);
    return bench.read(reg.VIRTIO_MMIO_DEVICE_FEATURES);
  });
  // VERSION_1 is always there; NOTIF_CONFIG_DATA is for PCI only.
  assertEquals(words, [8, 1, 1, 0x8000_0000, 0, 0]);
});

Deno.test("MMIO: driver features go to the selected word, beyond the fourth nowhere", () => {
  const bench = new MmioBench();
  bench.status = FOUND;
  for (const [word, bits] of [[0, 1], [1, 2], [2, 3], [3, 0xffff_ffff], [4, 5], [0xffff_ffff, 6]]) {
    bench.write(reg.VIRTIO_MMIO_DRIVER_FEATURES_SEL, word!);
    bench.write(reg.VIRTIO_MMIO_DRIVER_FEATURES, bits!);
  }
  const { state } = bench.transport;
  assertEquals([0, 1, 2, 3, 4].map((word) => state.readDriverFeatures(word)), [
    1,
    2,
    3,
    0xffff_ffff,
    0,
  ]);
});

Deno.test("MMIO: queue registers belong to the selected queue", () => {
  const bench = new MmioBench({ queueSizes: [16, 32] });
  const { queues } = bench.transport.state;
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 1);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_SIZE_MAX), 32);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SIZE, 4);
  const registers = [0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4];
  registers.forEach((register, i) => bench.write(register, 0xf000_0000 + i));
  assertEquals(queues[0]!.size, 16);
  assertEquals(queues[0]!.address(0), 0);
  assertEquals(queues[1]!.size, 4);
  for (const area of [0, 1, 2] as const) {
    assertEquals(queues[1]!.readAddress(area, 0), 0xf000_0000 + 2 * area);
    assertEquals(queues[1]!.readAddress(area, 1), 0xf000_0001 + 2 * area);
  }
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_READY, 1);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 1);
  // A live ring cannot be moved.
  bench.write(reg.VIRTIO_MMIO_QUEUE_DESC_LOW, 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SIZE, 2);
  assertEquals(queues[1]!.readAddress(0, 0), 0xf000_0000);
  assertEquals(queues[1]!.size, 4);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_SIZE_MAX), 16);
});

Deno.test("MMIO: a queue that does not exist reads 0 and takes nothing", () => {
  const bench = new MmioBench();
  for (const index of [2, 0xffff, 0x1_0000, 0xffff_ffff]) {
    bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, index);
    for (const register of [0x038, 0x044, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4, 0x0c0]) {
      bench.write(register, 1);
    }
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_SIZE_MAX), 0);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 0);
  }
  for (const queue of bench.transport.state.queues) {
    assertEquals([queue.size, queue.enabled, queue.address(0)], [16, false, 0]);
  }
});

Deno.test("MMIO: a request from kick to acknowledged interrupt", () => {
  const bench = new MmioBench();
  bench.start();
  bench.send(1, 7);
  assertEquals(bench.take(1), 7);
  assertEquals(bench.device.handled, [0, 1]);
  assertEquals(bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), 1);
  assert(bench.line);
  bench.device.config.update((view) => view.setUint8(0, 9));
  assertEquals(bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), 3);
  bench.write(reg.VIRTIO_MMIO_INTERRUPT_ACK, 1);
  assertEquals(bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), 2);
  assert(bench.line);
  bench.write(reg.VIRTIO_MMIO_INTERRUPT_ACK, 0xffff_fffe);
  assertEquals(bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), 0);
  assertEquals(bench.levels, [true, false]);
});

Deno.test("MMIO: QueueNotify is the whole value, or its lower half with NOTIFICATION_DATA", () => {
  const plain = new MmioBench();
  plain.start();
  plain.add(1);
  plain.write(reg.VIRTIO_MMIO_QUEUE_NOTIFY, 0x5_0001);
  plain.write(reg.VIRTIO_MMIO_QUEUE_NOTIFY, 2);
  plain.write(reg.VIRTIO_MMIO_QUEUE_NOTIFY, 0xffff_ffff);
  assertEquals(plain.device.handled, [0, 0]);
  plain.write(reg.VIRTIO_MMIO_QUEUE_NOTIFY, 1);
  assertEquals(plain.device.handled, [0, 1]);

  const data = new MmioBench({ features: VIRTIO_F_NOTIFICATION_DATA });
  data.start(VIRTIO_F_NOTIFICATION_DATA);
  data.add(1);
  data.write(reg.VIRTIO_MMIO_QUEUE_NOTIFY, 0x8001_0001);
  assertEquals(data.device.handled, [0, 1]);
  // The format goes with the negotiation.
  data.status = 0;
  data.start();
  data.add(1);
  data.write(reg.VIRTIO_MMIO_QUEUE_NOTIFY, 0x8001_0001);
  assertEquals(data.device.handled, [0, 1]);
});

Deno.test("MMIO: configuration takes bytes, halves and words at any offset, and nothing beyond its end", () => {
  const bench = new MmioBench();
  bench.device.config.view.setUint32(0, 0x4433_2211, true);
  const { transport } = bench;
  assertEquals(transport.read(0x100, 1), 0x11);
  assertEquals(transport.read(0x102, 2), 0x4433);
  assertEquals(transport.read(0x100, 4), 0x4433_2211);
  assertEquals(transport.read(0x101, 2), 0x3322);
  assertEquals(transport.read(0x10e, 4), 0);
  assertEquals(transport.read(0x1_0000, 4), 0);
  bench.negotiate();
  transport.write(0x104, 1, 0xaa);
  transport.write(0x106, 2, 0xccbb);
  transport.write(0x108, 4, 0x0403_0201);
  transport.write(0x10f, 2, 0xffff);
  transport.write(0x200, 4, 1);
  assertEquals([...bench.device.config.bytes], [
    ...[0x11, 0x22, 0x33, 0x44, 0xaa, 0, 0xbb, 0xcc],
    ...[1, 2, 3, 4, 0, 0, 0, 0],
  ]);
  assertEquals(bench.device.configWrites.length, 3);
});

Deno.test("MMIO: ConfigGeneration changes with the configuration", () => {
  const bench = new MmioBench();
  const before = bench.read(reg.VIRTIO_MMIO_CONFIG_GENERATION);
  bench.device.config.update((view) => view.setUint8(0, 1));
  assert(bench.read(reg.VIRTIO_MMIO_CONFIG_GENERATION) !== before);
});

Deno.test("MMIO: shared memory of the selected region, ones where there is none", () => {
  const bytes = new Uint8Array(0x2345);
  const bench = new MmioBench({ sharedMemory: [{ id: 3, bytes, address: 0x12_3456_7000 }] });
  const registers = () => [0x0b0, 0x0b4, 0x0b8, 0x0bc].map((register) => bench.read(register));
  assertEquals(registers(), Array(4).fill(0xffff_ffff));
  bench.write(reg.VIRTIO_MMIO_SHM_SEL, 3);
  assertEquals(registers(), [0x2345, 0, 0x3456_7000, 0x12]);
  bench.write(reg.VIRTIO_MMIO_SHM_SEL, 0x103);
  assertEquals(registers(), Array(4).fill(0xffff_ffff));
});

Deno.test("MMIO: accesses of another width to control registers read 0 and do nothing", () => {
  const bench = new MmioBench();
  for (const size of [1, 2] as const) {
    for (let offset = 0; offset < 0x100; offset += size) {
      assertEquals(bench.transport.read(offset, size), 0);
      bench.transport.write(offset, size, 0xffff_ffff);
    }
  }
  for (const offset of [1, 2, 3, 0x071]) {
    assertEquals(bench.transport.read(offset, 4), 0);
    bench.transport.write(offset, 4, 1);
  }
  assertEquals(bench.status, 0);
  assertEquals(bench.transport.state.queues[0]!.enabled, false);
});

Deno.test("MMIO: write-only registers read 0, writes to read-only ones change nothing", () => {
  const bench = new MmioBench();
  const writeOnly = [0x014, 0x020, 0x024, 0x030, 0x038, 0x050, 0x064, 0x080, 0x0a4, 0x0ac];
  for (const offset of writeOnly) assertEquals(bench.read(offset), 0, offset.toString(16));
  const readOnly = [0x000, 0x004, 0x008, 0x00c, 0x010, 0x034, 0x060, 0x0b0, 0x0b8, 0x0fc];
  const before = readOnly.map((offset) => bench.read(offset));
  for (const offset of readOnly) bench.write(offset, 0x5555_5555);
  assertEquals(readOnly.map((offset) => bench.read(offset)), before);
});

Deno.test("MMIO: reset clears interrupts, queues, features and selectors", () => {
  const bench = new MmioBench();
  bench.start();
  bench.send(1);
  assert(bench.line);
  bench.write(reg.VIRTIO_MMIO_STATUS, 0);
  assertEquals(bench.status, 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), 0);
  assertEquals(bench.line, false);
  for (const queue of [0, 1]) {
    bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, queue);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  }
  assertEquals(bench.transport.state.readDriverFeatures(1), 0);
  bench.write(reg.VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
  bench.write(reg.VIRTIO_MMIO_SHM_SEL, 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_DEVICE_FEATURES) & 1, 1);
  bench.status = 0;
  assertEquals(bench.read(reg.VIRTIO_MMIO_DEVICE_FEATURES) & 1, 0);
  bench.start();
  bench.send(0, 3);
  assertEquals(bench.take(0), 3);
});

Deno.test("MMIO: interrupts are gone as soon as a reset is asked for, though it drains", async () => {
  const bench = new MmioBench();
  const finish = bench.device.delayStop();
  bench.start();
  bench.send(1);
  assert(bench.line);
  bench.status = 0;
  assertEquals([bench.status, bench.line], [LIVE, false]);
  assertEquals(bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), 0);
  finish();
  await bench.transport.state.settled();
  assertEquals(bench.status, 0);
});

Deno.test("MMIO: QueueReady 0 shows once what is in flight is used, however often it is written", async () => {
  const bench = new MmioBench();
  bench.start(VIRTIO_F_RING_RESET);
  bench.device.hold = true;
  bench.send(0, 5);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_READY, 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_READY, 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 1);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  assertEquals(bench.take(0), 5);
  // Kicks of a stopped queue are nothing; the other queue goes on.
  bench.add(0);
  bench.kick(0);
  bench.device.hold = false;
  bench.send(1, 6);
  assertEquals(bench.take(1), 6);
  assertEquals(bench.device.handled, [1, 1]);
});

Deno.test("MMIO: QueueReset reads 1 while it drains; a device reset in the middle ends it", async () => {
  const bench = new MmioBench();
  bench.start(VIRTIO_F_RING_RESET);
  bench.device.hold = true;
  bench.send(0, 5);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_READY, 0);
  for (let i = 0; i < 3; i++) bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
  await turns();
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 1);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  assertEquals(bench.transport.state.queues[0]!.size, 16);
  // Again, and the device is reset before the queue is.
  bench.ring(0);
  bench.enable(0);
  bench.send(0, 1);
  bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
  bench.write(reg.VIRTIO_MMIO_STATUS, 0);
  await bench.transport.state.settled();
  assertEquals([bench.status, bench.read(reg.VIRTIO_MMIO_QUEUE_RESET)], [0, 0]);
  bench.device.hold = false;
  bench.device.release();
  bench.start();
  bench.send(0, 2);
  assertEquals(bench.take(0), 2);
});

Deno.test("MMIO: QueueReset and QueueReady know 0 and 1 only", () => {
  const bench = new MmioBench();
  bench.start(VIRTIO_F_RING_RESET);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  for (const value of [0, 2, 0xffff_ffff]) bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, value);
  for (const value of [2, 0xffff_ffff]) bench.write(reg.VIRTIO_MMIO_QUEUE_READY, value);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 1);
  bench.send(0, 1);
  assertEquals(bench.take(0), 1);
});

Deno.test("MMIO: QueueReady makes a queue ready by a 1 only", () => {
  const bench = new MmioBench();
  bench.negotiate();
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  for (const value of [2, 3, 0xffff_ffff]) {
    bench.write(reg.VIRTIO_MMIO_QUEUE_READY, value);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  }
  bench.write(reg.VIRTIO_MMIO_QUEUE_READY, 1);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 1);
});

Deno.test("MMIO: QueueReset without VIRTIO_F_RING_RESET does nothing", () => {
  const bench = new MmioBench();
  bench.start();
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 1);
});

Deno.test("MMIO: a queue outside of memory costs the device, not the host", () => {
  const bench = new MmioBench();
  bench.negotiate();
  bench.enable(0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 1);
  bench.write(reg.VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xffff_ffff);
  bench.write(reg.VIRTIO_MMIO_QUEUE_READY, 1);
  bench.status = LIVE;
  assertEquals(bench.status & 64, 64);
  assertEquals(bench.errors.length, 1);
  assertEquals(bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 2);
});

Deno.test("MMIO: a placeholder has DeviceID 0 and nothing else", () => {
  const placeholder = new reg.MmioPlaceholder();
  assertEquals(placeholder.read(0, 4), 0x74726976);
  assertEquals(placeholder.read(4, 4), 2);
  assertEquals(placeholder.read(0, 1), 0);
  placeholder.write(8, 4, 1);
  for (let offset = 8; offset < 0x200; offset += 4) assertEquals(placeholder.read(offset, 4), 0);
});

Deno.test("MMIO: no sequence of accesses throws, and a reset always helps", async () => {
  const access = fc.record({
    write: fc.boolean(),
    offset: fc.oneof(
      fc.constantFrom(0x030, 0x038, 0x044, 0x050, 0x070, 0x080, 0x0c0),
      fc.nat(0x120),
    ),
    size: fc.constantFrom<1 | 2 | 4>(1, 2, 4, 4),
    value: fc.oneof(fc.nat(16), fc.constantFrom(LIVE, 0xffff_ffff), fc.nat(0xffff_ffff)),
  });
  await fc.assert(fc.asyncProperty(fc.array(access, { maxLength: 60 }), async (accesses) => {
    const bench = new MmioBench({ features: VIRTIO_F_RING_RESET | VIRTIO_F_NOTIFICATION_DATA });
    for (const { write, offset, size, value } of accesses) {
      if (write) bench.transport.write(offset, size, value);
      else assert(Number.isInteger(bench.transport.read(offset, size)));
    }
    await bench.transport.reset();
    assertEquals([bench.status, bench.line], [0, false]);
    bench.start();
    bench.send(0, 1);
    assertEquals(bench.take(0), 1);
  }));
});
