import { checkInteger, type FeatureSet } from "@virtio/device";
import type { ConsoleBackend, ConsoleSize } from "./backend.ts";
import {
  MAX_NAME_BYTES,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
} from "./constants.ts";
import { checkedSize } from "./port.ts";

/** One port of a `ConsoleDevice`. Only the back end is needed. */
export interface ConsolePortOptions {
  /** What takes the guest's output and sends it input. */
  readonly backend: ConsoleBackend;
  /** Port number; the lowest that is free unless given. */
  readonly id?: number;
  /** The name that the guest sees: 1 to 248 bytes in UTF-8, without NUL. Linux: /dev/virtio-ports/NAME. None unless given. */
  readonly name?: string;
  /** Whether it is a console (Linux: /dev/hvc0 and on); port 0 is, others are not, unless given. */
  readonly console?: boolean;
  /** Whether the host's side is open at first; yes unless given. */
  readonly open?: boolean;
  /** The console's size at first; none unless given, and for port 0 that of the device. */
  readonly size?: ConsoleSize;
  /** Bytes of input that wait for the guest at most, 1 or more; 65,536 unless given. */
  readonly inputBuffer?: number;
}

/**
 * The order of the two numbers in a VIRTIO_CONSOLE_RESIZE message.
 *
 * - `"cols-rows"`: as the standard has it (5.3.6.2, `struct virtio_console_resize`). Linux reads this since 6.15, and in the
 *   long-term series 5.10, 5.15, 6.1, 6.6 and 6.12 since their releases of January 2026.
 * - `"rows-cols"`: as Linux read it before, from 2.6.35 on. Nothing in the protocol tells which Linux is at the other end.
 *
 * The configuration space is not concerned: `cols` come first there for every driver.
 */
export type ResizeOrder = "cols-rows" | "rows-cols";

/** Options of a `ConsoleDevice`. */
export interface ConsoleDeviceOptions {
  /** The ports that are there from the start; none unless given. */
  readonly ports?: readonly ConsolePortOptions[];
  /**
   * `max_nr_ports`: how many ports there can be at once, 1 to 511. More than one offers VIRTIO_CONSOLE_F_MULTIPORT. As many
   * as the given ports need unless given.
   */
  readonly maxPorts?: number;
  /** Offers VIRTIO_CONSOLE_F_MULTIPORT; where `maxPorts` is more than 1, or a port has a name, unless given. */
  readonly multiport?: boolean;
  /** The size of port 0 at first; 80 columns and 25 rows unless given. `false` does not offer VIRTIO_CONSOLE_F_SIZE. */
  readonly size?: ConsoleSize | false;
  /** Offers VIRTIO_CONSOLE_F_EMERG_WRITE; yes unless given. */
  readonly emergencyWrite?: boolean;
  /** `"cols-rows"` unless given; see `ResizeOrder`. */
  readonly resizeOrder?: ResizeOrder;
  /** Largest size of each queue, 1 to 32768; 128 unless given. */
  readonly queueSize?: number;
  /** Told why the host's side of a port was closed: an exception of its back end. */
  readonly onError?: (error: unknown, port: number) => void;
}

/** Options of a port with everything filled in and checked. */
export interface PortSettings {
  readonly id: number;
  readonly name: string;
  readonly nameBytes: Uint8Array;
  readonly console: boolean;
  readonly backend: ConsoleBackend;
  readonly inputBuffer: number;
  readonly open: boolean;
  readonly size: ConsoleSize | null;
}

/** Options of a device with everything filled in and checked, without the ports. */
export interface ConsoleSettings {
  /** Bits of 5.3.3 to offer. */
  readonly features: FeatureSet;
  readonly maxPorts: number;
  readonly size: ConsoleSize | null;
  readonly rowsFirst: boolean;
  readonly queueSizes: number[];
}

/** Fills in and checks options. @throws {RangeError} If one is out of range. */
export function settle(options: ConsoleDeviceOptions): ConsoleSettings {
  const ports = options.ports ?? [];
  const needed = Math.max(ports.length, 1, ...ports.map(({ id }) => (id ?? 0) + 1));
  const maxPorts = checkInteger("maxPorts", options.maxPorts, 1, 511, needed);
  if (needed > maxPorts) {
    throw new RangeError(`The given ports need maxPorts of ${needed}: it is ${maxPorts}`);
  }
  const named = ports.some(({ name }) => name !== undefined);
  const multiport = options.multiport ?? (maxPorts > 1 || named);
  if (!multiport && maxPorts > 1) {
    throw new RangeError("More than one port needs multiport: leave it out, or give true");
  }
  const queueSize = checkInteger("queueSize", options.queueSize, 1, 32768, 128);
  const order = options.resizeOrder ?? "cols-rows";
  if (order !== "cols-rows" && order !== "rows-cols") {
    throw new RangeError(`resizeOrder must be "cols-rows" or "rows-cols": it is ${String(order)}`);
  }
  let features = 0n;
  if (multiport) features |= VIRTIO_CONSOLE_F_MULTIPORT;
  if (options.size !== false) features |= VIRTIO_CONSOLE_F_SIZE;
  if (options.emergencyWrite ?? true) features |= VIRTIO_CONSOLE_F_EMERG_WRITE;
  return {
    features,
    maxPorts,
    size: options.size === false ? null : checkedSize(options.size ?? { cols: 80, rows: 25 }),
    rowsFirst: order === "rows-cols",
    queueSizes: new Array<number>(multiport ? 2 * maxPorts + 2 : 2).fill(queueSize),
  };
}

/**
 * Fills in and checks the options of a port.
 *
 * @param free The port number unless given.
 * @param deviceSize The size of port 0 unless given.
 * @throws {TypeError} If there is no back end.
 * @throws {RangeError} If an option is out of range.
 */
export function settlePort(
  options: ConsolePortOptions,
  free: number,
  maxPorts: number,
  deviceSize: ConsoleSize | null,
): PortSettings {
  if (typeof options?.backend?.write !== "function") {
    throw new TypeError("A port needs a back end: give { backend }");
  }
  const id = checkInteger("The number of a port", options.id, 0, maxPorts - 1, free);
  const name = options.name ?? "";
  const nameBytes = new TextEncoder().encode(name);
  if (options.name !== undefined && nameBytes.length === 0 || name.includes("\0")) {
    throw new RangeError("The name of a port must not be empty, nor contain NUL: leave it out");
  }
  if (nameBytes.length > MAX_NAME_BYTES) {
    throw new RangeError(
      `The name of a port may have ${MAX_NAME_BYTES} bytes in UTF-8: it has ${nameBytes.length}`,
    );
  }
  const given = options.size === undefined ? null : checkedSize(options.size);
  return {
    id,
    name,
    nameBytes,
    console: options.console ?? id === 0,
    backend: options.backend,
    inputBuffer: checkInteger("inputBuffer", options.inputBuffer, 1, 2 ** 30, 65536),
    open: options.open ?? true,
    size: given ?? (id === 0 ? deviceSize : null),
  };
}
