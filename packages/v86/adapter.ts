/**
 * What knows the inside of v86 (0.5.462, pinned: none of this is public API there) is here or named here: `internals.ts`
 * declares what is used of it, `emulator.ts` starts it, `pci_functions.ts` has its PCI bus, `ide.ts` keeps its disk,
 * `rivals.ts` its virtio devices. The adapter gives the rest of the package a plain machine: memory, port and memory-mapped
 * ranges, PCI configuration space, interrupt lines and messages, a serial port, a processor that can be entered anywhere.
 */
import type { RegionSource } from "@virtio/memory";
import type { EntryState, StopReason, V86AdapterOptions, V86Events } from "./adapter_types.ts";
import { type AccessSize, type BusHandler, readAligned, writeAligned } from "./bus.ts";
import type { IdeCounters } from "./counters.ts";
import { makeEmulator } from "./emulator.ts";
import { keepIde } from "./ide.ts";
import * as inside from "./internals.ts";
import { PciFunctions } from "./pci_functions.ts";
import { Rivals } from "./rivals.ts";
import { type SharedGuestMemory, shareGuestMemory } from "./shared_memory.ts";
import { MemoryWindows } from "./windows.ts";

/** An emulator, seen as a machine. */
export class V86Adapter {
  /** The PCI bus. */
  readonly pci: PciFunctions;
  /** Accesses to v86's own IDE controller; null without a disk for it. */
  readonly ide: IdeCounters | null = null;
  /** v86's own virtio devices; null without. */
  readonly rivals: Rivals | null;
  readonly #emulator: inside.Emulator;
  readonly #cpu: inside.Cpu;
  readonly #events: V86Events;
  readonly #memorySize: number;
  readonly #memoryOffset: number;
  #words: Int32Array;
  readonly #windows = new MemoryWindows();
  /** How many memory-mapped handlers are on the stack: inside of them no interrupt may be taken. */
  #depth = 0;
  readonly #claimed = new Map<number, { entry: inside.PortEntry; before: inside.PortEntry }>();
  #stopped = false;

