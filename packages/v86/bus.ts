/** How buses hand accesses on, and what a PCI function asks of the machine it sits in. */

/** Width of an access in bytes. */
export type AccessSize = 1 | 2 | 4;

/**
 * Something behind a range of ports or of memory addresses. Offsets are relative to the range and naturally aligned;
 * values are unsigned.
 */
export interface BusHandler {
  /** Reads `size` bytes. */
  read(offset: number, size: AccessSize): number;
  /** Writes `size` bytes. */
  write(offset: number, size: AccessSize, value: number): void;
}

/** A base address register as its function declares it. */
export interface PciBar {
  /** Which address space it claims. */
  readonly kind: "memory" | "io";
  /** Bytes; a power of two. */
  readonly size: number;
  /** Whether it takes two registers and may lie above 4 GiB. */
  readonly is64: boolean;
}

/** A PCI function as a bus sees it. `PciTransport` of `@virtio/transport/pci` is one. */
export interface PciFunction {
  /** Six entries; null where there is no register, or the upper half of a 64-bit one. */
  readonly bars: readonly (PciBar | null)[];
  /** Reads configuration space. */
  configRead(offset: number, size: AccessSize): number;
  /** Writes configuration space. */
  configWrite(offset: number, size: AccessSize, value: number): void;
  /** Where a BAR decodes now; null while decoding is off or no address is assigned. */
  barAddress(index: number): number | null;
  /** Reads behind a BAR. */
  barRead(index: number, offset: number, size: AccessSize): number;
  /** Writes behind a BAR. */
  barWrite(index: number, offset: number, size: AccessSize, value: number): void;
}

/** What a PCI function asks of the machine it sits in. */
export interface PciHost {
  /** Level of the function's INTx pin. */
  setInterruptLine(asserted: boolean): void;
  /** A message signalled interrupt: a memory write of `data`. */
  sendMessage(addressLow: number, addressHigh: number, data: number): void;
}

/** A virtio-mmio device as a bus sees it. `MmioTransport` of `@virtio/transport/mmio` is one. */
export type MmioFunction = BusHandler;

/** What a virtio-mmio device asks of the machine it sits in. */
export interface MmioHost {
  /** Level of the device's interrupt. */
  setInterruptLine(asserted: boolean): void;
}
