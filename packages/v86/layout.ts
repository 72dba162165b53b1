/** Where things are in the guest's physical address space and among its interrupt lines. */

/** First interrupt line that no ISA device uses: inputs 16 to 23 of the I/O APIC belong to PCI and virtio-mmio. */
export const FIRST_GSI = 16;
/** Lines over which the interrupt pins of PCI devices are spread. */
export const PCI_GSI_COUNT = 4;
/** First line of virtio-mmio. */
export const MMIO_GSI_FIRST = FIRST_GSI + PCI_GSI_COUNT;
/** Lines over which virtio-mmio windows are spread. */
export const MMIO_GSI_COUNT = 4;
/** Inputs of the I/O APIC. */
export const GSI_COUNT = 24;

/** First address that the PCI root bridge hands to memory BARs; guest memory ends below. */
export const PCI_MEMORY_FIRST = 0xc000_0000;
/** Last address that the PCI root bridge hands to memory BARs. v86's display adapter sits inside, at 0xE0000000. */
export const PCI_MEMORY_LAST = 0xfebf_ffff;
/** First virtio-mmio window: above the local APIC, where SeaBIOS puts no BAR. */
export const MMIO_WINDOW_BASE = 0xfef0_0000;
/** Distance and size of virtio-mmio windows in bytes. */
export const MMIO_WINDOW_SIZE = 0x1000;
/** Most virtio-mmio windows that the tables can name. */
export const MMIO_WINDOW_LIMIT = 64;

/** Direct boot: global descriptor table. */
export const GDT_ADDRESS = 0x1000;
/** Direct boot: top of a small stack. */
export const STACK_ADDRESS = 0x9000;
/** Direct boot: boot_params, the "zero page". */
export const BOOT_PARAMS_ADDRESS = 0x1_0000;
/** Direct boot: command line. */
export const COMMAND_LINE_ADDRESS = 0x2_0000;
/** End of the low memory that a PC leaves free; an extended BIOS data area would follow. */
export const LOW_MEMORY_END = 0x9_fc00;
/** Direct boot: ACPI tables, in the area of a BIOS, where systems look for the root pointer. */
export const ACPI_ADDRESS = 0xe_0000;
/** Start of extended memory. */
export const HIGH_MEMORY = 0x10_0000;
