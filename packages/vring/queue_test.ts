/** The device side of a queue: what its methods promise, at every size and over every wrap. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import {
  type Chain,
  openQueue,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VirtqueueError,
} from "./mod.ts";
import { BufferList, openDriverQueue } from "./driver.ts";
import { FORMATS, placeQueue, rawDriver, type RawSplitDriver } from "./testing/raw_driver.ts";

for (const [format, ring] of FORMATS) {
  const setup = (size: number, features = 0n) => {
    const memory = GuestMemory.allocate(0x10000);
    const config = placeQueue(size, 0, format);
    return {
      memory,
      config,
      driver: rawDriver(memory, config, ring | features),
      queue: openQueue(memory, config, ring | features),
    };
  };
  const one = [{ address: 0x8000, length: 4, write: true }];

  const sizes = format === "split"
    ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
    : [1, 2, 3, 5, 7, 100, 255, 257, 1000, 1023, 1025, 12345, 32767, 32768];
  Deno.test(`${format}: full rings of every size go round, three times each, with every ring feature`, () => {
    for (const size of sizes) {
      for (const features of [ring, ring | VIRTIO_F_EVENT_IDX | VIRTIO_F_IN_ORDER]) {
        const layout = placeQueue(size, 0x1000, format);
        const buffers = Math.ceil((layout.deviceArea + 8 * size + 64) / 0x1000) * 0x1000;
        const memory = GuestMemory.allocate(buffers + 0x1000 + 4 * size - (4 * size) % 8);
        const driver = openDriverQueue(memory, layout, features);
        const device = openQueue(memory, layout, features);
        const list = new BufferList();
        for (let lap = 0; lap < 3; lap++) {
          for (let i = 0; i < size; i++) {
            list.clear().writable(buffers + 4 * i, 4);
            assert(driver.add(list, i));
          }
          assertEquals(driver.add(list, size), false, "the ring is full");
          assert(driver.publish(), "the device has not asked for silence");
          let count = 0;
          for (let chain = device.pop(); chain !== null; chain = device.pop()) {
            chain.writer.u32(lap * size + count++);
            device.push(chain);
          }
          assertEquals(count, size);
          assert(device.flush());
          for (let i = 0; i < size; i++) {
            assertEquals(driver.take(), i);
            assertEquals(memory.readU32(buffers + 4 * i), lap * size + i);
          }
          assertEquals(driver.take(), -1);
          driver.enableInterrupts();
          device.arm();
        }
      }
    }
  });

  Deno.test(`${format}: 70,000 chains of changing lengths go over every wrap of the indexes`, () => {
    for (const size of format === "split" ? [4, 32] : [5, 31, 32]) {
      const memory = GuestMemory.allocate(0x10000);
      const config = placeQueue(size, 0, format);
      const features = ring | VIRTIO_F_EVENT_IDX;
      const driver = openDriverQueue(memory, config, features);
      const device = openQueue(memory, config, features);
      const list = new BufferList();
      driver.enableInterrupts();
      let sent = 0;
      let taken = 0;
      let kicks = 0;
      while (taken < 70_000) {
        for (;;) {
          list.clear();
          for (let i = 0; i <= sent % 3; i++) list.writable(0x8000 + 8 * i, 8);
          if (!driver.add(list, sent)) break;
          sent++;
        }
        // A device that has armed and is not running must be kicked.
        assert(driver.publish());
        kicks++;
        do {
          for (let chain = device.pop(); chain !== null; chain = device.pop()) device.push(chain);
          assert(device.flush(), "and a driver that waits must be interrupted");
        } while (device.arm());
        for (let token = driver.take(); token >= 0; token = driver.take()) {
          assertEquals(token, taken++);
        }
        assertEquals(driver.enableInterrupts(), false);
      }
      assertEquals(driver.inFlight, 0);
      assertEquals(driver.free, size);
      assert(kicks > 70_000 / size / 3);
    }
  });

  Deno.test(`${format}: undo gives the same chain again, several last first, over the wrap of the ring`, () => {
    for (const features of [0n, VIRTIO_F_IN_ORDER]) {
      const { driver, queue, memory } = setup(4, features);
      for (let lap = 0; lap < 10; lap++) {
        const sent: number[] = [];
        for (let i = 0; i < 3; i++) {
          memory.writeU8(0x9000 + i, lap * 3 + i);
          sent.push(driver.send([{ address: 0x9000 + i, length: 1 }, ...one].slice(0, 1)));
        }
        const chains = [queue.pop()!, queue.pop()!, queue.pop()!];
        assertEquals(chains.map(({ id }) => id), sent);
        assertEquals(chains[0]!.reader.u8(), lap * 3);
        assertEquals(chains[2]!.reader.u8(), lap * 3 + 2);
        assertThrows(() => queue.undo(chains[0]!), TypeError, "popped last");
        queue.undo(chains[2]!);
        assertThrows(() => queue.undo(chains[2]!), TypeError);
        queue.undo(chains[1]!);
        assertEquals(queue.inFlight, 1);
        assert(queue.arm(), "what was put back is available");
        const again = queue.pop()!;
        assertEquals(again.id, sent[1]);
        assertEquals(again.reader.u8(), lap * 3 + 1, "its cursor starts at the first byte");
        queue.undo(again);
        queue.undo(chains[0]!);
        assertEquals(queue.inFlight, 0);
        for (const id of sent) {
          const chain = queue.pop()!;
          assertEquals(chain.id, id);
          queue.push(chain);
        }
        assertEquals(queue.pop(), null);
        queue.flush();
        assertEquals(driver.takeUsed().map(({ id }) => id), sent);
      }
    }
  });

  Deno.test(`${format}: undo sees what the driver changed in the buffer meanwhile, and only then`, () => {
    const { driver, queue } = setup(4);
    driver.send([{ address: 0x9000, length: 8 }]);
    queue.undo(queue.pop()!);
    const at = driver.descriptorAddress(0);
    driver.memory.writeU32(at + 8, 5);
    assertEquals(queue.pop()!.readable, 5);
  });

  Deno.test(`${format}: a chain is used once, by its own queue, with no more bytes than it has`, () => {
    const { driver, queue } = setup(4);
    const other = setup(4);
    driver.send(one);
    other.driver.send(one);
    const chain = queue.pop()!;
    const foreign = other.queue.pop()!;
    assertThrows(() => queue.push(foreign), TypeError, "not in flight");
    assertThrows(() => other.queue.undo(chain), TypeError);
    for (const written of [5, -1, NaN, Infinity]) {
      assertThrows(() => queue.push(chain, written), RangeError);
    }
    queue.push(chain, 4);
    assertThrows(() => queue.push(chain), TypeError);
    assertThrows(() => queue.push(chain, 4), TypeError);
    assertThrows(() => queue.undo(chain), TypeError);
    queue.flush();
    assertEquals(driver.takeUsed(), [{ id: chain.id, length: 4 }]);
    assertEquals(driver.takeUsed(), []);
  });

  Deno.test(`${format}: in order, a chain that waits for earlier ones cannot be used or put back again`, () => {
    const { driver, queue } = setup(4, VIRTIO_F_IN_ORDER);
    for (let i = 0; i < 3; i++) driver.send(one);
    const [a, b, c] = [queue.pop()!, queue.pop()!, queue.pop()!];
    queue.push(c, 3);
    queue.push(b, 2);
    assertEquals(queue.flush(), false);
    assertEquals(driver.takeUsed(), []);
    assertEquals(queue.inFlight, 3);
    assertThrows(() => queue.push(c, 3), TypeError);
    assertThrows(() => queue.undo(c), TypeError);
    queue.push(a, 1);
    assert(queue.flush());
    assertEquals(driver.takeUsed().map(({ length }) => length), [1, 2, 3]);
    assertEquals(queue.inFlight, 0);
  });

  Deno.test(`${format}: abandon drops what is in flight, held back, or not published: nothing of it is ever written`, () => {
    for (const features of [0n, VIRTIO_F_IN_ORDER]) {
      const { driver, queue, memory } = setup(8, features);
      for (let i = 0; i < 5; i++) driver.send(one);
      const chains = [queue.pop()!, queue.pop()!, queue.pop()!, queue.pop()!];
      queue.push(chains[0]!, 1);
      queue.flush();
      queue.push(chains[1]!, 1);
      queue.push(chains[3]!, 1);
      const before = memory.regions[0]!.bytes.slice();
      queue.abandon();
      assertEquals(queue.inFlight, 0);
      const dropped = features === 0n ? [chains[2]!] : [chains[2]!, chains[3]!];
      for (const chain of dropped) {
        assertEquals([chain.reader.remaining, chain.writer.remaining, chain.written], [0, 0, 0]);
        assertEquals(chain.writer.write(new Uint8Array([1])), 0);
        assertEquals(chain.writer.fill(1, 10), 0);
        assertEquals(chain.writer.reserveTail(1), false);
      }
      for (const chain of dropped) {
        assertThrows(() => queue.push(chain), TypeError);
        assertThrows(() => queue.undo(chain), TypeError);
      }
      assertEquals(queue.flush(), false);
      assertEquals(memory.regions[0]!.bytes, before);
      // What was dropped is not handed out again by another life of the same queue.
      for (let i = 0; i < 3; i++) driver.send(one);
      for (let i = 0; i < 4; i++) assert(!dropped.includes(queue.pop()!));
    }
  });

  Deno.test(`${format}: a queue goes on from its snapshot at every point of two laps`, () => {
    const { driver, config, memory, queue: first } = setup(4);
    let queue = first;
    for (let i = 0; i < 9; i++) {
      driver.send(one);
      driver.send(one);
      const chain = queue.pop()!;
      assertThrows(() => queue.snapshot(), TypeError, "1 chains in flight");
      queue.push(chain, i % 5);
      assertThrows(() => queue.snapshot(), TypeError, "1 not flushed");
      queue.flush();
      const state = structuredClone(queue.snapshot());
      assertEquals(state.version, 1);
      queue = openQueue(memory, state, ring);
      assertEquals(queue.snapshot(), state);
      assert(queue.arm());
      queue.push(queue.pop()!, 0);
      queue.flush();
      assertEquals(queue.arm(), false);
      assertEquals(driver.takeUsed().map(({ length }) => length), [i % 5, 0]);
    }
    assertEquals(config.size, 4);
  });

  Deno.test(`${format}: a snapshot taken while kicks are off does not leave them off`, () => {
    const { driver, memory, queue } = setup(4);
    queue.suspend();
    const again = openQueue(memory, queue.snapshot(), ring);
    again.suspend();
    driver.send(one);
    assert(again.arm());
    const flagsAt = format === "split"
      ? queue.snapshot().deviceArea
      : queue.snapshot().deviceArea + 2;
    assertEquals(memory.readU16(flagsAt), 0);
  });

  Deno.test(`${format}: after an error every pop throws the same error, whatever the driver repairs`, () => {
    const { driver, queue } = setup(4);
    driver.send(one);
    driver.send([{ address: 0xdead_beef, length: 4 }]);
    driver.send(one);
    queue.push(queue.pop()!);
    const error = assertThrows(() => queue.pop(), VirtqueueError);
    driver.memory.writeU32(driver.descriptorAddress(1), 0x8000);
    for (let i = 0; i < 3; i++) {
      assertStrictEquals(assertThrows(() => queue.pop(), VirtqueueError), error);
    }
    assertEquals(queue.inFlight, 0);
    queue.flush();
    assertEquals(driver.takeUsed().length, 1);
  });

  Deno.test(`${format}: a WebAssembly memory that grows between batches is followed, chains in flight too`, () => {
    const wasm = new WebAssembly.Memory({ initial: 1, maximum: 8 });
    const memory = new GuestMemory([{ base: 0, buffer: wasm, size: 0x10000 }]);
    const config = placeQueue(8, 0, format);
    const driver = rawDriver(memory, config, ring);
    const queue = openQueue(memory, config, ring);
    let held: Chain | null = null;
    for (let i = 0; i < 5; i++) {
      memory.writeU32(0x8000, 0x1000 + i);
      driver.send([{ address: 0x8000, length: 4 }, { address: 0x9000, length: 8, write: true }]);
      const chain = queue.pop()!;
      assertEquals(chain.reader.u32(), 0x1000 + i);
      chain.writer.u32(i);
      wasm.grow(1);
      memory.refresh();
      chain.writer.u32(i + 100);
      if (held === null) held = chain;
      else queue.push(chain);
      queue.flush();
      assertEquals(memory.readU32(0x9004), i + 100);
      assertEquals(driver.takeUsed().length, i === 0 ? 0 : 1);
    }
    assertEquals(held!.written, 8);
    queue.push(held!);
    assert(queue.flush());
    assertEquals(driver.takeUsed().length, 1);
  });

  Deno.test(`${format}: the tracker hears of every byte that the device wrote`, () => {
    const memory = new GuestMemory([{ base: 0x4000, buffer: new SharedArrayBuffer(0x10000) }]);
    const config = placeQueue(4, 0x4000, format);
    for (const features of [ring, ring | VIRTIO_F_EVENT_IDX]) {
      const driver = rawDriver(memory, config, features);
      const queue = openQueue(memory, config, features);
      const bytes = memory.regions[0]!.bytes;
      const marked = new Uint8Array(bytes.length);
      for (let i = 0; i < 6; i++) {
        driver.send([{ address: 0x9001, length: 3, write: true }, {
          address: 0xa003,
          length: 9,
          write: true,
        }]);
        const before = bytes.slice();
        memory.tracker = {
          mark: (address, length) => marked.fill(1, address - 0x4000, address - 0x4000 + length),
        };
        marked.fill(0);
        queue.suspend();
        const chain = queue.pop()!;
        chain.writer.fill(i + 1, 12);
        queue.push(chain);
        queue.flush();
        queue.arm();
        memory.tracker = null;
        bytes.forEach((byte, at) => {
          if (byte !== before[at]) {
            assertEquals(marked[at], 1, `byte 0x${(at + 0x4000).toString(16)}`);
          }
        });
        driver.takeUsed();
      }
    }
  });
}

Deno.test("split: the available index is looked at again only when what was seen is used up", () => {
  const memory = GuestMemory.allocate(0x10000);
  const config = placeQueue(4, 0, "split");
  const driver = rawDriver(memory, config, 0n) as RawSplitDriver;
  const queue = openQueue(memory, config, 0n);
  driver.send([{ address: 0, length: 1 }]);
  driver.send([{ address: 0, length: 1 }]);
  queue.pop();
  // A driver that takes back what it made available, which 2.7.13.3.1 forbids: what was seen stays seen.
  driver.setAvailIdx(1);
  assert(queue.pop() !== null);
  assertThrows(() => queue.pop(), VirtqueueError, "jumped");
});

Deno.test("split: a queue that goes on just before the wrap of its indexes gets over it", () => {
  for (const size of [1, 2, 4, 8]) {
    const memory = GuestMemory.allocate(0x10000);
    const config = placeQueue(size, 0, "split");
    for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
      const driver = rawDriver(memory, config, features) as RawSplitDriver;
      driver.seek(0xfffd, 0xfffd);
      const position = { nextAvail: 0xfffd, nextUsed: 0xfffd, availWrap: 0, usedWrap: 0 };
      const queue = openQueue(memory, { ...config, position }, features);
      for (let i = 0; i < 8; i++) {
        const sent = [];
        for (let k = 0; k < size; k++) sent.push(driver.send([{ address: 0, length: 1 }]));
        for (let k = 0; k < size; k++) queue.push(queue.pop()!);
        assertEquals(queue.pop(), null);
        queue.flush();
        assertEquals(queue.arm(), false);
        assertEquals(driver.takeUsed().map(({ id }) => id), sent);
      }
    }
  }
});
