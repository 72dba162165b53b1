/** What the standard names in its console device section (virtio 1.4, 5.3). */

/** `cols` and `rows` of the configuration are valid (5.3.3). */
export const VIRTIO_CONSOLE_F_SIZE: bigint = 1n << 0n;
/** Several ports; `max_nr_ports` is valid and there are control queues (5.3.3). */
export const VIRTIO_CONSOLE_F_MULTIPORT: bigint = 1n << 1n;
/** Emergency write: `emerg_wr` is valid (5.3.3). */
export const VIRTIO_CONSOLE_F_EMERG_WRITE: bigint = 1n << 2n;

/** Driver: it is ready for control messages, or failed (5.3.6.2). */
export const VIRTIO_CONSOLE_DEVICE_READY = 0;
/** Device: there is a new port (5.3.6.2). */
export const VIRTIO_CONSOLE_DEVICE_ADD = 1;
/** Device: a port is gone (5.3.6.2). */
export const VIRTIO_CONSOLE_DEVICE_REMOVE = 2;
/** Driver: the port is ready, or could not be set up (5.3.6.2). */
export const VIRTIO_CONSOLE_PORT_READY = 3;
/** Device: the port is a console (5.3.6.2). */
export const VIRTIO_CONSOLE_CONSOLE_PORT = 4;
/** Device: the size of a console changed (5.3.6.2). */
export const VIRTIO_CONSOLE_RESIZE = 5;
/** Both: the port was opened or closed on this side (5.3.6.2). */
export const VIRTIO_CONSOLE_PORT_OPEN = 6;
/** Device: the name of a port (5.3.6.2). */
export const VIRTIO_CONSOLE_PORT_NAME = 7;

/** Bytes of `struct virtio_console_control` (5.3.6.2). */
export const CONTROL_SIZE = 8;
/** Bytes of `struct virtio_console_resize` (5.3.6.2). */
export const RESIZE_SIZE = 4;
/** Bytes of a port's name in UTF-8 at most: ours, so that a driver's control buffers of 256 bytes hold every message. */
export const MAX_NAME_BYTES = 248;

/** The control receiveq: messages from the device to the driver (5.3.2). */
export const CONTROL_RECEIVEQ = 2;
/** The control transmitq: messages from the driver to the device (5.3.2). */
export const CONTROL_TRANSMITQ = 3;

/** Offsets of the fields of `struct virtio_console_config` (5.3.4). */
export const ConsoleConfigOffset = {
  /** le16. */
  cols: 0,
  /** le16. */
  rows: 2,
  /** le32. */
  max_nr_ports: 4,
  /** le32, for the driver to write. */
  emerg_wr: 8,
} as const;

/** Bytes of the configuration space. */
export const CONSOLE_CONFIG_SIZE = 12;

/** Index of a port's receiveq: input to the guest (5.3.2). */
export function receiveQueue(port: number): number {
  return port === 0 ? 0 : 2 * port + 2;
}

/** Index of a port's transmitq: output of the guest (5.3.2). */
export function transmitQueue(port: number): number {
  return receiveQueue(port) + 1;
}

/** The port of a data queue. Not for the control queues. */
export function portOfQueue(queue: number): number {
  return queue < 2 ? 0 : (queue >>> 1) - 1;
}
