/** The virtual machine: v86's processor, memory and chipset, with our functions on its buses. */
import { GuestMemory } from "@virtio/memory";
import { type MmioFunction, type MmioHost, MmioPlaceholder } from "@virtio/transport/mmio";
import type { PciFunction, PciHost } from "@virtio/transport/pci";
import { type AcpiTables, buildAcpi, mmioAddress, mmioGsi, pciGsi } from "./acpi.ts";
import { V86Adapter } from "./adapter.ts";
import type { StopReason } from "./adapter_types.ts";
import { BOOT_CODE_SELECTOR, BOOT_DATA_SELECTOR, type LinuxBoot, planLinuxBoot } from "./boot.ts";
import type { BusHandler } from "./bus.ts";
import { ExitCounters, type IdeCounters } from "./counters.ts";
import { firmwareFiles } from "./firmware.ts";
import { decodeMessage, LineSource, WiredLines } from "./interrupts.ts";
import { MMIO_WINDOW_LIMIT, MMIO_WINDOW_SIZE } from "./layout.ts";
import { PciSlot, type SavedPciConfig } from "./pci_slot.ts";
import type { RivalOptions, Rivals } from "./rivals.ts";
import type { V86Wasm } from "./wasm.ts";

/** How a machine is made. */
export interface V86MachineOptions {
  /** Bytes of guest memory; a multiple of 1 MiB from 32 MiB to 2047 MiB; 128 MiB unless given. */
  readonly memorySize?: number;
  /** How many virtio-mmio windows the guest is told of (0 to 64); 4 unless given. */
  readonly mmioWindows?: number;
  /**
   * Guest memory that workers see too (`WorkerDevice`): on Linux under Deno, with `--allow-ffi`. Elsewhere v86's devices run
   * where its processor does, and only their back ends can be in workers. No unless given.
   */
  readonly shared?: boolean;
  /** v86's WebAssembly module; needed only where the `v86` package is not beside this one, as in a bundle. */
  readonly wasm?: V86Wasm;
  /** A BIOS to start from, instead of `bootLinux`. */
  readonly firmware?: {
    /** SeaBIOS image, up to 256 KiB. */
    readonly bios: Uint8Array;
    /** BIOS of the standard display adapter. */
    readonly vgaBios?: Uint8Array;
  };
  /**
   * A disk behind v86's own, fully emulated IDE controller, as a yardstick for virtio. The guest works on these bytes; their
   * number is a multiple of 512. Without it the guest sees no IDE controller. A saved state contains the disk, and a machine
   * that such a state is restored into works on a copy.
   */
  readonly ide?: { readonly buffer: ArrayBuffer };
  /** v86's own virtio devices, as yardsticks for ours: see `V86Machine.rivals`. None unless given. */
  readonly rivals?: RivalOptions;
  /** Called with every byte that the guest sends to serial port 0. */
  readonly onSerial?: (byte: number) => void;
  /** Called with every byte of the BIOS's debug messages. */
  readonly onDebug?: (byte: number) => void;
  /** Called once when the guest stopped for good: it must not be waited for any longer. */
  readonly onStopped?: (reason: StopReason, error?: unknown) => void;
}

/** A saved machine: plain data. */
export interface V86MachineState {
  /** Version of this layout. */
  readonly version: 1;
  /** Bytes of guest memory. */
  readonly memorySize: number;
  /** v86's own state. */
  readonly v86: Uint8Array;
  /** Configuration of PCI functions, by slot. */
  readonly pci: readonly { readonly slot: number; readonly config: SavedPciConfig }[];
}

/** First PCI slot that is free for functions of the embedder: 0 and 1 are the chipset. */
export const FIRST_PCI_SLOT = 2;

const MIB = 2 ** 20;

/** What a driver finds in a window without a device, and passes over. */
const EMPTY_WINDOW = new MmioPlaceholder();

interface Attached {
  readonly slot: PciSlot;
  readonly line: LineSource;
}

/**
 * A PC in v86 with virtio devices.
 *
 * @example Boot Linux with a device on PCI
 * ```ts ignore
 * const machine = await V86Machine.create({ onSerial: (byte) => console.write(byte) });
 * machine.addPci(2, (host) => new PciTransport(disk, { host, memory: machine.memory }));
 * await machine.bootLinux({ kernel, initrd, commandLine: "console=ttyS0 quiet" });
 * machine.run();
 * ```
 */
export class V86Machine {
  /** The guest's memory. Call `memory.refresh()` before touching it from outside of a device: it moves. */
  readonly memory: GuestMemory;
  /** How often the guest left to the host. */
  readonly exits: ExitCounters = new ExitCounters();
  readonly #adapter: V86Adapter;
  readonly #acpi: AcpiTables;
  readonly #memorySize: number;
  readonly #mmioWindows: number;
  readonly #lines: WiredLines;
  readonly #pci = new Map<number, Attached>();
  readonly #mmio = new Map<number, { handler: BusHandler; line: LineSource }>();
  #stopReason: StopReason | null = null;

