import type { FeatureSet } from "@virtio/device";
import { DriverError, type DriverSession } from "@virtio/device/driver";
import type { DmaPool } from "@virtio/vring/driver";
import {
  ConsoleConfigOffset,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
} from "../constants.ts";
import type { ConsoleSize } from "../backend.ts";

/** Every feature of 5.3.3. */
export const CONSOLE_DRIVER_FEATURES: FeatureSet = VIRTIO_CONSOLE_F_SIZE |
  VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_CONSOLE_F_EMERG_WRITE;

/** Options of `ConsoleDriver.open`. */
export interface ConsoleDriverOptions {
  /** Guest memory for rings and buffers. */
  readonly dma: DmaPool;
  /** Feature bits of 5.3.3 to accept where offered; all unless given. */
  readonly features?: FeatureSet;
  /** Feature bits 24 to 43 to accept where offered; all that are built unless given. */
  readonly core?: FeatureSet;
  /** Ports to use at most, 1 or more; 32 unless given. The device's others are left alone. */
  readonly maxPorts?: number;
  /** Bytes of each buffer, 1 or more; 4096 unless given. */
  readonly bufferSize?: number;
  /** Buffers of each direction of a port, 1 or more; 8 unless given. They are taken from `dma` when a port is added. */
  readonly buffers?: number;
  /** Size of each queue at most; 64 unless given. */
  readonly queueSize?: number;
  /** Milliseconds to wait for a reset; see `DriverSessionOptions`. */
  readonly patience?: number;
}

/** How many ports to use. @throws {DriverError} If the device says that it has none. */
export function portCount(session: DriverSession, most: number): number {
  if (!session.has(VIRTIO_CONSOLE_F_MULTIPORT)) return 1;
  const ports = session.readConfig((transport) =>
    transport.readConfig(ConsoleConfigOffset.max_nr_ports, 4)
  );
  if (ports === 0) {
    throw new DriverError("The device has no ports: its max_nr_ports is 0 (virtio 1.4, 5.3.4)");
  }
  return Math.min(ports, most);
}

/** The size in the configuration space; null where VIRTIO_CONSOLE_F_SIZE was not negotiated. */
export function readSize(session: DriverSession): ConsoleSize | null {
  if (!session.has(VIRTIO_CONSOLE_F_SIZE)) return null;
  return session.readConfig((transport) => ({
    cols: transport.readConfig(ConsoleConfigOffset.cols, 2),
    rows: transport.readConfig(ConsoleConfigOffset.rows, 2),
  }));
}
