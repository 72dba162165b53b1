import { assertEquals, assertThrows } from "@std/assert";
import { encode, running } from "./device_testing.ts";
import {
  type ConsoleBackend,
  ConsoleDevice,
  type ConsoleDeviceOptions,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  receiveQueue,
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
