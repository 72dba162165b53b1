/**
 * The ACPI tables of the virtual machine: RSDP, RSDT, FADT, FACS, MADT and a DSDT with one PCI root, its interrupt
 * routing and the windows of virtio-mmio devices. Section numbers are those of ACPI 6.4.
 *
 * Tables point at each other by physical address, so they are made relative to 0 together with a list of what has to be
 * relocated. Direct boot places them itself (`placeAcpi`); a BIOS places them by a loader script (`loaderScript`).
 */
import * as aml from "./aml.ts";
import {
  FIRST_GSI,
  MMIO_GSI_COUNT,
  MMIO_GSI_FIRST,
  MMIO_WINDOW_BASE,
  MMIO_WINDOW_SIZE,
  PCI_GSI_COUNT,
  PCI_MEMORY_FIRST,
  PCI_MEMORY_LAST,
} from "./layout.ts";

/** A field that holds an address inside the tables. */
export interface AcpiPointer {
  /** Which blob the field is in. */
  readonly blob: "rsdp" | "tables";
  /** Offset of the field there. */
  readonly offset: number;
  /** Width of the field in bytes. The pointer is always into `tables`. */
  readonly size: 4 | 8;
}

/** A byte that makes the sum of a range zero. */
export interface AcpiChecksum {
  /** Which blob. */
  readonly blob: "rsdp" | "tables";
  /** Offset of the checksum byte. */
  readonly offset: number;
  /** First byte of the range. */
  readonly start: number;
  /** Bytes in the range. */
  readonly length: number;
}

/** Tables relative to address 0, and how to relocate them. */
export interface AcpiTables {
  /** Root pointer, 36 bytes (5.2.5.3). */
  readonly rsdp: Uint8Array;
  /** Everything else. */
  readonly tables: Uint8Array;
  /** Address fields, to which the final address of `tables` is added. */
  readonly pointers: readonly AcpiPointer[];
  /** Checksums, to be computed after the pointers. */
  readonly checksums: readonly AcpiChecksum[];
}

/** GSI of interrupt pin `pin` (0 is INTA#) of PCI device `slot`: the usual swizzle over the lines that PCI has. */
export function pciGsi(slot: number, pin: number): number {
  return FIRST_GSI + (slot + pin) % PCI_GSI_COUNT;
}

/** GSI of virtio-mmio window `index`. */
export function mmioGsi(index: number): number {
  return MMIO_GSI_FIRST + index % MMIO_GSI_COUNT;
}

/** Guest-physical address of virtio-mmio window `index`. */
export function mmioAddress(index: number): number {
  return MMIO_WINDOW_BASE + index * MMIO_WINDOW_SIZE;
}

/** Adds the byte at `offset` that makes `length` bytes from `start` on sum to zero (5.2.6). */
export function fixChecksum(
  bytes: Uint8Array,
  offset: number,
  start: number,
  length: number,
): void {
  bytes[offset] = 0;
  let sum = 0;
  for (let i = 0; i < length; i++) sum += bytes[start + i]!;
  bytes[offset] = -sum & 0xff;
}

const HEADER_LENGTH = 36;

/** A system description table: header (5.2.6) and body; the checksum is left for later. */
function table(
  signature: string,
  revision: number,
  body: Uint8Array | readonly number[],
): Uint8Array {
  const bytes = new Uint8Array(HEADER_LENGTH + body.length);
  const view = new DataView(bytes.buffer);
  const text = (offset: number, value: string): void => {
    bytes.set(new TextEncoder().encode(value), offset);
  };
  text(0, signature);
  view.setUint32(4, bytes.length, true);
  view.setUint8(8, revision);
  text(10, "VIRTIO");
  text(16, "VIRTIOTS");
  view.setUint32(24, 1, true);
  text(28, "VTTS");
  view.setUint32(32, 1, true);
  bytes.set(body, HEADER_LENGTH);
  return bytes;
}

