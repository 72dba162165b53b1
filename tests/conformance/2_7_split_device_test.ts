/** Virtio 1.4, 2.7: split virtqueues, what the device has to do. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { GuestMemory } from "@virtio/memory";
import { type QueueConfig, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC } from "@virtio/vring";
import { openQueue } from "@virtio/vring";
import { LIVE, Rig, turns } from "../../packages/device/testing.ts";
import {
  FORMATS,
  type RawDescriptor,
  rawDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { watchAtomics } from "./atomics.ts";

const FROM = 0x5_0000;
const TO = 0x6_0000;
const TABLE = 0x7_0000;

/** A device on a split ring of 8 that is written by hand. */
class Bench extends Rig {
  readonly raw: RawSplitDriver;
  readonly config: QueueConfig;

  constructor(features = 0n, size = 8) {
    super();
    this.raw = this.startRaw(features, size) as RawSplitDriver;
    this.config = this.raw.config;
    this.interrupts.length = 0;
  }

  /** used_event, in the driver area. */
  set usedEvent(value: number) {
    this.memory.writeU16(this.config.driverArea + 4 + 2 * this.config.size, value & 0xffff);
  }

  set availFlags(value: number) {
    this.memory.writeU16(this.config.driverArea, value);
  }

  get usedFlags(): number {
    return this.memory.readU16(this.config.deviceArea);
  }

  get usedIdx(): number {
    return this.memory.readU16(this.config.deviceArea + 2);
  }

  /** avail_event, in the device area. */
  get availEvent(): number {
    return this.memory.readU16(this.config.deviceArea + 4 + 8 * this.config.size);
  }

  /** Sends `count` one-byte buffers and kicks. @returns Used buffer notifications that came of it. */
  batch(count: number): number {
    this.interrupts.length = 0;
    for (let i = 0; i < count; i++) this.raw.send([{ address: TO, length: 1, write: true }]);
    this.state.notify(0);
    this.raw.takeUsed();
    return this.interrupts.filter((what) => what === 0).length;
  }
}

/** Random cuts of `total` bytes into pieces; 0 is a piece too. */
const cuts = fc.array(fc.nat(40), { maxLength: 6 });

function pieces(base: number, total: number, lengths: readonly number[], write: boolean) {
  const list: RawDescriptor[] = [];
  let at = 0;
  for (const length of lengths) {
    const part = Math.min(length, total - at);
    list.push({ address: base + at, length: part, write });
    at += part;
  }
  list.push({ address: base + at, length: total - at, write });
  return list;
}

for (const [name, format] of FORMATS) {
  Deno.test(`2.7.4.1-D1 however the driver arranges a request in descriptors, the answer is the same (${name})`, () => {
    fc.assert(fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 80 }),
      cuts,
      cuts,
      fc.boolean(),
      (request, readable, writable, indirect) => {
        const rig = new Rig();
        const features = format | VIRTIO_F_INDIRECT_DESC;
        const raw = rig.startRaw(features, 8);
        rig.memory.write(FROM, request);
        const list = [
          ...pieces(FROM, request.length, readable, false),
          ...pieces(TO, request.length, writable, true),
        ];
        if (indirect || list.length > 8) {
          raw.table(TABLE, list);
          raw.send([{ address: TABLE, length: 16 * list.length, indirect: true }]);
        } else {
          raw.send(list);
        }
        rig.state.notify(0);
        assertEquals(raw.takeUsed(), [{ id: 0, length: request.length }]);
        const answer = new Uint8Array(request.length);
        rig.memory.read(TO, answer);
        assertEquals(answer, request);
      },
    ));
  });

  Deno.test(`2.7.4.1-D2 a chain of up to 1024 descriptors is taken, a longer one costs the driver its device, not the host (${name})`, () => {
    for (const count of [1, 8, 100, 1024, 1025, 4096]) {
      const rig = new Rig();
      const raw = rig.startRaw(format | VIRTIO_F_INDIRECT_DESC, 8);
      const list = Array.from(
        { length: count },
        (_, i) => ({ address: TO + i, length: 1, write: true }),
      );
      raw.table(TABLE, list);
      raw.send([{ address: TABLE, length: 16 * count, indirect: true }]);
      rig.state.notify(0);
      assertEquals([rig.needsReset, rig.device.handled.length], [
        count > 1024,
        count > 1024 ? 0 : 1,
      ]);
    }
  });
}

