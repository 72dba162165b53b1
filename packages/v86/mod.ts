/**
 * A virtual machine in v86, an x86 PC emulator in WebAssembly, that virtio devices attach to over PCI and MMIO.
 *
 * This module is browser compatible.
 *
 * @module
 */
export type { StopReason } from "./adapter_types.ts";
export { type LinuxBoot, unpackKernel } from "./boot.ts";
export { ExitCounters, IdeCounters } from "./counters.ts";
export {
  FIRST_PCI_SLOT,
  V86Machine,
  type V86MachineOptions,
  type V86MachineState,
} from "./machine.ts";
export type { SavedPciConfig } from "./pci_slot.ts";
export type { RivalOptions, Rivals } from "./rivals.ts";
export type { V86Wasm } from "./wasm.ts";
export { XzError } from "./xz.ts";
