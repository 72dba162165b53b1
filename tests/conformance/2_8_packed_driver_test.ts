/** Virtio 1.4, 2.8: packed virtqueues, what the driver has to do. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import {
  type Chain,
  openQueue,
  type Queue,
  type QueueConfig,
  ringLayout,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
  VirtqueueError,
} from "@virtio/vring";
import { BufferList, DmaPool, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { TestDevice } from "../../packages/device/testing.ts";
import { watchAtomics } from "./atomics.ts";
import { SessionBench } from "./session_bench.ts";
import { random } from "./random.ts";

const CONFIG = { descriptorArea: 0x1000, driverArea: 0x4000, deviceArea: 0x5000 };
const TABLE = 0xc000;

interface Descriptor {
  readonly address: number;
  readonly length: number;
  readonly id: number;
  readonly flags: number;
}

/** A driver's queue and a device's on the same ring. */
class Bench {
  readonly memory = GuestMemory.allocate(0x10000);
  readonly config: QueueConfig;
  readonly queue: DriverQueue;
  readonly device: Queue;

  constructor(features = 0n, size = 8) {
    this.config = { size, ...CONFIG };
    this.queue = openDriverQueue(this.memory, this.config, features | VIRTIO_F_RING_PACKED);
    this.device = openQueue(this.memory, this.config, features | VIRTIO_F_RING_PACKED);
  }

  descriptor(slot: number, table: number = this.config.descriptorArea): Descriptor {
    const at = table + 16 * slot;
    return {
      address: this.memory.readU64(at),
      length: this.memory.readU32(at + 8),
      id: this.memory.readU16(at + 12),
      flags: this.memory.readU16(at + 14),
    };
  }

  ring(): string[] {
    return Array.from({ length: this.config.size }, (_, slot) => {
      const { address, length, id, flags } = this.descriptor(slot);
      return [address, length, id, flags].join();
    });
  }

  /** Uses all that is available and takes it back. */
  turn(): void {
    for (let chain = this.device.pop(); chain !== null; chain = this.device.pop()) {
      this.device.push(chain);
    }
    this.device.flush();
    while (this.queue.take() >= 0);
  }
}

function elements(readable: number, writable: number, length = 16): BufferList {
  const list = new BufferList();
  for (let i = 0; i < readable; i++) list.readable(0x8000 + 0x100 * i, length);
  for (let i = 0; i < writable; i++) list.writable(0xa000 + 0x100 * i, length);
  return list;
}

Deno.test("2.8.11-G1 the driver aligns the parts of a queue, wherever its memory begins, and takes no misaligned one", async () => {
  for (const size of [1, 3, 7, 8, 100, 255]) {
    for (const offset of [0, 16, 0x18, 0x3e8]) {
      const bench = new SessionBench({ device: new TestDevice({ queueSizes: [256] }) });
      const dma = new DmaPool(bench.memory, 0x1000 + offset, 0x8_0000);
      const session = await bench.open({
        dma,
        core: VIRTIO_F_RING_PACKED,
        queues: () => [{ index: 0, size }],
      });
      const { config } = session.queue(0);
      const layout = ringLayout("packed", size);
      assertEquals(
        [layout.descriptorArea.align, layout.driverArea.align, layout.deviceArea.align],
        [
          16,
          4,
          4,
        ],
      );
      assertEquals(config.size, size);
      assertEquals(config.descriptorArea % 16 + config.driverArea % 4 + config.deviceArea % 4, 0);
    }
  }
  const memory = GuestMemory.allocate(0x10000);
  for (
    const wrong of [{ descriptorArea: 0x1008 }, { driverArea: 0x4002 }, { deviceArea: 0x5001 }]
  ) {
    assertThrows(
      () => openDriverQueue(memory, { size: 8, ...CONFIG, ...wrong }, VIRTIO_F_RING_PACKED),
      VirtqueueError,
    );
  }
});

for (const [name, features] of [["", 0n], [", in order", VIRTIO_F_IN_ORDER]] as const) {
  Deno.test(`2.8.16-G1 2.8.16-G2 the driver changes only descriptors that it owns: those whose use it has seen and not made available since${name}`, () => {
    const bench = new Bench(features | VIRTIO_F_INDIRECT_DESC, 7);
    const size = bench.config.size;
    const pick = random(11);
    // Ring positions counted without end: what is available, and what the driver has taken back.
    let made = 0;
    let taken = 0;
    const lengths = new Map<number, number>();
    const popped: Chain[] = [];
    for (let step = 0; step < 2000; step++) {
      const what = pick(6);
      const before = bench.ring();
      const changed = (): number[] => {
        const after = bench.ring();
        return after.flatMap((entry, slot) => entry === before[slot] ? [] : [slot]);
      };
      if (what < 2) {
        const table = pick(3) === 0 ? TABLE + 0x40 * (step % 256) : undefined;
        const list = elements(pick(3), 1 + pick(2));
        const units = table === undefined ? list.count : 1;
        const added = bench.queue.add(list, step, table);
        assertEquals(added, made - taken + units <= size);
        if (!added) {
          assertEquals(changed(), []);
          continue;
        }
        bench.queue.publish();
        const own = Array.from({ length: units }, (_, i) => (made + i) % size);
        assert(changed().every((slot) => own.includes(slot)), `step ${step}`);
        made += units;
        lengths.set(step, units);
      } else if (what === 2) {
        for (let token = bench.queue.take(); token >= 0; token = bench.queue.take()) {
          taken += lengths.get(token)!;
        }
        assertEquals(changed(), []);
      } else if (what === 3) {
        bench.queue.enableInterrupts(pick(4));
        bench.queue.disableInterrupts();
        bench.queue.publish();
        bench.queue.notificationData();
        assertEquals(changed(), []);
      } else if (what === 4) {
        const chain = bench.device.pop();
        if (chain !== null) popped.push(chain);
      } else if (popped.length > 0) {
        bench.device.push(popped.splice(pick(popped.length), 1)[0]!);
        bench.device.flush();
      }
    }
    assert(made > 300, `${made} made`);
  });
}

