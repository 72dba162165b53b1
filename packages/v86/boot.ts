/**
 * Direct boot of a Linux kernel without a BIOS: the 32-bit boot protocol of the kernel's Documentation/arch/x86/boot.rst.
 * Everything here is data; the machine writes it into guest memory and sets the processor up.
 */
import type { AcpiTables } from "./acpi.ts";
import { placeAcpi } from "./acpi.ts";
import { isElf, readElf } from "./elf.ts";
import {
  ACPI_ADDRESS,
  BOOT_PARAMS_ADDRESS,
  COMMAND_LINE_ADDRESS,
  GDT_ADDRESS,
  HIGH_MEMORY,
  LOW_MEMORY_END,
  STACK_ADDRESS,
} from "./layout.ts";
import { unxz } from "./xz.ts";

/** What to boot. */
export interface LinuxBoot {
  /** A bzImage (as distributions ship it) or an uncompressed 32-bit ELF kernel. */
  readonly kernel: Uint8Array;
  /** Initial RAM disk; none unless given. */
  readonly initrd?: Uint8Array;
  /** Kernel command line, ASCII. */
  readonly commandLine: string;
}

/** Bytes and where they go. */
export interface MemoryWrite {
  /** Guest-physical address. */
  readonly address: number;
  /** The bytes. */
  readonly bytes: Uint8Array;
}

/** A boot, laid out. */
export interface BootPlan {
  /** To be written into zeroed memory, in order. */
  readonly writes: readonly MemoryWrite[];
  /** Physical entry point. */
  readonly entry: number;
  /** Value of ESI at entry: the address of boot_params. */
  readonly bootParams: number;
  /** Value of ESP at entry. */
  readonly stack: number;
  /** Address of the global descriptor table. */
  readonly gdt: number;
  /** Limit of the global descriptor table: its length minus one. */
  readonly gdtLimit: number;
}

/** Selector of the flat code segment that the protocol asks for (__BOOT_CS). */
export const BOOT_CODE_SELECTOR = 0x10;
/** Selector of the flat data segment that the protocol asks for (__BOOT_DS). */
export const BOOT_DATA_SELECTOR = 0x18;

// Offsets in boot_params; those from 0x1F1 on are the setup header of a bzImage.
const ACPI_RSDP_ADDR = 0x070;
const E820_ENTRIES = 0x1e8;
const SETUP_SECTS = 0x1f1;
const HEADER_MAGIC = 0x202;
const HEADER_END = 0x201;
const VERSION = 0x206;
const TYPE_OF_LOADER = 0x210;
const LOADFLAGS = 0x211;
const RAMDISK_IMAGE = 0x218;
const RAMDISK_SIZE = 0x21c;
const CMD_LINE_PTR = 0x228;
const INITRD_ADDR_MAX = 0x22c;
const CMDLINE_SIZE = 0x238;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const E820_TABLE = 0x2d0;
const BOOT_PARAMS_SIZE = 0x1000;

const HDRS = 0x53726448;
const LOADED_HIGH = 1 << 0;
const LOADER_UNDEFINED = 0xff;
const E820_RAM = 1;
const E820_RESERVED = 2;
const DEFAULT_INITRD_ADDR_MAX = 0x37ff_ffff;
const DEFAULT_CMDLINE_SIZE = 255;

/** The largest kernel that is unpacked: a broken length must not take all memory. */
const KERNEL_LIMIT = 256 << 20;

/** A kernel image taken apart. */
interface Kernel {
  /** Setup header, placed at its offset in boot_params; empty for an ELF kernel. */
  readonly header: Uint8Array;
  readonly writes: readonly MemoryWrite[];
  readonly entry: number;
  readonly initrdMax: number;
  readonly commandLineMax: number;
}

function elfKernel(bytes: Uint8Array, header: Uint8Array, initrdMax: number, max: number): Kernel {
  const elf = readElf(bytes);
  return {
    header,
    writes: elf.segments.map(({ address, bytes }) => ({ address, bytes })),
    entry: elf.entry,
    initrdMax,
    commandLineMax: max,
  };
}

