/** The driver side of a queue: its record of what is in flight, and a device that does not keep to it. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import {
  openQueue,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
  VirtqueueError,
} from "../mod.ts";
import { BufferList, type DriverQueue, openDriverQueue } from "../driver.ts";
import { FORMATS, placeQueue } from "../testing/raw_driver.ts";

/** A device that uses whatever it likes. */
class RawDevice {
  readonly #memory: GuestMemory;
  readonly #queue: DriverQueue;
  readonly #packed: boolean;
  /** Split: the used index. Packed: the slot. */
  next = 0;
  wrap = 1;

  constructor(memory: GuestMemory, queue: DriverQueue, packed: boolean) {
    this.#memory = memory;
    this.#queue = queue;
    this.#packed = packed;
  }

  /** Uses `id`. @param skip Split: how far the index moves; packed: how many slots. */
  use(id: number, length: number, skip = 1): void {
    const { config } = this.#queue;
    if (this.#packed) {
      const at = config.descriptorArea + 16 * this.next;
      this.#memory.writeU32(at + 8, length);
      this.#memory.writeU16(at + 12, id);
      const flags = this.wrap === 1 ? VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED : 0;
      this.#memory.writeU16(at + 14, flags | VIRTQ_DESC_F_WRITE);
      this.next += skip;
      if (this.next >= config.size) {
        this.next -= config.size;
        this.wrap ^= 1;
      }
      return;
    }
    const at = config.deviceArea + 4 + 8 * (this.next % config.size);
    this.#memory.writeU32(at, id);
    this.#memory.writeU32(at + 4, length);
    this.next = (this.next + skip) & 0xffff;
    this.#memory.writeU16(config.deviceArea + 2, this.next);
  }
}