/** Differentiated System Description Table. */
function dsdt(mmioWindows: number): Uint8Array {
  const routes: aml.Aml[] = [];
  for (let slot = 0; slot < 32; slot++) {
    for (let pin = 0; pin < 4; pin++) {
      routes.push(aml.packageOf([
        aml.integer((slot << 16 | 0xffff) >>> 0),
        aml.integer(pin),
        aml.integer(0),
        aml.integer(pciGsi(slot, pin)),
      ]));
    }
  }
  const root = aml.device("PCI0", [
    aml.name("_HID", aml.eisaId("PNP0A03")),
    aml.name("_UID", aml.integer(0)),
    aml.name(
      "_CRS",
      aml.resources([
        aml.busNumbers(0, 0xff),
        aml.ioPorts(0xcf8, 8),
        aml.ioWindow(0, 0xcf7),
        aml.ioWindow(0xd00, 0xffff),
        aml.memoryWindow(0xa0000, 0xbffff),
        aml.memoryWindow(PCI_MEMORY_FIRST, PCI_MEMORY_LAST),
      ]),
    ),
    aml.name("_PRT", aml.packageOf(routes)),
  ]);
  const windows: aml.Aml[] = [];
  for (let index = 0; index < mmioWindows; index++) {
    windows.push(aml.device(`VM${index.toString(16).toUpperCase().padStart(2, "0")}`, [
      aml.name("_HID", aml.string("LNRO0005")),
      aml.name("_UID", aml.integer(index)),
      aml.name(
        "_CRS",
        aml.resources([
          aml.memory32Fixed(mmioAddress(index), MMIO_WINDOW_SIZE),
          aml.levelInterrupt(mmioGsi(index)),
        ]),
      ),
    ]));
  }
  return table("DSDT", 2, [
    ...aml.scope("\\_SB", [root, ...windows]),
    // Soft off: the sleep type 0 that the machine looks for in the PM1 control register (7.4.2.6).
    ...aml.name("\\_S5", aml.packageOf([0, 0, 0, 0].map(aml.integer))),
  ]);
}

/** Fixed ACPI Description Table (5.2.9): the power management block of a PIIX4, as v86 has it. */
function fadt(): Uint8Array {
  const bytes = table("FACP", 3, new Uint8Array(244 - HEADER_LENGTH));
  const view = new DataView(bytes.buffer);
  view.setUint16(46, 9, true); // SCI_INT
  view.setUint32(56, 0xb000, true); // PM1a_EVT_BLK
  view.setUint32(64, 0xb004, true); // PM1a_CNT_BLK
  view.setUint32(76, 0xb008, true); // PM_TMR_BLK
  view.setUint8(88, 4); // PM1_EVT_LEN
  view.setUint8(89, 2); // PM1_CNT_LEN
  view.setUint8(91, 4); // PM_TMR_LEN
  view.setUint16(96, 0xfff, true); // P_LVL2_LAT: no C2
  view.setUint16(98, 0xfff, true); // P_LVL3_LAT: no C3
  view.setUint16(109, 0x3, true); // IAPC_BOOT_ARCH: legacy devices, 8042
  // Flags: WBINVD works, C1 is supported, no fixed power and sleep buttons.
  view.setUint32(112, 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5, true);
  return bytes;
}

/** Multiple APIC Description Table (5.2.12): one processor, one I/O APIC, the SCI as level and active high. */
function madt(): Uint8Array {
  const u32 = (value: number): number[] => [
    value & 0xff,
    value >>> 8 & 0xff,
    value >>> 16 & 0xff,
    value >>> 24,
  ];
  return table("APIC", 3, [
    ...u32(0xfee0_0000),
    ...u32(1), // PCAT_COMPAT: there are 8259s too
    ...[0, 8, 0, 0, ...u32(1)], // processor 0, local APIC 0, enabled
    ...[1, 12, 0, 0, ...u32(0xfec0_0000), ...u32(0)], // I/O APIC 0 from GSI 0 on
    ...[2, 10, 0, 9, ...u32(9), 0x0d, 0x00], // ISA 9 is GSI 9, active high, level
    ...[4, 6, 0xff, 0x00, 0x00, 1], // NMI on LINT1 of every processor
  ]);
}

