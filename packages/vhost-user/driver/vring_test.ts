import { assertEquals } from "@std/assert";
import { decodeBase, encodeBase } from "./vring.ts";

Deno.test("A base is the same position again, once the ring is drained", () => {
  for (const next of [0, 1, 255]) {
    for (const wrap of [0, 1]) {
      const position = { nextAvail: next, nextUsed: next, availWrap: wrap, usedWrap: wrap };
      assertEquals(decodeBase(encodeBase(position, true), true), position);
    }
    const position = { nextAvail: next, nextUsed: next, availWrap: 0, usedWrap: 0 };
    assertEquals(decodeBase(encodeBase(position, false), false), position);
  }
  assertEquals([encodeBase(undefined, true), encodeBase(undefined, false)], [0x8000_8000, 0]);
});
