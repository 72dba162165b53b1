import { assert, assertEquals, assertThrows } from "@std/assert";
import { VIRTIO_F_RING_RESET, VIRTIO_F_SUSPEND } from "@virtio/device";
import {
  type ConsoleBackend,
  ConsoleDevice,
  type ConsoleDeviceOptions,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  receiveQueue,
  transmitQueue,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
} from "./mod.ts";
import { RawConsoleDriver, SpyConsole, turns } from "./testing.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

Deno.test("console: without multiport port 0 carries bytes both ways as soon as the driver runs", async () => {
  const spy = new SpyConsole();
  const device = new ConsoleDevice({ ports: [{ backend: spy }] });
  const driver = await RawConsoleDriver.open(device);
  assertEquals(spy.told, ["attached", "opened"]);
  driver.output(0, "hello", [2, 1]);
  assertEquals(spy.text, "hello");
  assertEquals(spy.pieces, [2, 1, 2]);
  spy.port!.write(encode("typed"));
  assertEquals(device.port(0)!.waiting, 5);
  driver.provide(0, 3, [1, 1]);
  driver.provide(0, 16);
  await turns();
  assertEquals(driver.input(0), "typed");
  assertEquals(driver.used, [2, 1]);
});

Deno.test("console: a driver hears of a port in the order of the standard", async () => {
  const device = new ConsoleDevice({
    ports: [{ backend: new SpyConsole() }, { backend: new SpyConsole(), name: "agent" }],
  });
  const driver = await RawConsoleDriver.open(device, { wanted: VIRTIO_CONSOLE_F_MULTIPORT });
  await turns();
  assertEquals(driver.messages(), []);
  driver.ready();
  await turns();
  assertEquals(driver.messages(), [
    { id: 0, event: VIRTIO_CONSOLE_DEVICE_ADD, value: 0 },
    { id: 1, event: VIRTIO_CONSOLE_DEVICE_ADD, value: 0 },
  ]);
  await driver.portReady(0);
  assertEquals(driver.messages(), [
    { id: 0, event: VIRTIO_CONSOLE_CONSOLE_PORT, value: 1 },
    { id: 0, event: VIRTIO_CONSOLE_PORT_OPEN, value: 1 },
    { id: 0, event: VIRTIO_CONSOLE_RESIZE, value: 0, rest: new Uint8Array([80, 0, 25, 0]) },
  ]);
  await driver.portReady(1);
  assertEquals(driver.messages(), [
    { id: 1, event: VIRTIO_CONSOLE_PORT_NAME, value: 0, rest: encode("agent") },
    { id: 1, event: VIRTIO_CONSOLE_PORT_OPEN, value: 1 },
  ]);
  driver.provide(receiveQueue(1), 64);
  assertEquals(device.port("agent")!.write(encode("ping")), 4);
  await turns();
  assertEquals(driver.input(1), "ping");
});

/** A device with ports 0 and 1 whose driver has both ready and open. */
async function running(options: ConsoleDeviceOptions = {}) {
  const console = new SpyConsole();
  const agent = new SpyConsole();
  const device = new ConsoleDevice({
    ports: [{ backend: console }, { backend: agent, name: "agent" }],
    maxPorts: 4,
    ...options,
  });
  const driver = await RawConsoleDriver.open(device);
  driver.ready(48);
  await driver.portReady(0);
  await driver.portReady(1);
  driver.messages();
  console.told.length = agent.told.length = 0;
  return { device, driver, console, agent };
}

const open = (id: number, value: number) => ({ id, event: VIRTIO_CONSOLE_PORT_OPEN, value });

Deno.test("console: queues, features and configuration follow from the options", () => {
  const backend = new SpyConsole();
  const one = new ConsoleDevice({ ports: [{ backend }] });
  assertEquals(one.features, VIRTIO_CONSOLE_F_SIZE | VIRTIO_CONSOLE_F_EMERG_WRITE);
  assertEquals(one.queueSizes, [128, 128]);
  assertEquals(one.maxPorts, 1);
  const many = new ConsoleDevice({
    maxPorts: 3,
    queueSize: 16,
    size: false,
    emergencyWrite: false,
  });
  assertEquals(many.features, VIRTIO_CONSOLE_F_MULTIPORT);
  assertEquals(many.queueSizes, [16, 16, 16, 16, 16, 16, 16, 16]);
  assertEquals(many.ports, []);
  assertEquals(many.config.read(0, 4), 0);
  const named = new ConsoleDevice({ ports: [{ backend, name: "n" }] });
  assertEquals(named.features & VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_CONSOLE_F_MULTIPORT);
  assertEquals(new ConsoleDevice({ ports: [{ backend, id: 4 }] }).maxPorts, 5);
});