Deno.test("2.8.16-G3 a kick tells next_off and next_wrap of the next descriptor that is not available yet", async () => {
  const bench = new SessionBench({ device: new TestDevice({ queueSizes: [7] }) });
  const session = await bench.open({
    core: VIRTIO_F_RING_PACKED | VIRTIO_F_NOTIFICATION_DATA,
    queues: () => [{ index: 0, size: 7 }],
  });
  assert(session.has(VIRTIO_F_NOTIFICATION_DATA));
  let next = 0;
  let wrap = 1;
  for (let i = 0; i < 40; i++) {
    bench.send(session, i);
    next += 2;
    if (next >= 7) {
      next -= 7;
      wrap ^= 1;
    }
    assertEquals(bench.transport.lastKick, next | (wrap << 15));
    assertEquals(session.queue(0).take(), i);
  }
});

Deno.test("2.8.16-G4 the driver may kick again without new descriptors", async () => {
  const bench = new SessionBench();
  const session = await bench.open({ core: VIRTIO_F_RING_PACKED });
  bench.send(session, 1);
  for (let i = 0; i < 3; i++) bench.transport.kick(0, session.queue(0).notificationData());
  assertEquals([session.queue(0).take(), session.queue(0).take()], [1, -1]);
  assertEquals(bench.transport.needsReset, false);
});

Deno.test("2.8.17-G1 2.8.17-G2 2.8.19-G3 no list or chain is longer than the queue, which is what the device allows", () => {
  const bench = new Bench(VIRTIO_F_INDIRECT_DESC, 5);
  for (const table of [undefined, TABLE]) {
    const before = bench.ring();
    assertThrows(() => bench.queue.add(elements(3, 3), 1, table), RangeError);
    assertEquals(bench.ring(), before);
    assert(bench.queue.add(elements(2, 3), 1, table));
    bench.queue.publish();
    bench.turn();
  }
});

Deno.test("2.8.17-G3 device-writable elements come after the device-readable ones, in the ring and in a table", () => {
  for (const table of [undefined, TABLE]) {
    for (const [readable, writable] of [[1, 0], [0, 1], [3, 2], [4, 4]] as const) {
      const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
      bench.queue.add(elements(readable, writable), 1, table);
      bench.queue.publish();
      const flags = Array.from(
        { length: readable + writable },
        (_, i) => (bench.descriptor(i, table).flags & VIRTQ_DESC_F_WRITE) !== 0,
      );
      assertEquals(flags, [...Array(readable).fill(false), ...Array(writable).fill(true)]);
    }
  }
  assertThrows(() => elements(0, 1).readable(0x8000, 4), TypeError);
});

Deno.test("2.8.17-G4 2.8.17-G5 a list is written only when there is room for all of it, not in parts", () => {
  const bench = new Bench();
  for (let lap = 0; lap < 5; lap++) {
    assert(bench.queue.add(elements(3, 2), 1));
    bench.queue.publish();
    const before = bench.ring();
    // Three are free, four are needed: nothing of it is written, however often it is tried.
    for (let i = 0; i < 3; i++) {
      assertEquals(bench.queue.add(elements(2, 2), 2), false);
      assertEquals(bench.queue.publish(), false);
      assertEquals(bench.ring(), before);
    }
    assert(bench.queue.add(elements(1, 2), 3), "three fit");
    bench.queue.publish();
    bench.turn();
    assertEquals([bench.queue.free, bench.queue.inFlight], [8, 0]);
  }
});

