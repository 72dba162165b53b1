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

/**
 * Reads at any offset: as it is where it is aligned, a byte at a time where not. Bytes beyond the range read as ones, as
 * where nothing answers on a bus.
 *
 * @param limit Size of the handler's range.
 */
export function readAligned(
  handler: BusHandler,
  offset: number,
  size: AccessSize,
  limit: number,
): number {
  if ((offset & size - 1) === 0) return handler.read(offset, size);
  let value = 0;
  for (let i = 0; i < size; i++) {
    value |= (offset + i < limit ? handler.read(offset + i, 1) : 0xff) << 8 * i;
  }
  return value >>> 0;
}

/**
 * Writes at any offset: as it is where it is aligned, a byte at a time where not. Bytes beyond the range are dropped.
 *
 * @param limit Size of the handler's range.
 * @param value Higher bits than `size` has are dropped.
 */
export function writeAligned(
  handler: BusHandler,
  offset: number,
  size: AccessSize,
  limit: number,
  value: number,
): void {
  if ((offset & size - 1) === 0) {
    handler.write(offset, size, size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff));
    return;
  }
  for (let i = 0; i < size && offset + i < limit; i++) {
    handler.write(offset + i, 1, value >>> 8 * i & 0xff);
  }
}
