/** Cursors against flat bytes: whatever the driver cut, a device sees one run of bytes. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { GuestMemory } from "@virtio/memory";
import { Chain } from "./chain.ts";

/** A chain over memory of its own, cut into segments that do not touch. */
function makeChain(
  readable: readonly number[],
  writable: readonly number[],
  content: Uint8Array,
): { chain: Chain; memory: GuestMemory; written: () => Uint8Array; outside: () => boolean } {
  const gap = 5;
  const total = [...readable, ...writable].reduce((sum, n) => sum + n + gap, gap);
  const size = Math.ceil(total / 8) * 8;
  const memory = GuestMemory.allocate(size, 0x1_2345_0000);
  const region = memory.regions[0]!;
  region.bytes.fill(0xaa);
  const chain = new Chain({}, region);
  chain.begin();
  let at = gap;
  let done = 0;
  const inside = new Uint8Array(size);
  const places: [number, number][] = [];
  for (const length of readable) {
    if (length > 0) {
      region.bytes.set(content.subarray(done, done + length), at);
      chain.add(region, at, length);
    }
    inside.fill(1, at, at + length);
    done += length;
    at += length + gap;
  }
  chain.readable = done;
  chain.readableCount = chain.count;
  for (const length of writable) {
    if (length > 0) chain.add(region, at, length);
    inside.fill(1, at, at + length);
    places.push([at, length]);
    chain.writable += length;
    at += length + gap;
  }
  chain.reader.begin();
  chain.writer.begin();
  return {
    chain,
    memory,
    written: () =>
      new Uint8Array(places.flatMap(([at, length]) => [...region.bytes.subarray(at, at + length)])),
    outside: () => region.bytes.every((byte, i) => inside[i] === 1 || byte === 0xaa),
  };
}

const cuts = fc.array(fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 300 })), {
  maxLength: 20,
});
const WIDTHS: Record<string, number> = { u8: 1, u16: 2, u32: 4, u64: 8 };
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

type Read = { kind: "struct" | "read" | "skip" | "views"; length: number } | {
  kind: "u8" | "u16" | "u32" | "u64" | "next";
  length: number;
};

Deno.test("a reader gives the same bytes whatever the cut, field by field and in bulk", () => {
  const step: fc.Arbitrary<Read> = fc.oneof(
    fc.record({
      kind: fc.constantFrom("struct", "read", "skip", "views") as fc.Arbitrary<"struct">,
      length: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 256 })),
    }),
    fc.record({
      kind: fc.constantFrom("u8", "u16", "u32", "u64", "next") as fc.Arbitrary<"u8">,
      length: fc.integer({ min: 1, max: 100 }),
    }),
  );
  fc.assert(
    fc.property(cuts, cuts, fc.array(step, { maxLength: 30 }), (readable, writable, steps) => {
      const content = new Uint8Array(sum(readable)).map((_, i) => (i * 37 + (i >> 8)) & 0x1f);
      const { chain, outside } = makeChain(readable, writable, content);
      const flat = new DataView(content.buffer);
      const { reader } = chain;
      let at = 0;
      for (const { kind, length } of steps) {
        const left = content.length - at;
        assertEquals(reader.remaining, left);
        const width = WIDTHS[kind] ?? length;
        if (kind === "read") {
          const into = new Uint8Array(length);
          const count = Math.min(length, left);
          assertEquals(reader.read(into), count);
          assertEquals(into.subarray(0, count), content.subarray(at, at + count));
          at += count;
          continue;
        }
        if (kind === "next") {
          const more = reader.next(length);
          assertEquals(more, left > 0);
          if (!more) continue;
          assert(reader.length >= 1 && reader.length <= Math.min(length, left));
          assertEquals(
            reader.region!.bytes.slice(reader.offset, reader.offset + reader.length),
            content.slice(at, at + reader.length),
          );
          at += reader.length;
          continue;
        }
        const run = (): unknown => {
          switch (kind) {
            case "struct": {
              const offset = reader.struct(length);
              const bytes = Array.from(
                { length },
                (_, i) => reader.view.getUint8(offset + i),
              );
              return new Uint8Array(bytes);
            }
            case "views": {
              const views = reader.views(length);
              return new Uint8Array(views.flatMap((view) => [...view]));
            }
            case "skip":
              return reader.skip(length);
            case "u8":
              return reader.u8();
            case "u16":
              return reader.u16();
            case "u32":
              return reader.u32();
            case "u64":
              return reader.u64();
          }
        };
        if (width > left) {
          assertThrows(run, RangeError);
          assertEquals(reader.remaining, left, "a refused read passes nothing");
          continue;
        }
        const got = run();
        const part = content.slice(at, at + width);
        if (kind === "struct" || kind === "views") assertEquals(got, part);
        if (kind === "u8") assertEquals(got, flat.getUint8(at));
        if (kind === "u16") assertEquals(got, flat.getUint16(at, true));
        if (kind === "u32") assertEquals(got, flat.getUint32(at, true));
        if (kind === "u64") assertEquals(got, Number(flat.getBigUint64(at, true)));
        if (kind !== "views") at += width;
      }
      assert(outside());
    }),
    { numRuns: 500 },
  );
});

