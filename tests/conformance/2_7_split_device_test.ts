/** Virtio 1.4, 2.7: split virtqueues, what the device has to do. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { GuestMemory } from "@virtio/memory";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC } from "@virtio/vring";
import { openQueue } from "@virtio/vring";
import { LIVE } from "../../packages/device/testing.ts";
import { FORMATS, type RawDescriptor, rawDriver } from "../../packages/vring/testing/raw_driver.ts";
import { watchAtomics } from "./atomics.ts";
import { SplitBench, TO } from "./split_bench.ts";
import { PlacedRig } from "./placed_rig.ts";
import { everywhere, here } from "./places.ts";

const FROM = 0x5_0000;
const TABLE = 0x7_0000;

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
  everywhere(
    `2.7.4.1-D1 however the driver arranges a request in descriptors, the answer is the same (${name})`,
    async (place) => {
      await fc.assert(fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 80 }),
        cuts,
        cuts,
        fc.boolean(),
        async (request, readable, writable, indirect) => {
          const rig = await PlacedRig.open(place);
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
    },
  );

  everywhere(
    `2.7.4.1-D2 a chain of up to 1024 descriptors is taken, a longer one costs the driver its device, not the host (${name})`,
    async (place) => {
      for (const count of [1, 8, 100, 1024, 1025, 4096]) {
        const rig = await PlacedRig.open(place);
        const raw = rig.startRaw(format | VIRTIO_F_INDIRECT_DESC, 8);
        const list = Array.from(
          { length: count },
          (_, i) => ({ address: TO + i, length: 1, write: true }),
        );
        raw.table(TABLE, list);
        raw.send([{ address: TABLE, length: 16 * count, indirect: true }]);
        rig.state.notify(0);
        assertEquals([rig.needsReset, rig.handled.length], [
          count > 1024,
          count > 1024 ? 0 : 1,
        ]);
      }
    },
  );
}

everywhere(
  "2.7.5.1-D1 a device cannot write to what it may read, nor read what it may write, however hard its code tries",
  async (place) => {
    const bench = await SplitBench.make(place);
    const secret = new Uint8Array(64).fill(0x77);
    bench.run(({ device }) => {
      device.handler = (chain) => {
        const much = new Uint8Array(4096).fill(0xee);
        const got = much.slice();
        device.own = [chain.reader.read(got)];
        chain.reader.read(got);
        if (got.includes(0x77)) device.own = "it read what it may write";
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
            if (!(error instanceof RangeError)) device.own = String(error);
          }
        }
      };
    });
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
      const read = bench.run(({ device }) => device.own);
      assertEquals(read, [list[0]!.write === true ? 0 : 64]);
      for (let i = -64; i < 128; i++) assertEquals(bench.memory.readU8(FROM + i), 0x33);
      for (let i = -64; i < 0; i++) assertEquals(bench.memory.readU8(TO + i), 0x44);
      for (let i = 64; i < 128; i++) assertEquals(bench.memory.readU8(TO + i), 0x44);
      assertEquals(bench.status, LIVE);
    }
  },
);

everywhere(
  "2.7.5.1-D2 the device writes to no descriptor table entry, direct or indirect",
  async (place) => {
    for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
      const bench = await SplitBench.make(place, features | VIRTIO_F_INDIRECT_DESC);
      const table = (address: number, length: number): number[] => {
        const bytes = new Uint8Array(length);
        bench.memory.read(address, bytes);
        return [...bytes];
      };
      for (let round = 0; round < 20; round++) {
        if (round % 3 === 2) bench.hold();
        bench.raw.send([{ address: FROM, length: 4 }, { address: TO, length: 4, write: true }]);
        const list = [{ address: FROM, length: 8 }, { address: TO, length: 8, write: true }];
        bench.raw.table(TABLE, list);
        bench.raw.send([{ address: TABLE, length: 32, indirect: true }]);
        const before = [table(bench.config.descriptorArea, 128), table(TABLE, 32)];
        bench.state.notify(0);
        if (round % 3 === 2) bench.release([1, 0]);
        await bench.turns(1);
        assertEquals(bench.raw.takeUsed().length, 2);
        assertEquals([table(bench.config.descriptorArea, 128), table(TABLE, 32)], before);
      }
    }
  },
);

everywhere(
  "2.7.5.3.2-D1 the WRITE flag of a descriptor that refers to an indirect table is ignored",
  async (place) => {
    for (const write of [false, true]) {
      const bench = await SplitBench.make(place, VIRTIO_F_INDIRECT_DESC);
      bench.memory.write(FROM, new Uint8Array([1, 2, 3]));
      bench.raw.table(TABLE, [{ address: FROM, length: 3 }, {
        address: TO,
        length: 3,
        write: true,
      }]);
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
      assertEquals(bench.handled.map(({ bytes }) => bytes), [[1, 2, 3], [1, 1, 2, 3]]);
      assertEquals(bench.raw.takeUsed(), [{ id: 0, length: 3 }, { id: 1, length: 0 }]);
    }
  },
);

everywhere(
  "2.7.5.3.2-D2 any number of normal descriptors followed by one that refers to a table is handled",
  async (place) => {
    for (let normal = 0; normal < 8; normal++) {
      const bench = await SplitBench.make(place, VIRTIO_F_INDIRECT_DESC);
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
      assertEquals(bench.handled[0]!.bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
      assertEquals(bench.raw.takeUsed(), [{ id: 0, length: 9 }]);
    }
  },
);

// In process only: it watches the atomic operations of this thread.
Deno.test("2.7.8.2-D1 2.7.8.2-D2 when the used index moves, len is written, and so are len bytes of the buffer", async () => {
  for (const held of [false, true]) {
    const bench = await SplitBench.make(here());
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
    if (held) bench.hold();
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
        bench.release();
        bench.hold();
      } finally {
        globalThis.queueMicrotask = queue;
      }
      watchAtomics(check, () => flush.forEach((run) => run()));
      assertEquals(moves, before + 1);
    }
    assertEquals([moves, bench.usedIdx], [5, 10]);
    await bench.turns(1);
  }
});

// In process only: the ring without a device, which tells a length of its own.
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
