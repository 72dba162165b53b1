/**
 * Commands for the init of `initrd.ts`, wherever its guest runs: they go out over a serial line, and their answers are found
 * among what comes back.
 */
import { READY_LINE } from "./initrd.ts";
import { betweenMarkers, GuestError, type SerialLog } from "./serial_log.ts";

/** What a command did. */
export interface CommandResult {
  /** Exit status. */
  readonly status: number;
  /** What it wrote to standard output and standard error, less one newline at the end. */
  readonly output: string;
}

/** The longest command, in bytes: the guest's line takes about this much at once. */
const COMMAND_LIMIT = 16 * 1024;

/** The host's end of the line. */
export class GuestCommands {
  readonly #line: SerialLog;
  readonly #write: (bytes: Uint8Array) => void;
  #busy = false;

  /**
   * @param line What comes from the guest.
   * @param write Sends to the guest.
   */
  constructor(line: SerialLog, write: (bytes: Uint8Array) => void) {
    this.#line = line;
    this.#write = write;
  }

  /**
   * Waits until the guest takes commands.
   *
   * @throws {GuestError} If it does not in `timeout` milliseconds.
   */
  async ready(timeout: number): Promise<void> {
    await this.#line.wait("to take commands", timeout, (text) => text.includes(READY_LINE) || null);
  }

  /**
   * Runs a shell command in the guest. It has no standard input, and starts in `/` each time.
   *
   * @param command What `sh` runs; may have several lines.
   * @param options `timeout` in milliseconds; 120,000 unless given.
   * @throws {GuestError} If the guest stops or does not answer in time; it then takes no further commands.
   * @throws {TypeError} If another command still runs.
   */
  async run(command: string, options: { timeout?: number } = {}): Promise<CommandResult> {
    const bytes = new TextEncoder().encode(command);
    if (bytes.length > COMMAND_LIMIT) {
      throw new RangeError(
        `A guest command may have ${COMMAND_LIMIT} bytes: it has ${bytes.length}`,
      );
    }
    if (this.#busy) throw new TypeError("The guest runs one command at a time: await the last one");
    this.#busy = true;
    const marker = crypto.randomUUID();
    const begin = `\n${marker} begin\n`;
    const end = new RegExp(`\n${marker} (\\d+)\n`);
    this.#line.mark();
    this.#send(`run ${marker} ${btoa(String.fromCharCode(...bytes))}\n`);
    const result = await this.#line.wait(
      `to finish ${JSON.stringify(command.slice(0, 200))}`,
      options.timeout ?? 120_000,
      (text) => {
        const start = text.indexOf(begin);
        const stop = start < 0 ? null : end.exec(text);
        if (stop === null) return null;
        const output = text.slice(start + begin.length, stop.index).replace(/\n$/, "");
        return { status: Number(stop[1]), output };
      },
    );
    this.#busy = false;
    return result;
  }

  /**
   * Runs a command that must succeed, and returns its output.
   *
   * @throws {GuestError} If it fails.
   */
  async check(command: string, options: { timeout?: number } = {}): Promise<string> {
    const { status, output } = await this.run(command, options);
    if (status === 0) return output;
    throw new GuestError(`In the guest, ${JSON.stringify(command)} failed (${status}): ${output}`);
  }

  /**
   * Lends the serial line to an interactive shell until that ends.
   *
   * @param input Chunks of what the user types; the shell ends with them.
   * @param output Gets what the shell writes.
   * @returns The shell's exit status.
   */
  async shell(
    input: AsyncIterable<Uint8Array>,
    output: (text: string) => void = () => {},
  ): Promise<number> {
    if (this.#busy) throw new TypeError("The guest runs one command at a time: await the last one");
    this.#busy = true;
    const marker = crypto.randomUUID();
    const end = new RegExp(`\n${marker} (\\d+)\n`);
    this.#line.mark();
    this.#line.tap = betweenMarkers(`${marker} begin`, `${marker} `, output);
    this.#send(`shell ${marker}\n`);
    let open = true;
    const pump = async (): Promise<void> => {
      for await (const bytes of input) {
        if (!open) return;
        this.#write(bytes);
      }
      if (open) this.#send("exit\n");
    };
    void pump();
    const status = await this.#line.wait("to leave its shell", Infinity, (text) => {
      const stop = end.exec(text);
      return stop === null ? null : { code: Number(stop[1]) };
    });
    open = false;
    this.#line.tap = null;
    this.#busy = false;
    return status.code;
  }

  /** Has the guest unmount what it has and power itself off, and waits for that. @throws {GuestError} If it does not. */
  async powerOff(timeout: number): Promise<void> {
    const stopped = this.#line.stopped(timeout);
    const poweroff = "sync; umount -a -r 2>/dev/null; poweroff -f";
    this.#send(`run shutdown ${btoa(poweroff)}\n`);
    await stopped;
  }

  #send(text: string): void {
    this.#write(new TextEncoder().encode(text));
  }
}
