import { assertEquals } from "@std/assert";
import { defer, deferring } from "./defer.ts";

Deno.test("defer: runs in a later turn, and tells until then that something waits", async () => {
  assertEquals(deferring(), false);
  const order: string[] = [];
  defer(() => order.push(`first, ${deferring()}`));
  defer(() => order.push(`second, ${deferring()}`));
  assertEquals(deferring(), true);
  await null;
  order.push("microtask");
  while (deferring()) await new Promise<void>(defer);
  assertEquals(order, ["microtask", "first, true", "second, true"]);
  assertEquals(deferring(), false);
});
