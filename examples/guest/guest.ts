/**
 * A Linux guest that the host can command: boots a machine with the init of `initrd.ts`, runs shell commands in it over the
 * serial line, and tells what the console said when something goes wrong. Works in a browser: the files come as bytes.
 */
import {
  type StopReason,
  V86Machine,
  type V86MachineOptions,
  type V86MachineState,
} from "@virtio/v86";
import { READY_LINE } from "./initrd.ts";

/** The command line that boots fast and quietly; a serial console, and a reset when the kernel dies. */
export const COMMAND_LINE =
  "console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on " +
  "cryptomgr.notests noisapnp panic=-1";

/** How a guest is made. */
export interface GuestOptions {
  /** Kernel: bzImage, or unpacked. Not needed for `restore`. */
  readonly kernel?: Uint8Array;
  /** RAM disk made by `buildInitrd`. Not needed for `restore`. */
  readonly initrd?: Uint8Array;
  /** More words for the kernel's command line, such as `pci=nomsi`. */
  readonly commandLine?: string;
  /** Options of the machine. */
  readonly machine?: Omit<V86MachineOptions, "onSerial" | "onStopped">;
  /** Attaches devices before the guest starts. */
  readonly attach?: (machine: V86Machine) => void;
  /** Called between restoring a machine and letting it run: to restore transports that were live when it was saved. */
  readonly beforeRun?: (machine: V86Machine) => void | Promise<void>;
  /** Told what the guest writes to its console, in pieces. */
  readonly console?: (text: string) => void;
  /** Milliseconds until the guest must take commands; 60,000 unless given. */
  readonly bootTimeout?: number;
}

/** What a command did. */
export interface CommandResult {
  /** Exit status. */
  readonly status: number;
  /** What it wrote to standard output and standard error, less one newline at the end. */
  readonly output: string;
}

/** Thrown when the guest stopped, or did not answer in time. The message ends with the last lines of its console. */
export class GuestError extends Error {
  override readonly name: string = "GuestError";
}

/** Console output that is kept for messages, in bytes. */
const TRANSCRIPT_LIMIT = 64 * 1024;
/** The longest command, in bytes: the guest's line takes about this much at once. */
const COMMAND_LIMIT = 16 * 1024;

interface Waiting {
  /** Looks at the bytes since it was set up; true when it has what it waits for. */
  check: () => boolean;
  fail: (error: GuestError) => void;
}

/** A running Linux. */
export class Guest {
  /** The machine underneath. */
  readonly machine: V86Machine;
  readonly #line: SerialLog;
  #busy = false;

  private constructor(machine: V86Machine, line: SerialLog) {
    this.machine = machine;
    this.#line = line;
  }

  /**
   * Boots a guest.
   *
   * @throws {GuestError} If it does not come up.
   */
  static async boot(options: GuestOptions): Promise<Guest> {
    const { kernel, initrd } = options;
    if (kernel === undefined || initrd === undefined) {
      throw new TypeError("Guest.boot needs a kernel and an initrd");
    }
    const guest = await Guest.#make(options);
    const commandLine = `${COMMAND_LINE} ${options.commandLine ?? ""}`.trim();
    await guest.machine.bootLinux({ kernel, initrd, commandLine });
    await guest.#start(options.bootTimeout);
    return guest;
  }

  /**
   * Boots whatever the firmware in `options.machine` finds, and waits for the init of `initrd.ts`.
   *
   * @throws {GuestError} If it does not come up.
   */
  static async bootFirmware(options: GuestOptions): Promise<Guest> {
    const guest = await Guest.#make(options);
    await guest.#start(options.bootTimeout);
    return guest;
  }

  /** Goes on from a saved state. `attach` is for devices that the guest knew; attach others afterwards: new hardware. */
  static async restore(state: V86MachineState, options: GuestOptions = {}): Promise<Guest> {
    const guest = await Guest.#make({
      ...options,
      machine: { ...options.machine, memorySize: state.memorySize },
    });
    await guest.machine.restoreState(state);
    await options.beforeRun?.(guest.machine);
    guest.machine.run();
    return guest;
  }

  static async #make(options: GuestOptions): Promise<Guest> {
    const line = new SerialLog(options.console);
    const machine = await V86Machine.create({
      ...options.machine,
      onSerial: (byte) => line.push(byte),
      onStopped: (reason, error) => line.stop(reason, error),
    });
    options.attach?.(machine);
    return new Guest(machine, line);
  }

  async #start(timeout = 60_000): Promise<void> {
    this.machine.run();
    await this.#line.wait("to take commands", timeout, (text) => text.includes(READY_LINE) || null);
  }

  /**
   * Runs a shell command in the guest. It has no standard input, and starts in `/` each time.
   *
   * @param command What `sh` runs; may have several lines.
   * @param options `timeout` in milliseconds; 60,000 unless given.
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
      options.timeout ?? 60_000,
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
    this.#line.tap = betweenMarkers(`${marker} begin`, `\n${marker} `, output);
    this.#send(`shell ${marker}\n`);
    let open = true;
    const pump = async (): Promise<void> => {
      for await (const bytes of input) {
        if (!open) return;
        this.machine.sendSerial(bytes);
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

  /** Lets a restored guest find PCI functions that were attached after its state was saved. */
  async rescanPci(): Promise<void> {
    await this.check("echo 1 > /sys/bus/pci/rescan");
  }

  /** Saves the guest between two commands, without stopping it for good. */
  async saveState(): Promise<V86MachineState> {
    await this.machine.stop();
    const state = await this.machine.saveState();
    this.machine.run();
    return state;
  }

  /** Unmounts, powers the guest off, and ends the machine. */
  async shutdown(options: { timeout?: number } = {}): Promise<void> {
    const stopped = this.#line.stopped(options.timeout ?? 20_000);
    const poweroff = "sync; umount -a -r 2>/dev/null; poweroff -f";
    this.#send(`run shutdown ${btoa(poweroff)}\n`);
    await stopped;
    await this.machine.destroy();
  }

  /** Ends the machine at once, as if the power failed. */
  async destroy(): Promise<void> {
    await this.machine.destroy();
  }

  /** The last lines of the console. */
  get transcript(): string {
    return this.#line.transcript;
  }

  #send(text: string): void {
    this.machine.sendSerial(new TextEncoder().encode(text));
  }
}

