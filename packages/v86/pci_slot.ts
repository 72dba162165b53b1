/** One device on PCI bus 0: its configuration space, and its BARs wherever the guest puts them. */
import type { PciFunction } from "@virtio/transport/pci";
import type { AccessSize, BusHandler } from "./bus.ts";
import type { ExitCounters } from "./counters.ts";

/** What a slot needs of the machine. */
export interface PciSlotPorts {
  /** See `V86Adapter.mapMemory`. */
  mapMemory(first: number, size: number, handler: BusHandler): void;
  /** See `V86Adapter.unmapMemory`. */
  unmapMemory(handler: BusHandler): void;
  /** See `V86Adapter.mapPorts`. */
  mapPorts(first: number, size: number, handler: BusHandler): void;
  /** See `V86Adapter.unmapPorts`. */
  unmapPorts(handler: BusHandler): void;
}

const COMMAND = 0x04;
const BAR0 = 0x10;
const BAR_END = 0x28;
const INTERRUPT_LINE = 0x3c;
const INTERRUPT_PIN = 0x3d;

/** Configuration registers that a BIOS or a kernel sets before a driver comes, and that `restore` gives back. */
export interface SavedPciConfig {
  /** Command register. */
  readonly command: number;
  /** The six base address registers. */
  readonly bars: readonly number[];
  /** Interrupt line register. */
  readonly interruptLine: number;
}

/** Puts a `PciFunction` behind a slot. It is the handler of the slot's configuration space. */
export class PciSlot implements BusHandler {
  readonly #function: PciFunction;
  readonly #ports: PciSlotPorts;
  readonly #counters: ExitCounters;
  readonly #memoryLimit: number;
  readonly #handlers: readonly BusHandler[];
  readonly #mapped: (number | null)[] = [null, null, null, null, null, null];
  /** Interrupt pin: 0 is INTA#; null without one. */
  readonly pin: number | null;

  /**
   * @param memoryLimit First address above guest memory; a BAR below it would be hidden by memory and is not mapped.
   */
  constructor(
    fn: PciFunction,
    ports: PciSlotPorts,
    counters: ExitCounters,
    memoryLimit: number,
  ) {
    this.#function = fn;
    this.#ports = ports;
    this.#counters = counters;
    this.#memoryLimit = memoryLimit;
    const pin = fn.configRead(INTERRUPT_PIN, 1);
    this.pin = pin >= 1 && pin <= 4 ? pin - 1 : null;
    this.#handlers = fn.bars.map((bar, index) =>
      bar?.kind === "io"
        ? {
          read: (offset, size) => {
            counters.portReads++;
            return fn.barRead(index, offset, size);
          },
          write: (offset, size, value) => {
            counters.portWrites++;
            fn.barWrite(index, offset, size, value);
          },
        }
        : {
          read: (offset, size) => {
            counters.memoryReads++;
            return fn.barRead(index, offset, size);
          },
          write: (offset, size, value) => {
            counters.memoryWrites++;
            fn.barWrite(index, offset, size, value);
          },
        }
    );
    this.#remap();
  }

  /** Reads configuration space. */
  read(offset: number, size: AccessSize): number {
    this.#counters.configReads++;
    return this.#function.configRead(offset, size);
  }

  /** Writes configuration space, and moves BARs where the write did so. */
  write(offset: number, size: AccessSize, value: number): void {
    this.#counters.configWrites++;
    this.#function.configWrite(offset, size, value);
    if (offset < BAR_END) this.#remap();
  }

  /** Takes all BARs off the bus. */
  unmap(): void {
    for (let index = 0; index < this.#mapped.length; index++) this.#move(index, null);
  }

  /** What the guest set up so far. */
  save(): SavedPciConfig {
    const fn = this.#function;
    const bars: number[] = [];
    for (let at = BAR0; at < BAR_END; at += 4) bars.push(fn.configRead(at, 4));
    return {
      command: fn.configRead(COMMAND, 2),
      bars,
      interruptLine: fn.configRead(INTERRUPT_LINE, 1),
    };
  }

  /** Sets a fresh function of the same kind up as the guest remembers it. */
  restore(saved: SavedPciConfig): void {
    const fn = this.#function;
    fn.configWrite(COMMAND, 2, 0);
    saved.bars.forEach((value, i) => fn.configWrite(BAR0 + 4 * i, 4, value));
    fn.configWrite(INTERRUPT_LINE, 1, saved.interruptLine);
    fn.configWrite(COMMAND, 2, saved.command);
    this.#remap();
  }

  #remap(): void {
    for (let index = 0; index < this.#mapped.length; index++) {
      this.#move(index, this.#reachable(index));
    }
  }

  /** Where a BAR decodes, if the processor can reach all of it. */
  #reachable(index: number): number | null {
    const bar = this.#function.bars[index];
    if (bar === null || bar === undefined) return null;
    const address = this.#function.barAddress(index);
    if (address === null) return null;
    if (bar.kind === "io") return address + bar.size <= 0x1_0000 ? address : null;
    return address >= this.#memoryLimit && address + bar.size <= 0x1_0000_0000 ? address : null;
  }

  #move(index: number, to: number | null): void {
    if (this.#mapped[index] === to) return;
    const bar = this.#function.bars[index]!;
    const handler = this.#handlers[index]!;
    if (this.#mapped[index] !== null) {
      if (bar.kind === "io") this.#ports.unmapPorts(handler);
      else this.#ports.unmapMemory(handler);
    }
    this.#mapped[index] = to;
    if (to === null) return;
    if (bar.kind === "io") this.#ports.mapPorts(to, bar.size, handler);
    else this.#ports.mapMemory(to, bar.size, handler);
  }
}
