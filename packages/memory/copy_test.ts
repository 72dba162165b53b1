import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { makeMemory } from "./copy.ts";
import { allocateBytes, GuestMemory, type MemoryRegion, type RegionSource } from "./mod.ts";

const SIZE = 3 * 65536;
const OFFSET = 4096;

/** Every kind of memory that a region can have. */
const sources: Record<string, () => RegionSource["buffer"]> = {
  "memory of its own": () => GuestMemory.allocate(OFFSET + SIZE).regions[0]!.bytes.buffer,
  "an ArrayBuffer": () => new ArrayBuffer(OFFSET + SIZE),
  "a SharedArrayBuffer": () => new SharedArrayBuffer(OFFSET + SIZE),
  "a WebAssembly.Memory": () => new WebAssembly.Memory({ initial: 4 }),
};

/** Every kind of bytes that can be on the other side. */
const others: Record<string, () => Uint8Array> = {
  "an array": () => new Uint8Array(SIZE),
  "allocated bytes": () => allocateBytes(SIZE),
  "shared allocated bytes": () => allocateBytes(SIZE, true),
  "a part of allocated bytes": () => allocateBytes(SIZE + 100).subarray(77, 77 + SIZE),
  "another region": () => GuestMemory.allocate(SIZE).regions[0]!.bytes,
};

function noise(bytes: Uint8Array, seed: number): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = seed = (seed * 1103515245 + 12345) >>> 3;
}

function open(buffer: RegionSource["buffer"]): MemoryRegion {
  return new GuestMemory([{ base: 0x10000, buffer, byteOffset: OFFSET, size: SIZE }]).regions[0]!;
}

for (const [kind, make] of Object.entries(sources)) {
  for (const [other, makeOther] of Object.entries(others)) {
    Deno.test(`copies move the bytes asked for and no others: ${kind}, ${other}`, () => {
      const buffer = make();
      const region = open(buffer);
      const all = new Uint8Array(
        buffer instanceof WebAssembly.Memory ? buffer.buffer : buffer as ArrayBuffer,
      );
      const bytes = makeOther();
      const around = new Uint8Array(bytes.buffer);
      noise(all, 1);
      noise(around, 2);
      const range = fc.oneof(fc.nat(80), fc.nat(5000), fc.nat(70000));
      fc.assert(
        fc.property(range, range, range, fc.boolean(), (offset, at, length, out) => {
          const [to, base] = out ? [around, bytes.byteOffset + at] : [all, OFFSET + offset];
          const expected = to.slice();
          if (out) expected.set(region.bytes.subarray(offset, offset + length), base);
          else expected.set(bytes.subarray(at, at + length), base);
          if (out) region.copyTo(offset, bytes, at, length);
          else region.copyFrom(offset, bytes, at, length);
          // Not by assertEquals, which is slow for so many bytes.
          assert(to.every((byte, i) => byte === expected[i]));
          const moved = (out ? bytes : region.bytes)[(out ? at : offset) + length - 1];
          if (length > 0) {
            assertEquals(moved, (out ? region.bytes : bytes)[(out ? offset : at) + length - 1]);
          }
        }),
        { numRuns: 15 },
      );
    });
  }
}

Deno.test("a copy beyond either side is refused, and nothing is copied", () => {
  for (const make of Object.values(others)) {
    const region = open(sources["memory of its own"]!());
    const bytes = make();
    region.bytes.fill(1);
    bytes.fill(2);
    const bad = [
      [SIZE - 15, 0, 16],
      [0, SIZE - 15, 16],
      [SIZE - 99, 0, 100],
      [0, SIZE - 99, 100],
      [-1, 0, 100],
      [0, -1, 100],
      [0, 0, -1],
      [0, 0, NaN],
      [NaN, 0, 100],
      [0, NaN, 100],
      [0, 0, Infinity],
      [2 ** 32, 0, 100],
      [0, 2 ** 32, 100],
      [0, 0, 2 ** 32 + 16],
    ] as const;
    for (const [offset, at, length] of bad) {
      assertThrows(() => region.copyTo(offset, bytes, at, length), RangeError, "Cannot copy");
      assertThrows(() => region.copyFrom(offset, bytes, at, length), RangeError, "Cannot copy");
    }
    assert(region.bytes.every((byte) => byte === 1));
    assert(bytes.every((byte) => byte === 2));
  }
});

