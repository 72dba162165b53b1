import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { DriverError } from "@virtio/device/driver";
import { DmaPool } from "@virtio/vring/driver";
import { MemoryConsole } from "./backends/memory.ts";
import { ConsoleDriver, type ConsoleDriverOptions } from "./driver.ts";
import {
  ConsoleDevice,
  CONTROL_RECEIVEQ,
  receiveQueue,
  transmitQueue,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
} from "./mod.ts";
import { LocalTransport, SpyConsoleDevice, turns } from "./testing.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const POOL = 1_000_000;

async function open(
  device: ConsoleDevice | SpyConsoleDevice,
  options: Partial<ConsoleDriverOptions> = {},
): Promise<{ driver: ConsoleDriver; transport: LocalTransport; dma: DmaPool }> {
  const memory = GuestMemory.allocate(2 ** 20);
  const transport = new LocalTransport(device, memory);
  const dma = new DmaPool(memory, 4096, POOL);
  const driver = await ConsoleDriver.open(transport, { dma, ...options });
  await turns();
  return { driver, transport, dma };
}

const message = (id: number, event: number, value = 0, rest?: Uint8Array) => ({
  id,
  event,
  value,
  ...(rest === undefined ? {} : { rest }),
});

Deno.test("console driver: ports with their names, sizes and states, as the device says", async () => {
  const consoleEnd = new MemoryConsole();
  const agentEnd = new MemoryConsole();
  const device = new ConsoleDevice({
    ports: [
      { backend: consoleEnd, size: { cols: 132, rows: 43 } },
      { backend: agentEnd, name: "agent", open: false },
    ],
    maxPorts: 3,
  });
  const { driver, dma } = await open(device);
  assertEquals(driver.ports.map(({ id, name }) => [id, name]), [[0, null], [1, "agent"]]);
  const tty = driver.port(0)!;
  const agent = driver.port("agent")!;
  assertEquals([tty.console, tty.opened, tty.hostOpen, tty.size], [true, true, true, {
    cols: 132,
    rows: 43,
  }]);
  assertEquals([agent.console, agent.opened, agent.hostOpen], [false, false, false]);
  assertEquals(consoleEnd.guestOpen, true);
  let changes = 0;
  agent.onChange = () => changes++;
  device.port(1)!.open();
  await turns();
  assertEquals([agent.hostOpen, changes], [true, 1]);
  device.port(0)!.resize(80, 24);
  await turns();
  assertEquals(tty.size, { cols: 80, rows: 24 });
  agent.open();
  agent.open();
  assertEquals(agentEnd.guestOpen, true);
  agent.close();
  assertEquals(agentEnd.guestOpen, false);
  const added: number[] = [];
  const removed: (string | null)[] = [];
  driver.onPortAdded = ({ id }) => added.push(id);
  driver.onPortRemoved = ({ name }) => removed.push(name);
  device.addPort({ backend: new MemoryConsole(), name: "late" });
  assertEquals((await driver.waitForPort("late")).id, 2);
  device.removePort("agent");
  await turns();
  assertEquals([added, removed], [[2], ["agent"]]);
  assertEquals([agent.removed, agent.hostOpen, agent.opened], [true, false, false]);
  await assertRejects(() => agent.write(encode("x")), DriverError, "removed");
  agent.open();
  agent.onData = () => {};
  await driver.close();
  assertEquals(dma.available, POOL);
  assertEquals(consoleEnd.guestOpen, false);
});

Deno.test("console driver: bytes go both ways in order, in pieces of any size", async () => {
  for (const [bufferSize, buffers] of [[1, 1], [3, 2], [64, 4], [4096, 8]] as const) {
    const host = new MemoryConsole();
    const device = new ConsoleDevice({ ports: [{ backend: host }], queueSize: 8 });
    const { driver } = await open(device, { bufferSize, buffers });
    const port = driver.port(0)!;
    let got = "";
    port.onData = (bytes) => got += decode(bytes);
    const text = Array.from({ length: 200 }, (_, i) => `line ${i}\n`).join("");
    await Promise.all([port.write(encode(text)), port.write(encode("end")), host.send(text)]);
    assertEquals(host.takeText(), text + "end");
    for (let i = 0; got.length < text.length && i < 5000; i++) await turns(1);
    assertEquals(got, text);
    await port.write(new Uint8Array(0));
    await driver.close();
  }
});