/** Passes on what comes between two marks, and holds back what may yet turn out to be the second. */
function betweenMarkers(
  begin: string,
  end: string,
  output: (text: string) => void,
): (text: string) => void {
  let seen = "";
  let begun = false;
  let done = false;
  return (text) => {
    if (done) return;
    seen += text;
    if (!begun) {
      const at = seen.indexOf(begin);
      const line = at < 0 ? -1 : seen.indexOf("\n", at);
      if (line < 0) return;
      begun = true;
      seen = seen.slice(line + 1);
    }
    let stop = seen.indexOf(end);
    if (stop >= 0) {
      done = true;
    } else {
      stop = seen.length;
      for (let held = Math.min(end.length, seen.length); held > 0; held--) {
        if (seen.endsWith(end.slice(0, held))) {
          stop -= held;
          break;
        }
      }
    }
    if (stop > 0) output(seen.slice(0, stop));
    seen = seen.slice(stop);
  };
}

/** What came out of the serial line, and who waits for something in it. */
class SerialLog {
  #bytes = new Uint8Array(TRANSCRIPT_LIMIT);
  #length = 0;
  #start = 0;
  #waiting: Waiting | null = null;
  #onStop: (() => void) | null = null;
  #stop: { reason: StopReason; error: unknown } | null = null;
  #scheduled = false;
  #unseen = 0;
  /** Also told of all output, while a shell has the line. */
  tap: ((text: string) => void) | null = null;
  readonly #console: ((text: string) => void) | undefined;
  readonly #decoder = new TextDecoder();

  constructor(console: ((text: string) => void) | undefined) {
    this.#console = console;
  }

  push(byte: number): void {
    if (this.#length === this.#bytes.length) this.#makeRoom();
    this.#bytes[this.#length++] = byte;
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Output comes a byte at a time; look at it once per turn of the emulator.
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#look();
    });
  }

  /** Forgets what nobody waits for; keeps a whole answer however long it is. */
  #makeRoom(): void {
    const keep = this.#waiting === null ? this.#length - TRANSCRIPT_LIMIT / 2 : this.#start;
    const from = Math.min(keep, this.#length - TRANSCRIPT_LIMIT / 4, this.#unseen);
    const rest = this.#bytes.subarray(Math.max(0, from), this.#length);
    const bytes = new Uint8Array(Math.max(TRANSCRIPT_LIMIT, rest.length * 2));
    bytes.set(rest);
    this.#bytes = bytes;
    this.#length = rest.length;
    this.#start = Math.max(0, this.#start - Math.max(0, from));
    this.#unseen -= Math.max(0, from);
  }

  #look(): void {
    if ((this.#console !== undefined || this.tap !== null) && this.#unseen < this.#length) {
      const fresh = this.#bytes.subarray(this.#unseen, this.#length);
      const text = this.#decoder.decode(fresh, { stream: true });
      this.#console?.(text);
      this.tap?.(text);
    }
    this.#unseen = this.#length;
    if (this.#waiting?.check()) this.#waiting = null;
  }

  /** What is waited for next comes after this point. */
  mark(): void {
    this.#start = this.#length;
  }

  stop(reason: StopReason, error: unknown): void {
    this.#stop = { reason, error };
    this.#onStop?.();
    // The last output is still on its way to `#look`.
    queueMicrotask(() => this.#fail(`stopped (${reason})`));
  }

  #fail(what: string): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    const detail = this.#stop?.error === undefined ? "" : ` with ${this.#stop.error}`;
    waiting?.fail(
      new GuestError(`The guest ${what}${detail}. Its console ended:\n${this.transcript}`),
    );
  }

  /** Waits until `find` makes something of the output since `mark()`. */
  wait<T extends object | true>(
    what: string,
    timeout: number,
    find: (text: string) => T | null,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      let lastLength = -1;
      this.#waiting = {
        check: () => {
          // A whole answer ends with a newline: do not decode all of it for every piece.
          if (this.#length === lastLength || this.#bytes[this.#length - 1] !== 10) return false;
          lastLength = this.#length;
          const text = new TextDecoder().decode(this.#bytes.subarray(this.#start, this.#length));
          const found = find(text.replaceAll("\r\n", "\n"));
          if (found === null) return false;
          clearTimeout(timer);
          resolve(found);
          return true;
        },
        fail: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      if (this.#stop !== null) return this.#fail(`has stopped (${this.#stop.reason})`);
      if (timeout !== Infinity) {
        timer = setTimeout(
          () => this.#fail(`took longer than ${timeout / 1000} s ${what}`),
          timeout,
        );
      }
    });
  }

  /** Waits until the guest has stopped. */
  stopped(timeout: number): Promise<void> {
    if (this.#stop !== null) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const error = new GuestError(
          `The guest took longer than ${
            timeout / 1000
          } s to power off. Its console ended:\n${this.transcript}`,
        );
        reject(error);
      }, timeout);
      this.#onStop = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  get transcript(): string {
    const from = Math.max(0, this.#length - 2000);
    return new TextDecoder().decode(this.#bytes.subarray(from, this.#length));
  }
}
