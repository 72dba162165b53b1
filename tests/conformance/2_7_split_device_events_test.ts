/** Virtio 1.4, 2.7.7 and 2.7.10: of what a device with a split ring notifies, and of what it wants to be notified. */
import { assert, assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { openQueue, VIRTIO_F_EVENT_IDX } from "@virtio/vring";
import { LIVE } from "../../packages/device/testing.ts";
import { rawDriver, type RawSplitDriver } from "../../packages/vring/testing/raw_driver.ts";
import { everywhere } from "./places.ts";
import { SplitBench, TO } from "./split_bench.ts";

const FROM = 0x5_0000;

everywhere(
  "2.7.7.2-D1 2.7.7.2-D2 2.7.7.2-D3 without EVENT_IDX the flags decide, and used_event is ignored",
  async (place) => {
    const bench = await SplitBench.make(place);
    for (let round = 0; round < 40; round++) {
      const count = 1 + round % 3;
      const idx = bench.usedIdx;
      for (const event of [idx, idx + count - 1, idx - 1, idx + 0x8000, 0, 0xffff]) {
        bench.usedEvent = event;
        bench.availFlags = 0;
        assertEquals(bench.batch(count), 1, `flags 0, used_event ${event}`);
        bench.usedEvent = event + count;
        bench.availFlags = 1;
        assertEquals(bench.batch(count), 0, `flags 1, used_event ${event}`);
      }
    }
  },
);

everywhere("2.7.7.2-D4 with EVENT_IDX the lower bit of flags is ignored", async (place) => {
  const bench = await SplitBench.make(place, VIRTIO_F_EVENT_IDX);
  for (const flags of [0, 1]) {
    bench.availFlags = flags;
    bench.usedEvent = bench.usedIdx;
    assertEquals(bench.batch(1), 1);
    bench.usedEvent = bench.usedIdx + 1;
    assertEquals(bench.batch(1), 0);
    bench.usedEvent = bench.usedIdx + 4;
    assertEquals(bench.batch(3), 0);
  }
});

// In process only: the ring without a device, at every position.
Deno.test("2.7.7.2-D5 2.7.7.2-D6 with EVENT_IDX a notification comes when the entry of index used_event is written, and only then", () => {
  // All batches up to a whole ring, from every place around the wrap of the index, with every event near it and some far.
  const size = 8;
  const config = { size, descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };
  const memory = GuestMemory.allocate(0x8000);
  const event = config.driverArea + 4 + 2 * size;
  for (const start of [0, 1, 7, 8, 0x7fff, 0x8000, 0xfff8, 0xfffc, 0xffff]) {
    for (let count = 1; count <= size; count++) {
      for (let offset = -20; offset <= 20; offset++) {
        const raw = rawDriver(memory, config, 0n) as RawSplitDriver;
        raw.seek(start, start);
        const queue = openQueue(memory, {
          ...config,
          position: { nextAvail: start, nextUsed: start, availWrap: 0, usedWrap: 0 },
        }, VIRTIO_F_EVENT_IDX);
        for (let i = 0; i < count; i++) raw.send([{ address: 0x4000, length: 1, write: true }]);
        memory.writeU16(event, (start + offset) & 0xffff);
        for (let chain = queue.pop(); chain !== null; chain = queue.pop()) queue.push(chain);
        const written = offset >= 0 && offset < count;
        assertEquals(queue.flush(), written, `from ${start}, ${count} of them, event + ${offset}`);
      }
    }
  }
});

everywhere(
  "2.7.10.2-D1 2.7.10.2-D2 without EVENT_IDX the device sets flags to 0 or 1: 1 while it looks anyway",
  async (place) => {
    const bench = await SplitBench.make(place);
    // The flags while it looks: read where it does.
    bench.run(({ device }, at) => {
      device.own = [];
      device.handler = (chain) => {
        (device.own as number[]).push(chain.regions[0]!.view.getUint16(at, true));
      };
    }, bench.config.deviceArea);
    for (let i = 0; i < 20; i++) {
      bench.batch(1 + i % 4);
      assertEquals(bench.usedFlags, 0, "kicks are wanted again");
    }
    const seen = bench.run(({ device }) => device.own) as number[];
    assertEquals([...new Set(seen)], [1]);
  },
);

everywhere(
  "2.7.10.2-D3 2.7.10.2-D4 with EVENT_IDX flags stay 0, and avail_event tells the entry that the device waits for",
  async (place) => {
    const bench = await SplitBench.make(place, VIRTIO_F_EVENT_IDX);
    bench.run(({ device }, at) => {
      device.own = 0;
      device.handler = (chain) => {
        device.own = (device.own as number) | chain.regions[0]!.view.getUint16(at, true);
      };
    }, bench.config.deviceArea);
    for (let i = 0; i < 100; i++) {
      bench.batch(1 + i % 5);
      assertEquals([bench.usedFlags, bench.availEvent], [0, bench.raw.availIdx]);
    }
    assertEquals([bench.run(({ device }) => device.own), bench.status], [0, LIVE]);
  },
);

everywhere("2.7.10.2-D5 spurious notifications change nothing", async (place) => {
  for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
    const bench = await SplitBench.make(place, features);
    for (let i = 0; i < 5; i++) {
      bench.hold();
      bench.raw.send([{ address: FROM, length: 2 }, { address: TO, length: 2, write: true }]);
      bench.state.notify(0);
      const image = bench.memory.regions[0]!.bytes.slice();
      bench.interrupts.length = 0;
      for (let kick = 0; kick < 10; kick++) {
        bench.state.notify(0);
        bench.state.notify(1);
      }
      await bench.turns(1);
      assertEquals([bench.held, bench.interrupts], [1, []]);
      assert(bench.memory.regions[0]!.bytes.every((byte, at) => byte === image[at]));
      bench.usedEvent = bench.usedIdx;
      bench.release();
      await bench.turns(1);
      assertEquals([bench.raw.takeUsed().length, bench.status], [1, LIVE]);
    }
  }
});
