/**
 * A Linux guest that the host can command: boots a machine with the init of `initrd.ts`, runs shell commands in it over the
 * serial line, and tells what the console said when something goes wrong. Works in a browser: the files come as bytes.
 */
import { V86Machine, type V86MachineOptions, type V86MachineState } from "@virtio/v86";
import { READY_LINE } from "./initrd.ts";
import { betweenMarkers, GuestError, SerialLog } from "./serial_log.ts";

export { GuestError };

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
  /** Milliseconds until the guest must take commands; 180,000 unless given. */
  readonly bootTimeout?: number;
}

/** What a command did. */
export interface CommandResult {
  /** Exit status. */
  readonly status: number;
  /** What it wrote to standard output and standard error, less one newline at the end. */
  readonly output: string;
}

/** The longest command, in bytes: the guest's line takes about this much at once. */
const COMMAND_LIMIT = 16 * 1024;

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
    return await guest.#orDestroy(async () => {
      await guest.machine.bootLinux({ kernel, initrd, commandLine });
      await guest.#start(options.bootTimeout);
    });
  }

  /**
   * Boots whatever the firmware in `options.machine` finds, and waits for the init of `initrd.ts`.
   *
   * @throws {GuestError} If it does not come up.
   */
  static async bootFirmware(options: GuestOptions): Promise<Guest> {
    const guest = await Guest.#make(options);
    return await guest.#orDestroy(() => guest.#start(options.bootTimeout));
  }

  /** Goes on from a saved state. `attach` is for devices that the guest knew; attach others afterwards: new hardware. */
  static async restore(state: V86MachineState, options: GuestOptions = {}): Promise<Guest> {
    const guest = await Guest.#make({
      ...options,
      machine: { ...options.machine, memorySize: state.memorySize },
    });
    return await guest.#orDestroy(async () => {
      await guest.machine.restoreState(state);
      await options.beforeRun?.(guest.machine);
      guest.machine.run();
    });
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

  /** A guest that did not come up has nobody to destroy it. */
  async #orDestroy(begin: () => Promise<void>): Promise<this> {
    try {
      await begin();
      return this;
    } catch (error) {
      await this.machine.destroy();
      throw error;
    }
  }

  async #start(timeout = 180_000): Promise<void> {
    this.machine.run();
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
