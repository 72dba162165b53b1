/** Virtio 1.4, 2.8: packed virtqueues, what the device has to do. */
import { assert, assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import {
  openQueue,
  type QueueConfig,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
} from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import { LIVE } from "../../packages/device/testing.ts";
import { rawDriver, type RawPackedDriver } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere, type Place, type Placed } from "./places.ts";
import { random } from "./random.ts";

const FROM = 0x5_0000;
const TO = 0x6_0000;
const TABLE = 0x7_0000;
const BUFFER = [{ address: FROM, length: 2 }, { address: TO, length: 2, write: true }];

/** A device on a packed ring that is written by hand. */
class Bench extends PlacedRig {
  readonly raw: RawPackedDriver;
  readonly config: QueueConfig;

  constructor(placed: Placed<"test">, features: bigint, size: number) {
    super(placed);
    this.raw = this.startRaw(features | VIRTIO_F_RING_PACKED, size) as RawPackedDriver;
    this.config = this.raw.config;
    this.interrupts.length = 0;
  }

  static async make(place: Place, features = 0n, size = 8): Promise<Bench> {
    return new Bench(await place.open("test", {}), features, size);
  }

  ring(): Uint8Array {
    const bytes = new Uint8Array(16 * this.config.size);
    this.memory.read(this.config.descriptorArea, bytes);
    return bytes;
  }

  flags(slot: number): number {
    return this.memory.readU16(this.config.descriptorArea + 16 * slot + 14);
  }

  setFlags(slot: number, flags: number): void {
    this.memory.writeU16(this.config.descriptorArea + 16 * slot + 14, flags);
  }
}

everywhere(
  "2.8.12-D1 the device starts with descriptors in the order in which they are in the ring",
  async (place) => {
    const bench = await Bench.make(place);
    const sent: number[] = [];
    for (let round = 0; round < 30; round++) {
      // Lists of one, two and three; ids in no order.
      for (let i = 0, room = 8; i < 3; i++) {
        const length = 1 + (round + i) % 3;
        if (length > room) break;
        room -= length;
        const value = (round * 3 + i) & 0xff;
        bench.memory.writeU8(FROM + value, value);
        const list = Array.from({ length: length - 1 }, () => ({ address: FROM, length: 0 }));
        bench.raw.send([{ address: FROM + value, length: 1 }, ...list], (value * 37) & 0xffff);
        sent.push(value);
      }
      if (round % 4 === 0) bench.hold();
      bench.state.notify(0);
      const count = bench.held;
      bench.release(Array.from({ length: count }, (_, i) => count - 1 - i));
      await bench.turns(1);
      bench.raw.takeUsed();
    }
    assertEquals(bench.handled.map(({ bytes }) => bytes[0]), sent);
  },
);

everywhere(
  "2.8.12-D2 used descriptors stand in the ring in the order in which the buffers completed",
  async (place) => {
    for (const order of [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]]) {
      const bench = await Bench.make(place);
      for (let round = 0; round < 5; round++) {
        bench.hold();
        const ids = [0, 1, 2, 3].map((i) => bench.raw.send(BUFFER, 100 * round + i));
        bench.state.notify(0);
        bench.release(order);
        await bench.turns(1);
        assertEquals(bench.raw.takeUsed().map(({ id }) => id), order.map((i) => ids[i]!));
      }
      assertEquals(bench.status, LIVE);
    }
  },
);

// In process only: the rings of both sides without a device.
Deno.test("2.8.12-D3 used descriptors may be written in any order: our device shows the first last, our driver copes with all", () => {
  const config = { size: 8, descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };
  const used = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;
  for (const order of [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]]) {
    const memory = GuestMemory.allocate(0x10000);
    const driver = openDriverQueue(memory, config, VIRTIO_F_RING_PACKED);
    for (let i = 0; i < 3; i++) driver.add(new BufferList().writable(0x8000, 4), 10 + i);
    driver.publish();
    const taken: number[] = [];
    for (const slot of order) {
      const at = config.descriptorArea + 16 * slot;
      memory.writeU16(at + 12, slot);
      memory.writeU16(at + 14, used);
      for (let token = driver.take(); token >= 0; token = driver.take()) taken.push(token);
    }
    assertEquals(taken, [10, 11, 12]);
  }
  // The device: of a batch nothing can be taken before the flush.
  const memory = GuestMemory.allocate(0x10000);
  const raw = rawDriver(memory, config, VIRTIO_F_RING_PACKED);
  const device = openQueue(memory, config, VIRTIO_F_RING_PACKED);
  for (let i = 0; i < 3; i++) raw.send([{ address: 0x8000, length: 4, write: true }]);
  for (let i = 0; i < 3; i++) {
    device.push(device.pop()!);
    assertEquals(raw.takeUsed(), []);
  }
  device.flush();
  assertEquals(raw.takeUsed().map(({ id }) => id), [0, 1, 2]);
});

