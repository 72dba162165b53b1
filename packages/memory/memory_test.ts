import { assertEquals, assertThrows } from "@std/assert";
import { AddressError, GuestMemory } from "./mod.ts";

Deno.test("GuestMemory finds ranges in sorted regions and refuses what crosses an end", () => {
  const memory = new GuestMemory([
    { base: 0x1_0000_0000, buffer: new ArrayBuffer(0x1000) },
    { base: 0, buffer: new SharedArrayBuffer(0x1000) },
    { base: 0x1000, buffer: new SharedArrayBuffer(0x1000) },
  ]);
  assertEquals(memory.regions.map((r) => r.base), [0, 0x1000, 0x1_0000_0000]);
  assertEquals(memory.find(0xff8, 8).base, 0);
  assertEquals(memory.lookup(0xff8, 9), null);
  assertEquals(memory.find(0x1000, 8).base, 0x1000);
  assertEquals(memory.lookup(0x2000, 1), null);
  assertEquals(memory.lookup(0x2001, 0), null);
  assertEquals(memory.find(0x1_0000_0ff8, 8).base, 0x1_0000_0000);
  for (const bad of [-1, NaN, Infinity, 2 ** 53, 2 ** 64 - 1, 0x0_ffff_ffff]) {
    assertEquals(memory.lookup(bad, 1), null, String(bad));
  }
  assertThrows(() => memory.find(0x1_0000_0ff9, 8), AddressError, "0x100000ff9");
});

Deno.test("GuestMemory reads, writes and fills across adjacent regions, all or nothing", () => {
  const memory = new GuestMemory([
    { base: 0, buffer: new SharedArrayBuffer(16) },
    { base: 16, buffer: new ArrayBuffer(16) },
    { base: 40, buffer: new ArrayBuffer(16) },
  ]);
  const data = Uint8Array.from({ length: 12 }, (_, i) => i + 1);
  memory.write(10, data);
  const back = new Uint8Array(12);
  memory.read(10, back);
  assertEquals(back, data);
  memory.fill(15, 2, 0xaa);
  assertEquals([memory.readU8(14), memory.readU8(15), memory.readU8(16), memory.readU8(17)], [
    5,
    0xaa,
    0xaa,
    8,
  ]);
  assertThrows(() => memory.write(28, new Uint8Array(8).fill(9)), AddressError);
  assertEquals(memory.readU8(28), 0);
  assertThrows(() => memory.fill(28, 8, 9), AddressError);
  assertEquals(memory.readU8(31), 0);
});

Deno.test("GuestMemory reads 64-bit values as numbers", () => {
  const memory = GuestMemory.allocate(64);
  memory.writeU64(8, 0x12_3456_789a);
  assertEquals(memory.readU64(8), 0x12_3456_789a);
  assertEquals(memory.readU32(8), 0x3456_789a);
  memory.write(16, new Uint8Array(8).fill(0xff));
  assertEquals(memory.readU64(16), 2 ** 64);
});

Deno.test("GuestMemory follows a WebAssembly.Memory that grows and detaches", () => {
  const wasm = new WebAssembly.Memory({ initial: 1, maximum: 4 });
  const memory = new GuestMemory([{ base: 0, buffer: wasm, byteOffset: 4096, size: 8192 }]);
  memory.writeU32(0, 7);
  assertEquals(memory.stable, false);
  wasm.grow(1);
  assertThrows(() => memory.readU32(0), TypeError);
  memory.refresh();
  assertEquals(memory.readU32(0), 7);
  assertEquals(new DataView(wasm.buffer).getUint32(4096, true), 7);
});

Deno.test("GuestMemory takes more than 4 GiB in one region", () => {
  const memory = new GuestMemory([{ base: 0, buffer: new SharedArrayBuffer(0x1_4000_0000) }]);
  memory.writeU32(0x1_2345_6780, 42);
  assertEquals(memory.readU32(0x1_2345_6780), 42);
  assertEquals(memory.readU32(0x2345_6780), 0);
});

Deno.test("GuestMemory tells its tracker of writes", () => {
  const memory = GuestMemory.allocate(64);
  const marks: [number, number][] = [];
  memory.tracker = { mark: (address, length) => marks.push([address, length]) };
  memory.writeU8(1, 1);
  memory.writeU16(2, 1);
  memory.writeU32(4, 1);
  memory.writeU64(8, 1);
  memory.write(16, new Uint8Array(5));
  memory.fill(24, 3, 1);
  memory.readU64(8);
  assertEquals(marks, [[1, 1], [2, 2], [4, 4], [8, 8], [16, 5], [24, 3]]);
});