Deno.test("a writer puts the same bytes whatever the cut, counts them, and touches nothing else", () => {
  const step = fc.record({
    kind: fc.constantFrom("u8", "u16", "u32", "u64", "write", "fill", "skip", "next"),
    value: fc.nat(2 ** 32 - 1),
    length: fc.integer({ min: 0, max: 150 }),
  });
  fc.assert(
    fc.property(
      cuts,
      cuts,
      fc.array(step, { maxLength: 20 }),
      fc.nat(20),
      fc.nat(20),
      fc.boolean(),
      (readable, writable, steps, tail, tailAfter, tailFirst) => {
        const { chain, written, outside } = makeChain(
          readable,
          writable,
          new Uint8Array(sum(readable)),
        );
        const { writer } = chain;
        const total = sum(writable);
        const expected = new Uint8Array(total).fill(0xaa);
        const flat = new DataView(expected.buffer);
        let at = 0;
        let end = total;
        let reserved = 0;
        const tailBytes = new Uint8Array(tail).map((_, i) => 0xe0 + i);
        steps.forEach(({ kind, value, length }, turn) => {
          if (turn === tailAfter) {
            const fits = tail <= end - at;
            assertEquals(writer.reserveTail(tail), fits);
            if (fits) {
              end -= tail;
              reserved = tail;
              if (tailFirst) {
                writer.writeTail(tailBytes);
                expected.set(tailBytes, end);
              }
            }
          }
          const left = end - at;
          assertEquals(writer.remaining, left);
          const width = WIDTHS[kind];
          if (width !== undefined) {
            const big = kind === "u64" ? value * 0x1f_ffff : value;
            const run = (): void => writer[kind as "u8"](big);
            if (width > left) {
              assertThrows(run, RangeError);
              assertEquals(writer.remaining, left);
              return;
            }
            run();
            if (kind === "u8") flat.setUint8(at, big);
            if (kind === "u16") flat.setUint16(at, big, true);
            if (kind === "u32") flat.setUint32(at, big, true);
            if (kind === "u64") flat.setBigUint64(at, BigInt(big), true);
            at += width;
          } else if (kind === "write") {
            const from = new Uint8Array(length).map((_, i) => value + i);
            const count = Math.min(length, left);
            assertEquals(writer.write(from), count);
            expected.set(from.subarray(0, count), at);
            at += count;
          } else if (kind === "fill") {
            const count = Math.min(length, left);
            assertEquals(writer.fill(value & 0xff, length), count);
            expected.fill(value & 0xff, at, at + count);
            at += count;
          } else if (kind === "skip") {
            if (length > left) {
              assertThrows(() => writer.skip(length), RangeError);
            } else {
              writer.skip(length);
              at += length;
            }
          } else if (writer.next(length)) {
            at += writer.length;
          }
        });
        const allBefore = at === end;
        assertEquals(
          chain.written,
          reserved > 0 && tailFirst && allBefore ? total : at,
          "what was written without a gap from the start",
        );
        if (reserved > 0 && !tailFirst) {
          writer.writeTail(tailBytes);
          expected.set(tailBytes, end);
          assertEquals(chain.written, allBefore ? total : at);
        }
        assertEquals(written(), expected);
        assert(outside(), "bytes outside of the segments are unchanged");
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("a reserved tail of one byte is the last byte, in whichever segment that lies", () => {
  for (const cut of [[1], [5], [4, 1], [3, 1, 1], [1, 1, 1], [1, 0, 0], [512, 1], [512, 3]]) {
    const { chain, written, outside } = makeChain([], cut, new Uint8Array());
    assertEquals(chain.writer.reserveTail(1), true);
    assertEquals(chain.writer.remaining, sum(cut) - 1);
    chain.writer.writeTailU8(0x5a);
    assertEquals(written().at(-1), 0x5a);
    assertEquals(written().subarray(0, -1).every((byte) => byte === 0xaa), true);
    assertEquals(chain.written, sum(cut) === 1 ? 1 : 0);
    assert(outside());
  }
});

Deno.test("a tail longer than what remains is refused and nothing is set aside", () => {
  const { chain } = makeChain([3], [2, 2], new Uint8Array(3));
  assertEquals(chain.writer.reserveTail(5), false);
  assertEquals(chain.writer.remaining, 4);
  chain.writer.u8(1);
  assertEquals(chain.writer.reserveTail(4), false);
  assertEquals(chain.writer.reserveTail(3), true);
  assertEquals(chain.writer.remaining, 0);
  assertThrows(() => chain.writer.writeTail(new Uint8Array(2)), RangeError, "3 bytes");
  assertThrows(() => chain.writer.writeTailU8(2), RangeError);
  assertEquals(chain.written, 1);
  chain.writer.writeTail(new Uint8Array(3));
  assertEquals(chain.written, 4);
});

Deno.test("a structure is taken in place where it lies in one piece, and a copy else", () => {
  const content = new Uint8Array(32).map((_, i) => i);
  const { chain, memory } = makeChain([20, 12], [], content);
  const at = chain.reader.struct(16);
  assertEquals(chain.reader.view, memory.regions[0]!.view);
  assertEquals(chain.reader.view.getUint8(at), 0);
  const split = chain.reader.struct(16);
  assertEquals(split, 0);
  assert(chain.reader.view !== memory.regions[0]!.view);
  assertEquals(chain.reader.view.getUint8(15), 31);
});

Deno.test("a structure longer than 256 bytes, or of no byte, is refused however it is cut", () => {
  for (const cut of [[600], [300, 300]]) {
    for (const length of [0, -1, 257, 300, Infinity, NaN]) {
      const { chain } = makeChain(cut, [], new Uint8Array(600));
      assertThrows(() => chain.reader.struct(length), RangeError);
      assertEquals(chain.reader.remaining, 600);
    }
    const { chain } = makeChain(cut, [], new Uint8Array(600));
    chain.reader.struct(256);
    assertEquals(chain.reader.remaining, 344);
  }
});

Deno.test("an empty chain has nothing to read and nothing to write", () => {
  const { chain } = makeChain([], [], new Uint8Array());
  assertEquals([chain.reader.remaining, chain.writer.remaining, chain.written], [0, 0, 0]);
  assertEquals(chain.reader.next(10), false);
  assertEquals(chain.reader.read(new Uint8Array(4)), 0);
  assertEquals(chain.writer.write(new Uint8Array(4)), 0);
  assertEquals(chain.writer.fill(1, 4), 0);
  assertEquals(chain.reader.views(0), []);
  assertEquals(chain.writer.reserveTail(1), false);
  assertThrows(() => chain.reader.u8(), RangeError);
  assertThrows(() => chain.writer.u8(1), RangeError);
  assertThrows(() => chain.reader.skip(1), RangeError);
  assertThrows(() => chain.reader.skip(-1), RangeError);
  assertThrows(() => chain.reader.views(NaN), RangeError);
});
