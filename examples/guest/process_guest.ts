/**
 * A Linux that runs as a program of the host's, User Mode Linux or in QEMU: its serial line is the program's standard input
 * and output.
 */
import { type CommandResult, GuestCommands } from "./commands.ts";
import { dependentCommand } from "./dependent.ts";
import { GuestError, SerialLog } from "./serial_log.ts";

/** How a program with a guest is started. */
export interface ProcessGuestOptions {
  /** The program. */
  readonly program: string;
  /** Its arguments. */
  readonly args: readonly string[];
  /** Whether the program has processes that would go on without it; no unless given. */
  readonly family?: boolean;
  /** Told what the guest writes to its serial line, in pieces. */
  readonly console?: (text: string) => void;
  /** Milliseconds until the guest must take commands; 120,000 unless given. */
  readonly bootTimeout?: number;
}

/** Milliseconds that a program has to end when it is asked to. */
const END_TIMEOUT = 3_000;
/** How much of what the program says about itself is kept, in characters. */
const COMPLAINT_LIMIT = 4_000;

/** A running guest, and the program that it runs in. */
export class ProcessGuest implements AsyncDisposable {
  /** The program's id. */
  readonly pid: number;
  readonly #process: Deno.ChildProcess;
  readonly #line: SerialLog;
  readonly #commands: GuestCommands;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: Promise<unknown>;
  #complaints = "";
  #ended = false;

  /** Starts the program. The guest is not there yet: see `ready`. @throws {GuestError} If it cannot be started. */
  constructor(options: ProcessGuestOptions) {
    try {
      this.#process = dependentCommand(options.program, {
        args: [...options.args],
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
        // The guest's processes are the program's children: they are ended together. And a Ctrl-C is for us alone.
        detached: true,
      }, options.family).spawn();
    } catch (error) {
      throw new GuestError(`${options.program} cannot be started: ${(error as Error).message}`);
    }
    this.pid = this.#process.pid;
    const line = this.#line = new SerialLog(options.console);
    this.#input = this.#process.stdin.getWriter();
    this.#commands = new GuestCommands(line, (bytes) => {
      this.#input.write(bytes).catch(() => {}); // a guest that is gone is told of elsewhere
    });
    this.#output = Promise.all([this.#read(), this.#listen()]);
  }

  async #read(): Promise<void> {
    for await (const bytes of this.#process.stdout) {
      for (const byte of bytes) this.#line.push(byte);
    }
    const { code, signal } = await this.#process.status;
    this.#ended = true;
    this.#line.stop("poweroff", code === 0 ? undefined : `${signal ?? code} ${this.#complaints}`);
  }

  async #listen(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of this.#process.stderr) {
      const text = this.#complaints + decoder.decode(bytes, { stream: true });
      this.#complaints = text.slice(-COMPLAINT_LIMIT);
    }
  }

  /** Waits until the guest takes commands. @throws {GuestError} If it does not come up; the program has ended then. */
  async ready(timeout = 120_000): Promise<void> {
    try {
      await this.#commands.ready(timeout);
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** As `GuestCommands.run`. */
  run(command: string, options: { timeout?: number } = {}): Promise<CommandResult> {
    return this.#commands.run(command, options);
  }

  /** As `GuestCommands.check`. */
  check(command: string, options: { timeout?: number } = {}): Promise<string> {
    return this.#commands.check(command, options);
  }

  /** What the program itself wrote to standard error, its last part. */
  get complaints(): string {
    return this.#complaints;
  }

  /** The last lines of the serial line. */
  get transcript(): string {
    return this.#line.transcript;
  }

  /** Unmounts, powers the guest off, and waits until the program has ended. */
  async shutdown(timeout = 20_000): Promise<void> {
    await this.#commands.powerOff(timeout);
    await this[Symbol.asyncDispose]();
  }

  /** Ends the program, as if the power failed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#signal(-this.pid, "SIGTERM");
    const timer = setTimeout(() => this.#signal(this.pid, "SIGKILL"), END_TIMEOUT);
    await this.#process.status;
    clearTimeout(timer);
    // What is left of its group: processes of a guest that had no time to end them.
    this.#signal(-this.pid, "SIGKILL", true);
    await this.#output;
    await this.#input.close().catch(() => {});
  }

  #signal(pid: number, signal: Deno.Signal, always = false): void {
    if (this.#ended && !always) return;
    try {
      Deno.kill(pid, signal);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound || error instanceof TypeError)) throw error;
    }
  }
}
