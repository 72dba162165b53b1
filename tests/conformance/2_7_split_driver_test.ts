/** Virtio 1.4, 2.7: split virtqueues, what the driver has to do. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as blk from "@virtio/blk";
import { BlkDriver } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { ConfigSpace, VIRTIO_F_SUSPEND } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import {
  type QueueConfig,
  ringLayout,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VirtqueueError,
} from "@virtio/vring";
import { BufferList, DmaPool, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { dmaPool, LocalTransport, TestDevice } from "../../packages/device/testing.ts";
import { watchAtomics } from "./atomics.ts";
import { SessionBench } from "./session_bench.ts";
import { random } from "./random.ts";

const CONFIG = { descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };

interface Descriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

/** A driver's queue, and a device that is written by hand. */
class Bench {
  readonly memory = GuestMemory.allocate(0x10000);
  readonly config: QueueConfig;
  readonly queue: DriverQueue;
  /** Where the device is in the available ring. */
  #seen = 0;

  constructor(features = 0n, size = 8) {
    this.config = { size, ...CONFIG };
    this.queue = openDriverQueue(this.memory, this.config, features);
  }

  descriptor(index: number, table: number = this.config.descriptorArea): Descriptor {
    const at = table + 16 * index;
    return {
      address: this.memory.readU64(at),
      length: this.memory.readU32(at + 8),
      flags: this.memory.readU16(at + 12),
      next: this.memory.readU16(at + 14),
    };
  }

  /** The chain from a head on, as a device would walk it, but at most a ring of it. */
  chain(head: number, table?: number): Descriptor[] {
    const chain: Descriptor[] = [];
    for (let index = head; chain.length <= this.config.size;) {
      const descriptor = this.descriptor(index, table);
      chain.push(descriptor);
      if ((descriptor.flags & VIRTQ_DESC_F_NEXT) === 0) break;
      index = descriptor.next;
    }
    return chain;
  }

  get availFlags(): number {
    return this.memory.readU16(this.config.driverArea);
  }

  get availIdx(): number {
    return this.memory.readU16(this.config.driverArea + 2);
  }

  get usedEvent(): number {
    return this.memory.readU16(this.config.driverArea + 4 + 2 * this.config.size);
  }

  set usedFlags(value: number) {
    this.memory.writeU16(this.config.deviceArea, value);
  }

  get usedFlags(): number {
    return this.memory.readU16(this.config.deviceArea);
  }

  get usedIdx(): number {
    return this.memory.readU16(this.config.deviceArea + 2);
  }

  set availEvent(value: number) {
    this.memory.writeU16(this.config.deviceArea + 4 + 8 * this.config.size, value & 0xffff);
  }

