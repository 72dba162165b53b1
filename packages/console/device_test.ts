import { assertEquals } from "@std/assert";
import {
  receiveQueue,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_RESIZE,
} from "./constants.ts";
import { ConsoleDevice } from "./mod.ts";
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
