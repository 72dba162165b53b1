import { assertEquals, assertThrows } from "@std/assert";
import { enterKick, leaveKick, publishSoon } from "./publishing.ts";

Deno.test("what is completed during a kick is published at its end, outermost first, in order", () => {
  const done: string[] = [];
  enterKick();
  publishSoon(() => done.push("one"));
  enterKick();
  publishSoon(() => done.push("two"));
  leaveKick();
  assertEquals(done, [], "a kick inside of another is a part of it");
  leaveKick();
  assertEquals(done, ["one", "two"]);
});

Deno.test("what is completed outside of a kick is published at the end of the turn", async () => {
  let done = 0;
  publishSoon(() => done++);
  assertEquals(done, 0);
  await null;
  assertEquals(done, 1);
});

Deno.test("a driver that is told, and kicks at once, does not nest", () => {
  const done: string[] = [];
  enterKick();
  publishSoon(() => {
    done.push("begin");
    enterKick();
    publishSoon(() => done.push("answer"));
    leaveKick();
    done.push("end");
  });
  leaveKick();
  assertEquals(done, ["begin", "end", "answer"]);
});

Deno.test("drivers that answer each other for ever leave the kick", async () => {
  let rounds = 0;
  const answer = (): void => {
    if (++rounds === 1000) return;
    enterKick();
    publishSoon(answer);
    leaveKick();
  };
  enterKick();
  publishSoon(answer);
  leaveKick();
  assertEquals(rounds, 64);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(rounds, 1000);
});

Deno.test("a publication that throws keeps the others only until the end of the turn", async () => {
  let done = 0;
  enterKick();
  publishSoon(() => {
    throw new Error("broken host");
  });
  publishSoon(() => done++);
  assertThrows(() => leaveKick(), Error, "broken host");
  await null;
  assertEquals(done, 1);
  publishSoon(() => done++);
  assertEquals(done, 1, "the kick is over");
  await null;
  assertEquals(done, 2);
});
