import type { ConsolePort } from "./port.ts";

/** The size of a console in characters. */
export interface ConsoleSize {
  /** Columns, 0 to 65535; 0 is not known. */
  readonly cols: number;
  /** Rows, 0 to 65535; 0 is not known. */
  readonly rows: number;
}

/**
 * What is at the host's end of a port: it takes the guest's output, and sends input through the `ConsolePort` that it is
 * attached to.
 *
 * Back-pressure goes both ways. Output: `write` takes less than it was given, the rest stays in the guest's queue until the
 * back end calls `ConsolePort.resume`. Input: `ConsolePort.write` takes less than it was given, and `inputDrained` is
 * called when it takes more.
 *
 * Be full only for a short time at a console port of Linux: it waits for each piece of output with a processor that does
 * nothing else meanwhile. Other ports of Linux wait asleep.
 *
 * An exception in a method closes the port on the host's side; the device reports it to its `onError` and goes on.
 */
export interface ConsoleBackend {
  /**
   * Takes output of the guest: `bytes[offset]` to `bytes[offset + length - 1]`. These are guest memory, which may be shared
   * with other threads, and is used again as soon as this returns: copy before anything else. Called once for each piece of a chain, cut as the driver
   * cut it, and never for less than one byte.
   *
   * @returns How many of them it took, 0 to `length`; less than `length` if it is full.
   */
  write(bytes: Uint8Array, offset: number, length: number): number;
  /** The back end was given to a device's port. It can send input from now on. */
  attached?(port: ConsolePort): void;
  /** The port was removed from its device. */
  detached?(): void;
  /**
   * The guest opened or closed the port, or its driver was reset. Without VIRTIO_CONSOLE_F_MULTIPORT a port is open while
   * the driver runs.
   */
  guestOpened?(open: boolean): void;
  /** `ConsolePort.write` took less than it was given, and has room again. */
  inputDrained?(): void;
}