Deno.test("console driver: a write resolves when the device has taken all of it; without a reader input waits", async () => {
  const host = new MemoryConsole({ outputBuffer: 10 });
  const device = new ConsoleDevice({ ports: [{ backend: host, inputBuffer: 4 }] });
  const { driver } = await open(device, { bufferSize: 4, buffers: 2 });
  const port = driver.port(0)!;
  let done = false;
  const writing = port.write(encode("0123456789abc")).then(() => done = true);
  await turns();
  assertEquals([done, host.takeText()], [false, "0123456789"]);
  await writing;
  assertEquals(host.takeText(), "abc");
  let sent = false;
  const sending = host.send("the quick brown fox").then(() => sent = true);
  await turns();
  assertEquals(sent, false, "two buffers of four bytes and four that wait");
  let got = "";
  port.onData = (bytes) => {
    got += decode(bytes);
    if (got.length === 8) port.onData = null;
  };
  await turns(10);
  assertEquals(got.length, 8);
  port.onData = (bytes) => got += decode(bytes);
  await sending;
  await turns(10);
  assertEquals(got, "the quick brown fox");
  await driver.close();
});

Deno.test("console driver: a device without multiport has one port, a console that is open, whose size is in the configuration", async () => {
  const host = new MemoryConsole();
  const device = new ConsoleDevice({ ports: [{ backend: host }], maxPorts: 4 });
  const { driver } = await open(device, { features: VIRTIO_CONSOLE_F_SIZE });
  const port = driver.port(0)!;
  assertEquals([driver.maxPorts, port.console, port.opened, port.hostOpen], [1, true, true, true]);
  assertEquals(port.size, { cols: 80, rows: 25 });
  device.port(0)!.resize(100, 30);
  await turns();
  assertEquals(port.size, { cols: 100, rows: 30 });
  port.close();
  port.open();
  await port.write(encode("hello"));
  assertEquals(host.takeText(), "hello");
  await driver.close();
  const { driver: blind } = await open(device, { features: 0n });
  assertEquals(blind.port(0)!.size, null);
  await blind.close();
});

Deno.test("console driver: emergency writes go to a device in any state, if it offers them", () => {
  const host = new MemoryConsole();
  const device = new ConsoleDevice({ ports: [{ backend: host }] });
  const memory = GuestMemory.allocate(2 ** 20);
  const transport = new LocalTransport(device, memory);
  ConsoleDriver.emergencyWrite(transport, "oops");
  ConsoleDriver.emergencyWrite(transport, new Uint8Array([10]));
  assertEquals(host.takeText(), "oops\n");
  const without = new ConsoleDevice({ emergencyWrite: false });
  const refused = new LocalTransport(without, memory);
  assertThrows(() => ConsoleDriver.emergencyWrite(refused, "x"), TypeError);
});

Deno.test("console driver: options out of range are refused, and a device without ports", async () => {
  const device = new ConsoleDevice({ ports: [{ backend: new MemoryConsole() }] });
  for (
    const options of [
      { maxPorts: 0 },
      { queueSize: 0 },
      { buffers: 0 },
      { bufferSize: 1.5 },
    ]
  ) await assertRejects(() => open(device, options), RangeError);
  const memory = GuestMemory.allocate(2 ** 20);
  const dma = new DmaPool(memory, 4096, POOL);
  const transport = new LocalTransport(device, memory);
  await assertRejects(
    () => ConsoleDriver.open(transport, { dma, buffers: 1, bufferSize: 600_000 }),
    RangeError,
  );
  assertEquals(dma.available, POOL);
  const none = new SpyConsoleDevice(VIRTIO_CONSOLE_F_MULTIPORT, 0);
  await assertRejects(() => open(none), DriverError, "max_nr_ports");
  const { driver } = await open(device);
  await driver.close();
});

