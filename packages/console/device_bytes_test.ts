/** Bytes in both directions: none lost, none twice, none out of turn. */
import { assert, assertEquals } from "@std/assert";
import { encode, running } from "./device_testing.ts";
import { ConsoleDevice, receiveQueue } from "./mod.ts";
import { RawConsoleDriver, SpyConsole, turns } from "./testing.ts";

Deno.test("console: a back end that is full leaves output in the queue, and gets each byte once", async () => {
  const { driver, console } = await running();
  console.room = 3;
  driver.output(0, "hello", [2]);
  driver.output(0, " world", [1, 1]);
  assertEquals(console.text, "hel");
  assertEquals(driver.used[1], 0);
  console.allow(1);
  assertEquals(console.text, "hell");
  console.allow(0);
  console.allow(4);
  await turns();
  assertEquals(console.text, "hello wo");
  assertEquals(driver.used[1], 1);
  console.allow(Infinity);
  await turns();
  assertEquals(console.text, "hello world");
  assertEquals(driver.used[1], 2);
});

Deno.test("console: a back end that has room again while it is being asked is asked again", async () => {
  const { driver, console } = await running();
  const { write } = console;
  let asked = 0;
  console.write = function (bytes, offset, length) {
    if (asked++ > 0) return write.call(this, bytes, offset, length);
    this.port!.resume();
    return 0;
  };
  driver.output(0, "again");
  await turns();
  assertEquals(console.text, "again");
});

Deno.test("console: an output chain of many megabytes is passed on over several turns", async () => {
  let bytes = 0;
  const most: number[] = [];
  let since = 0;
  const device = new ConsoleDevice({
    ports: [{
      backend: {
        write: (_bytes, _offset, length) => {
          bytes += length;
          since += length;
          return length;
        },
      },
    }],
  });
  const driver = await RawConsoleDriver.open(device);
  driver.sendSame(1, 2 ** 20, 40);
  for (let i = 0; i < 10; i++) {
    most.push(since);
    since = 0;
    await turns(1);
  }
  assertEquals(bytes, 40 * 2 ** 20);
  assert(Math.max(...most) <= 33 * 2 ** 20, `at most ${Math.max(...most)} bytes in a turn`);
  assert(most[0]! <= 2 ** 24, `${most[0]} bytes at once`);
});

Deno.test("console: input waits within its bound, is refused beyond it, and the back end hears of room", async () => {
  const { device, driver, agent } = await running({
    ports: [{ backend: new SpyConsole() }],
  });
  assertEquals(agent.port, null);
  const spy = new SpyConsole();
  const port = device.addPort({ backend: spy, inputBuffer: 8 });
  await turns();
  assertEquals(port.room, 8);
  assertEquals(port.write(encode("early ")), 6, "before the guest opened it");
  assertEquals(port.write(encode("input!")), 2);
  assertEquals([port.waiting, port.room], [8, 0]);
  driver.provide(receiveQueue(port.id), 3);
  await turns();
  assertEquals(driver.used[receiveQueue(port.id)], 0, "a closed port takes nothing");
  assertEquals(spy.told, ["attached"]);
  await driver.portReady(port.id);
  assertEquals(driver.input(port.id), "ear");
  assertEquals(spy.told, ["attached", "opened", "drained"]);
  assertEquals(port.write(encode("ABCDEF"), 2, 3), 3);
  for (let i = 0; i < 4; i++) driver.provide(receiveQueue(port.id), 3, [1]);
  await turns();
  assertEquals(driver.input(port.id), "ly inCDE");
  assertEquals(spy.told, ["attached", "opened", "drained"]);
  // Straight into the buffer that is left, and beyond.
  assertEquals(port.write(encode("123456789012")), 11);
});

Deno.test("console: new input does not overtake what waits, though there is a buffer that nobody kicked for", async () => {
  const spy = new SpyConsole();
  const device = new ConsoleDevice({ ports: [{ backend: spy }] });
  const driver = await RawConsoleDriver.open(device);
  device.port(0)!.write(encode("first "));
  driver.provide(0, 32, [], false);
  driver.queue(0).publish();
  device.port(0)!.write(encode("second"));
  await turns();
  driver.transport.kick(0, 0);
  await turns();
  assertEquals(driver.input(0), "first second");
});

Deno.test("console: input that wraps around in its buffer comes out in order", async () => {
  const { device, driver } = await running({ ports: [{ backend: new SpyConsole() }] });
  const port = device.addPort({ backend: new SpyConsole(), inputBuffer: 7 });
  await driver.portReady(port.id);
  let expected = "";
  let got = "";
  for (let i = 0; i < 60; i++) {
    const text = String(i).padStart(1 + i % 5, ".");
    expected += text.slice(0, port.write(encode(text)));
    if (i % 2 === 0) {
      driver.provide(receiveQueue(port.id), 1 + i % 9);
      await turns(1);
      got += driver.input(port.id);
    }
  }
  driver.provide(receiveQueue(port.id), 10);
  await turns();
  got += driver.input(port.id);
  assertEquals(got, expected);
});

Deno.test("console: characters of emerg_wr wait for a back end that is full, and come before output", async () => {
  const spy = new SpyConsole();
  const device = new ConsoleDevice({ ports: [{ backend: spy }] });
  spy.room = 1;
  for (const byte of encode("boot")) device.config.write(8, 4, byte);
  const driver = await RawConsoleDriver.open(device);
  driver.output(0, " up");
  assertEquals(spy.text, "b");
  spy.allow(2);
  assertEquals(spy.text, "boo");
  spy.allow(Infinity);
  assertEquals(spy.text, "boot up");
  // A back end that has room again, and has not said so.
  spy.room = 0;
  device.config.write(8, 4, 0x21);
  spy.room = Infinity;
  driver.output(0, "?");
  assertEquals(spy.text, "boot up!?");
  // Bounded, and without a port or a feature they are nobody's.
  spy.room = 0;
  for (let i = 0; i < 1100; i++) device.config.write(8, 1, 0x2e);
  assertEquals(device.stats.emergencyDiscarded, 76);
  spy.allow(Infinity);
  assertEquals(spy.text.length, 9 + 1024);
  spy.port!.close();
  device.config.write(8, 4, 0x2e);
  assertEquals(device.stats.emergencyDiscarded, 77);
  device.removePort(0);
  device.config.write(8, 4, 0x2e);
  device.config.write(9, 1, 0x2e);
  assertEquals(device.stats.emergencyDiscarded, 78);
  const other = new SpyConsole();
  const without = new ConsoleDevice({ ports: [{ backend: other }], emergencyWrite: false });
  without.config.write(8, 4, 0x2e);
  assertEquals(other.text, "");
});
