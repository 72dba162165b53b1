import {
  CONTROL_SIZE,
  MAX_NAME_BYTES,
  RESIZE_SIZE,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_RESIZE,
} from "./constants.ts";
import { Due, type PortState } from "./port_state.ts";

/**
 * What the driver is to be told, one message after another (5.3.6.2).
 *
 * Messages are not kept in a list: they follow from how the ports are and what the driver knows of them. So there are never
 * more than a few for each port, however long a driver has no buffers for them and whatever it sends meanwhile.
 */
export class ControlSender {
  /** The message that `next` made: `length` bytes of it. */
  readonly bytes: Uint8Array = new Uint8Array(CONTROL_SIZE + Math.max(MAX_NAME_BYTES, RESIZE_SIZE));
  /** Bytes of the message that `next` made. */
  length = 0;
  /** What the driver believes to be there, by port number. */
  readonly announced: (PortState | null)[];
  readonly #ports: readonly (PortState | null)[];
  readonly #rowsFirst: boolean;
  readonly #view = new DataView(this.bytes.buffer);
  #port: PortState | null = null;
  #event = 0;
  #due = 0;
  /** Where to look next: there is nothing before it. */
  #at = 0;

  /**
   * @param ports The ports that are there, by number.
   * @param rowsFirst The order of the numbers in a VIRTIO_CONSOLE_RESIZE message.
   */
  constructor(ports: readonly (PortState | null)[], rowsFirst: boolean) {
    this.#ports = ports;
    this.#rowsFirst = rowsFirst;
    this.announced = ports.map(() => null);
  }

  /** Something about a port changed. */
  changed(port: number): void {
    this.#at = Math.min(this.#at, port);
  }

  /** The driver was reset, and knows nothing. */
  forget(): void {
    this.announced.fill(null);
    this.#at = 0;
    for (const port of this.#ports) port?.forget();
  }

  /** Makes the next message. It is made again until `sent`. @returns Whether there is one. */
  next(): boolean {
    for (; this.#at < this.#ports.length; this.#at++) {
      const here = this.#ports[this.#at]!;
      const known = this.announced[this.#at]!;
      // 5.3.6.2.1: a port is added only if the driver does not know it, and removed only if it was added.
      if (known !== null && known !== here) {
        this.#make(known, VIRTIO_CONSOLE_DEVICE_REMOVE, 0);
        return true;
      }
      if (here === null) continue;
      if (known === null) {
        this.#make(here, VIRTIO_CONSOLE_DEVICE_ADD, 0);
        return true;
      }
      if (here.ready && here.due !== 0) {
        this.#makeDue(here);
        return true;
      }
    }
    return false;
  }

  /** The message that `next` made was sent, or cannot be. */
  sent(): void {
    const port = this.#port!;
    switch (this.#event) {
      case VIRTIO_CONSOLE_DEVICE_ADD:
        port.forget();
        this.announced[port.id] = port;
        break;
      case VIRTIO_CONSOLE_DEVICE_REMOVE:
        this.announced[port.id] = null;
        break;
      case VIRTIO_CONSOLE_PORT_OPEN:
        port.toldOpen = this.#view.getUint16(6, true) === 1;
        break;
    }
    port.due &= ~this.#due;
  }

  #makeDue(port: PortState): void {
    const due = port.due & -port.due;
    switch (due) {
      case Due.console:
        // Linux takes only a value that is not 0.
        this.#make(port, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
        break;
      case Due.name:
        this.#make(port, VIRTIO_CONSOLE_PORT_NAME, 0);
        this.bytes.set(port.nameBytes, CONTROL_SIZE);
        this.length += port.nameBytes.length;
        break;
      case Due.closed:
        this.#make(port, VIRTIO_CONSOLE_PORT_OPEN, 0);
        break;
      case Due.open:
        this.#make(port, VIRTIO_CONSOLE_PORT_OPEN, 1);
        break;
      default: {
        this.#make(port, VIRTIO_CONSOLE_RESIZE, 0);
        const { cols, rows } = port.size ?? { cols: 0, rows: 0 };
        this.#view.setUint16(CONTROL_SIZE, this.#rowsFirst ? rows : cols, true);
        this.#view.setUint16(CONTROL_SIZE + 2, this.#rowsFirst ? cols : rows, true);
        this.length += RESIZE_SIZE;
      }
    }
    this.#due = due;
  }

  #make(port: PortState, event: number, value: number): void {
    this.#view.setUint32(0, port.id, true);
    this.#view.setUint16(4, event, true);
    this.#view.setUint16(6, value, true);
    this.length = CONTROL_SIZE;
    this.#port = port;
    this.#event = event;
    this.#due = 0;
  }
}
