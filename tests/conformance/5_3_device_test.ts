/** Virtio 1.4, 5.3: console devices. */
import * as con from "@virtio/console";
import { DeviceState, VIRTIO_F_SUSPEND, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { PciTransport } from "@virtio/transport/pci";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { connectPci } from "@virtio/transport/pci/driver";
import { assertEquals, assertThrows } from "@std/assert";
import { RawConsoleDriver, type RawConsoleOptions } from "../../packages/console/testing.ts";
import type { ConsoleData } from "./placed_devices.ts";
import { everywhere, type Place, type Placed } from "./places.ts";

const { emerg_wr } = con.ConsoleConfigOffset;
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A console with one port, or with these. */
async function open(
  place: Place,
  data: Partial<ConsoleData> = {},
  options?: RawConsoleOptions,
) {
  const far = await place.open("console", { ports: [{}], ...data });
  return { ...far, driver: await RawConsoleDriver.open(far.device, options) };
}

/** Output of a port since this was asked last. */
function takeText({ run }: Placed<"console">, port = 0): string {
  return run(({ hosts }, port) => {
    const host = hosts[port]!;
    const { text } = host;
    host.text = "";
    return text;
  }, port);
}

everywhere(
  "5.3.5.1-D1: emerg_wr is taken by a device that nobody set up, over every transport",
  async (place) => {
    const memory = GuestMemory.allocate(65536);
    for (const bus of ["mmio", "pci"]) {
      const far = await place.open("console", { ports: [{}] });
      const { device } = far;
      const { driver } = bus === "mmio"
        ? connectMmio((host) => new MmioTransport(device, { memory, host }))
        : connectPci((host) => new PciTransport(device, { memory, host }));
      assertEquals(driver.readStatus(), 0);
      for (const byte of encode("boot")) driver.writeConfig(emerg_wr, 4, byte);
      assertEquals(takeText(far), "boot");
      for (const status of [1, 3]) {
        driver.writeStatus(status);
        driver.writeConfig(emerg_wr, 4, 0x30 + status);
      }
      assertEquals(takeText(far), "13");
    }
  },
);

everywhere(
  "5.3.5.1-D1: emerg_wr is taken without the feature, by a device that asks for a reset, and by one that is suspended",
  async (place) => {
    const far = await place.open("console", { ports: [{}] });
    const { device } = far;
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
    assertEquals(takeText(far), "abc");
  },
);

everywhere(
  "5.3.5.1-D2: the lower byte written to emerg_wr goes to the output of port 0, whatever the width",
  async (place) => {
    const far = await place.open("console", { ports: [{}, {}] });
    const { device } = far;
    device.config.write(emerg_wr, 4, 0x1234_5641);
    device.config.write(emerg_wr, 2, 0x1142);
    device.config.write(emerg_wr, 1, 0x43);
    device.config.write(emerg_wr, 4, 0);
    assertEquals([takeText(far), takeText(far, 1)], ["ABC\0", ""]);
    assertEquals(device.config.read(emerg_wr, 4), 0);
  },
);

everywhere(
  "5.3.4 cols, rows and max_nr_ports are the driver's to read, not to write",
  async (place) => {
    const { device } = await place.open("console", {
      ports: [{}],
      maxPorts: 7,
      size: { cols: 132, rows: 43 },
    });
    const { cols, rows, max_nr_ports } = con.ConsoleConfigOffset;
    for (const offset of [cols, rows, max_nr_ports]) device.config.write(offset, 2, 0xffff);
    assertEquals(device.config.read(cols, 2), 132);
    assertEquals(device.config.read(rows, 2), 43);
    assertEquals(device.config.read(max_nr_ports, 4), 7);
  },
);

everywhere(
  "5.3.6.2.1-D1: the device adds no port that exists: not at a second DEVICE_READY, nor at a second PORT_READY",
  async (place) => {
    const far = await open(place, { maxPorts: 3 });
    const { driver, run } = far;
    driver.ready();
    await driver.portReady(0);
    await far.turns();
    driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 1);
    driver.control(0, con.VIRTIO_CONSOLE_PORT_READY, 1);
    driver.control(1, con.VIRTIO_CONSOLE_PORT_READY, 1);
    run(({ device, host }) => void device.addPort({ backend: host() }));
    driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 0);
    driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 1);
    await far.turns();
    const added = driver.messages().filter(({ event }) => event === con.VIRTIO_CONSOLE_DEVICE_ADD);
    assertEquals(added.map(({ id }) => id), [0, 1]);
  },
);

