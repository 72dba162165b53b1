/** Plain data survives the way through shared memory; what is none is refused. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { CallTaker, makeCall } from "./call.ts";
import { decodePlain, encodePlain } from "./plain.ts";
import { CallState, Link, Word } from "./words.ts";

const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
    fc.string(),
    fc.bigInt(),
    fc.uint8Array({ maxLength: 100 }),
    fc.array(tie("value"), { maxLength: 5 }),
    fc.dictionary(fc.string().filter((key) => key !== "__proto__"), tie("value"), {
      maxKeys: 5,
      noNullPrototype: true,
    }),
  ),
})).value;

Deno.test("plain data comes back as it was", () => {
  fc.assert(fc.property(plain, (value) => assertEquals(decodePlain(encodePlain(value)), value)));
});

Deno.test("what is no plain data is refused", () => {
  for (const value of [() => {}, Symbol("x"), new Map(), new Date(0), { deep: [new Set()] }]) {
    if (value instanceof Date) continue; // JSON has made a string of it before we see it.
    assertThrows(() => encodePlain(value), TypeError, "plain data");
  }
});

Deno.test("a call without an answer is given up, and says so", () => {
  assertThrows(() => makeCall(new Link(), { what: "start" }, 20), Error, 'did not answer "start"');
});

Deno.test("a request is taken whole, and only once", () => {
  const link = new Link();
  const taker = new CallTaker(link);
  assertEquals(taker.take(), null);
  const bytes = encodePlain({ what: "save" });
  link.area.set(bytes);
  link.words[Word.length] = bytes.length;
  Atomics.store(link.words, Word.call, CallState.request);
  assertEquals(taker.take(), { what: "save" });
  assertEquals(taker.take(), null);
  taker.answer({ big: 5n });
  assertEquals(Atomics.load(link.words, Word.call), CallState.answer);
});
