/** Buffers for asynchronous back ends: how many there are, and whose turn it is. */
import { assertEquals } from "@std/assert";
import { BouncePool, PIECE_SIZE } from "./bounce.ts";

class Waiter {
  got: Uint8Array | null = null;
  granted(buffer: Uint8Array): void {
    this.got = buffer;
  }
}

Deno.test("bounce buffers: a small request that there would be room for waits behind a large one", () => {
  const pool = new BouncePool(PIECE_SIZE + 8192);
  const held = pool.take(PIECE_SIZE, new Waiter())!;
  const large = new Waiter();
  assertEquals(pool.take(PIECE_SIZE, large), null);
  const small = new Waiter();
  assertEquals(pool.take(4096, small), null);
  assertEquals([pool.waiting, pool.allocated], [2, PIECE_SIZE]);
  pool.give(held);
  assertEquals([large.got?.length, small.got?.length], [PIECE_SIZE, 4096]);
  assertEquals([pool.waiting, pool.allocated], [0, PIECE_SIZE + 4096]);
});
