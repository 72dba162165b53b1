/** Virtio 1.4, 5.3: console devices. */
import { ConsoleDevice } from "@virtio/console";
import * as con from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import { DeviceState, VIRTIO_F_SUSPEND, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { PciTransport } from "@virtio/transport/pci";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { connectPci } from "@virtio/transport/pci/driver";
import { assertEquals } from "@std/assert";
import { RawConsoleDriver, SpyConsole, turns } from "../../packages/console/testing.ts";

const { emerg_wr } = con.ConsoleConfigOffset;
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

Deno.test("5.3.5.1-D1: emerg_wr is taken by a device that nobody set up, over every transport", () => {
  const memory = GuestMemory.allocate(65536);
  for (const bus of ["mmio", "pci"]) {
    const host = new MemoryConsole();
    const device = new ConsoleDevice({ ports: [{ backend: host }] });
    const { driver } = bus === "mmio"
      ? connectMmio((host) => new MmioTransport(device, { memory, host }))
      : connectPci((host) => new PciTransport(device, { memory, host }));
    assertEquals(driver.readStatus(), 0);
    for (const byte of encode("boot")) driver.writeConfig(emerg_wr, 4, byte);
    assertEquals(host.takeText(), "boot");
    for (const status of [1, 3]) {
      driver.writeStatus(status);
      driver.writeConfig(emerg_wr, 4, 0x30 + status);
    }
    assertEquals(host.takeText(), "13");
  }
});

Deno.test("5.3.5.1-D1: emerg_wr is taken without the feature, by a device that asks for a reset, and by one that is suspended", async () => {
  const host = new MemoryConsole();
  const device = new ConsoleDevice({ ports: [{ backend: host }] });
  const state = new DeviceState(device, {
    memory: GuestMemory.allocate(65536),
    interrupt: { queue: () => {}, config: () => {} },
    carries: -1n,
  });
  state.writeStatus(3);
  state.writeDriverFeatures(1, 1 | Number(VIRTIO_F_SUSPEND >> 32n));
  state.writeStatus(11);
  state.writeStatus(15);
  state.writeConfig(emerg_wr, 4, 0x61);
  state.writeStatus(31);
  await state.settled();
  assertEquals(state.status, 27, "it is suspended");
  state.writeConfig(emerg_wr, 4, 0x62);
  state.fail(new Error("the rings are broken"));
  assertEquals(
    state.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET,
    VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  );
  state.writeConfig(emerg_wr, 4, 0x63);
  assertEquals(host.takeText(), "abc");
});

Deno.test("5.3.5.1-D2: the lower byte written to emerg_wr goes to the output of port 0, whatever the width", () => {
  const host = new MemoryConsole();
  const other = new MemoryConsole();
  const device = new ConsoleDevice({ ports: [{ backend: host }, { backend: other }] });
  device.config.write(emerg_wr, 4, 0x1234_5641);
  device.config.write(emerg_wr, 2, 0x1142);
  device.config.write(emerg_wr, 1, 0x43);
  device.config.write(emerg_wr, 4, 0);
  assertEquals(host.takeBytes(), new Uint8Array([0x41, 0x42, 0x43, 0]));
  assertEquals(other.available, 0);
  assertEquals(device.config.read(emerg_wr, 4), 0);
});

Deno.test("5.3.4 cols, rows and max_nr_ports are the driver's to read, not to write", () => {
  const device = new ConsoleDevice({
    ports: [{ backend: new MemoryConsole() }],
    maxPorts: 7,
    size: { cols: 132, rows: 43 },
  });
  const { cols, rows, max_nr_ports } = con.ConsoleConfigOffset;
  for (const offset of [cols, rows, max_nr_ports]) device.config.write(offset, 2, 0xffff);
  assertEquals(device.config.read(cols, 2), 132);
  assertEquals(device.config.read(rows, 2), 43);
  assertEquals(device.config.read(max_nr_ports, 4), 7);
});

Deno.test("5.3.6.2.1-D1: the device adds no port that exists: not at a second DEVICE_READY, nor at a second PORT_READY", async () => {
  const device = new ConsoleDevice({ ports: [{ backend: new SpyConsole() }], maxPorts: 3 });
  const driver = await RawConsoleDriver.open(device);
  driver.ready();
  await driver.portReady(0);
  driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 1);
  driver.control(0, con.VIRTIO_CONSOLE_PORT_READY, 1);
  driver.control(1, con.VIRTIO_CONSOLE_PORT_READY, 1);
  device.addPort({ backend: new SpyConsole() });
  driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 0);
  driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 1);
  await turns();
  const added = driver.messages().filter(({ event }) => event === con.VIRTIO_CONSOLE_DEVICE_ADD);
  assertEquals(added.map(({ id }) => id), [0, 1]);
});

