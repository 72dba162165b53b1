/** How the buses of the machine hand accesses on. */
import type { Width } from "@virtio/transport/pci";

/** Width of an access in bytes. */
export type AccessSize = Width;

/**
 * Something behind a range of ports or of memory addresses. Offsets are relative to the range and naturally aligned;
 * values are unsigned. A virtio-mmio device is one.
 */
export interface BusHandler {
  /** Reads `size` bytes. */
  read(offset: number, size: AccessSize): number;
  /** Writes `size` bytes. */
  write(offset: number, size: AccessSize, value: number): void;
}
