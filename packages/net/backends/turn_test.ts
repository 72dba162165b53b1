/** Frames in answer to frames: no recursion, nothing mixed up, and the event loop keeps its turns. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Frame } from "../frame.ts";
import { LoopbackBackend } from "./loopback.ts";
import { TokenBucket } from "./token_bucket.ts";
import { Turn } from "./turn.ts";

/** A frame of 60 bytes that all have one value. */
function filled(value: number, length = 60): Frame {
  return new Frame(length).fromBytes(new Uint8Array(length).fill(value));
}

Deno.test("answers wait until what they answer is done, in order, each with its number", () => {
  const log: string[] = [];
  let depth = 0;
  const turn = new Turn((frame, number) => {
    depth++;
    assertEquals(depth, 1);
    const value = frame.view.getUint8(0);
    log.push(`${value}/${number}`);
    if (value < 4) {
      assert(turn.take(filled(value * 2 + 1), number * 10 + 1));
      assert(turn.take(filled(value * 2 + 2), number * 10 + 2));
      // The one in hand is not changed by those that wait.
      assertEquals(frame.view.getUint8(59), value);
    }
    depth--;
  });
  assert(turn.take(filled(0), 0));
  assertEquals(log, ["0/0", "1/1", "2/2", "3/11", "4/12", "5/21", "6/22", "7/111", "8/112"]);
  assertEquals([turn.waiting, turn.dropped], [0, 0]);
});

Deno.test("a conversation without end leaves the event loop its turns, and can be ended", async () => {
  let count = 0;
  const turn = new Turn((frame, number) => {
    count++;
    turn.take(frame, number);
  });
  turn.take(filled(1), 0);
  const first = count;
  assert(first > 1 && first < 1000, `${first}`);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert(count > first);
  assertEquals(turn.waiting, 1);
  turn.clear();
  const last = count;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(count, last);
  turn.take(filled(1), 0);
  assert(count > last);
  turn.clear();
});

Deno.test("answers that multiply are dropped at a bound", () => {
  let count = 0;
  const turn = new Turn((frame, number) => {
    count++;
    for (let i = 0; i < 3; i++) turn.take(frame, number);
  });
  turn.take(filled(1), 0);
  assert(turn.waiting <= 256 && count < 1000);
  assert(turn.dropped > 0);
  turn.clear();
  assertEquals(turn.waiting, 0);
  const wide = filled(1, 60_000);
  const large = new Turn(() => {
    for (let i = 0; i < 30; i++) large.take(wide, 0);
  });
  large.take(filled(1), 0);
  assert(large.waiting <= 20, "the bound counts bytes too");
  large.clear();
});

Deno.test("a handler that throws leaves the next frame its turn", () => {
  let count = 0;
  const turn = new Turn(() => {
    if (count++ === 0) throw new Error("first");
  });
  assertThrows(() => turn.take(filled(1), 0), Error, "first");
  assert(turn.take(filled(2), 0));
  assertEquals(count, 2);
});

Deno.test("loopback gives back what was sent, at once, and answers after it", () => {
  const loopback = new LoopbackBackend();
  loopback.deliver(filled(1));
  assertEquals([loopback.frames, loopback.dropped], [0, 1], "nobody is connected");
  const got: number[] = [];
  loopback.connect({
    offloads: 0,
    deliver: (frame) => {
      const value = frame.view.getUint8(0);
      if (value < 5) loopback.deliver(filled(value + 1));
      got.push(value);
    },
  });
  loopback.deliver(filled(1));
  assertEquals(got, [1, 2, 3, 4, 5]);
  assertEquals([loopback.frames, loopback.dropped, loopback.overruns], [5, 1, 0]);
  loopback.connect({
    offloads: 0,
    deliver: (frame) => {
      for (let i = 0; i < 9; i++) loopback.deliver(frame);
    },
  });
  loopback.deliver(filled(1));
  assert(loopback.overruns > 0);
  loopback.connect(null);
});

Deno.test("a bucket lets its burst pass at once, and its rate for ever", () => {
  const bucket = new TokenBucket(100, 5);
  const at = (now: number, tries: number): number => {
    let passed = 0;
    for (let i = 0; i < tries; i++) if (bucket.take(now)) passed++;
    return passed;
  };
  assertEquals(at(1000, 100), 5);
  assertEquals(at(1009, 100), 0);
  assertEquals(at(1010, 100), 1);
  assertEquals(at(900, 100), 0, "time does not go back");
  assertEquals(at(1040, 100), 3);
  assertEquals(at(99_000, 100), 5);
  const free = new TokenBucket(Infinity, 1);
  assert(free.take(0) && free.take(0) && free.take(0));
  assertThrows(() => new TokenBucket(0, 5), RangeError, "0 a second");
  assertThrows(() => new TokenBucket(1, 0.5), RangeError, "burst");
});
