import { assertEquals, assertThrows } from "@std/assert";
import { enterKick, leaveKick, publishDue, publishSoon } from "./publishing.ts";

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

Deno.test("what is due can be published before the end of the kick, and what that brings about is due later", () => {
  const done: string[] = [];
  enterKick();
  publishSoon(() => {
    done.push("one");
    publishSoon(() => done.push("answer"));
    publishDue();
  });
  publishSoon(() => done.push("two"));
  publishDue();
  assertEquals(done, ["one", "two", "answer"]);
  publishSoon(() => {
    done.push("three");
    publishSoon(() => done.push("late"));
  });
  publishDue();
  assertEquals(done.slice(3), ["three"]);
  leaveKick();
  assertEquals(done.slice(3), ["three", "late"]);
  publishDue();
  assertEquals(done.length, 5, "nothing twice");
});

Deno.test("a kick of many parts is no quarrel of two drivers", () => {
  let done = 0;
  enterKick();
  for (let part = 1; part <= 200; part++) {
    publishSoon(() => done++);
    publishDue();
    assertEquals(done, part);
  }
  publishSoon(() => done++);
  leaveKick();
  assertEquals(done, 201);
});

Deno.test("a publication that throws in the middle of a kick keeps the others until its end", () => {
  let done = 0;
  enterKick();
  publishSoon(() => {
    throw new Error("broken host");
  });
  publishSoon(() => done++);
  assertThrows(() => publishDue(), Error, "broken host");
  assertEquals(done, 0);
  leaveKick();
  assertEquals(done, 1);
  enterKick();
  publishSoon(() => done++);
  publishDue();
  assertEquals(done, 2, "the list is free again");
  leaveKick();
});