Deno.test("2.8.17-G6 2.8.21.1.1-G1 2.8.21.3.1-G1 a list's first descriptor becomes available last, by an atomic store, and the device's wishes are read after that", () => {
  for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
    const bench = new Bench(features | VIRTIO_F_INDIRECT_DESC, 7);
    let next = 0;
    let wrap = 1;
    for (let round = 0; round < 20; round++) {
      const lists = [elements(1, 2), elements(1, 1)];
      const [first, firstWrap] = [next, wrap];
      const flagsOf = (slot: number): number => bench.config.descriptorArea + 16 * slot + 14;
      const isAvailable = (slot: number, flags: number): boolean => {
        const lap = slot >= first ? firstWrap : firstWrap ^ 1;
        return (flags & VIRTQ_DESC_F_AVAIL) !== 0 === (lap === 1) &&
          (flags & VIRTQ_DESC_F_USED) !== 0 === (lap === 0);
      };
      const seen: string[] = [];
      watchAtomics(({ kind, byte, value }) => {
        if (kind === "load" && byte === bench.config.deviceArea) seen.push("wish");
        if (kind !== "store" || byte !== flagsOf(first)) return;
        seen.push("first");
        assert(isAvailable(first, value));
        // Not before this store; and then all the others are.
        assert(!isAvailable(first, bench.memory.readU16(byte)), `round ${round}`);
        for (let i = 1; i < 6; i++) {
          const slot = (first + i) % 7;
          assert(isAvailable(slot, bench.memory.readU16(flagsOf(slot))), `round ${round}, ${i}`);
        }
        assertEquals(bench.descriptor((first + 1) % 7).address, 0xa000);
        assertEquals(bench.descriptor((first + 3) % 7).address, 0x8000);
        assertEquals(bench.descriptor((first + 5) % 7).address, TABLE);
        assertEquals(bench.descriptor(1, TABLE).address, 0xa000);
      }, () => {
        bench.memory.fill(TABLE, 32);
        for (const list of lists) bench.queue.add(list, round);
        bench.queue.add(elements(1, 1), round, TABLE);
        bench.queue.publish();
      });
      assertEquals(seen, ["first", "wish"]);
      next += 6;
      if (next >= 7) {
        next -= 7;
        wrap ^= 1;
      }
      bench.turn();
    }
  }
});

Deno.test("2.8.17-G6 of a later list in a batch too, the first descriptor is written after the others", () => {
  // A trap on memory: what stands in the ring after every write of a descriptor's flags.
  const bench = new Bench();
  const region = bench.memory.regions[0]!;
  const words = region.i32;
  const available = (slot: number): boolean =>
    (bench.memory.readU16(bench.config.descriptorArea + 16 * slot + 14) & VIRTQ_DESC_F_AVAIL) !== 0;
  let writes = 0;
  region.i32 = new Proxy(words, {
    set(_, index, value) {
      words[Number(index)] = value;
      writes++;
      // The second list has slots 3 to 5.
      if (available(3)) assert(available(4) && available(5));
      return true;
    },
  });
  bench.queue.add(elements(1, 2), 1);
  bench.queue.add(elements(1, 2), 2);
  region.i32 = words;
  bench.queue.publish();
  assert(writes > 6 && available(0) && available(3));
});

Deno.test("2.8.19-G1 INDIRECT is not set unless it was negotiated", () => {
  const plain = new Bench();
  assertThrows(() => plain.queue.add(elements(1, 1), 1, TABLE), TypeError);
  plain.queue.add(elements(1, 1), 1);
  plain.queue.publish();
  for (let slot = 0; slot < 8; slot++) {
    assertEquals(plain.descriptor(slot).flags & VIRTQ_DESC_F_INDIRECT, 0);
  }
  const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
  bench.queue.add(elements(1, 1), 1, TABLE);
  bench.queue.publish();
  assertEquals(bench.descriptor(0).flags & VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_INDIRECT);
});

Deno.test("2.8.19-G2 in an indirect table no flag but WRITE is set, whatever stood there", () => {
  for (const features of [0n, VIRTIO_F_IN_ORDER]) {
    const bench = new Bench(features | VIRTIO_F_INDIRECT_DESC);
    bench.memory.fill(TABLE, 0x100, 0xff);
    bench.queue.add(elements(3, 4), 1, TABLE);
    bench.queue.publish();
    const flags = Array.from({ length: 7 }, (_, i) => bench.descriptor(i, TABLE).flags);
    assertEquals(flags, [0, 0, 0, 2, 2, 2, 2]);
  }
});

Deno.test("2.8.19-G4 a descriptor with INDIRECT is never in a list with NEXT", () => {
  const bench = new Bench(VIRTIO_F_INDIRECT_DESC);
  for (let round = 0; round < 30; round++) {
    bench.queue.add(elements(1, 1), 1);
    bench.queue.add(elements(3, 2), 2, TABLE);
    bench.queue.add(elements(1, 2), 3);
    const first = bench.queue.notificationData();
    bench.queue.publish();
    let follows = false;
    for (let i = 0; i < 6; i++) {
      const slot = ((first & 0x7fff) + 8 - 6 + i) % 8;
      const { flags } = bench.descriptor(slot);
      const indirect = (flags & VIRTQ_DESC_F_INDIRECT) !== 0;
      assertEquals(indirect, i === 2, `round ${round}, ${i}`);
      if (indirect) assert(!follows && (flags & VIRTQ_DESC_F_NEXT) === 0);
      follows = (flags & VIRTQ_DESC_F_NEXT) !== 0;
    }
    bench.turn();
  }
});
