import type { ConsoleSize } from "./backend.ts";
import { ALL_DUE } from "./port_state.ts";

/** What a driver knows of a port. */
export interface SavedPort {
  /** Port number. */
  readonly id: number;
  /** Its name; another name is another port. */
  readonly name: string;
  /** Whether it is gone, and the driver is to be told. */
  readonly gone: boolean;
  /** Whether the driver said that it is ready. */
  readonly ready: boolean;
  /** Whether the driver said that it could not set it up. */
  readonly failed: boolean;
  /** Whether the guest's side is open. */
  readonly guestOpen: boolean;
  /** Whether the driver was told that the host's side is open. */
  readonly toldOpen: boolean;
  /** Messages that were due. */
  readonly due: number;
  /** The size that the driver was told or is to be told. */
  readonly size: ConsoleSize | null;
}

/** Input that waits for the guest. */
export interface SavedInput {
  /** Port number. */
  readonly id: number;
  /** The port's name. */
  readonly name: string;
  /** The bytes. */
  readonly bytes: Uint8Array;
}

/** A console device's own state as plain data. */
export interface SavedConsole {
  /** Which layout this object has. */
  readonly version: 1;
  /** `max_nr_ports`. */
  readonly maxPorts: number;
  /** Whether the driver sent VIRTIO_CONSOLE_DEVICE_READY. */
  readonly driverReady: boolean;
  /** Ports that the driver knows. */
  readonly ports: readonly SavedPort[];
  /** Input that waits, of ports where there is some. */
  readonly inputs: readonly SavedInput[];
  /** By port: how much of the first chain in the transmitq the back end took already. */
  readonly taken: readonly number[];
}

/** Checks a saved state as far as that needs nothing but the state. @throws {TypeError} If it is malformed. */
export function checkSavedConsole(saved: unknown): SavedConsole {
  const state = saved as SavedConsole | null;
  if (
    state?.version !== 1 || !isCount(state.maxPorts) || typeof state.driverReady !== "boolean" ||
    !Array.isArray(state.ports) || !Array.isArray(state.taken) || !state.ports.every(isPort) ||
    !state.taken.every(isCount) || state.taken.length !== state.maxPorts ||
    new Set(state.ports.map(({ id }) => id)).size !== state.ports.length ||
    state.ports.some(({ id }) => id >= state.maxPorts) ||
    !Array.isArray(state.inputs) || !state.inputs.every(isInput) ||
    state.inputs.some(({ id }) => id >= state.maxPorts)
  ) {
    throw new TypeError("Cannot restore a console device: its saved state is malformed");
  }
  return state;
}

function isPort(port: SavedPort | null): boolean {
  return typeof port === "object" && port !== null && isCount(port.id) &&
    typeof port.name === "string" &&
    [port.gone, port.ready, port.failed, port.guestOpen, port.toldOpen].every((flag) =>
      typeof flag === "boolean"
    ) &&
    isCount(port.due) && port.due <= ALL_DUE && (port.size === null || isSize(port.size));
}

function isInput(input: SavedInput | null): boolean {
  return typeof input === "object" && input !== null && isCount(input.id) &&
    typeof input.name === "string" && input.bytes instanceof Uint8Array;
}

function isSize(size: ConsoleSize): boolean {
  return typeof size === "object" && isCount(size.cols) && isCount(size.rows) &&
    size.cols <= 0xffff && size.rows <= 0xffff;
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