/**
 * Makes all tables.
 *
 * @param mmioWindows How many virtio-mmio windows the DSDT declares, whether or not a device is behind them.
 */
export function buildAcpi(mmioWindows: number): AcpiTables {
  const pointers: AcpiPointer[] = [];
  const checksums: AcpiChecksum[] = [];
  const placed: { bytes: Uint8Array; offset: number }[] = [];
  let end = 0;
  const place = (bytes: Uint8Array, alignment = 16): number => {
    const offset = Math.ceil(end / alignment) * alignment;
    end = offset + bytes.length;
    placed.push({ bytes, offset });
    return offset;
  };
  const placeTable = (bytes: Uint8Array): number => {
    const offset = place(bytes);
    checksums.push({ blob: "tables", offset: offset + 9, start: offset, length: bytes.length });
    return offset;
  };

  const facs = new Uint8Array(64);
  facs.set(new TextEncoder().encode("FACS"));
  new DataView(facs.buffer).setUint32(4, facs.length, true);
  // FACS first: it must lie on a 64-byte boundary (5.2.10), and has no checksum.
  const facsOffset = place(facs, 64);
  const dsdtOffset = placeTable(dsdt(mmioWindows));
  const fadtBytes = fadt();
  const fadtOffset = placeTable(fadtBytes);
  const fadtView = new DataView(fadtBytes.buffer);
  fadtView.setUint32(36, facsOffset, true);
  fadtView.setUint32(40, dsdtOffset, true);
  fadtView.setUint32(140, dsdtOffset, true); // X_DSDT, upper half 0
  pointers.push(
    { blob: "tables", offset: fadtOffset + 36, size: 4 },
    { blob: "tables", offset: fadtOffset + 40, size: 4 },
    { blob: "tables", offset: fadtOffset + 140, size: 8 },
  );
  const madtOffset = placeTable(madt());
  const entries = [fadtOffset, madtOffset];
  const rsdt = table("RSDT", 1, new Uint8Array(4 * entries.length));
  const rsdtView = new DataView(rsdt.buffer);
  entries.forEach((offset, i) => rsdtView.setUint32(HEADER_LENGTH + 4 * i, offset, true));
  const rsdtOffset = placeTable(rsdt);
  entries.forEach((_, i) =>
    pointers.push({ blob: "tables", offset: rsdtOffset + HEADER_LENGTH + 4 * i, size: 4 })
  );

  // ACPI 1.0 form (revision 0): 32-bit tables are all there is, and firmware accepts it everywhere.
  const rsdp = new Uint8Array(20);
  rsdp.set(new TextEncoder().encode("RSD PTR "), 0);
  rsdp.set(new TextEncoder().encode("VIRTIO"), 9);
  new DataView(rsdp.buffer).setUint32(16, rsdtOffset, true);
  pointers.push({ blob: "rsdp", offset: 16, size: 4 });
  checksums.push({ blob: "rsdp", offset: 8, start: 0, length: 20 });

  const tables = new Uint8Array(end);
  for (const { bytes, offset } of placed) tables.set(bytes, offset);
  return { rsdp, tables, pointers, checksums };
}

/**
 * Relocates tables to fixed addresses.
 *
 * @param acpi What `buildAcpi` made; it is not changed.
 * @param tablesAddress Guest-physical address of `tables`; a multiple of 64.
 * @returns Both blobs, ready to be written into guest memory.
 */
export function placeAcpi(
  acpi: AcpiTables,
  tablesAddress: number,
): { rsdp: Uint8Array; tables: Uint8Array } {
  const blobs = { rsdp: acpi.rsdp.slice(), tables: acpi.tables.slice() };
  for (const { blob, offset } of acpi.pointers) {
    const view = new DataView(blobs[blob].buffer);
    view.setUint32(offset, view.getUint32(offset, true) + tablesAddress, true);
  }
  for (const { blob, offset, start, length } of acpi.checksums) {
    fixChecksum(blobs[blob], offset, start, length);
  }
  return blobs;
}