Deno.test("2.7.5.1-D1 a device cannot write to what it may read, nor read what it may write, however hard its code tries", () => {
  const bench = new Bench();
  const secret = new Uint8Array(64).fill(0x77);
  let read = 0;
  bench.device.handler = (chain) => {
    const much = new Uint8Array(4096).fill(0xee);
    read = chain.reader.read(much.slice());
    const got = much.slice();
    chain.reader.read(got);
    assert(!got.includes(0x77));
    for (
      const write of [
        () => chain.writer.u64(1),
        () => chain.writer.write(much),
        () => chain.writer.fill(0xee, 4096),
        () => chain.writer.u8(1),
        () => chain.writer.skip(1),
      ]
    ) {
      try {
        write();
      } catch (error) {
        assert(error instanceof RangeError);
      }
    }
  };
  for (
    const list of [
      [{ address: FROM, length: 64 }, { address: TO, length: 64, write: true }],
      [{ address: FROM, length: 64 }],
      [{ address: TO, length: 64, write: true }],
    ]
  ) {
    bench.memory.fill(FROM - 64, 192, 0x33);
    bench.memory.fill(TO - 64, 64, 0x44);
    bench.memory.write(TO, secret);
    bench.memory.fill(TO + 64, 64, 0x44);
    bench.raw.send(list);
    bench.state.notify(0);
    assertEquals(read, list[0]!.write === true ? 0 : 64);
    for (let i = -64; i < 128; i++) assertEquals(bench.memory.readU8(FROM + i), 0x33);
    for (let i = -64; i < 0; i++) assertEquals(bench.memory.readU8(TO + i), 0x44);
    for (let i = 64; i < 128; i++) assertEquals(bench.memory.readU8(TO + i), 0x44);
    assertEquals(bench.status, LIVE);
  }
});

Deno.test("2.7.5.1-D2 the device writes to no descriptor table entry, direct or indirect", async () => {
  for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
    const bench = new Bench(features | VIRTIO_F_INDIRECT_DESC);
    const table = (address: number, length: number): number[] => {
      const bytes = new Uint8Array(length);
      bench.memory.read(address, bytes);
      return [...bytes];
    };
    for (let round = 0; round < 20; round++) {
      if (round % 3 === 2) bench.device.hold();
      bench.raw.send([{ address: FROM, length: 4 }, { address: TO, length: 4, write: true }]);
      const list = [{ address: FROM, length: 8 }, { address: TO, length: 8, write: true }];
      bench.raw.table(TABLE, list);
      bench.raw.send([{ address: TABLE, length: 32, indirect: true }]);
      const before = [table(bench.config.descriptorArea, 128), table(TABLE, 32)];
      bench.state.notify(0);
      if (round % 3 === 2) bench.device.release(() => [1, 0]);
      await turns(1);
      assertEquals(bench.raw.takeUsed().length, 2);
      assertEquals([table(bench.config.descriptorArea, 128), table(TABLE, 32)], before);
    }
  }
});

Deno.test("2.7.5.3.2-D1 the WRITE flag of a descriptor that refers to an indirect table is ignored", () => {
  for (const write of [false, true]) {
    const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
    bench.memory.write(FROM, new Uint8Array([1, 2, 3]));
    bench.raw.table(TABLE, [{ address: FROM, length: 3 }, { address: TO, length: 3, write: true }]);
    bench.raw.send([{ address: TABLE, length: 32, indirect: true, write }]);
    // After a device-readable one too, where WRITE would tell an order.
    bench.raw.table(TABLE + 64, [{ address: FROM, length: 3 }]);
    bench.raw.send([{ address: FROM, length: 1 }, {
      address: TABLE + 64,
      length: 16,
      indirect: true,
      write,
    }]);
    bench.state.notify(0);
    assertEquals(bench.device.handled.map(({ bytes }) => bytes), [[1, 2, 3], [1, 1, 2, 3]]);
    assertEquals(bench.raw.takeUsed(), [{ id: 0, length: 3 }, { id: 1, length: 0 }]);
  }
});

Deno.test("2.7.5.3.2-D2 any number of normal descriptors followed by one that refers to a table is handled", () => {
  for (let normal = 0; normal < 8; normal++) {
    const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
    bench.memory.write(FROM, new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8, 9]));
    const list: RawDescriptor[] = Array.from({ length: normal }, (_, i) => ({
      address: FROM + i,
      length: 1,
    }));
    bench.raw.table(TABLE, [
      { address: FROM + normal, length: 9 - normal },
      { address: TO, length: 9, write: true },
    ]);
    bench.raw.send([...list, { address: TABLE, length: 32, indirect: true }]);
    bench.state.notify(0);
    assertEquals(bench.device.handled[0]!.bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assertEquals(bench.raw.takeUsed(), [{ id: 0, length: 9 }]);
  }
});

Deno.test("2.7.7.2-D1 2.7.7.2-D2 2.7.7.2-D3 without EVENT_IDX the flags decide, and used_event is ignored", () => {
  const bench = new Bench();
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
});

