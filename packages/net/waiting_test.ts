import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Frame } from "./frame.ts";
import { plainFrame } from "./testing.ts";
import { WaitingFrames } from "./waiting.ts";

function frameOf(length: number, seed: number): Frame {
  const frame = new Frame(length).fromBytes(plainFrame(length, seed));
  frame.flags = seed & 3;
  frame.gsoType = seed & 5;
  frame.headerLength = seed * 7;
  frame.gsoSize = seed * 11;
  frame.csumStart = seed * 13;
  frame.csumOffset = seed * 17;
  return frame;
}

function seen(frame: Frame): unknown {
  const { flags, gsoType, headerLength, gsoSize, csumStart, csumOffset } = frame;
  return [flags, gsoType, headerLength, gsoSize, csumStart, csumOffset, [...frame.bytes]];
}

Deno.test("waiting frames come out as they went in, in their order, wherever the ring wraps", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 100, max: 700 }),
      fc.integer({ min: 1, max: 8 }),
      fc.array(fc.option(fc.integer({ min: 14, max: 300 })), { maxLength: 80 }),
      (maxBytes, maxFrames, steps) => {
        const waiting = new WaitingFrames(maxFrames, maxBytes);
        const model: { frame: Frame; size: number }[] = [];
        const bytes = () => model.reduce((sum, { size }) => sum + size, 0);
        steps.forEach((length, i) => {
          if (length === null) {
            const got = waiting.peek();
            const wanted = model.shift();
            assertEquals(got === null, wanted === undefined);
            if (got === null) return;
            assertEquals(seen(got), seen(wanted!.frame));
            // Again, as for a driver that had no buffers the first time.
            assertEquals(seen(waiting.peek()!), seen(wanted!.frame));
            waiting.shift();
          } else {
            const size = length + 16;
            const fits = model.length < maxFrames && bytes() + size <= maxBytes;
            const frame = frameOf(length, i);
            assertEquals(waiting.push(frame), fits);
            if (fits) model.push({ frame, size });
          }
          assertEquals([waiting.count, waiting.bytes], [model.length, bytes()]);
        });
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("a waiting room that was cleared is empty, and can be used again", () => {
  const waiting = new WaitingFrames(4, 1000);
  waiting.push(frameOf(100, 1));
  waiting.push(frameOf(100, 2));
  waiting.peek();
  assertEquals(waiting.clear(), 2);
  waiting.shift();
  assertEquals([waiting.peek(), waiting.count, waiting.bytes], [null, 0, 0]);
  waiting.push(frameOf(200, 3));
  assertEquals(seen(waiting.peek()!), seen(frameOf(200, 3)));
});

Deno.test("a frame across the end of the ring is whole, and so is a header there", () => {
  for (const [first, second] of [[100, 150], [275, 60], [280, 60], [270, 200]] as const) {
    const waiting = new WaitingFrames(4, 300);
    assert(waiting.push(frameOf(first, 1)));
    waiting.peek();
    waiting.shift();
    assert(waiting.push(frameOf(second, 2)));
    assertEquals(seen(waiting.peek()!), seen(frameOf(second, 2)));
  }
});