  private constructor(
    adapter: V86Adapter,
    memorySize: number,
    mmioWindows: number,
    shared: boolean,
  ) {
    this.#adapter = adapter;
    this.#memorySize = memorySize;
    this.#mmioWindows = mmioWindows;
    this.#acpi = buildAcpi(mmioWindows);
    this.#lines = new WiredLines((line, asserted) => adapter.setInterrupt(line, asserted));
    this.memory = new GuestMemory([adapter.memorySource(shared)]);
    this.memory.tracker = { mark: (address, length) => adapter.markWritten(address, length) };
    for (let index = 0; index < mmioWindows; index++) {
      adapter.mapMemory(mmioAddress(index), MMIO_WINDOW_SIZE, this.#mmioWindow(index));
    }
  }

  /**
   * Makes a machine that does not run yet.
   *
   * @throws {RangeError} If an option is out of range.
   */
  static async create(options: V86MachineOptions = {}): Promise<V86Machine> {
    const memorySize = options.memorySize ?? 128 * MIB;
    if (memorySize % MIB !== 0 || !(memorySize >= 32 * MIB && memorySize <= 2047 * MIB)) {
      throw new RangeError("memorySize must be a multiple of 1 MiB from 32 MiB to 2047 MiB");
    }
    const mmioWindows = options.mmioWindows ?? 4;
    if (!Number.isInteger(mmioWindows) || mmioWindows < 0 || mmioWindows > MMIO_WINDOW_LIMIT) {
      throw new RangeError(`mmioWindows must be an integer from 0 to ${MMIO_WINDOW_LIMIT}`);
    }
    const { firmware, ide, rivals } = options;
    if (ide !== undefined && (ide.buffer.byteLength === 0 || ide.buffer.byteLength % 512 !== 0)) {
      throw new RangeError("The IDE disk must have a multiple of 512 bytes, and some");
    }
    let made: V86Machine | null = null;
    const adapter = await V86Adapter.create({
      memorySize,
      ...(options.wasm === undefined ? {} : { wasm: options.wasm }),
      ...(firmware === undefined ? {} : { bios: firmware.bios }),
      ...(firmware?.vgaBios === undefined ? {} : { vgaBios: firmware.vgaBios }),
      ...(ide === undefined ? {} : { ideDisk: ide.buffer }),
      ...(rivals === undefined ? {} : { rivals }),
    }, {
      serial: options.onSerial ?? (() => {}),
      debug: options.onDebug ?? (() => {}),
      stopped: (reason, error) => {
        if (made !== null) made.#stopReason = reason;
        options.onStopped?.(reason, error);
      },
    });
    const machine = made = new V86Machine(
      adapter,
      memorySize,
      mmioWindows,
      options.shared ?? false,
    );
    if (firmware !== undefined) {
      for (const { name, data } of firmwareFiles(machine.#acpi)) {
        adapter.addFirmwareFile(name, data);
      }
    }
    return machine;
  }

  /** How often the guest left for v86's own IDE disk, which `exits` does not count; null without one. */
  get ideExits(): IdeCounters | null {
    return this.#adapter.ide;
  }

  /** The host's side of v86's own virtio devices; null without. */
  get rivals(): Rivals | null {
    return this.#adapter.rivals;
  }

  /**
   * The descriptor of the file that guest memory lies in, for other processes (vhost-user); null unless the machine was made
   * with `shared`. `destroy` closes it.
   */
  get memoryDescriptor(): number | null {
    return this.#adapter.memoryFile?.descriptor ?? null;
  }

  /** Why the guest stopped for good, or null while it can run. */
  get stopReason(): StopReason | null {
    return this.#stopReason;
  }

  /**
   * Attaches a PCI function as function 0 of device `slot` on bus 0.
   *
   * @param slot 2 to 31, where v86 has nothing itself.
   * @param make Makes the function for the host that it is given.
   * @returns What `make` made.
   * @throws {RangeError} If the slot is out of range or taken.
   */
  addPci<Fn extends PciFunction>(slot: number, make: (host: PciHost) => Fn): Fn {
    if (!Number.isInteger(slot) || slot < FIRST_PCI_SLOT || slot > 31 || this.#pci.has(slot)) {
      throw new RangeError(`PCI slot must be free and from ${FIRST_PCI_SLOT} to 31: it is ${slot}`);
    }
    let attached: PciSlot | null = null;
    const line = new LineSource(this.#lines, () => {
      const pin = attached?.pin ?? null;
      if (pin === null) return [];
      // The PIIX steers the same pin to an ISA interrupt too, once a BIOS has told it to which.
      const route = this.#adapter.pci.route((slot - 1 + pin) & 3);
      return route === null ? [pciGsi(slot, pin)] : [pciGsi(slot, pin), route];
    });
    const fn = make({
      setInterruptLine: (asserted) => line.set(asserted),
      sendMessage: (addressLow, addressHigh, data) => {
        const message = decodeMessage(addressLow, addressHigh, data);
        if (message !== null) this.#adapter.requestVector(message.vector);
      },
    });
    attached = new PciSlot(fn, this.#adapter, this.exits, this.#memorySize);
    this.#adapter.pci.set(slot, attached);
    this.#pci.set(slot, { slot: attached, line });
    return fn;
  }

  /** Takes the function of a slot off the bus; a guest that still uses it reads ones. */
  removePci(slot: number): void {
    const attached = this.#pci.get(slot);
    if (attached === undefined) return;
    this.#pci.delete(slot);
    attached.line.set(false);
    attached.slot.unmap();
    this.#adapter.pci.remove(slot);
  }

  /**
   * Attaches a device behind a virtio-mmio window.
   *
   * @param index 0 up to the number of windows minus one.
   * @param make Makes the device for the host that it is given.
   * @returns What `make` made.
   * @throws {RangeError} If there is no such window, or something is behind it already.
   */
  addMmio<Fn extends MmioFunction>(index: number, make: (host: MmioHost) => Fn): Fn {
    if (!Number.isInteger(index) || index < 0 || index >= this.#mmioWindows) {
      throw new RangeError(
        `There is no virtio-mmio window ${index}: the machine has ${this.#mmioWindows}`,
      );
    }
    if (this.#mmio.has(index)) throw new RangeError(`The virtio-mmio window ${index} is taken`);
    const gsi = mmioGsi(index);
    const line = new LineSource(this.#lines, () => [gsi]);
    const fn = make({ setInterruptLine: (asserted) => line.set(asserted) });
    this.#mmio.set(index, { handler: fn, line });
    return fn;
  }

  /** Takes the device behind a virtio-mmio window away. */
  removeMmio(index: number): void {
    const attached = this.#mmio.get(index);
    if (attached === undefined) return;
    this.#mmio.delete(index);
    attached.line.set(false);
  }

  /**
   * Loads a Linux kernel without a BIOS; `run` starts it.
   *
   * @throws {RangeError} If the kernel is not bootable, or something does not fit into memory.
   * @throws {XzError} If the kernel is damaged.
   */
  async bootLinux(boot: LinuxBoot): Promise<void> {
    const plan = await planLinuxBoot(boot, this.#memorySize, this.#acpi);
    this.memory.refresh();
    for (const { address, bytes } of plan.writes) this.memory.write(address, bytes);
    this.#adapter.enter({
      entry: plan.entry,
      esi: plan.bootParams,
      esp: plan.stack,
      gdt: plan.gdt,
      gdtLimit: plan.gdtLimit,
      codeSelector: BOOT_CODE_SELECTOR,
      dataSelector: BOOT_DATA_SELECTOR,
    });
  }

  /** Lets the guest run. */
  run(): void {
    if (this.#stopReason !== null) {
      throw new TypeError(`The guest has stopped (${this.#stopReason}): make a new machine`);
    }
    this.#adapter.run();
  }

  /** Stops the guest between two instructions; `run` goes on. */
  stop(): Promise<void> {
    return this.#adapter.stop();
  }

  /** Ends the machine and gives its memory back. */
  destroy(): Promise<void> {
    return this.#adapter.destroy();
  }

  /** Sends bytes to the guest's serial port 0. */
  sendSerial(bytes: Uint8Array): void {
    this.#adapter.sendSerial(bytes);
  }

  /**
   * Saves the machine. Stop it first. Of attached functions only what a kernel sets up before a driver comes is saved, so
   * save before drivers are loaded, or save and restore the transports' own state beside this.
   */
  async saveState(): Promise<V86MachineState> {
    const v86 = await this.#adapter.saveState();
    const pci = [...this.#pci].map(([slot, attached]) => ({ slot, config: attached.slot.save() }));
    return { version: 1, memorySize: this.#memorySize, v86, pci };
  }

  /**
   * Restores a machine into this one, which must have as much memory. Functions attached before this are set up as the guest
   * remembers the slot; ones attached later are new hardware to the guest.
   *
   * @throws {RangeError} If the state does not fit this machine.
   */
  async restoreState(state: V86MachineState): Promise<void> {
    if (state.version !== 1 || state.memorySize !== this.#memorySize) {
      throw new RangeError("The saved machine has another version or another size of memory");
    }
    await this.#adapter.restoreState(state.v86);
    this.memory.refresh();
    for (const { slot, config } of state.pci) this.#pci.get(slot)?.slot.restore(config);
    this.#lines.replay();
  }

  #mmioWindow(index: number): BusHandler {
    const { exits } = this;
    return {
      read: (offset, size) => {
        exits.memoryReads++;
        return (this.#mmio.get(index)?.handler ?? EMPTY_WINDOW).read(offset, size);
      },
      write: (offset, size, value) => {
        exits.memoryWrites++;
        (this.#mmio.get(index)?.handler ?? EMPTY_WINDOW).write(offset, size, value);
      },
    };
  }
}
