/** What goes in and out of `V86Adapter`: nothing here depends on v86. */
import type { RivalOptions } from "./rivals.ts";
import type { V86Wasm } from "./wasm.ts";

/** What the adapter needs to make an emulator. */
export interface V86AdapterOptions {
  /** Bytes of guest memory, a multiple of 128 KiB. */
  readonly memorySize: number;
  /** v86's WebAssembly module; found beside the `v86` package unless given. */
  readonly wasm?: V86Wasm;
  /** BIOS image and display adapter BIOS; none for direct boot. */
  readonly bios?: Uint8Array;
  /** Display adapter BIOS. */
  readonly vgaBios?: Uint8Array;
  /** A disk for v86's own IDE controller; without one the guest sees no such controller. */
  readonly ideDisk?: ArrayBuffer;
  /** v86's own virtio devices; none unless given. */
  readonly rivals?: RivalOptions;
}

/** Why the processor will not go on by itself. */
export type StopReason = "poweroff" | "reset" | "halted" | "crashed";

/** What the adapter tells its owner. */
export interface V86Events {
  /** A byte left serial port 0. */
  serial(byte: number): void;
  /** A byte left the BIOS debug port (0x402). */
  debug(byte: number): void;
  /** The guest stopped; it does not run any more. `error` is what v86 threw, if it did. */
  stopped(reason: StopReason, error?: unknown): void;
}

/** Registers at the entry of a program in flat 32-bit protected mode. */
export interface EntryState {
  /** EIP. */
  readonly entry: number;
  /** ESI. */
  readonly esi: number;
  /** ESP. */
  readonly esp: number;
  /** Base of the global descriptor table. */
  readonly gdt: number;
  /** Limit of the global descriptor table. */
  readonly gdtLimit: number;
  /** Selector loaded into CS. */
  readonly codeSelector: number;
  /** Selector loaded into the data segment registers. */
  readonly dataSelector: number;
}