Deno.test("5.3.6.2.1-D1: the device adds no port beyond max_nr_ports, and adds one again only after it was removed", async () => {
  const device = new ConsoleDevice({ ports: [{ backend: new SpyConsole() }], maxPorts: 2 });
  const driver = await RawConsoleDriver.open(device);
  driver.ready();
  await turns();
  driver.messages();
  const exists = new Set([0]);
  for (let round = 0; round < 3; round++) {
    device.addPort({ backend: new SpyConsole() });
    let refused = false;
    try {
      device.addPort({ backend: new SpyConsole() });
    } catch (error) {
      refused = error instanceof RangeError;
    }
    assertEquals(refused, true);
    await turns();
    device.removePort(1);
    device.addPort({ backend: new SpyConsole() });
    await turns();
    device.removePort(1);
    await turns();
  }
  for (const { id, event } of driver.messages()) {
    assertEquals(id < 2, true);
    if (event === con.VIRTIO_CONSOLE_DEVICE_ADD) {
      assertEquals(exists.has(id), false, "it exists");
      exists.add(id);
    } else {
      assertEquals(event, con.VIRTIO_CONSOLE_DEVICE_REMOVE);
      assertEquals(exists.delete(id), true, "it was added");
    }
  }
  assertEquals([...exists], [0]);
});

Deno.test("5.3.6.2.1-D2: the device removes no port that the driver was not told of", async () => {
  const device = new ConsoleDevice({ ports: [{ backend: new SpyConsole() }], maxPorts: 3 });
  const driver = await RawConsoleDriver.open(device);
  // Before DEVICE_READY, and while the driver has no buffers, the driver is told nothing.
  device.removePort(0);
  device.addPort({ backend: new SpyConsole(), id: 1 });
  driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 1);
  await turns();
  device.removePort(1);
  device.addPort({ backend: new SpyConsole(), id: 2 });
  for (let i = 0; i < 8; i++) driver.provide(con.CONTROL_RECEIVEQ, 64);
  await turns();
  assertEquals(driver.messages(), [{ id: 2, event: con.VIRTIO_CONSOLE_DEVICE_ADD, value: 0 }]);
  device.removePort(2);
  await turns();
  assertEquals(driver.messages(), [{ id: 2, event: con.VIRTIO_CONSOLE_DEVICE_REMOVE, value: 0 }]);
});

Deno.test("5.3.6.2 after PORT_READY the device names console port, name, open and size, in this order; the size is columns, then rows", async () => {
  for (const resizeOrder of ["cols-rows", "rows-cols"] as const) {
    const device = new ConsoleDevice({
      ports: [{ backend: new SpyConsole(), name: "console", size: { cols: 300, rows: 43 } }],
      resizeOrder,
    });
    const driver = await RawConsoleDriver.open(device);
    driver.ready();
    await turns();
    driver.messages();
    await driver.portReady(0);
    const size = [0x2c, 1, 43, 0];
    const rest = resizeOrder === "cols-rows" ? size : [...size.slice(2), ...size.slice(0, 2)];
    assertEquals(driver.messages(), [
      { id: 0, event: con.VIRTIO_CONSOLE_CONSOLE_PORT, value: 1 },
      { id: 0, event: con.VIRTIO_CONSOLE_PORT_NAME, value: 0, rest: encode("console") },
      { id: 0, event: con.VIRTIO_CONSOLE_PORT_OPEN, value: 1 },
      { id: 0, event: con.VIRTIO_CONSOLE_RESIZE, value: 0, rest: new Uint8Array(rest) },
    ]);
    // The configuration is as the standard has it for both.
    assertEquals([device.config.read(0, 2), device.config.read(2, 2)], [300, 43]);
  }
});

Deno.test("5.3.6 a new size of port 0 is in the configuration, and the driver is told; other ports' sizes are not", async () => {
  const device = new ConsoleDevice({
    ports: [{ backend: new SpyConsole() }, { backend: new SpyConsole(), console: true }],
  });
  const driver = await RawConsoleDriver.open(device, { wanted: con.VIRTIO_CONSOLE_F_SIZE });
  const { generation } = device.config;
  device.port(0)!.resize(100, 50);
  await turns();
  assertEquals(driver.configChanges, 1);
  assertEquals([device.config.read(0, 2), device.config.read(2, 2)], [100, 50]);
  assertEquals(device.config.generation === generation, false);
  device.port(1)!.resize(1, 2);
  device.port(0)!.resize(100, 50);
  await turns();
  assertEquals(driver.configChanges, 1);
});
