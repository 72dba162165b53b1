import type { Chain } from "@virtio/vring";
import {
  CONTROL_RECEIVEQ,
  CONTROL_SIZE,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from "./constants.ts";
import { ControlSender } from "./control.ts";
import type { ConsoleLink } from "./link.ts";
import type { PortState } from "./port_state.ts";

/** The control queues (5.3.6.2): what the driver says of ports, and what it is told of them. */
export class ControlChannel {
  /** Whether the driver sent VIRTIO_CONSOLE_DEVICE_READY. */
  driverReady = false;
  readonly #link: ConsoleLink;
  readonly #sender: ControlSender;
  #sending = false;

  /**
   * @param link The device.
   * @param rowsFirst The order of the numbers in a VIRTIO_CONSOLE_RESIZE message.
   */
  constructor(link: ConsoleLink, rowsFirst: boolean) {
    this.#link = link;
    this.#sender = new ControlSender(link.ports, rowsFirst);
  }

  /** What the driver believes to be there, by port number. */
  get announced(): (PortState | null)[] {
    return this.#sender.announced;
  }

  /** The driver was reset. */
  forget(): void {
    this.driverReady = false;
    this.#sender.forget();
  }

  /** Something about a port changed. */
  changed(id: number): void {
    this.#sender.changed(id);
    this.send();
  }

  /** A message of the driver. One that means nothing is ignored. */
  handle(chain: Chain): void {
    const { stats } = this.#link;
    const { reader } = chain;
    stats.controlReceived++;
    if (reader.remaining < CONTROL_SIZE) {
      stats.controlIgnored++;
      return;
    }
    const at = reader.struct(CONTROL_SIZE);
    const { view } = reader;
    const id = view.getUint32(at, true);
    const event = view.getUint16(at + 4, true);
    const value = view.getUint16(at + 6, true);
    if (value > 1 || !this.#understood(id, event, value === 1)) {
      stats.controlIgnored++;
      return;
    }
    this.send();
  }

  #understood(id: number, event: number, value: boolean): boolean {
    if (event === VIRTIO_CONSOLE_DEVICE_READY) {
      this.driverReady = value;
      return true;
    }
    const port = this.#link.ports[id] ?? null;
    // Only of a port that the driver was told of.
    if (port === null || this.announced[id] !== port) return false;
    if (event === VIRTIO_CONSOLE_PORT_READY) {
      port.ready = value;
      port.failed = !value;
      if (value) {
        port.announceAll();
      } else {
        port.due = 0;
        this.#link.setGuestOpen(port, false);
      }
      this.#sender.changed(id);
      return true;
    }
    if (event !== VIRTIO_CONSOLE_PORT_OPEN || !port.ready) return false;
    this.#link.setGuestOpen(port, value);
    return true;
  }

  /** Sends what the driver is to be told, as far as it has buffers. */
  send(): void {
    const link = this.#link;
    const sender = this.#sender;
    if (!this.driverReady || this.#sending) return;
    this.#sending = true;
    try {
      while (sender.next()) {
        const chain = link.take(CONTROL_RECEIVEQ);
        if (chain === null) return;
        if (chain.writable < CONTROL_SIZE) {
          link.refuse(`A buffer of the control receiveq has no room for ${CONTROL_SIZE} bytes`);
          return;
        }
        if (chain.writable < sender.length) {
          // A part of a name would be another name.
          link.untake(CONTROL_RECEIVEQ, chain);
          link.stats.controlSkipped++;
        } else {
          chain.writer.writeFrom(sender.bytes, 0, sender.length);
          link.complete(CONTROL_RECEIVEQ, chain);
          link.stats.controlSent++;
        }
        sender.sent();
      }
    } finally {
      this.#sending = false;
    }
  }
}
