/**
 * `pop` has a short way for plain chains and a long way for all others. Here every chain is one for the long way, at its
 * first descriptor or later: the rules are the same there.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { openQueue, type Queue, VIRTIO_F_INDIRECT_DESC, VirtqueueError } from "./mod.ts";
import {
  FORMATS,
  placeQueue,
  type RawDescriptor,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "./testing/raw_driver.ts";

const SIZE = 8;
const HIGH = 0x12_0000_0000;
const EMPTY: RawDescriptor = { address: 0x4000, length: 0 };
/** Crosses from one region into the next. */
const CROSSING: RawDescriptor = { address: 0x7ffe, length: 4 };
const TABLE = 0x5000;

interface Bench {
  memory: GuestMemory;
  driver: RawSplitDriver | RawPackedDriver;
  queue: Queue;
}

function bench(format: "split" | "packed", features: bigint): Bench {
  const memory = new GuestMemory([
    { base: 0, buffer: new SharedArrayBuffer(0x8000) },
    { base: 0x8000, buffer: new SharedArrayBuffer(0x8000) },
    { base: HIGH, buffer: new SharedArrayBuffer(0x8000) },
  ]);
  const config = placeQueue(SIZE, 0, format);
  return {
    memory,
    driver: rawDriver(memory, config, features),
    queue: openQueue(memory, config, features),
  };
}

for (const [format, ring] of FORMATS) {
  const features = ring | VIRTIO_F_INDIRECT_DESC;
  const refuses = (descriptors: RawDescriptor[], table: RawDescriptor[], message: string) => {
    const { driver, queue } = bench(format, features);
    driver.table(TABLE, table);
    driver.table(HIGH + TABLE, table);
    driver.send(descriptors);
    assertThrows(() => queue.pop(), VirtqueueError, message);
  };

  Deno.test(`${format}: the long way finds bytes, slots and ids, lap after lap`, () => {
    const { memory, driver, queue } = bench(format, features);
    const entries: RawDescriptor[] = [
      { address: HIGH + 0x4000, length: 2 },
      EMPTY,
      { ...CROSSING, write: true },
      { address: 0x6000, length: 3, write: true },
    ];
    memory.write(HIGH + 0x4000, new Uint8Array([1, 2]));
    driver.table(0x5802, entries);
    driver.table(HIGH + TABLE, entries);
    // Looks like a table too, but for readers of half an address.
    driver.table(TABLE, [{ address: 0x4001, length: 1 }]);
    const lists: [RawDescriptor[], number][] = [
      [[EMPTY, ...entries], 5],
      [entries, 4],
      [[{ address: 0x5802, length: 64, indirect: true }], 4],
      [[{ address: HIGH + TABLE, length: 64, indirect: true }], 4],
      [[{ address: HIGH + 0x4000, length: 2 }, { ...CROSSING, write: true }, {
        address: 0x6000,
        length: 3,
        write: true,
      }], 3],
    ];
    for (let lap = 0; lap < 40; lap++) {
      const [list, descriptors] = lists[lap % lists.length]!;
      const id = driver.send(list, 0x7000 + 3 * lap);
      const chain = queue.pop()!;
      assertEquals([chain.readable, chain.writable, chain.descriptors], [2, 7, descriptors]);
      assertEquals(chain.count, 4, "pieces in one place, none of them empty");
      assertEquals(chain.reader.u16(), 0x0201);
      const answer = [lap, 2, 3, 4, 5, 6, 7];
      assertEquals(chain.writer.write(new Uint8Array(answer)), 7);
      queue.push(chain);
      queue.flush();
      assertEquals(driver.takeUsed(), [{ id, length: 7 }]);
      const bytes = new Uint8Array(7);
      memory.read(CROSSING.address, bytes.subarray(0, 4));
      memory.read(0x6000, bytes.subarray(4));
      assertEquals([...bytes], answer);
    }
    assertEquals(queue.pop(), null);
  });

  Deno.test(`${format}: the long way refuses device-readable buffers after device-writable ones, empty and crossing ones too`, () => {
    const written: RawDescriptor = { address: 0x6000, length: 1, write: true };
    const table: RawDescriptor = { address: HIGH + TABLE, length: 32, indirect: true };
    for (const late of [EMPTY, CROSSING, { address: 0x4000, length: 1 }]) {
      refuses([EMPTY, written, late], [], "device-readable");
      refuses([written, late], [], "device-readable");
      refuses([{ ...CROSSING, write: true }, late], [], "device-readable");
      refuses([table], [written, late], "device-readable");
    }
  });

  Deno.test(`${format}: the long way refuses buffers and tables that are not in memory, or are half`, () => {
    const table: RawDescriptor = { address: HIGH + TABLE, length: 32, indirect: true };
    refuses([EMPTY, { address: HIGH + 0x7fff, length: 2 }], [], "no guest memory");
    refuses([EMPTY, { address: 0xffff, length: 2, write: true }], [], "no guest memory");
    for (const length of [0x8001, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]) {
      const long: RawDescriptor = { address: 0x8000, length };
      refuses([long], [], "no guest memory");
      refuses([EMPTY, long], [], "no guest memory");
      refuses([{ address: 0x4000, length: 1 }, { address: HIGH, length }], [], "no guest memory");
      refuses([{ ...table, length: 16 }], [{ ...long, write: true }], "no guest memory");
    }
    refuses([{ ...table, address: HIGH + 0x7ff0 }], [], "no guest memory");
    refuses([{ ...table, address: 2 * HIGH + TABLE }], [], "no guest memory");
    for (const length of [1, 8, 17, 40]) refuses([{ ...table, length }], [], "multiple of 16");
    refuses([{ ...table, length: 16 * 1025 }], [], "1025");
  });

  Deno.test(`${format}: the long way refuses indirect tables that were not negotiated`, () => {
    for (const address of [TABLE, HIGH + TABLE]) {
      const { driver, queue } = bench(format, ring);
      driver.table(address, [{ address: 0x4000, length: 1 }]);
      driver.send([{ address, length: 16, indirect: true }]);
      assertThrows(() => queue.pop(), VirtqueueError, "not negotiated");
    }
  });

  Deno.test(`${format}: the long way takes chains of 2^32 bytes and no longer ones`, () => {
    const piece = 4 << 20;
    const memory = new GuestMemory([
      { base: 0, buffer: new SharedArrayBuffer(0x8000) },
      { base: HIGH, buffer: new SharedArrayBuffer(2 * piece) },
    ]);
    const config = placeQueue(SIZE, 0, format);
    const driver = rawDriver(memory, config, features);
    const queue = openQueue(memory, config, features);
    const entries = Array.from({ length: 1024 }, () => ({ address: HIGH + piece, length: piece }));
    driver.table(HIGH, entries);
    driver.send([{ address: HIGH, length: 16 * 1024, indirect: true }]);
    assertEquals(queue.pop()!.readable, 2 ** 32);
    driver.table(HIGH, [{ address: HIGH + piece - 1, length: piece + 1, more: true }]);
    driver.send([{ address: HIGH, length: 16 * 1024, indirect: true }]);
    assertThrows(() => queue.pop(), VirtqueueError, "2^32");
  });
}

