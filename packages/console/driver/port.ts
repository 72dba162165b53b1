import { DriverError } from "@virtio/device/driver";
import type { ConsoleSize } from "../backend.ts";

/** Messages that a port has for the device, in the order in which they are sent. */
export const PortDue = {
  /** VIRTIO_CONSOLE_PORT_READY. */
  ready: 1,
  /** VIRTIO_CONSOLE_PORT_OPEN with value 0. */
  closed: 2,
  /** VIRTIO_CONSOLE_PORT_OPEN with value 1. */
  open: 4,
} as const;

/** What a port asks of its driver. */
export interface PortLink {
  /** Sends output. */
  send(port: ConsoleDriverPort, bytes: Uint8Array): Promise<void>;
  /** Control messages became due, some of `PortDue`. */
  due(port: ConsoleDriverPort, messages: number): void;
  /** Somebody reads now. */
  readable(port: ConsoleDriverPort): void;
}

/** A port as its driver found it. */
export class ConsoleDriverPort {
  /** Port number. */
  readonly id: number;
  /** Called when the device says something new of the port: its name, whether it is a console, the host's side, its size. */
  onChange: ((port: ConsoleDriverPort) => void) | null = null;
  readonly #link: PortLink;
  #onData: ((bytes: Uint8Array) => void) | null = null;
  #name: string | null = null;
  #console = false;
  #hostOpen: boolean;
  #open: boolean;
  #size: ConsoleSize | null = null;
  #removed = false;

  /**
   * Made by `ConsoleDriver`.
   *
   * @param multiport Whether the port is opened and closed by messages.
   */
  constructor(id: number, link: PortLink, multiport: boolean) {
    this.id = id;
    this.#link = link;
    this.#hostOpen = !multiport;
    this.#open = !multiport;
    this.#console = !multiport;
  }

  /** The name that the device gave it; null if none yet. */
  get name(): string | null {
    return this.#name;
  }

  /** Whether the device said that it is a console port. */
  get console(): boolean {
    return this.#console;
  }

  /** Whether the host's side is open. */
  get hostOpen(): boolean {
    return this.#hostOpen;
  }

  /** Whether our side is open. */
  get opened(): boolean {
    return this.#open;
  }

  /** Whether the device removed it. */
  get removed(): boolean {
    return this.#removed;
  }

  /** The console's size; null if the device did not say. */
  get size(): ConsoleSize | null {
    return this.#size;
  }

  /** Called with input, a copy. While it is null input stays in the queue, and the device waits. */
  get onData(): ((bytes: Uint8Array) => void) | null {
    return this.#onData;
  }

  set onData(take: ((bytes: Uint8Array) => void) | null) {
    this.#onData = take;
    if (take !== null && !this.#removed) this.#link.readable(this);
  }

  /** Opens our side; the device is told. A console port, and the port of a device without multiport, is open already. */
  open(): void {
    if (this.#open || this.#removed) return;
    this.#open = true;
    this.#link.due(this, PortDue.open);
  }

  /** Closes our side; the device is told, and sends no more input. */
  close(): void {
    if (!this.#open || this.#removed) return;
    this.#open = false;
    this.#link.due(this, PortDue.closed);
  }

  /**
   * Sends output.
   *
   * @param bytes Copied before this returns or later: leave them alone until it resolves.
   * @returns Resolves when the device has taken all of it.
   * @throws {DriverError} Rejects if the port is removed, or the device was given up.
   */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.#removed) throw new DriverError(`Port ${this.id} was removed`);
    await this.#link.send(this, bytes);
  }

  /** The device named it. Called by the driver. */
  named(name: string): void {
    if (this.#name === name) return;
    this.#name = name;
    this.#changed();
  }

  /** The device says that it is a console. Called by the driver. */
  isConsole(): void {
    this.#open = true;
    // 5.3.6.2.2: an answer each time, open already or not.
    this.#link.due(this, PortDue.open);
    if (this.#console) return;
    this.#console = true;
    this.#changed();
  }

  /** The host's side. Called by the driver. */
  setHostOpen(open: boolean): void {
    if (this.#hostOpen === open) return;
    this.#hostOpen = open;
    this.#changed();
  }

  /** The size. Called by the driver. */
  resized(size: ConsoleSize): void {
    if (this.#size?.cols === size.cols && this.#size.rows === size.rows) return;
    this.#size = size;
    this.#changed();
  }

  /** The device removed it. Called by the driver. */
  remove(): void {
    this.#removed = true;
    this.#hostOpen = false;
    this.#open = false;
  }

  #changed(): void {
    const { onChange } = this;
    if (onChange !== null) callUser(() => onChange(this));
  }
}

/** Calls code that is not ours: what it throws is an uncaught error of its own, not one of the device's interrupt. */
export function callUser(call: () => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
