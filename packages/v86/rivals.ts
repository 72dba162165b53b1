/**
 * v86's own virtio devices, for comparison with ours: a network card and a console. Knows the inside of v86 0.5.462. Both sit
 * in I/O space and interrupt by a PCI line.
 */
import * as inside from "./internals.ts";
import { pciGsi } from "./acpi.ts";

/** Which of v86's own virtio devices a machine has. */
export interface RivalOptions {
  /** The network card, in PCI slot 10. */
  readonly net?: boolean;
  /** The console, in PCI slot 12. */
  readonly console?: boolean;
}

/** v86's own virtio devices of a machine: their host's side. */
export class Rivals {
  /** Takes frames that the guest sends; valid during the call. Answers may be sent at once. */
  onFrame: ((frame: Uint8Array) => void) | null = null;
  /** Takes what the guest writes to the console; valid during the call. */
  onConsole: ((bytes: Uint8Array) => void) | null = null;
  readonly #emulator: inside.Emulator;

  /** Made by `V86Adapter`. */
  constructor(emulator: inside.Emulator) {
    this.#emulator = emulator;
    // What a BIOS does: tells the PIIX which interrupt each line leads to. Here the one that the ACPI tables name.
    const { isa_bridge_space8 } = emulator.v86.cpu.devices.pci;
    for (const slot of [inside.OWN_NET_SLOT, inside.OWN_CONSOLE_SLOT]) {
      isa_bridge_space8[inside.PIRQ_ROUTES + (slot - 1 & 3)] = pciGsi(slot, 0);
    }
    emulator.add_listener(
      inside.OWN_NET_SENT,
      (frame: Uint8Array) => this.onFrame?.(frame),
    );
    emulator.add_listener(
      inside.OWN_CONSOLE_SENT,
      (bytes: Uint8Array) => this.onConsole?.(bytes),
    );
  }

  /** Gives the guest a frame. v86 drops it if the guest has no buffer. */
  sendFrame(frame: Uint8Array): void {
    this.#emulator.bus.send(inside.OWN_NET_RECEIVED, frame);
  }

  /** Gives the guest input of the console. v86 drops it if the guest has no buffer. */
  sendConsole(bytes: Uint8Array): void {
    this.#emulator.bus.send(inside.OWN_CONSOLE_RECEIVED, bytes);
  }
}
