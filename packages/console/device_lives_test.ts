/** What a reset forgets, and what a queue reset, a suspend and a snapshot keep. */
import { assertEquals, assertThrows } from "@std/assert";
import { VIRTIO_F_RING_RESET, VIRTIO_F_SUSPEND } from "@virtio/device";
import { encode, open, running } from "./device_testing.ts";
import {
  ConsoleDevice,
  receiveQueue,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
} from "./mod.ts";
import { RawConsoleDriver, SpyConsole, turns } from "./testing.ts";

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