everywhere(
  "5.3.6.2.1-D1: the device adds no port beyond max_nr_ports, and adds one again only after it was removed",
  async (place) => {
    const far = await open(place, { maxPorts: 2 });
    const { driver, run } = far;
    driver.ready();
    await far.turns();
    driver.messages();
    const exists = new Set([0]);
    for (let round = 0; round < 3; round++) {
      run(({ device, host }) => void device.addPort({ backend: host() }));
      assertThrows(
        () => run(({ device, host }) => void device.addPort({ backend: host() })),
        RangeError,
      );
      await far.turns();
      run(({ device }) => device.removePort(1));
      run(({ device, host }) => void device.addPort({ backend: host() }));
      await far.turns();
      run(({ device }) => device.removePort(1));
      await far.turns();
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
  },
);

everywhere(
  "5.3.6.2.1-D2: the device removes no port that the driver was not told of",
  async (place) => {
    const far = await open(place, { maxPorts: 3 });
    const { driver, run } = far;
    // Before DEVICE_READY, and while the driver has no buffers, the driver is told nothing.
    run(({ device }) => device.removePort(0));
    run(({ device, host }) => void device.addPort({ backend: host(), id: 1 }));
    driver.control(0, con.VIRTIO_CONSOLE_DEVICE_READY, 1);
    await far.turns();
    run(({ device }) => device.removePort(1));
    run(({ device, host }) => void device.addPort({ backend: host(), id: 2 }));
    for (let i = 0; i < 8; i++) driver.provide(con.CONTROL_RECEIVEQ, 64);
    await far.turns();
    assertEquals(driver.messages(), [{ id: 2, event: con.VIRTIO_CONSOLE_DEVICE_ADD, value: 0 }]);
    run(({ device }) => device.removePort(2));
    await far.turns();
    assertEquals(driver.messages(), [{ id: 2, event: con.VIRTIO_CONSOLE_DEVICE_REMOVE, value: 0 }]);
  },
);

everywhere(
  "5.3.6.2 after PORT_READY the device names console port, name, open and size, in this order; the size is columns, then rows",
  async (place) => {
    for (const resizeOrder of ["cols-rows", "rows-cols"] as const) {
      const far = await open(place, {
        ports: [{ name: "console", size: { cols: 300, rows: 43 } }],
        resizeOrder,
      });
      const { device, driver } = far;
      driver.ready();
      await far.turns();
      driver.messages();
      await driver.portReady(0);
      await far.turns();
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
  },
);

everywhere(
  "5.3.6 a new size of port 0 is in the configuration, and the driver is told; other ports' sizes are not",
  async (place) => {
    const far = await open(place, { ports: [{}, { console: true }] }, {
      wanted: con.VIRTIO_CONSOLE_F_SIZE,
    });
    const { device, driver, run } = far;
    const { generation } = device.config;
    run(({ device }) => device.port(0)!.resize(100, 50));
    await far.turns();
    assertEquals(driver.configChanges, 1);
    assertEquals([device.config.read(0, 2), device.config.read(2, 2)], [100, 50]);
    assertEquals(device.config.generation === generation, false);
    run(({ device }) => device.port(1)!.resize(1, 2));
    run(({ device }) => device.port(0)!.resize(100, 50));
    await far.turns();
    assertEquals(driver.configChanges, 1);
  },
);