Deno.test("console driver: of a device that says it has 2^32 - 1 ports it uses as many as it was told to", async () => {
  const device = new SpyConsoleDevice(VIRTIO_CONSOLE_F_MULTIPORT, 0xffff_ffff);
  const { driver } = await open(device, { maxPorts: 5, bufferSize: 64, queueSize: 16 });
  assertEquals(driver.maxPorts, 5);
  await device.say(message(5, VIRTIO_CONSOLE_DEVICE_ADD), message(4, VIRTIO_CONSOLE_DEVICE_ADD));
  assertEquals(driver.ports.map(({ id }) => id), [4]);
  await driver.close();
});

Deno.test("console driver: messages that mean nothing change nothing", async () => {
  const device = new SpyConsoleDevice(VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver } = await open(device);
  await device.say(message(1, VIRTIO_CONSOLE_DEVICE_ADD));
  const port = driver.port(1)!;
  device.heard();
  const before = driver.ignoredMessages;
  const wrong = [
    message(1, VIRTIO_CONSOLE_DEVICE_ADD),
    message(2, VIRTIO_CONSOLE_DEVICE_REMOVE),
    message(2, VIRTIO_CONSOLE_PORT_OPEN, 1),
    message(4, VIRTIO_CONSOLE_DEVICE_ADD),
    message(4, VIRTIO_CONSOLE_CONSOLE_PORT, 1),
    message(0xffff_ffff, VIRTIO_CONSOLE_DEVICE_ADD),
    message(1, VIRTIO_CONSOLE_PORT_OPEN, 2),
    message(1, VIRTIO_CONSOLE_RESIZE),
    message(1, VIRTIO_CONSOLE_RESIZE, 0, new Uint8Array(3)),
    message(1, VIRTIO_CONSOLE_PORT_READY, 1),
    message(1, 0, 1),
    message(1, 0xffff, 1),
  ];
  for (const each of wrong) await device.say(each);
  for (const length of [0, 1, 7]) {
    device.put(CONTROL_RECEIVEQ, new Uint8Array(length));
    await turns();
  }
  assertEquals(driver.ignoredMessages - before, wrong.length + 3);
  assertEquals(driver.ports, [port]);
  assertEquals([port.hostOpen, port.size, port.name, port.console], [false, null, null, false]);
  assertEquals(device.heard(), []);
  assertEquals(driver.broken, null);
  // What follows still counts; a name may be any bytes, and a resize longer than it need be.
  await device.say(
    message(1, VIRTIO_CONSOLE_PORT_NAME, 0, new Uint8Array([0xff, 0x41, 0])),
    message(1, VIRTIO_CONSOLE_RESIZE, 9, new Uint8Array([1, 2, 3, 4, 5])),
    message(1, VIRTIO_CONSOLE_PORT_OPEN, 1),
  );
  assertEquals([port.name, port.size, port.hostOpen], [
    "\ufffdA\0",
    { cols: 513, rows: 1027 },
    true,
  ]);
  await device.say(message(1, VIRTIO_CONSOLE_PORT_NAME));
  assertEquals(port.name, "");
  await device.say(message(1, VIRTIO_CONSOLE_PORT_NAME, 0, new Uint8Array(1000).fill(0x41)));
  assertEquals(port.name!.length, 248);
  await driver.close();
});

Deno.test("console driver: answers to a device that does not take them do not pile up", async () => {
  const device = new SpyConsoleDevice(VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver, transport } = await open(device);
  device.heard();
  device.busy = true;
  for (let i = 0; i < 300; i++) {
    await device.say(
      message(1, VIRTIO_CONSOLE_DEVICE_ADD),
      message(1, VIRTIO_CONSOLE_CONSOLE_PORT),
      message(1, VIRTIO_CONSOLE_DEVICE_REMOVE),
    );
  }
  await device.say(message(2, VIRTIO_CONSOLE_DEVICE_ADD));
  driver.port(2)!.open();
  driver.port(2)!.close();
  driver.port(2)!.open();
  device.go(3);
  await turns();
  const heard = device.heard();
  assert(heard.length <= 20, `${heard.length} messages`);
  assertEquals(heard.slice(-3), [
    message(2, VIRTIO_CONSOLE_PORT_READY, 1),
    message(2, VIRTIO_CONSOLE_PORT_OPEN, 0),
    message(2, VIRTIO_CONSOLE_PORT_OPEN, 1),
  ]);
  assertEquals(transport.errors, []);
  await driver.close();
});

