/** Frames in a stream of bytes, however it is cut. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { MAX_FRAME_SIZE } from "../constants.ts";
import { Frame } from "../frame.ts";
import { StreamJoiner, StreamSplitter } from "./stream_framing.ts";

/** What stands before a frame. */
function lengthOf(value: number): number[] {
  return [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255];
}

function split(chunks: Iterable<Uint8Array>): { got: Uint8Array[]; splitter: StreamSplitter } {
  const got: Uint8Array[] = [];
  const splitter = new StreamSplitter((frame) => {
    assertEquals(frame.needs, 0);
    got.push(frame.bytes.slice());
  });
  for (const chunk of chunks) assertEquals(splitter.push(chunk, chunk.length), null);
  return { got, splitter };
}

Deno.test("frames come out of a stream as they went in, wherever it is cut", () => {
  const frames = fc.array(
    fc.tuple(fc.oneof(fc.integer({ min: 14, max: 40 }), fc.nat(3000)), fc.nat(255)),
    {
      maxLength: 20,
    },
  );
  fc.assert(fc.property(frames, fc.array(fc.integer({ min: 1, max: 3000 })), (frames, cuts) => {
    const joiner = new StreamJoiner(100_000);
    const expected = frames.map(([length, fill]) => new Uint8Array(length).fill(fill));
    const bytes = expected.flatMap((each) => [...lengthOf(each.length), ...each]);
    for (const each of expected) assert(joiner.push(new Frame().fromBytes(each)));
    assertEquals(joiner.bytes, new Uint8Array(bytes));
    const chunks: Uint8Array[] = [];
    let at = 0;
    for (let i = 0; at < joiner.length; i++) {
      const size = cuts.length === 0 ? 1 : cuts[i % cuts.length]!;
      chunks.push(joiner.bytes.subarray(at, at + size));
      at += size;
    }
    const { got, splitter } = split(chunks);
    assertEquals(got, expected.filter(({ length }) => length >= 14));
    assertEquals(splitter.frames + splitter.short, expected.length);
    assertEquals(splitter.bytes, got.reduce((sum, { length }) => sum + length, 0));
    assert(splitter.complete);
  }));
});

Deno.test("the longest frame passes, a longer one ends everything", () => {
  const longest = new Uint8Array(MAX_FRAME_SIZE).fill(3);
  const { got, splitter } = split([new Uint8Array(lengthOf(MAX_FRAME_SIZE)), longest]);
  assertEquals(got, [longest]);
  assert(splitter.complete);
  for (const length of [MAX_FRAME_SIZE + 1, 0x7fffffff, 0x80000000, 0xffffffff]) {
    const { splitter } = split([]);
    const chunk = new Uint8Array([...lengthOf(length), 1, 2, 3]);
    assertEquals(splitter.push(chunk, chunk.length), length);
  }
});

Deno.test("a stream that ends within a frame, or within its length, is not complete", () => {
  for (let count = 1; count < 24; count++) {
    const bytes = new Uint8Array([...lengthOf(20), ...new Uint8Array(20)]);
    const { got, splitter } = split([bytes.subarray(0, count)]);
    assertEquals([splitter.complete, got.length], [false, 0]);
    assertEquals(splitter.push(bytes.subarray(count), 24 - count), null);
    assert(splitter.complete);
    assertEquals(splitter.frames, 1);
  }
});

Deno.test("what does not fit is not collected, not even in part", () => {
  const joiner = new StreamJoiner(100);
  assert(joiner.push(new Frame().fromBytes(new Uint8Array(40).fill(1))));
  assert(!joiner.push(new Frame().fromBytes(new Uint8Array(53).fill(2))));
  assertEquals(joiner.length, 44);
  assert(joiner.push(new Frame().fromBytes(new Uint8Array(52).fill(3))));
  assertEquals(joiner.bytes.length, 100);
});
