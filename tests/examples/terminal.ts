/** A program on a terminal of its own, which `script` (util-linux) makes, and somebody who types there. */
import { assert } from "@std/assert";
import { exampleCommand } from "./testing.ts";

const PATIENCE = 120_000;

/** What the shell around the example says when it is over: the exit status, and the terminal's settings. */
export interface Left {
  readonly status: number;
  readonly settings: string;
}

/** An example on a terminal. */
export class OnTerminal {
  /** The terminal's settings before the example began. */
  readonly before: string;
  readonly #tty: string;
  readonly #shell: Terminal;

  private constructor(shell: Terminal, tty: string, before: string) {
    this.#shell = shell;
    this.#tty = tty;
    this.before = before;
  }

  /** Starts an example on a terminal of 30 rows and 100 columns. */
  static async start(name: string, args: readonly string[]): Promise<OnTerminal> {
    const quoted = [Deno.execPath(), ...exampleCommand(name, args)].map((word) => `'${word}'`);
    const shell = new Terminal(
      `stty cols 100 rows 30; tty; stty -g; ${quoted.join(" ")}; echo status=$?; stty -g`,
    );
    const tty = (await shell.expect(/(\/dev\/\S+)\r\n/))[1]!;
    const before = (await shell.expect(/([0-9a-f]+:\S+)\r\n/))[1]!;
    return new OnTerminal(shell, tty, before);
  }

  /** Keys. */
  type(keys: string): Promise<void> {
    return this.#shell.type(keys);
  }

  /** Reads until a text has come. @returns All that was read, up to its end. */
  async expect(text: RegExp): Promise<string> {
    const { input, index, 0: matched } = await this.#shell.expect(text);
    return input.slice(0, index + matched.length);
  }

  /** Another size, as when its window is drawn larger. */
  async resize(columns: number, rows: number): Promise<void> {
    const size = ["cols", String(columns), "rows", String(rows)];
    const { success } = await new Deno.Command("stty", { args: ["-F", this.#tty, ...size] })
      .output();
    assert(success);
  }

  /** The example ends. */
  async left(): Promise<Left> {
    const [, status, settings] = await this.#shell.expect(/status=(\d+)\r\n(\S+)\r\n/);
    await this.#shell.end();
    return { status: Number(status), settings: settings! };
  }
}

class Terminal {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #decoder = new TextDecoder();
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #text = "";

  constructor(command: string) {
    this.#child = new Deno.Command("script", {
      args: ["--quiet", "--flush", "--return", "--command", command, "/dev/null"],
      env: { TERM: "xterm-256color", SHELL: "/bin/sh" },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.getReader();
  }

  async type(keys: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(keys));
  }

  async #more(): Promise<boolean> {
    const { value, done } = await this.#reader.read();
    if (done) return false;
    this.#text += this.#decoder.decode(value, { stream: true });
    return true;
  }

  async expect(text: RegExp): Promise<RegExpExecArray> {
    const timer = setTimeout(() => this.#child.kill(), PATIENCE);
    try {
      for (;;) {
        const match = text.exec(this.#text);
        if (match !== null) {
          this.#text = this.#text.slice(match.index + match[0].length);
          return match;
        }
        if (!await this.#more()) throw new Error(`${text} did not come: ${this.#text}`);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async end(): Promise<void> {
    while (await this.#more());
    await this.#child.status;
    await this.#writer.close().catch(() => {});
  }
}
