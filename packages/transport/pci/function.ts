import type { Width } from "../width.ts";

/** What a PCI device needs from the machine around it. */
export interface PciHost {
  /**
   * Drives the function's INTA# (true: asserted). Called only when the level changes; also from inside register accesses.
   */
  setInterruptLine(asserted: boolean): void;
  /**
   * Sends a message signalled interrupt: a 32-bit write of `data` to the address, both chosen by the driver and checked
   * by nobody. Also called from inside register accesses.
   */
  sendMessage(addressLow: number, addressHigh: number, data: number): void;
}

/** What a Base Address register asks for. */
export interface PciBar {
  /** Which space. */
  readonly kind: "memory" | "io";
  /** Bytes; a power of two. */
  readonly size: number;
  /** Whether the address has 64 bits; the next BAR then holds its upper half. */
  readonly is64: boolean;
}

/** A PCI function as a bus sees it. */
export interface PciFunction {
  /** Six; null for one that is not implemented or is the upper half of the one before. */
  readonly bars: readonly (PciBar | null)[];
  /** Reads configuration space. */
  configRead(offset: number, size: Width): number;
  /** Writes configuration space. It can move BARs: look at `barAddress` afterwards. */
  configWrite(offset: number, size: Width, value: number): void;
  /** Where a BAR decodes now; null if its space is switched off in the command register, or it has no address. */
  barAddress(index: number): number | null;
  /** Reads at an offset into a BAR. */
  barRead(index: number, offset: number, size: Width): number;
  /** Writes at an offset into a BAR. */
  barWrite(index: number, offset: number, size: Width, value: number): void;
}

/** What a driver needs: a PCI function itself, or a bus that leads to one. */
export type PciAccess = Pick<PciFunction, "configRead" | "configWrite" | "barRead" | "barWrite">;