Deno.test("GuestMemory shares shared buffers and refuses plain ones", () => {
  const memory = new GuestMemory([{ base: 8, buffer: new SharedArrayBuffer(64), byteOffset: 16 }]);
  const other = GuestMemory.from(structuredClone(memory.share()));
  memory.writeU8(9, 5);
  assertEquals(other.readU8(9), 5);
  assertThrows(
    () => new GuestMemory([{ base: 0, buffer: new ArrayBuffer(8) }]).share(),
    TypeError,
    "SharedArrayBuffer",
  );
  const buffer = new ArrayBuffer(64);
  const mapped = new GuestMemory([{ base: 0, buffer, address: 0x7000n }]).share();
  assertEquals(mapped.regions[0], {
    base: 0,
    size: 64,
    byteOffset: 0,
    buffer: null,
    address: 0x7000n,
  });
  assertThrows(() => GuestMemory.from(mapped), TypeError, "open");
  const opened = GuestMemory.from(mapped, (address, size) => {
    assertEquals([address, size], [0x7000n, 64]);
    return buffer;
  });
  assertEquals(opened.regions[0]!.bytes.buffer, buffer);
});

Deno.test("GuestMemory refuses regions that make no sense, saying why", () => {
  const buffer = new ArrayBuffer(64);
  assertThrows(() => new GuestMemory([]), RangeError, "at least one");
  assertThrows(() => new GuestMemory([{ base: 4, buffer }]), RangeError, "multiple of 8");
  assertThrows(() => new GuestMemory([{ base: -8, buffer }]), RangeError, "non-negative");
  assertThrows(() => new GuestMemory([{ base: 0, buffer, size: 72 }]), RangeError, "not fit");
  assertThrows(() => new GuestMemory([{ base: 0, buffer, byteOffset: 3 }]), RangeError, "8");
  assertThrows(() => new GuestMemory([{ base: 0, buffer, size: 0 }]), RangeError, "positive");
  assertThrows(
    () => new GuestMemory([{ base: 0, buffer }, { base: 56, buffer }]),
    RangeError,
    "overlap",
  );
  assertThrows(
    () =>
      new GuestMemory([{
        base: 0,
        buffer: new SharedArrayBuffer(8, { maxByteLength: 64 } as never),
      }]),
    TypeError,
    "growable",
  );
});

Deno.test("GuestMemory locates by halves of an address what it finds by the whole, window by window", () => {
  const GIB = 2 ** 30;
  // Reserved, never touched.
  const buffer = new SharedArrayBuffer(5 * GIB);
  const memory = new GuestMemory([
    { base: 0, buffer: new SharedArrayBuffer(0x8000) },
    { base: 0x8000, buffer: new SharedArrayBuffer(0x8000) },
    { base: 3 * GIB, buffer },
    { base: 0x12_0000_8000, buffer: new SharedArrayBuffer(0x1000) },
  ]);
  const offsets = [-1, 0, 1, 0x7fff, 0x8000, 0x1_0000];
  const bases = [0, 0x8000, 3 * GIB, 4 * GIB, 4.75 * GIB, 8 * GIB, 0x12_0000_8000, 2 ** 52];
  const lengths = [0, 1, 0x1000, 0x8000, GIB / 2, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
  // Twice: what was found is remembered.
  for (let pass = 0; pass < 2; pass++) {
    for (const base of bases) {
      for (const offset of offsets) {
        const address = base + offset;
        if (address < 0) continue;
        for (const length of lengths) {
          const region = memory.lookup(address, length);
          const found = memory.locate(address | 0, Math.floor(address / 2 ** 32) | 0, length | 0);
          const what = `${length} bytes at 0x${address.toString(16)}`;
          assertEquals(memory.lookupSegment(address, length) === null, found === null, what);
          if (found === null) continue;
          assertEquals(found.whole, region, what);
          assertEquals(found.base <= address, true, what);
          assertEquals(address + length <= found.base + found.size, true, what);
          assertEquals(found.size < 2 ** 31, true, what);
          assertEquals(found.base - found.baseHigh * 2 ** 32, found.baseLow >>> 0, what);
        }
      }
    }
  }
  // Half a GiB is in a window wherever it starts, unless it crosses a multiple of 4 GiB.
  assertEquals(memory.locate(-GIB / 2, 0, GIB / 2)?.whole, memory.regions[2]);
  assertEquals(memory.locate(-GIB / 2, 0, GIB / 2 + 1), null);
  assertEquals(memory.lookup(3.5 * GIB, GIB / 2 + 1), memory.regions[2]);
});