Deno.test("split: the long way refuses a next beyond the table, a loop, and NEXT with INDIRECT", () => {
  const features = VIRTIO_F_INDIRECT_DESC;
  const refuses = (descriptors: RawDescriptor[], entries: RawDescriptor[], message: string) => {
    const { driver, queue } = bench("split", features);
    driver.table(HIGH + TABLE, entries);
    driver.send(descriptors);
    assertThrows(() => queue.pop(), VirtqueueError, message);
  };
  const table: RawDescriptor = { address: HIGH + TABLE, length: 32, indirect: true };
  const one: RawDescriptor = { address: 0x4000, length: 1 };
  for (const next of [SIZE, SIZE + 1, 0xffff]) {
    refuses([{ ...EMPTY, more: true, next }], [], `${next} is beyond`);
  }
  for (const next of [2, 3, 0xffff]) {
    refuses([table], [one, { ...one, more: true, next }], `${next} is beyond`);
  }
  refuses([EMPTY, { ...one, more: true, next: 0 }], [], "loops");
  refuses([{ ...EMPTY, more: true, next: 0 }], [], "loops");
  refuses([table], [one, { ...one, more: true, next: 0 }], "loops");
  refuses([{ ...table, more: true }, one], [one, one], "both INDIRECT and NEXT");
  refuses([EMPTY, { ...table, more: true }, one], [one, one], "both INDIRECT and NEXT");
  refuses([table], [one, { ...table, length: 16 }], "inside an indirect table");
});

Deno.test("split: a table may end a chain of direct descriptors, and has all of its entries to itself", () => {
  const { driver, queue } = bench("split", VIRTIO_F_INDIRECT_DESC);
  const entries = Array.from({ length: 4 }, () => ({ address: 0x4000, length: 1 }));
  for (const address of [TABLE, HIGH + TABLE]) {
    driver.table(address, entries);
    driver.send([...entries, { address, length: 64, indirect: true }]);
    const chain = queue.pop()!;
    assertEquals([chain.readable, chain.descriptors], [8, 8]);
    queue.push(chain);
    queue.flush();
  }
});

Deno.test("packed: the long way refuses lists that are longer than the ring, and tables in a list", () => {
  const features = FORMATS[1][1] | VIRTIO_F_INDIRECT_DESC;
  const table: RawDescriptor = { address: HIGH + TABLE, length: 16, indirect: true };
  for (
    const [list, message] of [
      [Array.from({ length: SIZE }, () => ({ ...EMPTY, more: true })), "longer than the queue"],
      [[EMPTY, table], "list of several"],
      [[{ address: 0x4000, length: 1 }, table], "list of several"],
      [[{ ...table, more: true }, EMPTY], "list of several"],
    ] as const
  ) {
    const { driver, queue } = bench("packed", features);
    driver.table(HIGH + TABLE, [{ address: 0x4000, length: 1 }]);
    driver.send(list);
    assertThrows(() => queue.pop(), VirtqueueError, message);
  }
});

Deno.test("packed: in a table of the long way no flag but WRITE counts", () => {
  const { driver, queue } = bench("packed", FORMATS[1][1] | VIRTIO_F_INDIRECT_DESC);
  for (const flags of [0, 1, 4, 5, 0xfff8]) {
    driver.table(HIGH + TABLE, [
      { address: 0x4000, length: 1, flags },
      { address: 0x4000, length: 2, more: false, flags },
      { address: 0x6000, length: 3, write: true, flags },
    ]);
    driver.send([{ address: HIGH + TABLE, length: 48, indirect: true }]);
    const chain = queue.pop()!;
    assertEquals([chain.readable, chain.writable], [3, 3]);
    queue.push(chain);
    queue.flush();
  }
});
