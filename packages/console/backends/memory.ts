/**
 * The host's end of a console port in memory: it keeps the guest's output and sends it input. For tests and scripted
 * conversations.
 *
 * This module is browser compatible.
 *
 * @module
 */
import type { ConsoleBackend } from "../backend.ts";
import { ByteRing } from "../byte_ring.ts";
import type { ConsolePort } from "../port.ts";

/** Options of a `MemoryConsole`. */
export interface MemoryConsoleOptions {
  /** Bytes of output that are kept until somebody takes them; 1 MiB unless given. The guest waits when it is full. */
  readonly outputBuffer?: number;
}

/** Who waits for output. */
interface Waiter {
  /** Whether what it waits for is there. */
  look(): boolean;
}

/**
 * A console port's other end in memory.
 *
 * @example A guest, here played by a driver, is asked for its name
 * ```ts
 * import { ConsoleDevice } from "@virtio/console";
 * import { ConsoleDriver } from "@virtio/console/driver";
 * import { MemoryConsole } from "@virtio/console/memory";
 * import { GuestMemory } from "@virtio/memory";
 * import { MmioTransport } from "@virtio/transport/mmio";
 * import { connectMmio } from "@virtio/transport/mmio/driver";
 * import { DmaPool } from "@virtio/vring/driver";
 * import { assertEquals } from "@std/assert";
 *
 * const host = new MemoryConsole();
 * const device = new ConsoleDevice({ ports: [{ backend: host }] });
 * const memory = GuestMemory.allocate(1024 * 1024);
 * const { driver: transport } = connectMmio((host) => new MmioTransport(device, { memory, host }));
 * const guest = await ConsoleDriver.open(transport, { dma: new DmaPool(memory, 0, 1024 * 1024) });
 * guest.port(0)!.onData = (bytes) => {
 *   const line = new TextDecoder().decode(bytes);
 *   guest.port(0)!.write(new TextEncoder().encode(line === "name\n" ? "guest-0\n" : "?\n"));
 * };
 *
 * await host.send("name\n");
 * assertEquals(await host.expect("\n"), "guest-0\n");
 * await guest.close();
 * ```
 */
export class MemoryConsole implements ConsoleBackend {
  readonly #output: ByteRing;
  #port: ConsolePort | null = null;
  #full = false;
  #guestOpen = false;
  readonly #waiters: Set<Waiter> = new Set();
  #sending: { bytes: Uint8Array; at: number; done: () => void; fail: (error: Error) => void }[] =
    [];

  /** @param options None needed. */
  constructor(options: MemoryConsoleOptions = {}) {
    this.#output = new ByteRing(options.outputBuffer ?? 2 ** 20);
  }

  /** The port; null while there is none. */
  get port(): ConsolePort | null {
    return this.#port;
  }

  /** Whether the guest's side is open. */
  get guestOpen(): boolean {
    return this.#guestOpen;
  }

  /** Bytes of output that nobody took yet. */
  get available(): number {
    return this.#output.length;
  }

  /** All output that nobody took yet. */
  takeBytes(max: number = this.#output.length): Uint8Array {
    const bytes = this.#output.copy().subarray(0, max);
    this.#output.drop(bytes.length);
    this.#resume();
    return bytes;
  }

  /** As `takeBytes`, as text of UTF-8. */
  takeText(): string {
    return new TextDecoder().decode(this.takeBytes());
  }

  /**
   * Sends input. Resolves when the port took all of it; what the guest has no buffers for waits there.
   *
   * @throws {TypeError} Rejects if the port is removed before.
   */
  send(input: string | Uint8Array): Promise<void> {
    const bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
    return new Promise((done, fail) => {
      this.#sending.push({ bytes, at: 0, done, fail });
      this.#pump();
    });
  }

  /**
   * Waits until the output holds a text, and takes everything up to its end.
   *
   * @param text A string, or an expression, which sees one character for each byte; the first match counts.
   * @param timeout Milliseconds; 30,000 unless given.
   * @returns What was taken, the text included.
   * @throws {Error} Rejects if the text does not come in time, with the output so far in the message.
   */
  expect(text: string | RegExp, timeout = 30_000): Promise<string> {
    return this.#wait(timeout, `Waited for ${String(text)}`, () => {
      const bytes = this.#output.copy();
      // One character for each byte, so that places in the text are places in the output.
      const all = latin1(bytes);
      let end = -1;
      if (typeof text === "string") {
        const wanted = latin1(new TextEncoder().encode(text));
        const at = all.indexOf(wanted);
        if (at >= 0) end = at + wanted.length;
      } else {
        const match = new RegExp(text.source, text.flags.replace(/[gy]/g, "")).exec(all);
        if (match !== null) end = match.index + match[0].length;
      }
      if (end < 0) return null;
      return new TextDecoder().decode(this.takeBytes(end));
    });
  }

  /** Waits until the guest opened the port. @throws {Error} Rejects if it does not in time. */
  async opened(timeout = 30_000): Promise<void> {
    await this.#wait(
      timeout,
      "Waited for the guest to open the port",
      () => this.#guestOpen || null,
    );
  }

  /** See `ConsoleBackend.write`. */
  write(bytes: Uint8Array, offset: number, length: number): number {
    const count = this.#output.push(bytes, offset, length);
    if (count < length) this.#full = true;
    if (this.#waiters.size > 0) queueMicrotask(() => this.#look());
    return count;
  }

  /** See `ConsoleBackend.attached`. */
  attached(port: ConsolePort): void {
    this.#port = port;
    this.#pump();
  }

  /** See `ConsoleBackend.detached`. */
  detached(): void {
    this.#port = null;
    this.#guestOpen = false;
    for (const { fail } of this.#sending.splice(0)) fail(new TypeError("The port was removed"));
  }

  /** See `ConsoleBackend.guestOpened`. */
  guestOpened(open: boolean): void {
    this.#guestOpen = open;
    if (this.#waiters.size > 0) queueMicrotask(() => this.#look());
  }

  /** See `ConsoleBackend.inputDrained`. */
  inputDrained(): void {
    this.#pump();
  }

  #pump(): void {
    while (this.#port !== null && this.#sending.length > 0) {
      const first = this.#sending[0]!;
      first.at += this.#port.write(first.bytes, first.at);
      if (first.at < first.bytes.length) return;
      this.#sending.shift();
      first.done();
    }
  }

  #resume(): void {
    if (!this.#full) return;
    this.#full = false;
    this.#port?.resume();
  }

  #look(): void {
    for (const waiter of [...this.#waiters]) {
      if (waiter.look()) this.#waiters.delete(waiter);
    }
  }

  #wait<T>(timeout: number, what: string, look: () => T | null): Promise<T> {
    return new Promise((resolve, reject) => {
      let timer: ReturnType<typeof setTimeout> | undefined = undefined;
      const waiter: Waiter = {
        look: () => {
          const found = look();
          if (found === null) return false;
          clearTimeout(timer);
          resolve(found);
          return true;
        },
      };
      if (waiter.look()) return;
      this.#waiters.add(waiter);
      timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        const seen = new TextDecoder().decode(this.#output.copy().subarray(-2000));
        reject(new Error(`${what} for ${timeout} ms in vain; the output ends with: ${seen}`));
      }, timeout);
    });
  }
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return text;
}