Deno.test("console: wrong options are refused with what to do", () => {
  const backend = new SpyConsole();
  for (
    const options of [
      { maxPorts: 0 },
      { maxPorts: 512 },
      { maxPorts: 1.5 },
      { maxPorts: 1, ports: [{ backend }, { backend }] },
      { maxPorts: 2, multiport: false },
      { multiport: false, ports: [{ backend, name: "n" }] },
      { queueSize: 0 },
      { size: { cols: 65536, rows: 1 } },
      { size: { cols: 1, rows: -1 } },
      { resizeOrder: "rows" as "rows-cols" },
      { ports: [{ backend, id: 1 }, { backend, id: 1 }] },
      { ports: [{ backend, name: "n" }, { backend, name: "n" }] },
      { ports: [{ backend, name: "" }] },
      { ports: [{ backend, name: "a\0b" }] },
      { ports: [{ backend, name: "\u00e9".repeat(125) }] },
      { ports: [{ backend, inputBuffer: 0 }] },
    ] satisfies ConsoleDeviceOptions[]
  ) {
    assertThrows(() => new ConsoleDevice(options), RangeError, undefined, JSON.stringify(options));
  }
  const none = { backend: undefined as unknown as ConsoleBackend };
  assertThrows(() => new ConsoleDevice({ ports: [none] }), TypeError);
  const device = new ConsoleDevice({ maxPorts: 2 });
  assertThrows(() => device.removePort(0), RangeError);
  assertThrows(() => device.addPort({ backend, id: 2 }), RangeError);
  const port = device.addPort({ backend });
  assertThrows(() => port.resize(1, 70000), RangeError);
  assertThrows(() => port.write(new Uint8Array(3), 2, 2), RangeError);
  assertThrows(() => port.write(new Uint8Array(3), -1), RangeError);
});

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

Deno.test("console: both sides open and close a port; a driver without buffers misses no closing", async () => {
  const { device, driver, agent } = await running();
  const port = device.port("agent")!;
  port.close();
  port.close();
  await turns();
  assertEquals(driver.messages(), [open(1, 0)]);
  driver.output(1, "lost");
  assertEquals(agent.text, "");
  assertEquals(device.stats.outputDiscarded, 4);
  port.open();
  await turns();
  assertEquals(driver.messages(), [open(1, 1)]);
  // No buffers from here on.
  const left = 64;
  for (let i = 0; i < left; i++) {
    device.port(0)!.resize(i + 1, 1);
    await turns(1);
  }
  driver.messages();
  port.close();
  port.open();
  port.close();
  port.open();
  await turns();
  assertEquals(driver.messages(), []);
  for (let i = 0; i < 8; i++) driver.provide(CONTROL_RECEIVEQ, 16);
  await turns();
  const rest = driver.messages().filter(({ id }) => id === 1);
  assertEquals(rest, [open(1, 0), open(1, 1)]);

  driver.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
  assertEquals(port.guestOpen, false);
  driver.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
  driver.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
  assertEquals(agent.told, ["closed", "opened"]);
});

Deno.test("console: a port that was closed before the driver asked is not announced as open", async () => {
  const device = new ConsoleDevice({
    ports: [{ backend: new SpyConsole(), open: false }],
    multiport: true,
    size: false,
  });
  const driver = await RawConsoleDriver.open(device);
  driver.ready();
  await driver.portReady(0);
  const isConsole = { id: 0, event: VIRTIO_CONSOLE_CONSOLE_PORT, value: 1 };
  assertEquals(driver.messages().slice(1), [isConsole]);
  device.port(0)!.open();
  await turns();
  assertEquals(driver.messages(), [open(0, 1)]);
});