  /** Heads that were made available since. */
  heads(): number[] {
    const heads: number[] = [];
    for (; this.#seen !== this.availIdx; this.#seen = (this.#seen + 1) & 0xffff) {
      heads.push(
        this.memory.readU16(this.config.driverArea + 4 + 2 * (this.#seen % this.config.size)),
      );
    }
    return heads;
  }

  /** Uses a chain. */
  use(head: number, length = 0): void {
    const at = this.config.deviceArea + 4 + 8 * (this.usedIdx % this.config.size);
    this.memory.writeU32(at, head);
    this.memory.writeU32(at + 4, length);
    this.memory.writeU16(this.config.deviceArea + 2, (this.usedIdx + 1) & 0xffff);
  }

  /** Adds a buffer of one element and publishes. @returns Whether a kick is wanted. */
  send(token = 0): boolean {
    assert(this.queue.add(new BufferList().writable(0x8000, 4), token));
    return this.queue.publish();
  }

  /** Sends `count` buffers at once, uses and takes them. @returns Whether a kick was wanted. */
  batch(count: number): boolean {
    for (let i = 0; i < count; i++) this.queue.add(new BufferList().writable(0x8000, 4), i);
    const kick = this.queue.publish();
    for (const head of this.heads()) this.use(head);
    while (this.queue.take() >= 0);
    return kick;
  }
}

function elements(readable: number, writable: number, length = 16): BufferList {
  const list = new BufferList();
  for (let i = 0; i < readable; i++) list.readable(0x8000 + 0x100 * i, length);
  for (let i = 0; i < writable; i++) list.writable(0xa000 + 0x100 * i, length);
  return list;
}

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

Deno.test("2.7.7.1-G1 2.7.7.1-G2 without EVENT_IDX flags are 0 or 1: 1 to advise the device that no notification is needed", () => {
  const bench = new Bench();
  assertEquals(bench.availFlags, 0);
  for (let i = 0; i < 5; i++) {
    bench.queue.disableInterrupts();
    assertEquals(bench.availFlags, 1);
    bench.batch(3);
    assertEquals(bench.availFlags, 1);
    bench.queue.enableInterrupts(i);
    assertEquals(bench.availFlags, 0);
    bench.batch(2);
    assertEquals(bench.availFlags, 0);
  }
});

Deno.test("2.7.7.1-G3 2.7.7.1-G4 with EVENT_IDX flags stay 0, and used_event tells the entry that the driver waits for", () => {
  const bench = new Bench(VIRTIO_F_EVENT_IDX);
  for (let i = 0; i < 50; i++) {
    bench.queue.disableInterrupts();
    assertEquals(bench.availFlags, 0);
    // No used index that is to come within a ring will reach it.
    assert(((bench.usedEvent - bench.usedIdx) & 0xffff) > 8);
    bench.batch(1 + i % 8);
    for (const after of [0, 3]) {
      bench.queue.enableInterrupts(after);
      assertEquals([bench.availFlags, bench.usedEvent], [0, bench.usedIdx + after]);
    }
  }
});

Deno.test("2.7.7.1-G5 spurious notifications from the device are handled", async () => {
  const bench = new SessionBench();
  const session = await bench.open({ core: 0n });
  const taken: number[] = [];
  session.handlers = {
    used: (index) => {
      const queue = session.queue(index);
      for (let token = queue.take(); token >= 0; token = queue.take()) taken.push(token);
    },
    config: () => {},
    needsReset: () => {},
  };
  const { interrupts } = bench.transport;
  for (let i = 0; i < 5; i++) {
    for (const index of [0, null, 1, 99]) interrupts!.queue(index);
    interrupts!.config();
    bench.send(session, i);
    await bench.settle();
    interrupts!.queue(0);
  }
  assertEquals(taken, [0, 1, 2, 3, 4]);
});

Deno.test("2.7.8.3-G1 of a used buffer the driver believes the first len bytes only", async () => {
  const bench = new Bench();
  for (const length of [0, 5, 16]) {
    bench.queue.add(elements(0, 1), 1);
    bench.queue.publish();
    // The device wrote all of it, but vouches for less.
    bench.memory.fill(0xa000, 16, 0x99);
    bench.use(bench.heads()[0]!, length);
    assertEquals([bench.queue.take(), bench.queue.usedLength], [1, length]);
  }
  // The block driver does not hand out data that the length does not cover.
  const memory = GuestMemory.allocate(0x10_0000);
  const config = new ConfigSpace(96);
  config.view.setUint32(0, 2048, true);
  const device = new TestDevice({ type: 2, config, queueSizes: [64] });
  device.stopping = () => {};
  device.handler = (chain) => {
    chain.writer.write(new Uint8Array(chain.writable - 1).fill(0x99));
    chain.writer.u8(0);
  };
  const driver = await BlkDriver.open(new LocalTransport(device, memory), { dma: dmaPool(memory) });
  const data = new Uint8Array(512);
  await driver.read(0, data);
  assertEquals(data[511], 0x99);
  // Truncated: the device says that it wrote one byte.
  const startQueue = device.startQueue.bind(device);
  await driver.close();
  device.startQueue = (index, queue) => {
    const push = queue.push.bind(queue);
    queue.push = (chain) => push(chain, 1);
    startQueue(index, queue);
  };
  const again = await BlkDriver.open(new LocalTransport(device, memory), { dma: dmaPool(memory) });
  const other = new Uint8Array(512);
  await assertRejects(() => again.read(0, other));
  assert(!other.includes(0x99));
  await again.close();
});

Deno.test("2.7.10.1-G1 the driver sets the flags of the used ring to 0 when it makes the ring, whatever was there", () => {
  const memory = GuestMemory.allocate(0x10000);
  memory.fill(0, 0x10000, 0xff);
  openDriverQueue(memory, { size: 8, ...CONFIG }, 0n);
  assertEquals(memory.readU16(CONFIG.deviceArea), 0);
});

Deno.test("2.7.10.1-G2 2.7.10.1-G3 2.7.10.1-G4 without EVENT_IDX the flags decide about kicks, and avail_event is ignored", () => {
  const bench = new Bench();
  for (let round = 0; round < 40; round++) {
    const count = 1 + round % 4;
    const idx = bench.availIdx;
    for (const event of [idx, idx + count - 1, idx - 1, idx + 0x8000]) {
      bench.availEvent = event;
      bench.usedFlags = 0;
      assert(bench.batch(count), `flags 0, avail_event ${event}`);
      bench.availEvent = event + count;
      bench.usedFlags = 1;
      assert(!bench.batch(count), `flags 1, avail_event ${event}`);
    }
  }
});

Deno.test("2.7.10.1-G4 2.7.10.1-G3 the session kicks when it must, and does not when it should not", async () => {
  const bench = new SessionBench({ features: 0n });
  const session = await bench.open();
  const flags = session.queue(0).config.deviceArea;
  bench.send(session, 1);
  assertEquals(bench.transport.kicks, 1);
  bench.memory.writeU16(flags, 1);
  assertEquals([bench.send(session, 2), bench.transport.kicks], [false, 1]);
  bench.memory.writeU16(flags, 0);
  assertEquals([bench.send(session, 3), bench.transport.kicks], [true, 2]);
});

Deno.test("2.7.10.1-G5 with EVENT_IDX the lower bit of the used ring's flags is ignored", () => {
  const bench = new Bench(VIRTIO_F_EVENT_IDX);
  for (let i = 0; i < 20; i++) {
    for (const flags of [0, 1]) {
      bench.usedFlags = flags;
      bench.availEvent = bench.availIdx;
      assert(bench.batch(1));
      bench.availEvent = bench.availIdx + 1;
      assert(!bench.batch(1));
    }
  }
});

Deno.test("2.7.10.1-G6 2.7.10.1-G7 with EVENT_IDX a kick comes when the entry of index avail_event is written, and only then", () => {
  const bench = new Bench(VIRTIO_F_EVENT_IDX);
  const near = (idx: number, to: number): boolean => ((idx - to + 24) & 0xffff) < 48;
  // All batches and events near the start, the middle and the wrap of the index; the rest is passed in whole rings.
  for (let laps = 0; laps < 2;) {
    const idx = bench.availIdx;
    if (![0, 0x8000].some((to) => near(idx, to))) {
      bench.batch(8);
      continue;
    }
    for (let count = 1; count <= 8; count++) {
      for (let offset = -10; offset <= 18; offset++) {
        const from = bench.availIdx;
        bench.availEvent = from + offset;
        const written = offset >= 0 && offset < count;
        assertEquals(
          bench.batch(count),
          written,
          `from ${from}, ${count} of them, event + ${offset}`,
        );
      }
    }
    laps++;
  }
});

Deno.test("2.7.13.3.1-G1 2.7.13.4.1-G1 the index is stored atomically after the entries, and the device's wishes are read after that", () => {
  for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
    const bench = new Bench(features | VIRTIO_F_INDIRECT_DESC);
    const index = bench.config.driverArea + 2;
    const wish = features === 0n
      ? bench.config.deviceArea
      : bench.config.deviceArea + 4 + 8 * bench.config.size;
    for (let round = 0; round < 6; round++) {
      const before = bench.availIdx;
      const seen: string[] = [];
      watchAtomics(({ kind, byte, value }) => {
        if (kind === "load" && byte === wish) seen.push("wish");
        if (kind !== "store" || byte !== index) return;
        seen.push("index");
        // Nothing was shown before this store, and everything is there that it shows.
        assertEquals([bench.availIdx, value], [before, (before + 2) & 0xffff]);
        for (const i of [before, before + 1]) {
          const head = bench.memory.readU16(bench.config.driverArea + 4 + 2 * (i % 8));
          const first = bench.descriptor(head);
          if ((first.flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
            assertEquals(bench.chain(0, 0xc000).map(({ address }) => address), [0x8000, 0xa000]);
          } else {
            assertEquals(bench.chain(head).map(({ address }) => address), [0x8000, 0xa000]);
          }
        }
      }, () => {
        bench.memory.fill(0xc000, 32);
        bench.queue.add(elements(1, 1), 1);
        bench.queue.add(elements(1, 1), 2, 0xc000);
        bench.queue.publish();
      });
      assertEquals(seen, ["index", "wish"]);
      for (const head of bench.heads()) bench.use(head);
      while (bench.queue.take() >= 0);
    }
  }
});
