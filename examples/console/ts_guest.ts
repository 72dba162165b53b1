/** The example's run without an operating system: this project's own driver on the same device. Runs wherever Deno runs. */
import { ConsoleDriver, type ConsoleDriverPort } from "@virtio/console/driver";
import { MemoryConsole } from "@virtio/console/memory";
import { VIRTIO_F_RING_PACKED } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { randomBytes, sha256 } from "../shared/bytes.ts";
import { Checks, type Outcome, type Progress } from "../shared/run.ts";
import { join } from "../shared/seat.ts";
import { until } from "./until.ts";
import { openConsole } from "./device.ts";
import { type Figures, readFigures } from "./figures.ts";
import { type Options, OWN_PORTS } from "./options.ts";
import { openPorts, readAtEnd } from "./ports.ts";

const MIB = 2 ** 20;

/** Has our own driver answer at the console. */
export async function runTs(options: Options, progress: Progress): Promise<Outcome<Figures>> {
  const start = performance.now();
  await using ports = await openPorts(options.ports);
  const size = options.megabytes * MIB;
  const terminal = new MemoryConsole();
  const data = new MemoryConsole({ outputBuffer: size });
  using device = await openConsole(
    options,
    [{ backend: terminal }, { name: OWN_PORTS.data, backend: data }, ...ports.options],
    ports.options.length + 3,
  );
  const memory = GuestMemory.allocate(16 * MIB);
  const joined = join(options, memory, device.device);
  const driver = await ConsoleDriver.open(joined.driver, {
    dma: new DmaPool(memory, 0x1000, 16 * MIB - 0x1000),
  });
  const bootMs = performance.now() - start;
  const checks = new Checks();
  checks.add(
    `the driver took ${options.ring} rings`,
    ((driver.features & VIRTIO_F_RING_PACKED) !== 0n) === (options.ring === "packed"),
  );
  const console = await driver.waitForPort(0);
  await until(() => console.console && console.size?.cols === 80);
  checks.add("port 0 is a console of 80 columns and 25 rows", console.size?.rows === 25);
  device.port(0)!.resize(132, 43);
  await until(() => console.size?.cols === 132);
  checks.add("after a resize it has 132 and 43", console.size?.rows === 43);
  await checkAnswers(terminal, console, checks);

  progress.step(`${options.megabytes} MiB go each way through a port of their own`);
  const port = await driver.waitForPort(OWN_PORTS.data);
  port.open();
  checks.add(
    `${options.megabytes} MiB arrive at the driver as they were sent`,
    await crosses(size, (bytes) => data.send(bytes), (take) => port.onData = take),
  );
  const sent = randomBytes(size);
  await port.write(sent);
  // What a device in a worker has taken may still be on its way.
  await until(() => data.available >= size);
  checks.add(
    `${options.megabytes} MiB arrive here as the driver sent them`,
    await sha256(data.takeBytes()) === await sha256(sent),
  );

  const late = new MemoryConsole();
  device.addPort({ name: OWN_PORTS.late, backend: late });
  const coming = await driver.waitForPort(OWN_PORTS.late);
  coming.open();
  await coming.write(new TextEncoder().encode("hello"));
  await until(() => late.available >= 5);
  checks.add("a port added meanwhile carries what is written to it", late.takeText() === "hello");
  device.removePort(OWN_PORTS.late);
  await until(() => coming.removed);
  checks.add("a port removed meanwhile is gone", driver.port(OWN_PORTS.late) === undefined);

  for (const one of options.ports) {
    const found = await driver.waitForPort(one.name);
    found.open();
    const line = `written by our driver, ${crypto.randomUUID()}\n`;
    const { backend } = device.port(one.name)!;
    const bytes = await readAtEnd(one, backend, line.length, async () => {
      await until(() => found.hostOpen);
      await found.write(new TextEncoder().encode(line));
    });
    if (bytes === null) continue;
    const text = new TextDecoder().decode(bytes);
    checks.add(`what goes into port ${one.name} arrives at ${one.path}`, text === line);
  }
  const figures = readFigures(device.counted(), joined.counters.reads + joined.counters.writes);
  await driver.close();
  checks.addErrors(joined.errors);
  const workMs = performance.now() - start - bootMs;
  return { guest: "ts", checks: checks.list, figures, bootMs, workMs };
}

/** A line goes in, an answer comes out. */
async function checkAnswers(
  terminal: MemoryConsole,
  port: ConsoleDriverPort,
  checks: Checks,
): Promise<void> {
  port.onData = (bytes) => {
    const line = new TextDecoder().decode(bytes).trim();
    void port.write(new TextEncoder().encode(`${line.toUpperCase()}\r\n`));
  };
  await terminal.send("who is there?\n");
  checks.add(
    "a line at the console is answered",
    await terminal.expect("\n") === "WHO IS THERE?\r\n",
  );
}

/** Sends random bytes, and tells whether the same come out at the other end. */
async function crosses(
  size: number,
  send: (bytes: Uint8Array) => Promise<void>,
  receive: (take: (bytes: Uint8Array) => void) => void,
): Promise<boolean> {
  const sent = randomBytes(size);
  const received = new Uint8Array(size);
  let count = 0;
  receive((bytes) => {
    received.set(bytes.subarray(0, size - count), count);
    count += bytes.length;
  });
  await send(sent);
  await until(() => count >= size);
  return count === size && await sha256(sent) === await sha256(received);
}