/** The unpacked kernel inside of a bzImage, or null if it is packed in a way that only its own code unpacks. */
async function unpackPayload(payload: Uint8Array): Promise<Uint8Array | null> {
  if (payload.length < 16) return null;
  const size = new DataView(payload.buffer, payload.byteOffset + payload.length - 4)
    .getUint32(0, true);
  if (size > KERNEL_LIMIT) return null;
  const packed = payload.subarray(0, payload.length - 4);
  if (packed[0] === 0xfd && packed[1] === 0x37) return unxz(packed, size);
  if (packed[0] === 0x1f && packed[1] === 0x8b) {
    const stream = new Blob([packed as Uint8Array<ArrayBuffer>]).stream()
      .pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  return isElf(payload) ? payload : null;
}

/**
 * The uncompressed ELF kernel of a bzImage, so that it can be kept: unpacking takes most of a second, and letting the
 * kernel unpack itself in the emulator several. Returns null where the kernel has to unpack itself.
 *
 * @throws {RangeError} If `bytes` are not a bzImage.
 * @throws {XzError} If the payload is damaged.
 */
export function unpackKernel(bytes: Uint8Array): Promise<Uint8Array | null> {
  const { payload } = splitBzImage(bytes);
  return unpackPayload(payload);
}

function splitBzImage(
  bytes: Uint8Array,
): { view: DataView; protectedMode: Uint8Array; payload: Uint8Array } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 0x1000 || view.getUint32(HEADER_MAGIC, true) !== HDRS) {
    throw new RangeError("The kernel is neither a bzImage nor a 32-bit ELF file");
  }
  if (!(bytes[LOADFLAGS]! & LOADED_HIGH)) {
    throw new RangeError("The kernel is a zImage: only bzImage kernels can be booted");
  }
  const setup = ((bytes[SETUP_SECTS] || 4) + 1) * 512;
  const protectedMode = bytes.subarray(setup);
  const offset = view.getUint32(PAYLOAD_OFFSET, true);
  const length = view.getUint32(PAYLOAD_LENGTH, true);
  return { view, protectedMode, payload: protectedMode.subarray(offset, offset + length) };
}

async function openKernel(bytes: Uint8Array): Promise<Kernel> {
  if (isElf(bytes)) {
    return elfKernel(bytes, new Uint8Array(0), DEFAULT_INITRD_ADDR_MAX, 2047);
  }
  const { view, protectedMode, payload } = splitBzImage(bytes);
  const header = bytes.subarray(SETUP_SECTS, HEADER_MAGIC + bytes[HEADER_END]!);
  const initrdMax = view.getUint32(INITRD_ADDR_MAX, true) || DEFAULT_INITRD_ADDR_MAX;
  const commandLineMax = view.getUint32(CMDLINE_SIZE, true) || DEFAULT_CMDLINE_SIZE;
  const kernel = await unpackPayload(payload);
  if (kernel !== null) return elfKernel(kernel, header, initrdMax, commandLineMax);
  return {
    header,
    writes: [{ address: HIGH_MEMORY, bytes: protectedMode }],
    entry: HIGH_MEMORY,
    initrdMax,
    commandLineMax,
  };
}

/** Descriptors: null, unused, flat code, flat data (base 0, limit 4 GiB, 32-bit, accessed). */
function descriptorTable(): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setUint32(BOOT_CODE_SELECTOR, 0x0000_ffff, true);
  view.setUint32(BOOT_CODE_SELECTOR + 4, 0x00cf_9b00, true);
  view.setUint32(BOOT_DATA_SELECTOR, 0x0000_ffff, true);
  view.setUint32(BOOT_DATA_SELECTOR + 4, 0x00cf_9300, true);
  return bytes;
}

/**
 * Lays a boot out.
 *
 * @param boot Kernel, initial RAM disk, command line.
 * @param memorySize Bytes of guest memory from address 0 on.
 * @param acpi The machine's ACPI tables.
 * @throws {RangeError} If something is not bootable or does not fit.
 */