Deno.test("copies go on after either memory has grown", () => {
  const guest = new WebAssembly.Memory({ initial: 1 });
  const host = new WebAssembly.Memory({ initial: 1 });
  const memory = new GuestMemory([{ base: 0, buffer: guest }]);
  const region = memory.regions[0]!;
  const old = new GuestMemory([{ base: 0, buffer: host }]);
  region.bytes.fill(5);
  region.copyTo(0, old.regions[0]!.bytes, 0, 100);
  guest.grow(1);
  host.grow(1);
  assertThrows(() => region.copyTo(0, old.regions[0]!.bytes, 0, 100), RangeError, "Cannot copy");
  memory.refresh();
  old.refresh();
  region.copyTo(0, old.regions[0]!.bytes, 300, 100);
  assertEquals(new Uint8Array(host.buffer, 298, 104).join(""), `00${"5".repeat(100)}00`);
  old.regions[0]!.bytes.fill(6);
  region.copyFrom(7, old.regions[0]!.bytes, 9, 33);
  assertEquals(new Uint8Array(guest.buffer, 6, 35).join(""), `5${"6".repeat(33)}5`);
});

Deno.test("who is given shared memory copies as fast as who shared it", () => {
  const memory = GuestMemory.allocate(4096, 0x10000);
  const other = GuestMemory.from(structuredClone(memory.share()));
  const bytes = allocateBytes(4096);
  for (const { regions: [region] } of [memory, other]) assert(region!.copiesFast(bytes));
  bytes.fill(9);
  other.regions[0]!.copyFrom(100, bytes, 0, 1000);
  assertEquals(memory.readU32(0x10000 + 100 + 996), 0x09090909);
  const plain = new GuestMemory([{ base: 0, buffer: new SharedArrayBuffer(4096) }]);
  const { regions: [region] } = GuestMemory.from(structuredClone(plain.share()));
  assert(!region!.copiesFast(bytes));
});

Deno.test("a memory with 64-bit addresses is copied to and from otherwise", () => {
  const descriptor = { initial: 1n, maximum: 1n, address: "i64" };
  const wide = new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
  const region = new GuestMemory([{ base: 0, buffer: wide }]).regions[0]!;
  const bytes = allocateBytes(4096).fill(7);
  assert(!region.copiesFast(bytes));
  region.copyFrom(100, bytes, 1, 1000);
  assertEquals(region.bytes.subarray(99, 1101).join(""), `0${"7".repeat(1000)}0`);
});

Deno.test("more views than a region remembers are copied to all the same", () => {
  const region = GuestMemory.allocate(4096).regions[0]!;
  const views = Array.from({ length: 30 }, () => allocateBytes(100));
  for (let turn = 1; turn <= 3; turn++) {
    views.forEach((view, i) => {
      region.bytes.fill(turn * i);
      region.copyTo(10, view, 0, 100);
    });
    views.forEach((view, i) => assertEquals(view.join(), Array(100).fill(turn * i).join()));
  }
});

Deno.test("memory larger than WebAssembly has is made otherwise", () => {
  assertEquals(makeMemory(2 ** 32 + 1, false), null);
  assertEquals(makeMemory(NaN, false), null);
});

Deno.test("allocated bytes are zero, as long as asked for, and shared if asked for", () => {
  for (const shared of [false, true]) {
    const bytes = allocateBytes(70000, shared);
    assertEquals(bytes.length, 70000);
    assert(bytes.every((byte) => byte === 0));
    assertEquals(bytes.buffer instanceof SharedArrayBuffer, shared);
  }
});