Deno.test("console: ports come and go while the driver runs, with their numbers, names and back ends", async () => {
  const { device, driver, agent } = await running();
  const spy = new SpyConsole();
  const port = device.addPort({
    backend: spy,
    name: "late",
    console: true,
    size: { cols: 9, rows: 8 },
  });
  assertEquals([port.id, port.name, port.console, port.attached], [2, "late", true, true]);
  await driver.portReady(2);
  assertEquals(driver.messages().map(({ event }) => event), [
    VIRTIO_CONSOLE_DEVICE_ADD,
    VIRTIO_CONSOLE_CONSOLE_PORT,
    VIRTIO_CONSOLE_PORT_NAME,
    VIRTIO_CONSOLE_PORT_OPEN,
    VIRTIO_CONSOLE_RESIZE,
  ]);
  agent.room = 0;
  driver.output(1, "never");
  device.port(1)!.write(encode("nor this"));
  device.removePort("agent");
  await turns();
  assertEquals(driver.messages(), [{ id: 1, event: VIRTIO_CONSOLE_DEVICE_REMOVE, value: 0 }]);
  assertEquals(agent.told, ["closed", "detached"]);
  assertEquals(driver.used[transmitQueue(1)], 1, "what waited for the back end is given back");
  assertEquals(device.stats.outputDiscarded, 5);
  assertEquals(device.stats.inputDiscarded, 8);
  // The hand on a port that is gone does nothing.
  const gone = agent.port!;
  assertEquals([gone.attached, gone.write(encode("x")), gone.room], [false, 0, 0]);
  gone.open();
  gone.close();
  gone.resize(1, 1);
  gone.resume();
  assertEquals(device.port("agent"), undefined);
  const again = device.addPort({ backend: new SpyConsole(), name: "agent" });
  assertEquals(again.id, 1);
  await turns();
  assertEquals(driver.messages(), [{ id: 1, event: VIRTIO_CONSOLE_DEVICE_ADD, value: 0 }]);
  assertEquals(again.guestOpen, false);
});

Deno.test("console: a reset forgets what the driver knew, keeps input that waits, and the next driver hears all of it again", async () => {
  const { device, driver, console, agent } = await running();
  device.port(1)!.write(encode("typed ahead"));
  console.room = 2;
  driver.output(0, "abc");
  const before = driver.transport.readStatus();
  assertEquals(before, 15);
  await driver.session.reset();
  assertEquals(device.driverReady, false);
  assertEquals(agent.told, ["closed"]);
  console.room = Infinity;
  const next = await RawConsoleDriver.open(device);
  next.control(1, VIRTIO_CONSOLE_PORT_READY, 1);
  next.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
  assertEquals(device.port(1)!.guestOpen, false, "it has not heard of the port yet");
  next.ready();
  await next.portReady(1);
  next.provide(receiveQueue(1), 64);
  next.output(0, "xyz");
  await turns();
  assertEquals(next.messages().map(({ id, event }) => [id, event]), [
    [0, VIRTIO_CONSOLE_DEVICE_ADD],
    [1, VIRTIO_CONSOLE_DEVICE_ADD],
    [1, VIRTIO_CONSOLE_PORT_NAME],
    [1, VIRTIO_CONSOLE_PORT_OPEN],
  ]);
  assertEquals(next.input(1), "typed ahead");
  assertEquals(console.text, "abxyz", "nothing is skipped of the next driver's output");
});

