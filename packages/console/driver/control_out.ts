import type { DriverSession } from "@virtio/device/driver";
import {
  CONTROL_SIZE,
  CONTROL_TRANSMITQ,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from "../constants.ts";
import { PortDue } from "./port.ts";
import { TransmitQueue } from "./transmit_queue.ts";

const BUFFERS = 16;

/**
 * What the driver says of ports, as far as the device takes it: a few bits for each port, so that nothing piles up while it
 * takes nothing.
 */
export class ControlOut {
  readonly #queue: TransmitQueue;
  /** By port: some of `PortDue`. */
  readonly #due: number[];
  /** By port: the value of the VIRTIO_CONSOLE_PORT_READY that is due. */
  readonly #ready: number[];

  /** @param ports How many there can be. */
  constructor(session: DriverSession, ports: number) {
    this.#queue = new TransmitQueue(session, CONTROL_TRANSMITQ, BUFFERS, CONTROL_SIZE);
    this.#due = new Array<number>(ports).fill(0);
    this.#ready = new Array<number>(ports).fill(0);
  }

  /** Takes memory. @throws {RangeError} If there is none. */
  start(): void {
    this.#queue.start();
  }

  /** A port could be set up, or not. */
  ready(id: number, success: boolean): void {
    this.#ready[id] = success ? 1 : 0;
    this.make(id, PortDue.ready);
  }

  /** A message of a port is due; one that takes back another replaces it. */
  make(id: number, message: number): void {
    if (message === PortDue.closed) this.#due[id]! &= ~PortDue.open;
    this.#due[id]! |= message;
    this.#sendDue();
  }

  /** A port is gone, and there is nothing to say of it. */
  forget(id: number): void {
    this.#due[id] = 0;
  }

  /** Takes back what the device used. @throws {VirtqueueError} If it broke a rule. */
  collect(): void {
    this.#queue.collect();
    this.#sendDue();
  }

  /** The device was given up. */
  abandon(reason: Error): void {
    this.#due.fill(0);
    this.#queue.abandon(reason);
  }

  /** Gives the memory back, after a reset of the device. */
  release(): void {
    this.#queue.release();
  }

  /** Sends a message. */
  send(id: number, event: number, value: number): void {
    const bytes = new Uint8Array(CONTROL_SIZE);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    // Given up: whoever waits for something else learns of it there.
    this.#queue.send(bytes).catch(() => {});
  }

  #sendDue(): void {
    for (let id = 0; id < this.#due.length; id++) {
      while (this.#due[id] !== 0 && this.#queue.ready) {
        const due = this.#due[id]! & -this.#due[id]!;
        this.#due[id]! &= ~due;
        if (due === PortDue.ready) this.send(id, VIRTIO_CONSOLE_PORT_READY, this.#ready[id]!);
        else this.send(id, VIRTIO_CONSOLE_PORT_OPEN, due === PortDue.open ? 1 : 0);
      }
    }
  }
}