everywhere(
  "2.8.15-D1 a device cannot write to what it may read, nor read what it may write",
  async (place) => {
    const bench = await Bench.make(place, VIRTIO_F_INDIRECT_DESC);
    bench.run(({ device }) => {
      device.handler = (chain) => {
        const much = new Uint8Array(4096).fill(0xee);
        const got = much.slice();
        const read = chain.reader.read(got);
        chain.writer.write(much);
        chain.writer.fill(0xee, 4096);
        device.own = [read, got.includes(0x77), chain.written];
      };
    });
    const list = [{ address: FROM, length: 64 }, { address: TO, length: 64, write: true }];
    bench.raw.table(TABLE, list);
    for (const send of [list, [{ address: TABLE, length: 32, indirect: true }]]) {
      bench.memory.fill(FROM - 64, 192, 0x33);
      bench.memory.fill(TO - 64, 192, 0x44);
      bench.memory.fill(TO, 64, 0x77);
      bench.raw.send(send);
      bench.state.notify(0);
      assertEquals(bench.run(({ device }) => device.own), [64, false, 64]);
      for (let i = -64; i < 128; i++) assertEquals(bench.memory.readU8(FROM + i), 0x33);
      for (let i = -64; i < 128; i++) {
        assertEquals(bench.memory.readU8(TO + i), i >= 0 && i < 64 ? 0xee : 0x44);
      }
    }
    assertEquals([bench.status, bench.handled.length], [LIVE, 2]);
  },
);

everywhere(
  "2.8.19-G2 the other side of it: the device ignores all flags but WRITE in an indirect table (2.8.7)",
  async (place) => {
    const bench = await Bench.make(place, VIRTIO_F_INDIRECT_DESC);
    bench.run(({ device }) => {
      device.handler = (chain) => {
        device.own = [chain.readable, chain.writable];
        chain.writer.u32(chain.reader.u32() + 1);
      };
    });
    bench.raw.table(TABLE, [
      { address: FROM, length: 8, indirect: true },
      { address: TO, length: 8, write: true, indirect: true },
    ]);
    bench.memory.writeU32(FROM, 41);
    bench.raw.send([{ address: TABLE, length: 32, indirect: true }]);
    bench.state.notify(0);
    assertEquals([bench.status, bench.handled.length], [LIVE, 1]);
    assertEquals(bench.run(({ device }) => device.own), [8, 8]);
    assertEquals(bench.memory.readU32(TO), 42);
  },
);

everywhere(
  "2.8.15-D2 no descriptor is used before its AVAIL bit has changed: fresh, from the last time around, or within a list",
  async (place) => {
    // A fresh ring, kicked for nothing, with contents of all kinds but for the flags.
    const fresh = await Bench.make(place);
    for (let slot = 0; slot < 8; slot++) {
      fresh.memory.writeU64(fresh.config.descriptorArea + 16 * slot, FROM);
      fresh.memory.writeU32(fresh.config.descriptorArea + 16 * slot + 8, 4);
      fresh.setFlags(slot, slot % 2 === 0 ? 0 : VIRTQ_DESC_F_USED);
    }
    fresh.state.notify(0);
    assertEquals(fresh.handled, []);
    // Both bits set: used, not available.
    fresh.setFlags(0, VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED);
    fresh.state.notify(0);
    assertEquals(fresh.handled, []);
    // Once around, and the flags of the first lap are still there.
    const bench = await Bench.make(place);
    for (let i = 0; i < 8; i++) bench.raw.send([{ address: FROM, length: 1 }]);
    bench.state.notify(0);
    assertEquals(bench.handled.length, 8);
    for (let slot = 0; slot < 8; slot++) bench.setFlags(slot, VIRTQ_DESC_F_AVAIL);
    bench.state.notify(0);
    assertEquals(bench.handled.length, 8);
    // In the second lap USED is the bit that is set.
    for (let slot = 0; slot < 8; slot++) bench.setFlags(slot, VIRTQ_DESC_F_USED);
    bench.state.notify(0);
    assertEquals(bench.handled.length, 16);
  },
);

everywhere(
  "2.8.15-D2 a list whose first descriptor is available and whose others are not is not used",
  async (place) => {
    for (const missing of [1, 2]) {
      const bench = await Bench.make(place);
      bench.raw.send([
        { address: FROM, length: 1 },
        { address: FROM, length: 1 },
        { address: TO, length: 1, write: true },
      ]);
      bench.memory.writeU8(TO, 0x55);
      bench.setFlags(missing, bench.flags(missing) & ~VIRTQ_DESC_F_AVAIL);
      bench.state.notify(0);
      assertEquals(bench.handled, [], `descriptor ${missing} is not available`);
      assertEquals([bench.memory.readU8(TO), bench.raw.takeUsed()], [0x55, []]);
      // The driver broke 2.8.17.
      assert(bench.needsReset);
      assert(bench.errors[0]!.message.includes("2.8.17"));
    }
  },
);

everywhere(
  "2.8.15-D2 a list over the end of the ring is available with the flags of two laps",
  async (place) => {
    const bench = await Bench.make(place);
    for (let lap = 0; lap < 6; lap++) {
      for (let i = 0; i < 3; i++) {
        bench.raw.send([{ address: FROM, length: 1 }, { address: FROM, length: 1 }, {
          address: TO,
          length: 1,
          write: true,
        }]);
        bench.state.notify(0);
        assertEquals(bench.raw.takeUsed().length, 1);
      }
    }
    assertEquals([bench.handled.length, bench.status], [18, LIVE]);
  },
);

