import type { SavedControl } from "./control/control.ts";

/** A network device's own state as plain data. Frames that wait are not in it: networks lose frames. */
export interface SavedNet {
  /** Which layout this object has. */
  readonly version: 1;
  /** The MAC address, which the driver may have set. */
  readonly mac: readonly number[];
  /** Whether the driver was asked to announce itself and has not answered. */
  readonly announce: boolean;
  /** What the driver set through the control queue. */
  readonly control: SavedControl;
}

/**
 * What `save` gave.
 *
 * @throws {TypeError} If it is malformed. What the driver set is not looked at.
 */
export function checkSaved(saved: unknown): SavedNet {
  const state = saved as Partial<SavedNet> | null;
  if (
    state?.version !== 1 || !isMac(state.mac) || typeof state.announce !== "boolean" ||
    state.control === undefined
  ) {
    throw new TypeError("Cannot restore a network device: its saved state is malformed");
  }
  return state as SavedNet;
}

function isMac(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.length === 6 &&
    value.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255);
}
