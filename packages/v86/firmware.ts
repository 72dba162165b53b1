/**
 * What SeaBIOS is given through the firmware configuration device: the same ACPI tables as in a direct boot, with the
 * loader script (`etc/table-loader`, as QEMU has it) by which the BIOS places and links them.
 */
import type { AcpiTables } from "./acpi.ts";

/** A file of the firmware configuration device. */
export interface FirmwareFile {
  /** Name, shorter than 56 bytes. */
  readonly name: string;
  /** Contents. */
  readonly data: Uint8Array;
}

const RSDP_FILE = "etc/acpi/rsdp";
const TABLES_FILE = "etc/acpi/tables";
const LOADER_FILE = "etc/table-loader";

const ENTRY_SIZE = 128;
const NAME_SIZE = 56;
const COMMAND_ALLOCATE = 1;
const COMMAND_ADD_POINTER = 2;
const COMMAND_ADD_CHECKSUM = 3;
const ZONE_HIGH = 1;
const ZONE_FSEG = 2;

/** One entry of the loader script: the command, then fields filled in by `fill`. */
function entry(command: number, fill: (bytes: Uint8Array, view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(ENTRY_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, command, true);
  fill(bytes, view);
  return bytes;
}

function setName(bytes: Uint8Array, offset: number, name: string): void {
  bytes.set(new TextEncoder().encode(name), offset);
}

/** The script that allocates both blobs, then links, then sums them. */
export function loaderScript(acpi: AcpiTables): Uint8Array {
  const fileOf = (blob: "rsdp" | "tables"): string => blob === "rsdp" ? RSDP_FILE : TABLES_FILE;
  const allocate = (name: string, alignment: number, zone: number): Uint8Array =>
    entry(COMMAND_ALLOCATE, (bytes, view) => {
      setName(bytes, 4, name);
      view.setUint32(4 + NAME_SIZE, alignment, true);
      bytes[8 + NAME_SIZE] = zone;
    });
  const entries = [
    allocate(TABLES_FILE, 64, ZONE_HIGH),
    // A system without boot_params looks for the root pointer in the BIOS area.
    allocate(RSDP_FILE, 16, ZONE_FSEG),
    ...acpi.pointers.map(({ blob, offset, size }) =>
      entry(COMMAND_ADD_POINTER, (bytes, view) => {
        setName(bytes, 4, fileOf(blob));
        setName(bytes, 4 + NAME_SIZE, TABLES_FILE);
        view.setUint32(4 + 2 * NAME_SIZE, offset, true);
        bytes[8 + 2 * NAME_SIZE] = size;
      })
    ),
    ...acpi.checksums.map(({ blob, offset, start, length }) =>
      entry(COMMAND_ADD_CHECKSUM, (bytes, view) => {
        setName(bytes, 4, fileOf(blob));
        view.setUint32(4 + NAME_SIZE, offset, true);
        view.setUint32(8 + NAME_SIZE, start, true);
        view.setUint32(12 + NAME_SIZE, length, true);
      })
    ),
  ];
  const script = new Uint8Array(entries.length * ENTRY_SIZE);
  entries.forEach((bytes, i) => script.set(bytes, i * ENTRY_SIZE));
  return script;
}

/** The files that make SeaBIOS install the tables, and start at once. */
export function firmwareFiles(acpi: AcpiTables): readonly FirmwareFile[] {
  return [
    { name: RSDP_FILE, data: acpi.rsdp },
    { name: TABLES_FILE, data: acpi.tables },
    { name: LOADER_FILE, data: loaderScript(acpi) },
    // Without this SeaBIOS waits some seconds for somebody to press a key.
    { name: "etc/show-boot-menu", data: new Uint8Array(8) },
  ];
}
