/**
 * A Linux guest that the host can command: boots a machine with the init of `initrd.ts`, runs shell commands in it over the
 * serial line, and tells what the console said when something goes wrong. Works in a browser: the files come as bytes.
 */
import { V86Machine, type V86MachineOptions, type V86MachineState } from "@virtio/v86";
import { type CommandResult, GuestCommands } from "./commands.ts";
import { GuestError, SerialLog } from "./serial_log.ts";

export { type CommandResult, GuestError };

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

/** A running Linux. */
export class Guest {
  /** The machine underneath. */
  readonly machine: V86Machine;
  readonly #line: SerialLog;
  readonly #commands: GuestCommands;

  private constructor(machine: V86Machine, line: SerialLog) {
    this.machine = machine;
    this.#line = line;
    this.#commands = new GuestCommands(line, (bytes) => machine.sendSerial(bytes));
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
    await this.#commands.ready(timeout);
  }

  /** As `GuestCommands.run`. */
  run(command: string, options: { timeout?: number } = {}): Promise<CommandResult> {
    return this.#commands.run(command, options);
  }

  /** As `GuestCommands.check`. */
  check(command: string, options: { timeout?: number } = {}): Promise<string> {
    return this.#commands.check(command, options);
  }

  /** As `GuestCommands.shell`. */
  shell(input: AsyncIterable<Uint8Array>, output?: (text: string) => void): Promise<number> {
    return this.#commands.shell(input, output);
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
    await this.#commands.powerOff(options.timeout ?? 20_000);
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
}
