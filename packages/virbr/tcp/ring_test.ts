import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { RingPool } from "./ring.ts";

Deno.test("a ring gives back what was written, by any of its ways, and never touches its neighbour", () => {
  const step = fc.record({ way: fc.nat(3), length: fc.nat(5000) });
  const pool = new RingPool(4096, 4);
  const ring = pool.take()!;
  const neighbour = pool.take()!;
  neighbour.room().fill(0xaa);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      ring.consume(ring.used);
      let next = 1;
      let model: number[] = [];
      for (const { way, length } of steps) {
        if (way === 0) {
          const count = Math.min(length, ring.free);
          const bytes = new Uint8Array(count + 3).map(() => next = next * 5 % 251);
          ring.write(ring.used, bytes, 3, count);
          ring.commit(count);
          model.push(...bytes.subarray(3));
        } else if (way === 1) {
          const room = ring.room();
          const count = Math.min(length, room.length);
          for (let i = 0; i < count; i++) model.push(room[i] = next = next * 5 % 251);
          ring.commit(count);
        } else if (way === 2) {
          const count = Math.min(length, ring.used);
          const bytes = new Uint8Array(count + 2);
          ring.read(ring.used - count, bytes, 2, count);
          assertEquals([...bytes.subarray(2)], model.slice(model.length - count));
        } else {
          const head = ring.head();
          const count = Math.min(length, head.length);
          assertEquals([...head.subarray(0, count)], model.slice(0, count));
          ring.consume(count);
          model = model.slice(count);
        }
        assertEquals(ring.used, model.length);
      }
    }),
  );
  assertEquals(new Set(neighbour.room()), new Set([0xaa]));
});

Deno.test("a ring refuses what does not fit, and a pool has only so many", () => {
  const pool = new RingPool(4096, 2);
  const ring = pool.take()!;
  assertThrows(() => ring.write(4090, new Uint8Array(10), 0, 7), RangeError);
  assertThrows(() => ring.commit(4097), RangeError);
  assertThrows(() => ring.consume(1), RangeError);
  assertThrows(() => ring.read(0, new Uint8Array(1), 0, 1), RangeError);
  pool.take();
  assertEquals(pool.take(), null);
  pool.give(ring);
  assertEquals([pool.taken, pool.take() === ring], [1, true]);
  assertThrows(() => new RingPool(5000, 1), RangeError, "power of two");
});