everywhere(
  "2.8.15-D3 once USED is set the device leaves a descriptor alone, until the driver makes it available again",
  async (place) => {
    for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
      const bench = await Bench.make(place, features);
      const pick = random(3);
      let held = 0;
      /** Slots with a used descriptor, and what stood there. */
      const used = new Map<number, string>();
      const slot = (i: number): string => bench.ring().slice(16 * i, 16 * i + 16).join();
      const lengths = new Map<number, number>();
      let free = 8;
      let nextUsed = 0;
      for (let step = 0; step < 500; step++) {
        const what = pick(3);
        if (what === 0) {
          const length = 1 + pick(3);
          if (length > free) continue;
          free -= length;
          // The driver overwrites these; they are not used any more.
          for (let i = 0; i < length; i++) used.delete((bench.raw.next + i) % 8);
          const list = Array.from({ length }, () => ({ address: TO, length: 4, write: true }));
          lengths.set(bench.raw.send(list), length);
          const hold = pick(2) === 0;
          bench.run(({ device, echo }, hold) => {
            if (hold) device.hold();
            else device.handler = echo;
          }, hold);
          bench.state.notify(0);
          if (hold) held++;
        } else if (what === 1 && held > 0) {
          bench.finish(pick(held--));
          // Without a turn of this loop: that would take long, 500 times.
          bench.settle();
          await Promise.resolve();
        } else {
          bench.state.notify(0);
        }
        for (const [at, bytes] of used) assertEquals(slot(at), bytes, `slot ${at}, step ${step}`);
        // What is new since: one used descriptor for each buffer, at its place in the order of completion.
        for (const { id } of bench.raw.takeUsed()) {
          used.set(nextUsed, slot(nextUsed));
          const length = lengths.get(id)!;
          nextUsed = (nextUsed + length) % 8;
          free += length;
        }
      }
      assert(bench.handled.length > 100);
      assertEquals(bench.status, LIVE);
    }
  },
);

everywhere(
  "2.8.16-G4 2.8.15-D2 notifications without new descriptors are sent and handled",
  async (place) => {
    const bench = await Bench.make(place);
    bench.hold();
    bench.raw.send(BUFFER);
    bench.state.notify(0);
    const ring = bench.ring();
    for (let i = 0; i < 10; i++) bench.state.notify(0);
    await bench.turns(1);
    assertEquals([bench.held, bench.interrupts], [1, []]);
    assertEquals(bench.ring(), ring);
    bench.release();
    await bench.turns(1);
    for (let i = 0; i < 10; i++) bench.state.notify(0);
    assertEquals([bench.raw.takeUsed().length, bench.interrupts, bench.status], [1, [0], LIVE]);
  },
);

everywhere(
  "2.8.18-D1 the descriptors of a list are used in the order in which they are chained",
  async (place) => {
    const bench = await Bench.make(place);
    for (let round = 0; round < 10; round++) {
      bench.memory.write(FROM, new Uint8Array([1, 2, 3, 4, 5, 6]));
      bench.memory.fill(TO, 0x300);
      bench.raw.send([
        { address: FROM + 4, length: 2 },
        { address: FROM, length: 1 },
        { address: FROM + 1, length: 3 },
        { address: TO + 0x200, length: 1, write: true },
        { address: TO, length: 2, write: true },
        { address: TO + 0x100, length: 3, write: true },
      ]);
      bench.state.notify(0);
      assertEquals(bench.handled.at(-1)!.bytes, [5, 6, 1, 2, 3, 4]);
      const wrote = [0x200, 0, 1, 0x100, 0x101, 0x102].map((at) => bench.memory.readU8(TO + at));
      assertEquals(wrote, [5, 6, 1, 2, 3, 4]);
      assertEquals(bench.raw.takeUsed().length, 1);
    }
  },
);

everywhere(
  "2.8.18-D2 a list of up to 1024 buffers is taken, a longer one costs the driver its device, not the host",
  async (place) => {
    for (const count of [1, 1024, 1025]) {
      const bench = await Bench.make(place, VIRTIO_F_INDIRECT_DESC);
      bench.raw.table(
        TABLE,
        Array.from({ length: count }, () => ({ address: TO, length: 1, write: true })),
      );
      bench.raw.send([{ address: TABLE, length: 16 * count, indirect: true }]);
      bench.state.notify(0);
      assertEquals([bench.needsReset, bench.handled.length], [
        count > 1024,
        count > 1024 ? 0 : 1,
      ]);
    }
    // Direct: the ring's size is the limit, since there is no room for more.
    const bench = await Bench.make(place);
    bench.raw.send(Array.from({ length: 8 }, () => ({ address: TO, length: 1, write: true })));
    bench.state.notify(0);
    assertEquals(bench.raw.takeUsed().length, 1);
  },
);
