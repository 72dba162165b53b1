/** Virtio 1.4, 2.7: split virtqueues, what the driver has to do about notifications and used buffers. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { BlkDriver } from "@virtio/blk/driver";
import { ConfigSpace } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTQ_DESC_F_INDIRECT } from "@virtio/vring";
import { openDriverQueue } from "@virtio/vring/driver";
import { dmaPool, LocalTransport, TestDevice } from "../../packages/device/testing.ts";
import { watchAtomics } from "./atomics.ts";
import { SessionBench } from "./session_bench.ts";
import { Bench, CONFIG, elements } from "./split_driver_bench.ts";

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