Deno.test("console: after a queue reset no byte of the next chain is skipped; after a suspend none is sent twice", async () => {
  const spy = new SpyConsole();
  const device = new ConsoleDevice({ ports: [{ backend: spy }] });
  const driver = await RawConsoleDriver.open(device, {
    core: VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND,
  });
  spy.room = 2;
  driver.output(0, "abcd");
  await driver.session.suspend();
  await driver.session.resume();
  spy.allow(1);
  assertEquals(spy.text, "abc");
  await driver.session.resetQueue(1);
  spy.allow(Infinity);
  driver.output(0, "wxyz");
  await turns();
  assertEquals(spy.text, "abcwxyz");
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

Deno.test("console: a back end that throws, or lies about what it took, has its port closed, and the device goes on", async () => {
  for (const answer of [-1, 6, 1.5, NaN, undefined as unknown as number, null]) {
    const errors: [unknown, number][] = [];
    const bad: ConsoleBackend = {
      write: () => {
        if (answer === null) throw new Error("broken");
        return answer;
      },
    };
    const spy = new SpyConsole();
    const device = new ConsoleDevice({
      ports: [{ backend: bad }, { backend: spy }],
      onError: (error, port) => errors.push([error, port]),
    });
    const driver = await RawConsoleDriver.open(device);
    driver.ready();
    await driver.portReady(0);
    driver.output(0, "hello");
    await turns();
    assertEquals(errors.map(([, port]) => port), [0]);
    assertEquals(device.port(0)!.hostOpen, false);
    assertEquals(driver.used[1], 1);
    assertEquals(driver.messages().at(-1), open(0, 0));
    driver.output(1, "fine");
    assertEquals(spy.text, "fine");
    assertEquals(driver.needsReset, false);
  }
});

Deno.test("console: what other methods of a back end throw is reported too", async () => {
  const errors: unknown[] = [];
  const fails = (): never => {
    throw new Error("broken");
  };
  const device = new ConsoleDevice({
    ports: [{
      backend: {
        write: (_bytes, _offset, length) => length,
        attached: fails,
        guestOpened: fails,
        inputDrained: fails,
        detached: fails,
      },
      inputBuffer: 1,
    }],
    onError: (error) => errors.push(error),
  });
  assertEquals(errors.length, 1);
  const driver = await RawConsoleDriver.open(device);
  assertEquals(errors.length, 2);
  device.port(0)!.write(encode("ab"));
  driver.provide(0, 10);
  await turns();
  assertEquals(errors.length, 3);
  device.removePort(0);
  assertEquals(errors.length, 5);
  assertEquals(driver.needsReset, false);
});

Deno.test("console: a driver that could not set a port up hears nothing more of it", async () => {
  const device = new ConsoleDevice({ ports: [{ backend: new SpyConsole(), name: "n" }] });
  const driver = await RawConsoleDriver.open(device);
  driver.ready();
  driver.control(0, VIRTIO_CONSOLE_PORT_READY, 0);
  await turns();
  assertEquals(device.port(0)!.failed, true);
  device.port(0)!.close();
  device.port(0)!.resize(3, 4);
  driver.control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
  await turns();
  assertEquals(driver.messages().map(({ event }) => event), [VIRTIO_CONSOLE_DEVICE_ADD]);
  assertEquals(device.port(0)!.guestOpen, false);
  assertEquals(device.stats.controlIgnored, 1);
});

Deno.test("console: messages that mean nothing are given back and ignored", async () => {
  const { device, driver } = await running();
  const { controlReceived, controlIgnored } = device.stats;
  const wrong: [number, number, number][] = [
    [2, VIRTIO_CONSOLE_PORT_READY, 1],
    [4, VIRTIO_CONSOLE_PORT_OPEN, 1],
    [0xffff_ffff, VIRTIO_CONSOLE_PORT_OPEN, 1],
    [0, VIRTIO_CONSOLE_DEVICE_ADD, 0],
    [1, VIRTIO_CONSOLE_DEVICE_REMOVE, 0],
    [0, VIRTIO_CONSOLE_CONSOLE_PORT, 1],
    [0, VIRTIO_CONSOLE_RESIZE, 0],
    [0, VIRTIO_CONSOLE_PORT_NAME, 0],
    [0, 8, 0],
    [0, 0xffff, 1],
    [0, VIRTIO_CONSOLE_DEVICE_READY, 2],
    [0, VIRTIO_CONSOLE_PORT_OPEN, 0xffff],
    [0, VIRTIO_CONSOLE_PORT_READY, 256],
  ];
  for (const [id, event, value] of wrong) driver.control(id, event, value);
  for (const length of [1, 4, 7]) driver.send(CONTROL_TRANSMITQ, new Uint8Array(length));
  await turns();
  assertEquals(driver.messages(), []);
  assertEquals(device.stats.controlReceived - controlReceived, wrong.length + 3);
  assertEquals(device.stats.controlIgnored - controlIgnored, wrong.length + 3);
  assertEquals([0, 1].map((id) => device.port(id)!.guestOpen), [true, true]);
  // A message may be longer than its header, and cut in any way.
  driver.send(CONTROL_TRANSMITQ, new Uint8Array([1, 0, 0, 0, 6, 0, 0, 0, 9, 9]), [1, 3, 1]);
  assertEquals(device.port(1)!.guestOpen, false);
});

Deno.test("console: a control buffer that is too short for a message is kept for the next", async () => {
  const device = new ConsoleDevice({ ports: [{ backend: new SpyConsole(), name: "a name" }] });
  const driver = await RawConsoleDriver.open(device);
  for (let i = 0; i < 8; i++) driver.provide(CONTROL_RECEIVEQ, 8);
  driver.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
  await driver.portReady(0);
  assertEquals(driver.messages().map(({ event }) => event), [
    VIRTIO_CONSOLE_DEVICE_ADD,
    VIRTIO_CONSOLE_CONSOLE_PORT,
    VIRTIO_CONSOLE_PORT_OPEN,
  ]);
  assertEquals(device.stats.controlSkipped, 2);
});

Deno.test("console: a port 0 that is added to a driver without multiport is its console", async () => {
  const device = new ConsoleDevice({ maxPorts: 2 });
  const driver = await RawConsoleDriver.open(device, { wanted: 0n, queues: 2 });
  driver.output(0, "lost");
  const spy = new SpyConsole();
  device.addPort({ backend: spy });
  const other = new SpyConsole();
  device.addPort({ backend: other });
  assertEquals(spy.told, ["attached", "opened"]);
  assertEquals(other.told, ["attached"]);
  driver.output(0, "seen");
  assertEquals(spy.text, "seen");
});

Deno.test("console: saved and restored, nothing is lost or said twice, and what changed meanwhile is said", async () => {
  const { device, driver, console } = await running();
  console.room = 2;
  driver.output(0, "abcde");
  device.port(1)!.write(encode("waiting"));
  const state = driver.transport.state;
  await state.pause();
  const saved = structuredClone(state.save());

  const spies = [new SpyConsole(), new SpyConsole(), new SpyConsole()];
  const next = new ConsoleDevice({
    ports: [
      { backend: spies[0]!, size: { cols: 10, rows: 20 } },
      { backend: spies[1]!, name: "agent", open: false },
      { backend: spies[2]!, name: "new" },
    ],
    maxPorts: 4,
  });
  driver.moveTo(next, saved);
  assertEquals(spies[1]!.told, ["attached", "opened"]);
  driver.transport.state.unpause();
  driver.provide(receiveQueue(1), 64);
  await turns();
  assertEquals(spies[0]!.text, "cde");
  assertEquals(driver.input(1), "waiting");
  assertEquals(driver.messages(), [
    { id: 0, event: VIRTIO_CONSOLE_RESIZE, value: 0, rest: new Uint8Array([10, 0, 20, 0]) },
    open(1, 0),
    { id: 2, event: VIRTIO_CONSOLE_DEVICE_ADD, value: 0 },
  ]);
});

Deno.test("console: a restored device says that ports are gone which the driver knew; wrong states are refused", () => {
  const made = (): ConsoleDevice =>
    new ConsoleDevice({ ports: [{ backend: new SpyConsole(), name: "x" }], maxPorts: 2 });
  const saved = made().save();
  assertEquals(saved.ports, []);
  assertThrows(() => new ConsoleDevice({ maxPorts: 3 }).restore(saved), RangeError);
  for (
    const wrong of [
      null,
      {},
      { ...saved, version: 2 },
      { ...saved, taken: [0] },
      { ...saved, taken: [0, -1] },
      { ...saved, driverReady: 1 },
      { ...saved, ports: [null] },
      { ...saved, ports: [{ id: 0 }] },
      { ...saved, inputs: [{ id: 2, name: "", bytes: new Uint8Array(1) }] },
      { ...saved, inputs: [{ id: 0, name: "", bytes: [1] }] },
      { ...saved, maxPorts: "2" },
    ]
  ) assertThrows(() => made().restore(wrong), TypeError);
  const known = {
    id: 0,
    name: "other",
    gone: false,
    ready: true,
    failed: false,
    guestOpen: true,
    toldOpen: true,
    due: 0,
    size: null,
  };
  assertThrows(() => made().restore({ ...saved, ports: [{ ...known, id: 2 }] }), TypeError);
  assertThrows(() => made().restore({ ...saved, ports: [known, known] }), TypeError);
  assertThrows(() => made().restore({ ...saved, ports: [{ ...known, due: 32 }] }), TypeError);
  const device = made();
  device.restore({ ...saved, driverReady: true, ports: [known] });
  assertEquals(device.save().ports.map(({ name, gone }) => [name, gone]), [["other", true]]);
  assertEquals(device.port(0)!.guestOpen, false);
});
