/** Virtio 1.4, 2.7: split virtqueues, what the driver has to do with descriptors. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import * as blk from "@virtio/blk";
import { BlkDriver } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { VIRTIO_F_SUSPEND } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import {
  ringLayout,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VirtqueueError,
} from "@virtio/vring";
import { BufferList, DmaPool, openDriverQueue } from "@virtio/vring/driver";
import { dmaPool, LocalTransport, TestDevice } from "../../packages/device/testing.ts";
import { SessionBench } from "./session_bench.ts";
import { random } from "./random.ts";
import { Bench, CONFIG, elements } from "./split_driver_bench.ts";

Deno.test("2.7.1-G1 the driver aligns the parts of a queue, wherever its memory begins, and takes no misaligned one", async () => {
  for (let size = 1; size <= 256; size *= 2) {
    for (const offset of [0, 16, 0x18, 0x3e8]) {
      const bench = new SessionBench({ device: new TestDevice({ queueSizes: [256] }) });
      const dma = new DmaPool(bench.memory, 0x1000 + offset, 0x8_0000);
      const session = await bench.open({ dma, core: 0n, queues: () => [{ index: 0, size }] });
      const { config } = session.queue(0);
      const layout = ringLayout("split", size);
      assertEquals(config.descriptorArea % layout.descriptorArea.align, 0);
      assertEquals(config.driverArea % layout.driverArea.align, 0);
      assertEquals(config.deviceArea % layout.deviceArea.align, 0);
      assertEquals(
        [layout.descriptorArea.align, layout.driverArea.align, layout.deviceArea.align],
        [
          16,
          2,
          4,
        ],
      );
    }
  }
  const memory = GuestMemory.allocate(0x10000);
  for (
    const wrong of [{ descriptorArea: 0x1008 }, { driverArea: 0x2001 }, { deviceArea: 0x3002 }]
  ) {
    assertThrows(
      () => openDriverQueue(memory, { size: 8, ...CONFIG, ...wrong }, 0n),
      VirtqueueError,
    );
  }
});

Deno.test("2.7.4.2-G1 device-writable elements come after the device-readable ones, in the ring and in a table", () => {
  for (const table of [undefined, 0xc000]) {
    const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
    for (const [readable, writable] of [[1, 0], [0, 1], [3, 2], [1, 5], [4, 4]] as const) {
      bench.queue.add(elements(readable, writable), 1, table);
      bench.queue.publish();
      const [head] = bench.heads();
      const chain = table === undefined ? bench.chain(head!) : bench.chain(0, table);
      assertEquals(
        chain.map(({ flags }) => (flags & VIRTQ_DESC_F_WRITE) !== 0),
        [...Array(readable).fill(false), ...Array(writable).fill(true)],
      );
      bench.use(head!);
      bench.queue.take();
    }
  }
  assertThrows(() => elements(0, 1).readable(0x8000, 4), TypeError);
});

Deno.test("2.7.4.2-G2 a buffer takes one descriptor for each element, and a block request three for data in one place", async () => {
  const bench = new Bench();
  bench.queue.add(elements(2, 3), 1);
  bench.queue.publish();
  assertEquals(bench.chain(bench.heads()[0]!).length, 5);
  const memory = GuestMemory.allocate(0x10_0000);
  const device = new blk.BlkDevice({ backend: new MemoryBackend(0x10_0000) });
  const driver = await BlkDriver.open(new LocalTransport(device, memory), { dma: dmaPool(memory) });
  await driver.read(0, new Uint8Array(65536));
  await driver.write(0, new Uint8Array(512));
  const { chains, descriptors } = device.queueCounters[0]!;
  assertEquals(descriptors, 3 * chains);
  assert(chains >= 2);
  await driver.close();
});

Deno.test("2.7.5.2-G1 no chain of more than 2^32 bytes, and none that loops", () => {
  const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
  const huge = new BufferList();
  for (let i = 0; i < 4; i++) huge.writable(0, 0x4000_0000);
  for (const table of [undefined, 0xc000]) {
    assertThrows(
      () =>
        bench.queue.add(
          new BufferList().readable(0, 0xffff_ffff).writable(0, 2),
          1,
          table,
        ),
      RangeError,
    );
    assert(bench.queue.add(huge, 1, table), "2^32 bytes are allowed");
  }
  bench.queue.publish();
  const [direct, indirect] = bench.heads();
  assertEquals(bench.chain(direct!).length, 4);
  assertEquals(bench.chain(0, 0xc000).length, 4);
  assertEquals(bench.chain(indirect!).length, 1);
  // Through any order of use the free list never closes a ring within a chain.
  const other = new Bench();
  const pick = random(7);
  for (let step = 0; step < 500; step++) {
    const count = 1 + pick(8);
    const pending = [];
    while (other.queue.add(elements(count % 3, 1 + count % 2), step));
    other.queue.publish();
    for (const head of other.heads()) {
      const chain = other.chain(head);
      assertEquals(chain.length, count % 3 + 1 + count % 2);
      pending.push(head);
    }
    pending.sort(() => pick(3) - 1);
    for (const head of pending) other.use(head);
    while (other.queue.take() >= 0);
  }
});

Deno.test("2.7.5.2-G2 with IN_ORDER next is the following descriptor, and 0 after the last of the table", () => {
  const bench = new Bench(VIRTIO_F_IN_ORDER);
  let wrapped = 0;
  for (let step = 0; step < 200; step++) {
    while (bench.queue.add(elements(step % 3, 1 + step % 2), step));
    bench.queue.publish();
    const heads = bench.heads();
    for (const head of heads) {
      let index = head;
      for (const descriptor of bench.chain(head)) {
        if ((descriptor.flags & VIRTQ_DESC_F_NEXT) !== 0) {
          assertEquals(descriptor.next, index === 7 ? 0 : index + 1);
          if (index === 7) wrapped++;
        }
        index = (index + 1) % 8;
      }
    }
    // Some of the batches with one entry for all.
    if (step % 2 === 0) { for (const head of heads) bench.use(head); }
    else {
      bench.use(heads.at(-1)!);
      const idx = (bench.usedIdx + heads.length - 1) & 0xffff;
      bench.memory.writeU16(bench.config.deviceArea + 2, idx);
    }
    while (bench.queue.take() >= 0);
    assertEquals(bench.queue.inFlight, 0);
  }
  assert(wrapped > 20);
});

Deno.test("2.7.5.3.1-G1 2.7.5.3.1-G4 INDIRECT is not set unless it was negotiated, and never with NEXT", () => {
  const plain = new Bench();
  assertThrows(() => plain.queue.add(elements(1, 1), 1, 0xc000), TypeError);
  plain.queue.add(elements(1, 1), 1);
  plain.queue.publish();
  assertEquals(plain.heads().length, 1);
  for (let i = 0; i < 8; i++) {
    assertEquals(plain.descriptor(i).flags & VIRTQ_DESC_F_INDIRECT, 0);
  }
  const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
  bench.queue.add(elements(2, 3), 1, 0xc000);
  bench.queue.publish();
  const descriptor = bench.descriptor(bench.heads()[0]!);
  assertEquals([descriptor.address, descriptor.length], [0xc000, 80]);
  assertEquals(
    descriptor.flags & (VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_NEXT),
    VIRTQ_DESC_F_INDIRECT,
  );
});

Deno.test("2.7.5.3.1-G2 2.7.5.3.1-G5 in an indirect table there is no INDIRECT, and next counts 1, 2, 3", () => {
  for (const features of [0n, VIRTIO_F_IN_ORDER]) {
    const bench = new Bench(features | VIRTIO_F_INDIRECT_DESC);
    bench.memory.fill(0xc000, 0x100, 0xff);
    bench.queue.add(elements(3, 4), 1, 0xc000);
    bench.queue.publish();
    const table = Array.from({ length: 7 }, (_, i) => bench.descriptor(i, 0xc000));
    assertEquals(table.map(({ next, flags }) => (flags & VIRTQ_DESC_F_NEXT) === 0 ? -1 : next), [
      1,
      2,
      3,
      4,
      5,
      6,
      -1,
    ]);
    for (const { flags } of table) assertEquals(flags & VIRTQ_DESC_F_INDIRECT, 0);
  }
});

Deno.test("2.7.5.3.1-G3 no chain is longer than the queue, through a table either", () => {
  const bench = new Bench(VIRTIO_F_INDIRECT_DESC, 4);
  for (const table of [undefined, 0xc000]) {
    assertThrows(() => bench.queue.add(elements(3, 2), 1, table), RangeError);
    assertEquals(bench.queue.free, 4);
    assert(bench.queue.add(elements(2, 2), 1, table));
    bench.queue.publish();
    for (const head of bench.heads()) bench.use(head);
    bench.queue.take();
  }
});

Deno.test("2.7.6.1-G1 the available index never goes back, whatever the driver does", async () => {
  const bench = new Bench();
  let last = 0;
  const check = (): void => {
    const now = bench.availIdx;
    assert(((now - last) & 0xffff) <= 8, `from ${last} to ${now}`);
    last = now;
  };
  for (let step = 0; step < 20_000; step++) {
    while (bench.queue.add(elements(1, 1), step));
    bench.queue.publish();
    check();
    for (const head of bench.heads()) bench.use(head);
    while (bench.queue.take() >= 0);
    bench.queue.enableInterrupts();
    check();
  }
  bench.send();
  check();
  assertEquals(bench.queue.drain(), [0]);
  check();
  // In a session, over a suspend too.
  const other = new SessionBench();
  const session = await other.open({ core: VIRTIO_F_SUSPEND });
  other.device.hold();
  other.send(session, 1);
  const idx = (): number => other.memory.readU16(session.queue(0).config.driverArea + 2);
  assertEquals(idx(), 1);
  const suspending = session.suspend();
  other.device.release();
  await suspending;
  await session.resume();
  assertEquals(idx(), 1);
});