Deno.test("console driver: a port that goes and comes again has new hands, and its buffers are not lost", async () => {
  const device = new SpyConsoleDevice(VIRTIO_CONSOLE_F_MULTIPORT);
  const { driver, dma } = await open(device, { buffers: 2, bufferSize: 16 });
  await device.say(message(1, VIRTIO_CONSOLE_DEVICE_ADD));
  const first = driver.port(1)!;
  device.busy = true;
  const writing = [first.write(new Uint8Array(32)), first.write(new Uint8Array(8))];
  const settled = Promise.allSettled(writing);
  // Bytes that nobody read go with the port.
  device.put(receiveQueue(1), encode("unread"));
  await turns();
  const before = dma.available;
  for (let i = 0; i < 5; i++) {
    await device.say(
      message(1, VIRTIO_CONSOLE_DEVICE_REMOVE),
      message(1, VIRTIO_CONSOLE_DEVICE_ADD),
    );
  }
  for (const { status } of await settled) assertEquals(status, "rejected");
  assertEquals(dma.available, before);
  const port = driver.port(1)!;
  assert(port !== first);
  let got = "";
  port.onData = (bytes) => got += decode(bytes);
  await turns();
  assertEquals(got, "");
  device.put(receiveQueue(1), encode("new"));
  await turns();
  assertEquals(got, "new");
  device.go(transmitQueue(1));
  device.go(3);
  await turns();
  await port.write(encode("again"));
  assertEquals(decode(device.seen.filter(({ queue }) => queue === 5).at(-1)!.readable), "again");
  await driver.close();
});

Deno.test("console driver: a device that breaks a rule or asks for a reset is given up, and everything rejects", async () => {
  for (const how of ["needs reset", "bad used ring", "closed"]) {
    const device = new SpyConsoleDevice(VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_CONSOLE_F_EMERG_WRITE);
    const { driver, transport } = await open(device, { buffers: 1 });
    await device.say(message(0, VIRTIO_CONSOLE_DEVICE_ADD));
    let reason: Error | null = null;
    driver.onBroken = (error) => reason = error;
    device.busy = true;
    const port = driver.port(0)!;
    port.onData = () => {};
    const writing = assertRejects(() => port.write(new Uint8Array(10000)));
    const waiting = assertRejects(() => driver.waitForPort("never"));
    if (how === "needs reset") transport.state.fail(new Error("broken"));
    if (how === "closed") await driver.close();
    if (how === "bad used ring") {
      const queue = driver.session.queue(1);
      const at = queue.config.deviceArea + 2;
      const { memory } = driver.session.dma;
      const packed = queue.config.deviceArea - queue.config.descriptorArea;
      assert(packed !== 0);
      memory.writeU16(at, 5);
      // A packed descriptor that was never in flight looks used.
      memory.writeU32(queue.config.descriptorArea + 8, 99);
      memory.writeU16(queue.config.descriptorArea + 12, 77);
      memory.writeU16(queue.config.descriptorArea + 14, 0x8080);
      transport.interrupts!.queue(1);
    }
    await writing;
    await waiting;
    assert(driver.broken !== null && driver.broken === reason, how);
    await assertRejects(() => port.write(new Uint8Array(1)));
    await assertRejects(() =>
      driver.waitForPort(0, 1).then((port) => port.write(new Uint8Array(1)))
    );
    if (how !== "closed") await driver.close();
  }
});

Deno.test("console driver: waiting for a port ends", async () => {
  const device = new ConsoleDevice({ maxPorts: 2 });
  const { driver } = await open(device);
  await assertRejects(() => driver.waitForPort("none", 5), DriverError, "none");
  await driver.close();
  const broken = new (class extends SpyConsoleDevice {
    override started(): void {
      throw new Error("no");
    }
  })(0n);
  await assertRejects(() => open(broken), DriverError, "reset");
});
