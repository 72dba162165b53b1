import { assert, assertEquals } from "@std/assert";
import { buildAcpi, mmioAddress, mmioGsi, pciGsi, placeAcpi } from "./acpi.ts";
import { loaderScript } from "./firmware.ts";

const TABLES = 0x7_0000;

function sum(bytes: Uint8Array): number {
  return bytes.reduce((total, byte) => total + byte & 0xff, 0);
}

function signature(bytes: Uint8Array, offset: number): string {
  return new TextDecoder().decode(bytes.subarray(offset, offset + 4));
}

/** Follows RSDP, RSDT and FADT; gives each table's bytes by signature. */
function walk(rsdp: Uint8Array, tables: Uint8Array): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  const at = (address: number): string => {
    const offset = address - TABLES;
    const name = signature(tables, offset);
    const length = new DataView(tables.buffer).getUint32(offset + 4, true);
    found.set(name, tables.slice(offset, offset + length));
    return name;
  };
  const u32 = (bytes: Uint8Array, offset: number): number =>
    new DataView(bytes.buffer).getUint32(offset, true);
  assertEquals(at(u32(rsdp, 16)), "RSDT");
  const rsdt = found.get("RSDT")!;
  for (let offset = 36; offset < rsdt.length; offset += 4) at(u32(rsdt, offset));
  const fadt = found.get("FACP")!;
  assertEquals(at(u32(fadt, 40)), "DSDT");
  assertEquals(at(u32(fadt, 36)), "FACS");
  assertEquals(u32(fadt, 140), u32(fadt, 40));
  assertEquals(u32(fadt, 144), 0);
  return found;
}

Deno.test("ACPI tables are linked and every checksum holds, wherever they are placed", () => {
  const acpi = buildAcpi(4);
  const { rsdp, tables } = placeAcpi(acpi, TABLES);
  assertEquals(new TextDecoder().decode(rsdp.subarray(0, 8)), "RSD PTR ");
  assertEquals(sum(rsdp), 0);
  const found = walk(rsdp, tables);
  assertEquals([...found.keys()].sort(), ["APIC", "DSDT", "FACP", "FACS", "RSDT"]);
  for (const [name, bytes] of found) if (name !== "FACS") assertEquals(sum(bytes), 0, name);
  assertEquals(acpi, buildAcpi(4), "placing does not change the source");
});

Deno.test("the DSDT names every virtio-mmio window with its address and interrupt", () => {
  const { rsdp, tables } = placeAcpi(buildAcpi(3), TABLES);
  const dsdt = walk(rsdp, tables).get("DSDT")!;
  const text = new TextDecoder("latin1").decode(dsdt);
  assertEquals(text.match(/LNRO0005/g)?.length, 3);
  for (let index = 0; index < 3; index++) {
    const device = text.indexOf(`VM0${index}`);
    assert(device > 0);
    const view = new DataView(dsdt.buffer, device);
    const memory = dsdt.indexOf(0x86, device) - device; // Memory32Fixed
    assertEquals(view.getUint32(memory + 4, true), mmioAddress(index));
    assertEquals(view.getUint32(memory + 8, true), 0x1000);
    assertEquals(view.getUint8(memory + 12), 0x89); // extended interrupt
    assertEquals(view.getUint32(memory + 17, true), mmioGsi(index));
  }
});

Deno.test("PCI and virtio-mmio use different interrupt lines above the ISA ones", () => {
  const pci = new Set<number>();
  for (let slot = 0; slot < 32; slot++) {
    for (let pin = 0; pin < 4; pin++) pci.add(pciGsi(slot, pin));
  }
  const mmio = new Set(Array.from({ length: 64 }, (_, index) => mmioGsi(index)));
  assert(pci.isDisjointFrom(mmio));
  for (const line of pci.union(mmio)) assert(line >= 16 && line < 24);
});

Deno.test("a BIOS that runs the loader script ends with the same tables", () => {
  const acpi = buildAcpi(2);
  const files = new Map([["etc/acpi/rsdp", acpi.rsdp.slice()], [
    "etc/acpi/tables",
    acpi.tables.slice(),
  ]]);
  const script = loaderScript(acpi);
  const view = new DataView(script.buffer);
  const name = (offset: number): string =>
    new TextDecoder().decode(script.subarray(offset, offset + 56)).replace(/\0.*$/, "");
  const allocated: string[] = [];
  for (let at = 0; at < script.length; at += 128) {
    const bytes = files.get(name(at + 4))!;
    const target = new DataView(bytes.buffer);
    switch (view.getUint32(at, true)) {
      case 1:
        allocated.push(name(at + 4));
        break;
      case 2: {
        assertEquals(name(at + 60), "etc/acpi/tables");
        const offset = view.getUint32(at + 116, true);
        target.setUint32(offset, target.getUint32(offset, true) + TABLES, true);
        break;
      }
      case 3: {
        const start = view.getUint32(at + 64, true);
        const length = view.getUint32(at + 68, true);
        const offset = view.getUint32(at + 60, true);
        bytes[offset] = 0;
        bytes[offset] = -sum(bytes.subarray(start, start + length)) & 0xff;
        break;
      }
      default:
        throw new Error("unknown command");
    }
  }
  assertEquals(allocated.sort(), ["etc/acpi/rsdp", "etc/acpi/tables"]);
  const placed = placeAcpi(acpi, TABLES);
  assertEquals(files.get("etc/acpi/tables"), placed.tables);
  assertEquals(files.get("etc/acpi/rsdp"), placed.rsdp);
});
