import { assert, assertEquals, assertRejects } from "@std/assert";
import { ConsoleDevice } from "../mod.ts";
import { RawConsoleDriver, turns } from "../testing.ts";
import { MemoryConsole } from "./memory.ts";

Deno.test("memory console: expected text is taken with what comes before it, whatever comes behind", async () => {
  const host = new MemoryConsole();
  const device = new ConsoleDevice({ ports: [{ backend: host }] });
  const driver = await RawConsoleDriver.open(device);
  await host.opened();
  const early = host.expect("login: ");
  driver.output(0, "Welcome\r\nlog");
  driver.output(0, "in: rest");
  assertEquals(await early, "Welcome\r\nlogin: ");
  assertEquals(host.available, 4);
  assertEquals(await host.expect(/re[s]t/g), "rest");
  driver.output(0, "caf\u00e9 \u2603 then");
  assertEquals(await host.expect("\u2603"), "caf\u00e9 \u2603");
  assertEquals(host.takeText(), " then");
  const error = await assertRejects(() => {
    driver.output(0, "nothing of the kind");
    return host.expect("something", 5);
  }, Error);
  assert(error.message.includes("nothing of the kind"), error.message);
  assertEquals(host.takeText(), "nothing of the kind");
});

Deno.test("memory console: it is full at its bound, and takes more when its output is taken", async () => {
  const host = new MemoryConsole({ outputBuffer: 5 });
  const device = new ConsoleDevice({ ports: [{ backend: host }] });
  const driver = await RawConsoleDriver.open(device);
  driver.output(0, "0123456789ab");
  assertEquals(host.available, 5);
  assertEquals(new TextDecoder().decode(host.takeBytes(2)), "01");
  assertEquals(host.takeText(), "23456");
  assertEquals(host.takeText(), "789ab");
  await turns();
  assertEquals(driver.used[1], 1);
});

Deno.test("memory console: input is sent in order and resolves when the port took it; a port that is removed takes none", async () => {
  const host = new MemoryConsole();
  const sent: number[] = [];
  const first = host.send("before there is a port").then(() => sent.push(1));
  await turns();
  assertEquals(sent, []);
  const device = new ConsoleDevice({ ports: [{ backend: host, inputBuffer: 30 }] });
  await first;
  const second = host.send(new Uint8Array(20));
  await assertRejects(async () => {
    device.removePort(0);
    await second;
  }, TypeError);
  assertEquals([host.port, host.guestOpen], [null, false]);
  await assertRejects(() => host.opened(5), Error, "open");
});
