/**
 * The host's end of a console port at the terminal of this program: raw mode, its size, and a key to leave. Needs Deno.
 *
 * @module
 */
import { checkInteger } from "@virtio/device";
import type { ConsoleBackend } from "../backend.ts";
import type { ConsolePort } from "../port.ts";
import { EscapeKey } from "./escape.ts";
import { type ByteStream, StreamLink } from "./stream.ts";

/** The terminal, as far as it is used; the program's own unless given. */
export interface Terminal extends ByteStream {
  /** Whether it is a terminal at all: else there is no raw mode and no size. */
  readonly isTerminal: boolean;
  /** Turns raw mode on or off. */
  setRaw(raw: boolean): void;
  /** Its size in characters; 0 where it is not known. */
  size(): { columns: number; rows: number };
  /** Calls back when the size changed. @returns Stops that. */
  onResize(changed: () => void): () => void;
  /** Calls back when the program is about to end, however it does. @returns Stops that. */
  onExit(ending: () => void): () => void;
}

/** Options of a `TerminalConsole`. */
export interface TerminalConsoleOptions {
  /** The escape key as a byte, as Ctrl-A is 1; 1 unless given. 0 for none. */
  readonly escape?: number;
  /** Called for escape key and another key than `x`, `h`, `a` and the escape key. */
  readonly onCommand?: (key: string) => void;
  /** Instead of the program's own. */
  readonly terminal?: Terminal;
}

/** How a `TerminalConsole` ended. */
export type TerminalEnd = "left" | "end of input" | "closed";

/** Bytes of output that wait for the terminal; then the guest waits. */
const OUTPUT_BUFFER = 65536;

/**
 * A console port's other end at the terminal of this program. Every key goes to the guest, Ctrl-C too, but for the escape
 * key, Ctrl-A unless chosen otherwise:
 *
 * - Ctrl-A x leaves: `ended` resolves with `"left"`. What happens then is the program's to decide.
 * - Ctrl-A a, or Ctrl-A twice, sends Ctrl-A.
 * - Ctrl-A h prints this list.
 *
 * The terminal is put back into its former mode by `close`, when it ends, and when the program ends: by an exit, a signal or
 * an error that nobody caught. The port's size follows the terminal's. Where input is no terminal, bytes are passed on as
 * they are, and the escape key means nothing.
 *
 * Reading from a terminal cannot be taken back: end the program with `Deno.exit`, or its last read waits for a key.
 *
 * @example A terminal that is not one
 * ```ts
 * import { ConsoleDevice } from "@virtio/console";
 * import { TerminalConsole } from "@virtio/console/terminal";
 * import { assertEquals } from "@std/assert";
 *
 * const terminal = new TerminalConsole({
 *   terminal: {
 *     isTerminal: true,
 *     setRaw: () => {},
 *     size: () => ({ columns: 132, rows: 43 }),
 *     onResize: () => () => {},
 *     onExit: () => () => {},
 *     read: () => Promise.resolve(null),
 *     write: (bytes) => Promise.resolve(bytes.length),
 *   },
 * });
 * const device = new ConsoleDevice({ ports: [{ backend: terminal }] });
 * assertEquals(device.port(0)!.size, { cols: 132, rows: 43 });
 * assertEquals(await terminal.ended, "end of input");
 * ```
 */
export class TerminalConsole implements ConsoleBackend {
  /** Resolves when it ended. */
  readonly ended: Promise<TerminalEnd>;
  readonly #terminal: Terminal;
  readonly #escape: number;
  readonly #keys: EscapeKey;
  readonly #resolve: (end: TerminalEnd) => void;
  #port: ConsolePort | null = null;
  #link: StreamLink | null = null;
  #undo: (() => void)[] = [];
  #raw = false;
  #over = false;

  /**
   * The terminal is left as it is until the port is added to a device.
   *
   * @throws {RangeError} If the escape key is no byte.
   */
  constructor(options: TerminalConsoleOptions = {}) {
    const escape = checkInteger("escape", options.escape, 0, 255, 1);
    this.#escape = escape;
    this.#terminal = options.terminal ?? ownTerminal();
    this.#keys = new EscapeKey(escape, (command) => this.#command(command, options.onCommand));
    const { promise, resolve } = Promise.withResolvers<TerminalEnd>();
    this.ended = promise;
    this.#resolve = resolve;
  }

