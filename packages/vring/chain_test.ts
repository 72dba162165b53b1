/** Chains as the device side pops them: any framing, any place in memory, both formats. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { GuestMemory } from "@virtio/memory";
import { type Chain, openQueue, VIRTIO_F_INDIRECT_DESC, VirtqueueError } from "./mod.ts";
import { FORMATS, placeQueue, type RawDescriptor, rawDriver } from "./testing/raw_driver.ts";

function read(chain: Chain): Uint8Array {
  const bytes = new Uint8Array(chain.readable);
  chain.reader.read(bytes);
  return bytes;
}

for (const [format, ring] of FORMATS) {
  const features = ring | VIRTIO_F_INDIRECT_DESC;

  Deno.test(`${format}: a chain of more than eight segments keeps them all, and so does the next one in its place`, () => {
    const memory = GuestMemory.allocate(0x10000);
    const config = placeQueue(64, 0, format);
    const driver = rawDriver(memory, config, features);
    const queue = openQueue(memory, config, features);
    for (const count of [8, 9, 16, 17, 40, 3]) {
      const descriptors: RawDescriptor[] = [];
      for (let i = 0; i < count; i++) {
        memory.writeU8(0x8000 + 16 * i, i + 1);
        descriptors.push({ address: 0x8000 + 16 * i, length: 1 });
      }
      descriptors.push({ address: 0xa000, length: 3, write: true });
      driver.send(descriptors);
      const chain = queue.pop()!;
      assertEquals(chain.count, count + 1);
      assertEquals(read(chain), new Uint8Array(count).map((_, i) => i + 1));
      assertEquals(chain.writer.write(new Uint8Array([1, 2, 3, 4])), 3);
      queue.push(chain);
      queue.flush();
      assertEquals(driver.takeUsed().map(({ length }) => length), [3]);
    }
  });

  Deno.test(`${format}: an indirect table may be longer than a small queue, up to 1024 entries, and no longer`, () => {
    const memory = GuestMemory.allocate(0x20000);
    const config = placeQueue(4, 0, format);
    for (const count of [1, 4, 5, 128, 1024]) {
      const driver = rawDriver(memory, config, features);
      const queue = openQueue(memory, config, features);
      const entries = Array.from(
        { length: count },
        (_, i) => ({ address: 0x10000 + i, length: 1 }),
      );
      driver.table(0x4000, entries);
      memory.write(0x10000, new Uint8Array(count).map((_, i) => i));
      driver.send([{ address: 0x4000, length: 16 * count, indirect: true }]);
      assertEquals(read(queue.pop()!), new Uint8Array(count).map((_, i) => i));
    }
    const driver = rawDriver(memory, config, features);
    const queue = openQueue(memory, config, features);
    driver.send([{ address: 0x4000, length: 16 * 1025, indirect: true }]);
    assertThrows(() => queue.pop(), VirtqueueError, "1025");
  });

  Deno.test(`${format}: buffers and indirect tables cross from a region into the adjacent one, at any byte`, () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -40, max: 40 }),
        fc.integer({ min: 1, max: 100 }),
        fc.boolean(),
        fc.boolean(),
        (shift, length, indirect, write) => {
          const memory = new GuestMemory([
            { base: 0, buffer: new SharedArrayBuffer(0x4000) },
            { base: 0x4000, buffer: new ArrayBuffer(16) },
            { base: 0x4010, buffer: new SharedArrayBuffer(0x3ff0) },
          ]);
          const config = placeQueue(4, 0, format);
          const driver = rawDriver(memory, config, features);
          const queue = openQueue(memory, config, features);
          const address = 0x4000 + shift;
          const content = new Uint8Array(length).map((_, i) => i + 1);
          if (!write) memory.write(address, content);
          if (indirect) {
            // The table crosses too.
            const table = 0x4200 - 24;
            const apart = new GuestMemory([
              { base: 0, buffer: new SharedArrayBuffer(0x4200) },
              { base: 0x4200, buffer: new SharedArrayBuffer(0x3e00) },
            ]);
            const driver = rawDriver(apart, config, features);
            const queue = openQueue(apart, config, features);
            const cut = Math.floor(length / 2);
            driver.table(table, [
              { address: 0x5000, length: cut },
              { address: 0x5000 + cut, length: length - cut },
              { address: 0x6000, length, write: true },
            ]);
            apart.write(0x5000, content);
            driver.send([{ address: table, length: 48, indirect: true }]);
            const chain = queue.pop()!;
            assertEquals(read(chain), content);
            assertEquals(chain.writable, length);
            return;
          }
          driver.send([{ address, length, write }]);
          const chain = queue.pop()!;
          assertEquals([chain.readable, chain.writable], write ? [0, length] : [length, 0]);
          if (write) {
            chain.writer.write(content);
            const back = new Uint8Array(length + 2);
            memory.read(address - 1, back);
            assertEquals(back, new Uint8Array([0, ...content, 0]));
          } else {
            assertEquals(read(chain), content);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  Deno.test(`${format}: rings, tables and buffers work above 4 GiB, and the upper half of an address counts`, () => {
    const high = 0x12_0000_0000;
    const memory = new GuestMemory([
      { base: 0, buffer: new SharedArrayBuffer(0x8000) },
      { base: high, buffer: new SharedArrayBuffer(0x8000) },
    ]);
    const config = placeQueue(8, high, format);
    const driver = rawDriver(memory, config, features);
    const queue = openQueue(memory, config, features);
    memory.write(high + 0x4000, new Uint8Array([1, 2, 3]));
    memory.write(0x4000, new Uint8Array([9, 9, 9]));
    driver.table(high + 0x5000, [
      { address: high + 0x4000, length: 3 },
      { address: 0x4000, length: 3 },
      { address: high + 0x7ffe, length: 2, write: true },
    ]);
    driver.send([{ address: high + 0x5000, length: 48, indirect: true }]);
    const chain = queue.pop()!;
    assertEquals(read(chain), new Uint8Array([1, 2, 3, 9, 9, 9]));
    chain.writer.u16(0x1234);
    assertEquals(memory.readU16(high + 0x7ffe), 0x1234);
    queue.push(chain);
    queue.flush();
    assertEquals(driver.takeUsed().length, 1);
    // Same low half, no such upper half.
    driver.send([{ address: 0x1_0000_4000, length: 3 }]);
    assertThrows(() => queue.pop(), VirtqueueError, "0x100004000");
  });

  Deno.test(`${format}: empty descriptors anywhere change nothing, wherever they point`, () => {
    const memory = GuestMemory.allocate(0x8000);
    const config = placeQueue(16, 0, format);
    const driver = rawDriver(memory, config, features);
    const queue = openQueue(memory, config, features);
    memory.write(0x4000, new Uint8Array([1, 2, 3, 4]));
    const empty = { address: 2 ** 63, length: 0 };
    driver.send([
      empty,
      { address: 0x4000, length: 2 },
      empty,
      { address: 0x4002, length: 2 },
      { ...empty, write: true },
      { address: 0x5000, length: 4, write: true },
      { ...empty, write: true },
    ]);
    const chain = queue.pop()!;
    assertEquals([chain.readable, chain.writable, chain.count], [4, 4, 3]);
    assertEquals(read(chain), new Uint8Array([1, 2, 3, 4]));
    queue.push(chain);
    driver.send([empty]);
    const nothing = queue.pop()!;
    assertEquals([nothing.readable, nothing.writable, nothing.count], [0, 0, 0]);
    queue.push(nothing);
    queue.flush();
    assertEquals(driver.takeUsed().length, 2);
  });

  Deno.test(`${format}: a chain of 2^32 bytes is taken, one of a byte more is not`, () => {
    const piece = 4 << 20;
    const memory = GuestMemory.allocate(2 * piece);
    const config = placeQueue(32, 0, format);
    const driver = rawDriver(memory, config, features);
    const queue = openQueue(memory, config, features);
    // The same memory again and again.
    const entries = Array.from({ length: 1024 }, () => ({ address: 0, length: piece }));
    driver.table(0x10000, entries);
    driver.send([{ address: 0x10000, length: 16 * 1024, indirect: true }]);
    const chain = queue.pop()!;
    assertEquals(chain.readable, 2 ** 32);
    // So that the next one has room for as many segments at once.
    queue.push(chain);
    driver.table(0x10000, [{ address: 0, length: piece + 1 }, ...entries.slice(1)]);
    driver.send([{ address: 0x10000, length: 16 * 1024, indirect: true }]);
    assertThrows(() => queue.pop(), VirtqueueError, "2^32");
  });
}
