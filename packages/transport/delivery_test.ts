import { assertEquals } from "@std/assert";
import { InterruptDelivery } from "./delivery.ts";

Deno.test("loopback interrupts: a level is handled until it is down, or nobody claims it", async () => {
  for (const mode of ["sync", "microtask"] as const) {
    const delivery = new InterruptDelivery(mode);
    let calls = 0;
    delivery.onLine = () => {
      if (++calls === 3) delivery.setLine(false);
      return true;
    };
    delivery.setLine(true);
    assertEquals(calls, mode === "sync" ? 3 : 0);
    await Promise.resolve();
    assertEquals([calls, delivery.count, delivery.line], [3, 1, false]);
    delivery.onLine = () => {
      calls++;
      return false;
    };
    delivery.setLine(true);
    await Promise.resolve();
    assertEquals(calls, 4);
  }
});

Deno.test("loopback interrupts: a handler is not entered again from inside itself", () => {
  const delivery = new InterruptDelivery("sync");
  const trace: string[] = [];
  let rounds = 0;
  delivery.onMessage = (data) => {
    trace.push(`in ${data}`);
    if (rounds++ < 2) delivery.message(data + 1);
    trace.push(`out ${data}`);
  };
  delivery.message(1);
  assertEquals(trace, ["in 1", "out 1", "in 2", "out 2", "in 3", "out 3"]);
  assertEquals(delivery.count, 3);
});

Deno.test("loopback interrupts: equal messages that wait become one", async () => {
  const delivery = new InterruptDelivery("microtask");
  const got: number[] = [];
  delivery.onMessage = (data) => got.push(data);
  for (const data of [1, 2, 1, 1]) delivery.message(data);
  assertEquals(got, []);
  await Promise.resolve();
  assertEquals(got, [1, 2]);
});
