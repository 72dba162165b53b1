import { checkInteger } from "@virtio/device";
import type { ConsoleBackend, ConsoleSize } from "./backend.ts";
import type { PortState } from "./port_state.ts";

/** What a port asks of its device. */
export interface PortHost {
  /** Sends input. @returns How many bytes were taken. */
  send(port: PortState, bytes: Uint8Array, offset: number, length: number): number;
  /** The host's side is to be open or closed. */
  setOpen(port: PortState, open: boolean): void;
  /** The size is to be another. */
  setSize(port: PortState, size: ConsoleSize): void;
  /** The back end takes output again. */
  resume(port: PortState): void;
}

/** A port of a `ConsoleDevice`: the host's hand on it. Made by the device; methods do nothing once the port is removed. */
export class ConsolePort {
  readonly #state: PortState;
  readonly #host: PortHost;

  /** Made by `ConsoleDevice`. */
  constructor(state: PortState, host: PortHost) {
    this.#state = state;
    this.#host = host;
  }

  /** Port number, below `max_nr_ports`. */
  get id(): number {
    return this.#state.id;
  }

  /** The name that the guest sees (VIRTIO_CONSOLE_PORT_NAME); empty if it has none. */
  get name(): string {
    return this.#state.name;
  }

  /** Whether it is a console port (VIRTIO_CONSOLE_CONSOLE_PORT). */
  get console(): boolean {
    return this.#state.console;
  }

  /** What takes its output. */
  get backend(): ConsoleBackend {
    return this.#state.backend;
  }

  /** Whether it is still a port of its device. */
  get attached(): boolean {
    return this.#state.attached;
  }

  /** Whether the host's side is open. While it is closed the guest's output is dropped. */
  get hostOpen(): boolean {
    return this.#state.hostOpen;
  }

  /** Whether the guest's side is open: only then input reaches the guest. */
  get guestOpen(): boolean {
    return this.#state.guestOpen;
  }

  /** Whether the driver said that it could not set the port up. */
  get failed(): boolean {
    return this.#state.failed;
  }

  /** The size that the driver is told; null if there is none. */
  get size(): ConsoleSize | null {
    return this.#state.size;
  }

  /** Bytes of input that wait for the guest. */
  get waiting(): number {
    return this.#state.input.length;
  }

  /** Bytes of input that `write` takes at least. */
  get room(): number {
    return this.attached ? this.#state.input.room : 0;
  }

  /**
   * Sends input to the guest. What the guest has no buffers for, or what comes before it opened the port, waits within the
   * port's bound; nothing that was taken is lost, not even when the driver is reset.
   *
   * @param bytes Copied before this returns.
   * @returns How many bytes were taken, from the first on. If not all: send the rest when the back end's `inputDrained` is
   * called.
   * @throws {RangeError} If `offset` and `length` do not lie within `bytes`.
   */
  write(bytes: Uint8Array, offset = 0, length: number = bytes.length - offset): number {
    if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) {
      throw new RangeError(
        `Cannot send ${length} bytes at ${offset}: there are ${bytes.length}`,
      );
    }
    return this.attached ? this.#host.send(this.#state, bytes, offset, length) : 0;
  }

  /** Opens the host's side; the guest is told (VIRTIO_CONSOLE_PORT_OPEN). */
  open(): void {
    if (this.attached && !this.hostOpen) this.#host.setOpen(this.#state, true);
  }

  /** Closes the host's side; the guest is told, and its output is dropped until `open`. Input that waits stays. */
  close(): void {
    if (this.attached && this.hostOpen) this.#host.setOpen(this.#state, false);
  }

  /**
   * Changes the size of the console. The driver is told with VIRTIO_CONSOLE_RESIZE, and for port 0 through the
   * configuration space.
   *
   * @param cols 0 to 65535.
   * @param rows 0 to 65535.
   * @throws {RangeError} If one is out of range.
   */
  resize(cols: number, rows: number): void {
    const size = checkedSize({ cols, rows });
    if (!this.attached) return;
    const before = this.#state.size;
    if (before !== null && before.cols === cols && before.rows === rows) return;
    this.#host.setSize(this.#state, size);
  }

  /** For the back end: it took less than it was given, and takes output again. */
  resume(): void {
    if (this.attached) this.#host.resume(this.#state);
  }
}

/** Checks a size. @throws {RangeError} If a number is out of range. */
export function checkedSize(size: ConsoleSize): ConsoleSize {
  const { cols, rows } = size;
  checkInteger("cols", cols, 0, 0xffff);
  checkInteger("rows", rows, 0, 0xffff);
  return { cols, rows };
}
