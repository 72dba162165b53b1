/**
 * Declarations of what `adapter.ts` and the files that it names, and nothing else, use of the inside of v86 0.5.462. Property
 * names in v86's npm build are not mangled, but they are no public API: on another version look at each of these again.
 */

/** Reads a port; `this` is the entry's device. */
export type PortRead = (port: number) => number;
/** Writes a port; `this` is the entry's device. */
export type PortWrite = (value: number) => void;

/** v86's table of handlers for one I/O port. */
export interface PortEntry {
  read8: PortRead;
  read16: PortRead;
  read32: PortRead;
  write8: PortWrite;
  write16: PortWrite;
  write32: PortWrite;
  device: unknown;
}

/** The parts of v86's CPU that are used here. */
export interface Cpu {
  readonly wasm_memory: WebAssembly.Memory;
  readonly mem8: Uint8Array;
  readonly reg32: Int32Array;
  readonly cr: Int32Array;
  readonly flags: Int32Array;
  readonly protected_mode: Int32Array;
  readonly is_32: Int32Array;
  readonly stack_size_32: Int32Array;
  readonly gdtr_offset: Int32Array;
  readonly gdtr_size: Int32Array;
  readonly segment_is_null: Uint8Array;
  readonly segment_offsets: Int32Array;
  readonly segment_limits: Uint32Array;
  readonly segment_access_bytes: Uint8Array;
  readonly sreg: Uint16Array;
  readonly instruction_pointer: Int32Array;
  readonly io: { ports: PortEntry[] };
  readonly devices: {
    pci: {
      pci_addr: Uint8Array;
      devices: unknown[];
      device_spaces: (Int32Array | undefined)[];
      isa_bridge_space8: Uint8Array;
      register_device(device: object): Int32Array;
    };
    acpi: { gpe: Uint8Array; status: number };
  };
  option_roms: { name: string; data: Uint8Array }[];
  update_state_flags(): void;
  jit_dirty_cache(from: number, to: number): void;
  device_raise_irq(line: number): void;
  device_lower_irq(line: number): void;
  handle_irqs(): void;
  get_apic_addr(): number;
  main_loop(): number;
  reboot_internal(): void;
  mmap_read8(address: number): number;
  mmap_read32(address: number): number;
  mmap_write8(address: number, value: number): void;
  mmap_write16(address: number, value: number): void;
  mmap_write32(address: number, value: number): void;
  mmap_write64(address: number, low: number, high: number): void;
  mmap_write128(address: number, a: number, b: number, c: number, d: number): void;
}

/** The parts of a V86 object that are used here. */
export interface Emulator {
  v86: { cpu: Cpu };
  readonly bus: { send(event: string, value: unknown): void };
  add_listener(event: string, listener: (value: never) => void): void;
  serial_send_bytes(port: number, bytes: Uint8Array): void;
  run(): Promise<void>;
  stop(): Promise<void>;
  destroy(): Promise<void>;
  save_state(): Promise<ArrayBuffer>;
  restore_state(state: ArrayBuffer): Promise<void>;
}

// Offsets of processor state in v86's WebAssembly memory.
export const FLAGS = 120;
export const IN_HLT = 616;
export const INSTRUCTION_COUNTER = 664;
/** v86 looks at interrupts after this many instructions at the latest. */
export const LOOP_COUNTER = 100_003;
export const INTERRUPT_FLAG = 0x200;
/** What v86's main loop returns once the processor is halted with interrupts off. */
export const DEAD_IDLE = 100;
// Offsets of the local APIC's request and trigger-mode bits, in 32-bit words.
export const APIC_WORDS = 46;
export const APIC_IRR = 16;
export const APIC_TMR = 32;
export const REGISTER_ESP = 4;
export const REGISTER_ESI = 6;
export const SEGMENT_CS = 1;

/** First data port of PCI configuration mechanism 1. */
export const PCI_CONFIG_DATA = 0xcfc;
/** PM1 control register of ACPI. */
export const PM1_CONTROL = 0xb004;
/** SLP_EN in the PM1 control register. */
export const SLEEP_ENABLE = 1 << 13;
/** Debug console of SeaBIOS. */
export const BIOS_DEBUG = 0x402;
/** First port of QEMU's PCI hot-plug registers, which SeaBIOS's own tables refer to. */
export const HOTPLUG_FIRST = 0xae00;
/** First port after them. */
export const HOTPLUG_END = 0xae10;
/** General purpose event status registers of ACPI. */
export const GPE_STATUS = 0xafe0;
/** Power management block of ACPI: where v86 has it. */
export const PM_BLOCK = 0xb000;
/** Where SeaBIOS moves it. */
export const PM_BLOCK_OF_SEABIOS = 0x600;
/** Ports of it. */
export const PM_BLOCK_SIZE = 12;
/** PCI slot of v86's IDE controller. */
export const IDE_SLOT = 0x1e;
/** Offset of its timing registers, one of 16 bits per channel, in configuration space. */
export const IDE_TIMING = 0x40;
/** What a BIOS sets there: the decode enable bits of both channels, without which Linux takes them for switched off. */
export const IDE_DECODE_ENABLE = 0x8000_8000 | 0;
/** Registers of its primary channel: first port and number of ports of the command block, the control block, and bus master. */
export const IDE_PRIMARY_PORTS = [[0x1f0, 8], [0x3f6, 1], [0xb400, 8]] as const;
/** PCI slots of v86's own virtio devices. */
export const OWN_NET_SLOT = 10;
export const OWN_CONSOLE_SLOT = 12;
/** Where the PIIX keeps to which interrupt each of its four lines leads. */
export const PIRQ_ROUTES = 0x60;
/** What v86 calls what passes those devices. */
export const OWN_NET_SENT = "net0-send";
export const OWN_NET_RECEIVED = "net0-receive";
export const OWN_CONSOLE_SENT = "virtio-console0-output-bytes";
export const OWN_CONSOLE_RECEIVED = "virtio-console0-input-bytes";
/** CMOS boot order: hard disk, floppy disk, CD-ROM. */
export const BOOT_ORDER_DISK_FIRST = 0x312;