for (const [format, ring] of FORMATS) {
  const setup = (size: number, features = 0n) => {
    const memory = GuestMemory.allocate(0x10000);
    const config = placeQueue(size, 0, format);
    const queue = openDriverQueue(memory, config, ring | features);
    const device = new RawDevice(memory, queue, format === "packed");
    return { memory, config, queue, device };
  };
  const list = (writable: number, readable = 0) => {
    const buffers = new BufferList();
    if (readable > 0) buffers.readable(0x8000, readable);
    if (writable > 0) buffers.writable(0x9000, writable);
    return buffers;
  };

  Deno.test(`${format}: a driver believes only used buffers that it has in flight`, () => {
    for (const features of [0n, VIRTIO_F_IN_ORDER]) {
      for (const id of [1, 2, 3, 7, 8, 0xffff, ...(format === "split" ? [0x10000, 2 ** 31] : [])]) {
        for (const length of [0, 4]) {
          const { queue, device } = setup(8, features);
          queue.add(list(4), 70);
          queue.publish();
          device.use(id, length);
          const error = assertThrows(() => queue.take(), VirtqueueError);
          assertStrictEquals(assertThrows(() => queue.take(), VirtqueueError), error);
          assertEquals(queue.inFlight, 1, "the record is as it was");
          assertEquals(queue.drain(), [70]);
        }
      }
    }
  });

  Deno.test(`${format}: the middle of a chain is no used buffer`, () => {
    const { queue, device } = setup(8);
    const buffers = new BufferList().readable(0x8000, 1).readable(0x8001, 1).writable(0x9000, 4);
    queue.add(buffers, 70);
    queue.publish();
    device.use(format === "split" ? 1 : 2, 4);
    assertThrows(() => queue.take(), VirtqueueError, "not in flight");
  });

  Deno.test(`${format}: a used buffer that comes a second time is refused`, () => {
    const { queue, device } = setup(8);
    queue.add(list(4), 70);
    queue.add(list(4), 71);
    queue.publish();
    device.use(0, 4);
    assertEquals(queue.take(), 70);
    device.use(0, 4);
    assertThrows(() => queue.take(), VirtqueueError);
    assertEquals(queue.inFlight, 1);
  });

  Deno.test(`${format}: a used length beyond the buffer's device-writable bytes is refused`, () => {
    for (const features of [0n, VIRTIO_F_IN_ORDER]) {
      for (const length of [5, 6, 2 ** 31, 2 ** 32 - 1]) {
        const { queue, device } = setup(8, features);
        queue.add(list(4, 100), 70);
        queue.publish();
        device.use(0, length);
        assertThrows(() => queue.take(), VirtqueueError, "room for 4");
      }
      const { queue, device } = setup(8, features);
      queue.add(list(4, 100), 70);
      queue.publish();
      device.use(0, 4, format === "split" ? 1 : 2);
      assertEquals(queue.take(), 70);
      assertEquals(queue.usedLength, 4);
    }
  });

  Deno.test(`${format}: a buffer that is not published yet cannot be used`, () => {
    for (const features of [0n, VIRTIO_F_IN_ORDER]) {
      const { queue, device } = setup(8, features);
      queue.add(list(4), 70);
      queue.publish();
      queue.add(list(4), 71);
      if (features !== 0n) {
        device.use(0, 4);
        assertEquals(queue.take(), 70);
      }
      device.use(1, 4);
      assertThrows(() => queue.take(), VirtqueueError);
      assertEquals(queue.inFlight, features === 0n ? 2 : 1);
    }
  });

  Deno.test(`${format}: in order, one entry gives back all up to the buffer that it names, once each`, () => {
    const { queue, device } = setup(8, VIRTIO_F_IN_ORDER);
    for (let i = 0; i < 5; i++) queue.add(list(4 + i), 70 + i);
    queue.publish();
    device.use(2, 5, 3);
    assertEquals([queue.take(), queue.usedLength], [70, 4]);
    assertEquals([queue.take(), queue.usedLength], [71, 5]);
    assertEquals([queue.take(), queue.usedLength], [72, 5]);
    assertEquals(queue.take(), -1);
    assertEquals(queue.inFlight, 2);
    device.use(4, 0, 2);
    assertEquals([queue.take(), queue.usedLength], [73, 7]);
    assertEquals([queue.take(), queue.usedLength], [74, 0]);
    assertEquals(queue.take(), -1);
    assertEquals(queue.free, 8);
  });

  Deno.test(`${format}: in order with batches, over many laps, against a model`, () => {
    const { queue, device } = setup(8, VIRTIO_F_IN_ORDER);
    const flying: { token: number; units: number; id: number }[] = [];
    let token = 0;
    let head = 0;
    for (let turn = 0; turn < 500; turn++) {
      for (let i = 0; i < 1 + turn % 4; i++) {
        const buffers = list(4, (turn + i) % 2);
        const units = buffers.count;
        if (!queue.add(buffers, token)) break;
        // Split: descriptors in a circle; packed: ids in a circle.
        flying.push({ token: token++, units, id: head });
        head = (head + (format === "split" ? units : 1)) % 8;
      }
      queue.publish();
      const batch = flying.splice(0, 1 + turn % 3);
      const slots = batch.reduce((sum, { units }) => sum + units, 0);
      device.use(batch.at(-1)!.id, 1, format === "split" ? batch.length : slots);
      for (const { token } of batch) assertEquals(queue.take(), token);
      assertEquals(queue.usedLength, 1);
      assertEquals(queue.take(), -1);
    }
  });

  Deno.test(`${format}: what a device writes into descriptors does not move the driver`, () => {
    const { memory, queue, device, config } = setup(4);
    queue.add(new BufferList().readable(0x8000, 1).readable(0x8001, 1).writable(0x9000, 4), 70);
    queue.publish();
    // Every link, length and flag in shared memory is forged.
    if (format === "split") memory.fill(config.descriptorArea, 64, 0xff);
    device.use(0, 4, format === "split" ? 1 : 3);
    assertEquals(queue.take(), 70);
    assertEquals([queue.free, queue.usedLength], [4, 4]);
    // All four descriptors are free, each once.
    for (let i = 0; i < 4; i++) assert(queue.add(list(1), i));
    assertEquals(queue.add(list(1), 4), false);
    queue.publish();
    if (format === "split") {
      const position = { nextAvail: 1, nextUsed: 1, availWrap: 0, usedWrap: 0 };
      const seen = openQueue(memory, { ...config, position }, ring);
      const ids = [];
      for (let chain = seen.pop(); chain !== null; chain = seen.pop()) ids.push(chain.id);
      assertEquals(ids.sort(), [0, 1, 2, 3]);
    }
  });

  Deno.test(`${format}: what cannot be sent is refused, and nothing is written or lost`, () => {
    const { memory, queue } = setup(4, VIRTIO_F_INDIRECT_DESC);
    const plain = setup(4);
    const before = memory.regions[0]!.bytes.slice();
    assertThrows(() => queue.add(new BufferList(), 1), TypeError, "at least one");
    const long = new BufferList();
    for (let i = 0; i < 5; i++) long.writable(0x9000 + i, 1);
    assertThrows(() => queue.add(long, 1), RangeError, "5 elements");
    assertThrows(() => queue.add(long, 1, 0xa000), RangeError);
    const huge = new BufferList().writable(0, 2 ** 32 - 1).writable(0, 2);
    assertThrows(() => queue.add(huge, 1), RangeError, "2^32");
    assertThrows(() => plain.queue.add(list(1), 1, 0xa000), TypeError, "not negotiated");
    for (const table of [0x10000, 0xffff8, 2 ** 40]) {
      for (let i = 0; i < 10; i++) assertThrows(() => queue.add(list(1), 1, table), RangeError);
    }
    assert(memory.regions[0]!.bytes.every((byte, i) => byte === before[i]));
    assertEquals([queue.free, queue.inFlight], [4, 0]);
    assertEquals(queue.publish(), false);
    // Four buffers fit as if nothing had happened, and come back under four names.
    const device = new RawDevice(memory, queue, format === "packed");
    for (let i = 0; i < 4; i++) assert(queue.add(list(1), 50 + i));
    queue.publish();
    for (let i = 0; i < 4; i++) {
      device.use(i, 1);
      assertEquals(queue.take(), 50 + i);
    }
  });

  Deno.test(`${format}: drain gives every token in flight, added, published or half taken`, () => {
    const { queue, device } = setup(8, VIRTIO_F_IN_ORDER);
    for (let i = 0; i < 4; i++) queue.add(list(4), 70 + i);
    queue.publish();
    queue.add(list(4), 74);
    device.use(1, 4, 2);
    assertEquals(queue.take(), 70);
    assertEquals(queue.drain().sort(), [71, 72, 73, 74]);
    assertEquals(queue.inFlight, 0);
  });

  Deno.test(`${format}: a used buffer though none is in flight is an error, not something to look for again and again`, () => {
    for (const features of [0n, VIRTIO_F_IN_ORDER, VIRTIO_F_EVENT_IDX]) {
      const { queue, device } = setup(4, features);
      assertEquals(queue.take(), -1);
      device.use(0, 0);
      assertEquals(queue.enableInterrupts(), true);
      assertThrows(() => queue.take(), VirtqueueError);
      assertThrows(() => queue.take(), VirtqueueError);
    }
  });

  if (format === "split") {
    Deno.test("split: a used index that jumps ahead of what is in flight is not believed at all", () => {
      const { queue, device } = setup(8);
      queue.add(list(4), 70);
      queue.publish();
      device.use(0, 4, 2);
      assertThrows(() => queue.take(), VirtqueueError, "jumped ahead by 2 with 1 buffers");
      assertEquals(queue.inFlight, 1);
    });

    Deno.test("split: in order, an entry stands for no more buffers than the used index says", () => {
      const { queue, device } = setup(8, VIRTIO_F_IN_ORDER);
      for (let i = 0; i < 3; i++) queue.add(list(4), 70 + i);
      queue.publish();
      device.use(2, 4, 2);
      assertThrows(() => queue.take(), VirtqueueError, "out of order");
      assertEquals(queue.inFlight, 3);
    });
  }

  Deno.test(`${format}: interrupts are asked for where the driver is, and from the given buffer on`, () => {
    const features = ring | VIRTIO_F_EVENT_IDX;
    const memory = GuestMemory.allocate(0x10000);
    const config = placeQueue(8, 0, format);
    const queue = openDriverQueue(memory, config, features);
    const device = openQueue(memory, config, features);
    for (let lap = 0; lap < 20; lap++) {
      const after = lap % 4;
      assertEquals(queue.enableInterrupts(after), false);
      for (let i = 0; i < 5; i++) queue.add(list(1), i);
      queue.publish();
      const wants = [];
      for (let i = 0; i < 5; i++) {
        device.push(device.pop()!);
        wants.push(device.flush());
      }
      assertEquals(wants, [0, 1, 2, 3, 4].map((i) => i === after));
      assertEquals(queue.enableInterrupts(), true);
      for (let i = 0; i < 5; i++) queue.take();
      queue.disableInterrupts();
      queue.add(list(1), 0);
      queue.publish();
      device.push(device.pop()!);
      assertEquals(device.flush(), false);
      queue.take();
    }
  });

  Deno.test(`${format}: notification data is where the next available descriptor goes`, () => {
    const { memory, queue, config } = setup(4);
    const device = openQueue(memory, config, ring);
    const expected = [];
    const got = [];
    for (let i = 1; i <= 10; i++) {
      queue.add(list(1, 1), 70);
      queue.publish();
      got.push(queue.notificationData());
      const wrap = Math.floor(2 * i / 4) % 2 === 0 ? 1 : 0;
      expected.push(format === "split" ? i : (2 * i) % 4 | wrap << 15);
      device.push(device.pop()!);
      device.flush();
      assertEquals(queue.take(), 70);
    }
    assertEquals(got, expected);
  });

  Deno.test(`${format}: buffers and tables above 4 GiB reach the device with all of their address`, () => {
    const high = 0x12_0000_0000;
    const memory = new GuestMemory([
      { base: 0, buffer: new SharedArrayBuffer(0x8000) },
      { base: high, buffer: new SharedArrayBuffer(0x8000) },
    ]);
    const features = ring | VIRTIO_F_INDIRECT_DESC;
    const config = placeQueue(8, high, format);
    const queue = openDriverQueue(memory, config, features);
    const device = openQueue(memory, config, features);
    memory.writeU32(high + 0x4000, 0x12345678);
    const buffers = new BufferList().readable(high + 0x4000, 4).writable(high + 0x5000, 4);
    for (const table of [undefined, high + 0x6000, high + 0x6006, high + 0x7fe0]) {
      queue.add(buffers, 70, table);
      queue.publish();
      const chain = device.pop()!;
      assertEquals(chain.reader.u32(), 0x12345678);
      chain.writer.u32(0x9abcdef0);
      device.push(chain);
      device.flush();
      assertEquals([queue.take(), queue.usedLength], [70, 4]);
      assertEquals(memory.readU32(high + 0x5000), 0x9abcdef0);
      memory.writeU32(high + 0x5000, 0);
    }
  });

  Deno.test(`${format}: used lengths of 2 GiB and more are taken where there is room for them`, () => {
    for (const room of [2 ** 31, 2 ** 32 - 1, 2 ** 32]) {
      for (const length of [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]) {
        const { queue, device } = setup(4);
        queue.add(new BufferList().writable(0x9000, room), 70);
        queue.publish();
        device.use(0, length);
        if (length > room) assertThrows(() => queue.take(), VirtqueueError);
        else assertEquals([queue.take(), queue.usedLength], [70, length]);
      }
    }
  });

  Deno.test(`${format}: without event indexes the driver kicks unless the device says that it need not`, () => {
    const { memory, queue, config } = setup(8);
    const device = openQueue(memory, config, ring);
    const kicks = (): boolean => {
      queue.add(list(1), 70);
      return queue.publish();
    };
    assertEquals(kicks(), true);
    device.suspend();
    assertEquals(kicks(), false);
    device.pop();
    device.pop();
    assertEquals(device.arm(), false);
    assertEquals(kicks(), true);
  });
}

Deno.test("packed: without the WRITE flag a used descriptor's length is reserved and not looked at", () => {
  const memory = GuestMemory.allocate(0x10000);
  const config = placeQueue(4, 0, "packed");
  const queue = openDriverQueue(memory, config, FORMATS[1][1]);
  const flags = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;
  for (const [i, length] of [0, 1, 17, 0xffff_ffff].entries()) {
    queue.add(new BufferList().writable(0x9000, 16), 70);
    queue.publish();
    const at = config.descriptorArea + 16 * i;
    memory.writeU32(at + 8, length);
    memory.writeU16(at + 14, flags);
    assertEquals([queue.take(), queue.usedLength], [70, 0]);
  }
});