Deno.test("2.7.7.2-D4 with EVENT_IDX the lower bit of flags is ignored", () => {
  const bench = new Bench(VIRTIO_F_EVENT_IDX);
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

Deno.test("2.7.8.2-D1 2.7.8.2-D2 when the used index moves, len is written, and so are len bytes of the buffer", async () => {
  for (const held of [false, true]) {
    const bench = new Bench();
    const index = bench.config.deviceArea + 2;
    let moves = 0;
    const check = ({ kind, byte, value }: { kind: string; byte: number; value: number }): void => {
      if (kind !== "store" || byte !== index) return;
      moves++;
      // Not before this store.
      const from = bench.memory.readU16(index);
      for (let i = from; i !== value; i = (i + 1) & 0xffff) {
        const at = bench.config.deviceArea + 4 + 8 * (i % 8);
        assertEquals([bench.memory.readU32(at), bench.memory.readU32(at + 4)], [(2 * i) % 8, 3]);
        for (let j = 0; j < 3; j++) assertEquals(bench.memory.readU8(TO + 16 * i + j), 7 + i + j);
      }
    };
    if (held) bench.device.hold();
    for (let round = 0; round < 5; round++) {
      for (let i = 2 * round; i < 2 * round + 2; i++) {
        bench.memory.write(FROM + 16 * i, new Uint8Array([7 + i, 8 + i, 9 + i]));
        bench.memory.fill(TO + 16 * i, 16);
        bench.raw.send([
          { address: FROM + 16 * i, length: 3 },
          { address: TO + 16 * i, length: 9, write: true },
        ]);
      }
      watchAtomics(check, () => bench.state.notify(0));
      if (!held) continue;
      const before = moves;
      const flush: (() => void)[] = [];
      const queue = globalThis.queueMicrotask;
      globalThis.queueMicrotask = (run) => flush.push(run);
      try {
        bench.device.release();
        bench.device.hold();
      } finally {
        globalThis.queueMicrotask = queue;
      }
      watchAtomics(check, () => flush.forEach((run) => run()));
      assertEquals(moves, before + 1);
    }
    assertEquals([moves, bench.usedIdx], [5, 10]);
    await turns(1);
  }
});

Deno.test("2.7.8.2-D3 the device may write more than it tells: the length is what it tells", () => {
  const config = { size: 8, descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };
  const memory = GuestMemory.allocate(0x8000);
  const raw = rawDriver(memory, config, 0n);
  const queue = openQueue(memory, config, 0n);
  for (const told of [0, 3, 8]) {
    raw.send([{ address: 0x4000, length: 8, write: true }]);
    const chain = queue.pop()!;
    chain.writer.write(new Uint8Array(8).fill(5));
    queue.push(chain, told);
    queue.flush();
    assertEquals(raw.takeUsed()[0]!.length, told);
  }
});

Deno.test("2.7.10.2-D1 2.7.10.2-D2 without EVENT_IDX the device sets flags to 0 or 1: 1 while it looks anyway", () => {
  const bench = new Bench();
  const seen = new Set<number>();
  bench.device.handler = () => void seen.add(bench.usedFlags);
  for (let i = 0; i < 20; i++) {
    bench.batch(1 + i % 4);
    seen.add(bench.usedFlags);
    assertEquals(bench.usedFlags, 0, "kicks are wanted again");
  }
  assertEquals([...seen].sort(), [0, 1]);
});

Deno.test("2.7.10.2-D3 2.7.10.2-D4 with EVENT_IDX flags stay 0, and avail_event tells the entry that the device waits for", () => {
  const bench = new Bench(VIRTIO_F_EVENT_IDX);
  bench.device.handler = () => assertEquals(bench.usedFlags, 0);
  for (let i = 0; i < 100; i++) {
    bench.batch(1 + i % 5);
    assertEquals([bench.usedFlags, bench.availEvent], [0, bench.raw.availIdx]);
  }
  assertEquals(bench.status, LIVE);
});

Deno.test("2.7.10.2-D5 spurious notifications change nothing", async () => {
  for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
    const bench = new Bench(features);
    for (let i = 0; i < 5; i++) {
      bench.device.hold();
      bench.raw.send([{ address: FROM, length: 2 }, { address: TO, length: 2, write: true }]);
      bench.state.notify(0);
      const image = bench.memory.regions[0]!.bytes.slice();
      bench.interrupts.length = 0;
      for (let kick = 0; kick < 10; kick++) {
        bench.state.notify(0);
        bench.state.notify(1);
      }
      await turns(1);
      assertEquals([bench.device.held.length, bench.interrupts], [1, []]);
      assert(bench.memory.regions[0]!.bytes.every((byte, at) => byte === image[at]));
      bench.usedEvent = bench.usedIdx;
      bench.device.release();
      await turns(1);
      assertEquals([bench.raw.takeUsed().length, bench.status], [1, LIVE]);
    }
  }
});
