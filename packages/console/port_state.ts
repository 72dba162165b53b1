import type { ConsoleBackend, ConsoleSize } from "./backend.ts";
import { ByteRing } from "./byte_ring.ts";
import type { PortSettings } from "./options.ts";

/** Messages that a port has for the driver, in the order in which they are sent (5.3.6.2). */
export const Due = {
  /** VIRTIO_CONSOLE_CONSOLE_PORT. */
  console: 1,
  /** VIRTIO_CONSOLE_PORT_NAME. */
  name: 2,
  /** VIRTIO_CONSOLE_PORT_OPEN with value 0. */
  closed: 4,
  /** VIRTIO_CONSOLE_PORT_OPEN with value 1. */
  open: 8,
  /** VIRTIO_CONSOLE_RESIZE. */
  resize: 16,
} as const;

/** All bits of `Due`. */
export const ALL_DUE = 31;

/** A port as its device keeps it: what the host says of it, and what the driver knows and says of it in this life. */
export class PortState {
  /** Port number. */
  readonly id: number;
  /** Empty if it has none. */
  readonly name: string;
  /** The name in UTF-8. */
  readonly nameBytes: Uint8Array;
  /** Whether it is a console. */
  readonly console: boolean;
  /** The host's end. */
  readonly backend: ConsoleBackend;
  /** Input that waits for buffers of the guest. It outlives a reset of the driver. */
  readonly input: ByteRing;
  /** Whether input was refused, so that the back end is told of room. */
  refused = false;
  /** Whether the host's side is open. */
  hostOpen: boolean;
  /** The size; null if there is none. */
  size: ConsoleSize | null;
  /** Whether it is still a port of its device. */
  attached = false;

  /** Whether the driver said that it is ready. */
  ready = false;
  /** Whether the driver said that it could not set it up. */
  failed = false;
  /** Whether the guest's side is open. */
  guestOpen = false;
  /** What the driver is to be told. */
  due = 0;
  /** Whether the driver was told that the host's side is open. */
  toldOpen = false;

  /** @param settings Checked. */
  constructor(settings: PortSettings) {
    this.id = settings.id;
    this.name = settings.name;
    this.nameBytes = settings.nameBytes;
    this.console = settings.console;
    this.backend = settings.backend;
    this.input = new ByteRing(settings.inputBuffer);
    this.hostOpen = settings.open;
    this.size = settings.size;
  }

  /** The driver knows nothing of the port any more: it was reset, or told that the port is gone. */
  forget(): void {
    this.ready = false;
    this.failed = false;
    this.due = 0;
    this.toldOpen = false;
  }

  /** The driver is ready for the port: everything is due. */
  announceAll(): void {
    this.due = this.hostOpen ? Due.open : 0;
    if (this.console) this.due |= Due.console;
    if (this.nameBytes.length > 0) this.due |= Due.name;
    if (this.console && this.size !== null) this.due |= Due.resize;
  }

  /** The host opened or closed its side. */
  setHostOpen(open: boolean): void {
    this.hostOpen = open;
    if (!this.ready) return;
    if (open) {
      this.due |= Due.open;
    } else {
      this.due &= ~Due.open;
      // This stays when it is opened again: a driver without control buffers must not miss that it was closed.
      if (this.toldOpen) this.due |= Due.closed;
    }
  }
}

/** A port that is gone, and that a driver is to be told of. */
export function gonePort({ id, name }: { readonly id: number; readonly name: string }): PortState {
  return new PortState({
    id,
    name,
    nameBytes: new Uint8Array(0),
    console: false,
    backend: { write: (_bytes, _offset, length) => length },
    inputBuffer: 1,
    open: false,
    size: null,
  });
}