  private constructor(emulator: inside.Emulator, options: V86AdapterOptions, events: V86Events) {
    this.#emulator = emulator;
    this.#cpu = emulator.v86.cpu;
    this.#events = events;
    this.#memorySize = options.memorySize;
    this.#memoryOffset = this.#cpu.mem8.byteOffset;
    this.#words = new Int32Array(this.#cpu.wasm_memory.buffer);
    this.pci = new PciFunctions(this.#cpu);
    this.#hookMemory();
    this.#hookPower();
    this.#hookMainLoop();
    if (options.ideDisk !== undefined) this.ide = keepIde(this.#cpu);
    else this.pci.remove(inside.IDE_SLOT); // it has no disks, and a BIOS waits for them
    this.rivals = options.rivals === undefined ? null : new Rivals(emulator);
    emulator.add_listener("serial0-output-byte", (byte: number) => events.serial(byte));
  }

  /** What shared guest memory lies in; null if it is not shared. */
  memoryFile: SharedGuestMemory["file"] | null = null;

  /** Makes an emulator that does not run yet. */
  static async create(options: V86AdapterOptions, events: V86Events): Promise<V86Adapter> {
    const emulator = await makeEmulator(options);
    return new V86Adapter(emulator, options, events);
  }

  /**
   * Guest memory from address 0 on, for `GuestMemory`. v86's memory grows and detaches, so this is a moving region, unless it
   * is shared.
   */
  memorySource(shared: boolean): RegionSource {
    if (shared) {
      const { wasm_memory: own } = this.#cpu;
      const { source, file } = shareGuestMemory(own, this.#memoryOffset, this.#memorySize);
      this.memoryFile = file;
      return source;
    }
    return {
      base: 0,
      size: this.#memorySize,
      buffer: this.#cpu.wasm_memory,
      byteOffset: this.#memoryOffset,
    };
  }

  /** Forgets code compiled from a range that a device wrote. */
  markWritten(address: number, length: number): void {
    if (length > 0) this.#cpu.jit_dirty_cache(address, address + length);
  }

  /** Enters a program in flat 32-bit protected mode with paging and interrupts off. */
  enter(state: EntryState): void {
    const cpu = this.#cpu;
    cpu.reg32[inside.REGISTER_ESI] = state.esi;
    cpu.reg32[inside.REGISTER_ESP] = state.esp;
    cpu.cr[0] = 1;
    cpu.protected_mode[0] = 1;
    cpu.flags[0] = 2;
    cpu.is_32[0] = 1;
    cpu.stack_size_32[0] = 1;
    cpu.gdtr_offset[0] = state.gdt;
    cpu.gdtr_size[0] = state.gdtLimit;
    for (let segment = 0; segment < 6; segment++) {
      const code = segment === inside.SEGMENT_CS;
      cpu.segment_is_null[segment] = 0;
      cpu.segment_offsets[segment] = 0;
      cpu.segment_limits[segment] = 0xffff_ffff;
      cpu.segment_access_bytes[segment] = code ? 0x9b : 0x93;
      cpu.sreg[segment] = code ? state.codeSelector : state.dataSelector;
    }
    cpu.instruction_pointer[0] = state.entry;
    cpu.update_state_flags();
  }

  /** Puts a handler behind a range of memory addresses above guest memory. The first of overlapping ranges wins. */
  mapMemory(first: number, size: number, handler: BusHandler): void {
    this.#windows.map(first, size, handler);
  }

  /** Takes a handler's ranges of memory addresses away. */
  unmapMemory(handler: BusHandler): void {
    this.#windows.unmap(handler);
  }

  /** Puts a handler behind a range of I/O ports. Ports already claimed by another handler stay with it. */
  mapPorts(first: number, size: number, handler: BusHandler): void {
    const { ports } = this.#cpu.io;
    for (let offset = 0; offset < size; offset++) {
      const port = first + offset;
      const before = ports[port];
      if (before === undefined || this.#claimed.has(port)) continue;
      const read = (width: AccessSize) => () => readAligned(handler, offset, width, size) | 0;
      const write = (width: AccessSize) => (value: number) =>
        writeAligned(handler, offset, width, size, value);
      const entry: inside.PortEntry = {
        read8: read(1),
        read16: read(2),
        read32: read(4),
        write8: write(1),
        write16: write(2),
        write32: write(4),
        device: handler,
      };
      ports[port] = entry;
      this.#claimed.set(port, { entry, before });
    }
  }

  /** Takes a handler's ports away, and gives back what was there before. */
  unmapPorts(handler: BusHandler): void {
    for (const [port, { entry, before }] of this.#claimed) {
      if (entry.device !== handler) continue;
      this.#cpu.io.ports[port] = before;
      this.#claimed.delete(port);
    }
  }

  /** Adds a file to those that a BIOS finds through the firmware configuration device. */
  addFirmwareFile(name: string, data: Uint8Array): void {
    this.#cpu.option_roms.push({ name, data });
  }

  /**
   * Sets the level of an input of the interrupt controllers.
   *
   * Inside of a memory-mapped handler v86 may not take an interrupt: it would leave a compiled block in the middle, which
   * after some thousand requests hangs the guest. So the processor's interrupt flag is off meanwhile, and the interrupt is
   * taken at the next boundary.
   */
  setInterrupt(line: number, asserted: boolean): void {
    const cpu = this.#cpu;
    if (this.#depth === 0) {
      if (asserted) cpu.device_raise_irq(line);
      else cpu.device_lower_irq(line);
      return;
    }
    const words = this.#state();
    const enabled = words[inside.FLAGS >> 2]! & inside.INTERRUPT_FLAG;
    words[inside.FLAGS >> 2]! &= ~inside.INTERRUPT_FLAG;
    if (asserted) cpu.device_raise_irq(line);
    else cpu.device_lower_irq(line);
    if (enabled === 0) return;
    const after = this.#state();
    after[inside.FLAGS >> 2]! |= inside.INTERRUPT_FLAG;
    if (asserted) this.#hurry(after);
  }

  /** Makes an edge-triggered vector pending in the local APIC: what a message signalled interrupt does. */
  requestVector(vector: number): void {
    const words = this.#state();
    const apic = this.#cpu.get_apic_addr() >> 2;
    words[apic + inside.APIC_IRR + (vector >> 5)]! |= 1 << (vector & 31);
    words[apic + inside.APIC_TMR + (vector >> 5)]! &= ~(1 << (vector & 31));
    if (this.#depth === 0) this.#cpu.handle_irqs();
    else this.#hurry(words);
  }

  /** Sends bytes to serial port 0. */
  sendSerial(bytes: Uint8Array): void {
    this.#emulator.serial_send_bytes(0, bytes);
  }

  /** Lets the guest run. */
  run(): void {
    this.#stopped = false;
    void this.#emulator.run();
  }

  /** Stops the guest between two instructions. */
  async stop(): Promise<void> {
    await this.#emulator.stop();
  }

  /** Ends the emulator. */
  async destroy(): Promise<void> {
    this.#stopped = true;
    await this.#emulator.destroy();
    this.memoryFile?.close();
    this.memoryFile = null;
  }

  /** v86's state, memory included. The guest must be stopped. */
  async saveState(): Promise<Uint8Array> {
    return new Uint8Array(await this.#emulator.save_state());
  }

  /** Brings v86's state back. */
  async restoreState(state: Uint8Array): Promise<void> {
    await this.#emulator.restore_state(state.slice().buffer);
  }

  /** A view of v86's memory, made again where that grew. */
  #state(): Int32Array {
    const { buffer } = this.#cpu.wasm_memory;
    if (this.#words.buffer !== buffer) this.#words = new Int32Array(buffer);
    return this.#words;
  }

  /** Makes v86 look at pending interrupts after the block that runs now, not after its hundred thousand instructions. */
  #hurry(words: Int32Array): void {
    words[inside.INSTRUCTION_COUNTER >> 2]! += inside.LOOP_COUNTER;
  }

  /** Ends the guest's run: no instruction is executed after the block that runs now. */
  #halt(reason: StopReason, error?: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    const words = this.#state();
    words[inside.FLAGS >> 2]! &= ~inside.INTERRUPT_FLAG;
    new Uint8Array(words.buffer)[inside.IN_HLT] = 1;
    void this.#emulator.stop();
    this.#events.stopped(reason, error);
  }

  /**
   * v86 dispatches memory-mapped accesses in blocks of 128 KiB and splits 16-bit writes; ranges of a page and exact widths
   * need hooks one level above. (16-bit reads are split before they come out of WebAssembly.)
   */
  #hookMemory(): void {
    const cpu = this.#cpu;
    const windows = this.#windows;
    const hookRead = (width: AccessSize, fallback: (address: number) => number) => {
      return (signed: number): number => {
        const window = windows.find(signed >>> 0);
        if (window === null) return fallback(signed);
        this.#depth++;
        const value = windows.read(window, signed >>> 0, width) | 0;
        this.#depth--;
        return value;
      };
    };
    const hookWrite = (width: AccessSize, fallback: (address: number, value: number) => void) => {
      return (signed: number, value: number): void => {
        const window = windows.find(signed >>> 0);
        if (window === null) return fallback(signed, value);
        this.#depth++;
        windows.write(window, signed >>> 0, width, value);
        this.#depth--;
      };
    };
    const write32 = hookWrite(4, cpu.mmap_write32.bind(cpu));
    cpu.mmap_read8 = hookRead(1, cpu.mmap_read8.bind(cpu));
    cpu.mmap_read32 = hookRead(4, cpu.mmap_read32.bind(cpu));
    cpu.mmap_write8 = hookWrite(1, cpu.mmap_write8.bind(cpu));
    cpu.mmap_write16 = hookWrite(2, cpu.mmap_write16.bind(cpu));
    cpu.mmap_write32 = write32;
    cpu.mmap_write64 = (address, low, high) => {
      write32(address, low);
      write32(address + 4 | 0, high);
    };
    cpu.mmap_write128 = (address, ...words) => {
      words.forEach((word, i) => write32(address + 4 * i | 0, word));
    };
  }

  /** Soft off, reset, the BIOS's debug port, and the hot-plug ports that v86 leaves floating. */
  #hookPower(): void {
    const cpu = this.#cpu;
    const { ports } = cpu.io;
    const { acpi } = cpu.devices;
    const control = ports[inside.PM1_CONTROL]!;
    const { write16 } = control;
    control.write16 = (value) => {
      if (value & inside.SLEEP_ENABLE) this.#halt("poweroff");
      else write16.call(control.device, value);
    };
    cpu.reboot_internal = () => this.#halt("reset");
    const debug = ports[inside.BIOS_DEBUG]!;
    debug.read8 = () => 0xe9; // "somebody listens"
    debug.write8 = (byte) => this.#events.debug(byte);
    // SeaBIOS moves the power management block, and v86 leaves it where it was: it is at both places.
    for (let i = 0; i < inside.PM_BLOCK_SIZE; i++) {
      ports[inside.PM_BLOCK_OF_SEABIOS + i] = ports[inside.PM_BLOCK + i]!;
    }
    for (let port = inside.HOTPLUG_FIRST; port < inside.HOTPLUG_END; port++) {
      const entry = ports[port]!;
      entry.read8 = entry.read16 = entry.read32 = () => 0;
    }
    for (let i = 0; i < 2; i++) {
      // Status bits are cleared by writing ones; v86 stores what is written, and the event would never end.
      ports[inside.GPE_STATUS + i]!.write8 = (value) => acpi.gpe[i]! &= ~value;
    }
  }

  /** Nothing may leave the main loop as an exception: v86 calls it from the event loop. */
  #hookMainLoop(): void {
    const cpu = this.#cpu;
    const loop = cpu.main_loop.bind(cpu);
    cpu.main_loop = () => {
      let idle: number = inside.DEAD_IDLE;
      try {
        if (!this.#stopped) idle = loop();
      } catch (error) {
        this.#depth = 0;
        this.#halt("crashed", error);
      }
      if (idle === inside.DEAD_IDLE && !this.#stopped) {
        const words = this.#state();
        const halted = new Uint8Array(words.buffer)[inside.IN_HLT] !== 0;
        if (halted && (words[inside.FLAGS >> 2]! & inside.INTERRUPT_FLAG) === 0) {
          this.#halt("halted");
        }
      }
      return idle;
    };
  }
}
