import { assertEquals, assertThrows } from "@std/assert";
import { ConsoleDevice, receiveQueue } from "../mod.ts";
import { RawConsoleDriver, turns } from "../testing.ts";
import { type Terminal, TerminalConsole } from "./terminal.ts";

/** A terminal as a test types at it. */
class FakeTerminal implements Terminal {
  isTerminal = true;
  readonly raw: boolean[] = [];
  columns = 80;
  rows = 24;
  screen = "";
  /** Listeners of resizes and of the program's end. */
  readonly resized: Set<() => void> = new Set();
  readonly ending: Set<() => void> = new Set();
  #typed: (Uint8Array | null)[] = [];
  #reader: ((bytes: Uint8Array | null) => void) | null = null;

  setRaw(raw: boolean): void {
    this.raw.push(raw);
  }

  size(): { columns: number; rows: number } {
    return { columns: this.columns, rows: this.rows };
  }

  onResize(changed: () => void): () => void {
    this.resized.add(changed);
    return () => this.resized.delete(changed);
  }

  onExit(ending: () => void): () => void {
    this.ending.add(ending);
    return () => this.ending.delete(ending);
  }

  type(text: string | null): void {
    const bytes = text === null ? null : new TextEncoder().encode(text);
    const reader = this.#reader;
    this.#reader = null;
    if (reader === null) this.#typed.push(bytes);
    else reader(bytes);
  }

  async read(into: Uint8Array): Promise<number | null> {
    const bytes = this.#typed.length > 0
      ? this.#typed.shift()!
      : await new Promise<Uint8Array | null>((resolve) => this.#reader = resolve);
    if (bytes === null) return null;
    into.set(bytes);
    return bytes.length;
  }

  write(bytes: Uint8Array): Promise<number> {
    // Some at a time, as a slow terminal does.
    const count = Math.min(bytes.length, 3);
    this.screen += new TextDecoder().decode(bytes.subarray(0, count));
    return Promise.resolve(count);
  }
}

async function running(
  options: { escape?: number; onCommand?: (key: string) => void } = {},
  isTerminal = true,
) {
  const terminal = new FakeTerminal();
  terminal.isTerminal = isTerminal;
  const backend = new TerminalConsole({ ...options, terminal });
  assertEquals(terminal.raw, []);
  const device = new ConsoleDevice({ ports: [{ backend }] });
  const driver = await RawConsoleDriver.open(device);
  for (let i = 0; i < 20; i++) driver.provide(receiveQueue(0), 64);
  return { terminal, backend, device, driver };
}

Deno.test("terminal console: raw while it is the port's, keys to the guest, output to the screen, size as the terminal's", async () => {
  const { terminal, backend, device, driver } = await running();
  assertEquals(terminal.raw, [true]);
  assertEquals(device.port(0)!.size, { cols: 80, rows: 24 });
  terminal.type("ls\r\u0003");
  await turns();
  assertEquals(driver.input(0), "ls\r\u0003");
  driver.output(0, "file\r\n$ ");
  await backend.flush();
  assertEquals(terminal.screen, "file\r\n$ ");
  terminal.columns = 200;
  terminal.rows = 100_000;
  for (const changed of terminal.resized) changed();
  assertEquals(device.port(0)!.size, { cols: 200, rows: 65535 });
  backend.close();
  assertEquals(await backend.ended, "closed");
  assertEquals(terminal.raw, [true, false]);
  assertEquals([terminal.resized.size, terminal.ending.size], [0, 0]);
  backend.close();
  device.removePort(0);
  assertEquals(terminal.raw, [true, false]);
});

Deno.test("terminal console: the escape key, split over reads, leaves, sends itself, helps, and commands", async () => {
  const commands: string[] = [];
  const { terminal, backend, driver } = await running({ onCommand: (key) => commands.push(key) });
  terminal.type("a\u0001");
  terminal.type("\u0001b\u0001ac\u0001");
  terminal.type("zd");
  await turns();
  assertEquals(driver.input(0), "a\u0001b\u0001cd");
  assertEquals(commands, ["z"]);
  terminal.type("\u0001h");
  await turns();
  await backend.flush();
  assertEquals(terminal.screen.includes("Ctrl-A x  leave"), true);
  terminal.type("e\u0001x");
  assertEquals(await backend.ended, "left");
  assertEquals(terminal.raw, [true, false]);
  // The guest goes on without it.
  driver.output(0, "unseen");
  await turns();
  assertEquals(driver.used[1], 1);
});

Deno.test("terminal console: another escape key, or none", async () => {
  const other = await running({ escape: 0x1d });
  other.terminal.type("\u0001x");
  await turns();
  assertEquals(other.driver.input(0), "\u0001x");
  other.terminal.type("\u001dx");
  assertEquals(await other.backend.ended, "left");
  const none = await running({ escape: 0 });
  none.terminal.type("\u0000x\u0001x");
  await turns();
  assertEquals(none.driver.input(0), "\u0000x\u0001x");
  none.backend.close();
  assertThrows(() => new TerminalConsole({ escape: 256 }), RangeError);
});

Deno.test("terminal console: it is put back when the program ends, and at the end of input, after which output goes on", async () => {
  const { terminal, backend, driver } = await running();
  for (const ending of terminal.ending) ending();
  assertEquals(terminal.raw, [true, false]);
  backend.close();
  assertEquals(terminal.raw, [true, false]);
  const other = await running();
  other.terminal.type(null);
  assertEquals(await other.backend.ended, "end of input");
  assertEquals(other.terminal.raw, [true, false]);
  other.driver.output(0, "still");
  await other.backend.flush();
  assertEquals(other.terminal.screen, "still");
  void driver;
});

Deno.test("terminal console: where input is no terminal, bytes are passed on as they are", async () => {
  const { terminal, backend, device, driver } = await running({}, false);
  terminal.type("\u0001x");
  await turns();
  assertEquals(driver.input(0), "\u0001x");
  assertEquals([terminal.raw, terminal.resized.size], [[], 0]);
  assertEquals(device.port(0)!.size, { cols: 80, rows: 25 });
  driver.output(0, "out");
  await backend.flush();
  assertEquals(terminal.screen, "out");
  terminal.type(null);
  assertEquals(await backend.ended, "end of input");
});

Deno.test("terminal console: what the guest has no buffers for is read from the terminal later", async () => {
  const terminal = new FakeTerminal();
  const backend = new TerminalConsole({ terminal });
  const device = new ConsoleDevice({ ports: [{ backend, inputBuffer: 4 }] });
  const driver = await RawConsoleDriver.open(device);
  terminal.type("0123456789");
  terminal.type("abc");
  await turns();
  assertEquals(device.port(0)!.waiting, 4);
  for (let i = 0; i < 5; i++) {
    driver.provide(receiveQueue(0), 4);
    await turns();
  }
  assertEquals(driver.input(0), "0123456789abc");
  backend.close();
});
