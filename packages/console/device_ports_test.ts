/** Ports that open, close, come, go and fail. */
import { assertEquals } from "@std/assert";
import { encode, open, running } from "./device_testing.ts";
import {
  type ConsoleBackend,
  ConsoleDevice,
  CONTROL_RECEIVEQ,
  transmitQueue,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
} from "./mod.ts";
import { RawConsoleDriver, SpyConsole, turns } from "./testing.ts";

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