export async function planLinuxBoot(
  boot: LinuxBoot,
  memorySize: number,
  acpi: AcpiTables,
): Promise<BootPlan> {
  const kernel = await openKernel(boot.kernel);
  const writes: MemoryWrite[] = [...kernel.writes];
  const kernelEnd = Math.max(...writes.map(({ address, bytes }) => address + bytes.length));
  if (kernelEnd > memorySize) {
    throw new RangeError(
      `The kernel needs ${Math.ceil(kernelEnd / 2 ** 20)} MiB of guest memory, and there are ${
        memorySize / 2 ** 20
      }`,
    );
  }
  const commandLine = new TextEncoder().encode(`${boot.commandLine}\0`);
  if (commandLine.length > kernel.commandLineMax + 1) {
    throw new RangeError(
      `The command line is ${
        commandLine.length - 1
      } bytes long, and the kernel takes ${kernel.commandLineMax}`,
    );
  }
  writes.push({ address: COMMAND_LINE_ADDRESS, bytes: commandLine });

  const params = new Uint8Array(BOOT_PARAMS_SIZE);
  const view = new DataView(params.buffer);
  params.set(kernel.header, SETUP_SECTS);
  view.setUint32(HEADER_MAGIC, HDRS, true);
  // An ELF kernel brings no header: 2.13 is the protocol of every kernel since 2015.
  if (kernel.header.length === 0) view.setUint16(VERSION, 0x20d, true);
  params[TYPE_OF_LOADER] = LOADER_UNDEFINED;
  params[LOADFLAGS] = params[LOADFLAGS]! | LOADED_HIGH;
  view.setUint32(CMD_LINE_PTR, COMMAND_LINE_ADDRESS, true);

  if (boot.initrd !== undefined) {
    const { length } = boot.initrd;
    const top = Math.min(memorySize, kernel.initrdMax + 1);
    const address = Math.floor((top - length) / 4096) * 4096;
    if (address < kernelEnd) {
      throw new RangeError(
        `The initial RAM disk of ${length} bytes does not fit beside the kernel: give the guest more memory`,
      );
    }
    view.setUint32(RAMDISK_IMAGE, address, true);
    view.setUint32(RAMDISK_SIZE, length, true);
    writes.push({ address, bytes: boot.initrd });
  }

  const { rsdp, tables } = placeAcpi(acpi, ACPI_ADDRESS + 64);
  if (tables.length > HIGH_MEMORY - ACPI_ADDRESS - 64) {
    throw new RangeError("The ACPI tables do not fit below 1 MiB");
  }
  writes.push({ address: ACPI_ADDRESS, bytes: rsdp });
  writes.push({ address: ACPI_ADDRESS + 64, bytes: tables });
  view.setUint32(ACPI_RSDP_ADDR, ACPI_ADDRESS, true);

  const map: readonly [address: number, length: number, type: number][] = [
    [0, LOW_MEMORY_END, E820_RAM],
    [LOW_MEMORY_END, 0xa_0000 - LOW_MEMORY_END, E820_RESERVED],
    [ACPI_ADDRESS, HIGH_MEMORY - ACPI_ADDRESS, E820_RESERVED],
    [HIGH_MEMORY, memorySize - HIGH_MEMORY, E820_RAM],
  ];
  params[E820_ENTRIES] = map.length;
  map.forEach(([address, length, type], i) => {
    const at = E820_TABLE + i * 20;
    view.setUint32(at, address, true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 16, type, true);
  });
  writes.push({ address: BOOT_PARAMS_ADDRESS, bytes: params });
  const gdt = descriptorTable();
  writes.push({ address: GDT_ADDRESS, bytes: gdt });
  return {
    writes,
    entry: kernel.entry,
    bootParams: BOOT_PARAMS_ADDRESS,
    stack: STACK_ADDRESS,
    gdt: GDT_ADDRESS,
    gdtLimit: gdt.length - 1,
  };
}
