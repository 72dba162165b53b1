/** Virtio 1.4, 5.3: drivers of console devices. */
import * as con from "@virtio/console";
import { ConsoleDriver, type ConsoleDriverOptions } from "@virtio/console/driver";
import { VIRTIO_STATUS_DRIVER_OK } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { LocalTransport, SpyConsoleDevice, turns } from "../../packages/console/testing.ts";

async function open(
  device: SpyConsoleDevice,
  options: Partial<ConsoleDriverOptions> = {},
): Promise<{ driver: ConsoleDriver; transport: LocalTransport }> {
  const memory = GuestMemory.allocate(2 ** 20);
  const transport = new LocalTransport(device, memory);
  const dma = new DmaPool(memory, 4096, 1_000_000);
  const driver = await ConsoleDriver.open(transport, { dma, ...options });
  return { driver, transport };
}

const add = (id: number) => ({ id, event: con.VIRTIO_CONSOLE_DEVICE_ADD, value: 0 });
const isConsole = (id: number) => ({ id, event: con.VIRTIO_CONSOLE_CONSOLE_PORT, value: 1 });
const portOpen = (id: number) => ({ id, event: con.VIRTIO_CONSOLE_PORT_OPEN, value: 1 });
const portReady = (id: number) => ({ id, event: con.VIRTIO_CONSOLE_PORT_READY, value: 1 });

Deno.test("5.3.6.1-G1: what the driver posts to receiveqs is for the device to write, and nothing else", async () => {
  const device = new SpyConsoleDevice(con.VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver } = await open(device, { bufferSize: 100, buffers: 3 });
  await turns();
  await device.say(add(0), add(2));
  for (const queue of [0, con.CONTROL_RECEIVEQ, con.receiveQueue(2)]) {
    const posted = device.posted(queue);
    assert(posted.length >= 3, `something is posted to queue ${queue}`);
    for (const { readable, writable } of posted) {
      assertEquals(readable.length, 0);
      assert(writable >= 8);
    }
  }
  // Posted again, they are so again.
  driver.port(0)!.onData = () => {};
  device.put(0, new Uint8Array(5));
  await turns();
  assertEquals(device.posted(0).length, 3);
  for (const { readable } of device.posted(0)) assertEquals(readable.length, 0);
  await driver.close();
});

Deno.test("5.3.6.1-G2: what the driver puts into transmitqs is for the device to read, and nothing else", async () => {
  const device = new SpyConsoleDevice(con.VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver } = await open(device, { bufferSize: 100, buffers: 3 });
  await turns();
  await device.say(add(0), add(1), isConsole(1));
  await driver.port(0)!.write(new Uint8Array(1000));
  await driver.port(1)!.write(new Uint8Array(1));
  driver.port(0)!.open();
  await turns();
  const queues = new Set(device.seen.map(({ queue }) => queue));
  assertEquals([...queues].sort(), [1, 3, 5]);
  for (const { readable, writable } of device.seen) {
    assertEquals(writable, 0);
    assert(readable.length > 0);
  }
  await driver.close();
});

Deno.test("5.3.6.2.2-G1: the driver sends DEVICE_READY where MULTIPORT is negotiated, once the device runs", async () => {
  const device = new SpyConsoleDevice(con.VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver, transport } = await open(device);
  assert((transport.readStatus() & VIRTIO_STATUS_DRIVER_OK) !== 0);
  await turns();
  const messages = device.heard();
  assertEquals(messages.map(({ event, value }) => [event, value]), [[0, 1]]);
  await driver.close();

  const single = new SpyConsoleDevice(con.VIRTIO_CONSOLE_F_MULTIPORT);
  const other = await open(single, { features: con.VIRTIO_CONSOLE_F_SIZE });
  await turns();
  assertEquals(single.seen, [], "without it there are no control messages");
  await other.driver.close();
});

Deno.test("5.3.6.2.2-G2: the driver answers CONSOLE_PORT with PORT_OPEN of value 1 each time, and takes the port for a console", async () => {
  const device = new SpyConsoleDevice(con.VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver } = await open(device);
  await turns();
  device.heard();
  await device.say(add(1));
  assertEquals(device.heard(), [portReady(1)]);
  assertEquals(driver.port(1)!.console, false);
  assertEquals(driver.port(1)!.opened, false);
  await device.say(isConsole(1));
  assertEquals(device.heard(), [portOpen(1)]);
  assertEquals(driver.port(1)!.console, true);
  assertEquals(driver.port(1)!.opened, true);
  await device.say(isConsole(1));
  assertEquals(device.heard(), [portOpen(1)]);
  // Of a port that is not there, nothing can be opened.
  await device.say(isConsole(2), isConsole(0xffff_ffff));
  assertEquals(device.heard(), []);
  await driver.close();
});

Deno.test("5.3.6.2 the driver answers each port that is added with PORT_READY: 1, or 0 if it has no memory for it", async () => {
  const device = new SpyConsoleDevice(con.VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver } = await open(device, { bufferSize: 100_000, buffers: 2 });
  await turns();
  device.heard();
  await device.say(add(3), add(0), add(1));
  assertEquals(device.heard(), [portReady(3), portReady(0), { ...portReady(1), value: 0 }]);
  assertEquals(driver.ports.map(({ id }) => id), [0, 3]);
  await driver.close();
});