  /** See `ConsoleBackend.write`. */
  write(bytes: Uint8Array, offset: number, length: number): number {
    return this.#link === null ? length : this.#link.write(bytes, offset, length);
  }

  /** See `ConsoleBackend.attached`. Takes the terminal over. */
  attached(port: ConsolePort): void {
    if (this.#over) return;
    this.#port = port;
    const terminal = this.#terminal;
    const escapes = terminal.isTerminal && this.#escape !== 0;
    if (terminal.isTerminal) {
      this.#undo.push(terminal.onExit(() => this.#restore()));
      terminal.setRaw(true);
      this.#raw = true;
      this.#undo.push(terminal.onResize(() => this.#resize()));
      this.#resize();
    }
    const filter = escapes ? (bytes: Uint8Array) => this.#keys.filter(bytes) : null;
    const link = new StreamLink(terminal, port, OUTPUT_BUFFER, filter, true);
    this.#link = link;
    link.inputEnded.then(() => this.#finish("end of input"));
  }

  /** See `ConsoleBackend.detached`. */
  detached(): void {
    this.#finish("closed");
  }

  /** See `ConsoleBackend.inputDrained`. */
  inputDrained(): void {
    this.#link?.inputDrained();
  }

  /** Waits until all output is on the screen. */
  async flush(): Promise<void> {
    await this.#link?.flushed();
  }

  /** Puts the terminal back as it was. */
  close(): void {
    this.#finish("closed");
  }

  #command(command: number, other: ((key: string) => void) | undefined): void {
    const key = String.fromCharCode(command);
    if (key === "x") {
      this.#finish("left");
    } else if (key === "h") {
      const name = this.#escape < 32
        ? `Ctrl-${String.fromCharCode(this.#escape + 64)}`
        : "Escape key";
      const help = `\r\n${name} x  leave\r\n${name} a  send ${name}\r\n${name} h  this help\r\n`;
      const bytes = new TextEncoder().encode(help);
      this.#link?.write(bytes, 0, bytes.length);
    } else {
      other?.(key);
    }
  }

  #resize(): void {
    const { columns, rows } = this.#terminal.size();
    this.#port?.resize(Math.min(columns, 0xffff), Math.min(rows, 0xffff));
  }

  #restore(): void {
    if (!this.#raw) return;
    this.#raw = false;
    this.#terminal.setRaw(false);
  }

  #finish(end: TerminalEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#restore();
    for (const undo of this.#undo.splice(0)) undo();
    if (end !== "end of input") this.#link?.stop();
    this.#resolve(end);
  }
}

/** Signals that end a program, and leave it time to clean up. */
const ENDING: readonly Deno.Signal[] = ["SIGINT", "SIGTERM", "SIGHUP"];

function ownTerminal(): Terminal {
  return {
    isTerminal: Deno.stdin.isTerminal(),
    setRaw: (raw) => Deno.stdin.setRaw(raw),
    size: () => {
      try {
        return Deno.consoleSize();
      } catch {
        // Output goes elsewhere.
        return { columns: 0, rows: 0 };
      }
    },
    onResize: (changed) => {
      Deno.addSignalListener("SIGWINCH", changed);
      return () => Deno.removeSignalListener("SIGWINCH", changed);
    },
    onExit,
    read: (into) => Deno.stdin.read(into),
    write: (bytes) => Deno.stdout.write(bytes),
  };
}

function onExit(ending: () => void): () => void {
  const events = ["unload", "error", "unhandledrejection"];
  for (const event of events) globalThis.addEventListener(event, ending);
  const signals = ENDING.map((signal) => {
    const listener = (): void => {
      ending();
      // As if nobody had listened.
      Deno.removeSignalListener(signal, listener);
      Deno.kill(Deno.pid, signal);
    };
    Deno.addSignalListener(signal, listener);
    return { signal, listener };
  });
  return () => {
    for (const event of events) globalThis.removeEventListener(event, ending);
    for (const { signal, listener } of signals) Deno.removeSignalListener(signal, listener);
  };
}
