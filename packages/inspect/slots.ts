/** What both formats share. */
import type { GuestMemory } from "@virtio/memory";
import type { FieldView } from "./snapshot.ts";

/** Slots that are shown of a ring that has more. */
export const SHOWN_SLOTS = 256;

/** A descriptor's words. `low` and `high` are its last two: flags and next in the split format, id and flags in the packed. */
export interface SlotWords {
  /** In hexadecimal. */
  readonly address: string;
  /** Bytes. */
  readonly length: number;
  /** The split format's flags. */
  readonly flags: number;
  /** Bytes 12 and 13. */
  readonly low: number;
  /** Bytes 14 and 15. */
  readonly high: number;
}

/** Reads a descriptor. */
export function readSlot(memory: GuestMemory, area: number, index: number): SlotWords {
  const at = area + 16 * index;
  const high = memory.readU32(at + 4);
  const address = memory.readU32(at).toString(16).padStart(8, "0");
  const low = memory.readU16(at + 12);
  return {
    address: high === 0 ? address : high.toString(16) + address,
    length: memory.readU32(at + 8),
    flags: low,
    low,
    high: memory.readU16(at + 14),
  };
}

/** The indexes that are shown: all, or so many from a place on. */
export function windowOf(size: number, from: number): number[] {
  const start = size <= SHOWN_SLOTS ? 0 : from;
  return Array.from({ length: Math.min(size, SHOWN_SLOTS) }, (_, i) => (start + i) % size);
}

/** A number as a field. */
export function field(key: string, value: number): FieldView {
  return { key, value: String(value) };
}
