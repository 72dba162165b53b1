/**
 * Makes a disk that a BIOS boots: GRUB 2 from Debian's `grub-pc-bin` before the first partition, and a FAT16 partition with
 * its configuration, a kernel and an initial RAM disk. The core image is put together here, since `grub-mkimage` is a
 * program of the host and this has to work where it is not.
 */
import { writeFat16 } from "./fat.ts";
import { lzmaEncode } from "./lzma_encode.ts";

/** What goes on the disk. */
export interface GrubDiskOptions {
  /** GRUB's images and modules for `i386-pc`, by file name (`fetchFirmware`). */
  readonly grub: ReadonlyMap<string, Uint8Array>;
  /** Kernel, as a bzImage. */
  readonly kernel: Uint8Array;
  /** Initial RAM disk; none unless given. */
  readonly initrd?: Uint8Array;
  /** Whether the kernel is to be entered at its 16-bit code, as what is no Linux but looks like one; no unless given. */
  readonly realMode?: boolean;
  /** Kernel command line. */
  readonly commandLine: string;
  /** Bytes of the disk; 64 MiB unless given. */
  readonly size?: number;
}

const SECTOR = 512;
const PARTITION_START = 2048;
const PARTITION_FAT16_LBA = 0x0e;
const BOOT_SIGNATURE = 0xaa55;

// Fields of boot.img, diskboot.img and lzma_decompress.img.
const BOOT_KERNEL_SECTOR = 0x5c;
const BOOT_DRIVE_CHECK = 0x66;
const BOOT_CODE_END = 0x1b8;
const PARTITION_TABLE = 0x1be;
const BLOCK_LIST = 0x1f4;
const DECOMPRESS_PACKED_SIZE = 0x08;
const DECOMPRESS_UNPACKED_SIZE = 0x0c;
/** Where the core image's second sector is loaded, as a segment. */
const CORE_SEGMENT = 0x820;
const CORE_LIMIT = 0x7_8000 - 0x9000;

const MODULE_MAGIC = 0x676d_696d;
const MODULE_ELF = 0;
const MODULE_PREFIX = 3;
const MODULE_INFO_SIZE = 12;

const MODULES = [
  "biosdisk",
  "part_msdos",
  "fat",
  "linux",
  "linux16",
  "serial",
  "terminal",
  "normal",
];

const SHT_PROGBITS = 1;
const SHF_ALLOC = 2;

function file(grub: ReadonlyMap<string, Uint8Array>, name: string): Uint8Array {
  const bytes = grub.get(name);
  if (bytes === undefined) throw new RangeError(`GRUB's file ${name} is missing`);
  return bytes;
}

/** The bytes of GRUB's kernel as they lie in memory, up to the end of its initialized data. */
function loadKernel(elf: Uint8Array): Uint8Array {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.length);
  const headers = view.getUint32(32, true);
  const size = view.getUint16(46, true);
  const count = view.getUint16(48, true);
  const sections: { address: number; bytes: Uint8Array }[] = [];
  for (let i = 0; i < count; i++) {
    const at = headers + i * size;
    const allocated = view.getUint32(at + 8, true) & SHF_ALLOC;
    if (view.getUint32(at + 4, true) !== SHT_PROGBITS || !allocated) continue;
    const offset = view.getUint32(at + 16, true);
    const length = view.getUint32(at + 20, true);
    sections.push({
      address: view.getUint32(at + 12, true),
      bytes: elf.subarray(offset, offset + length),
    });
  }
  const start = Math.min(...sections.map(({ address }) => address));
  const end = Math.max(...sections.map(({ address, bytes }) => address + bytes.length));
  const image = new Uint8Array(end - start);
  for (const { address, bytes } of sections) image.set(bytes, address - start);
  return image;
}

/** Modules in an order in which each comes after those it needs. */
function orderModules(grub: ReadonlyMap<string, Uint8Array>): string[] {
  const needs = new Map<string, string[]>();
  for (const line of new TextDecoder().decode(file(grub, "moddep.lst")).split("\n")) {
    const [name, rest] = line.split(":");
    if (rest !== undefined) needs.set(name!, rest.trim().split(/\s+/).filter(Boolean));
  }
  const order: string[] = [];
  const add = (name: string): void => {
    if (order.includes(name)) return;
    for (const needed of needs.get(name) ?? []) add(needed);
    order.push(name);
  };
  MODULES.forEach(add);
  return order;
}

/** The core image: a sector that loads the rest, the unpacker, and GRUB's packed kernel with modules. */
export function buildGrubCore(grub: ReadonlyMap<string, Uint8Array>, prefix: string): Uint8Array {
  const objects = orderModules(grub)
    .map((name) => ({ type: MODULE_ELF, bytes: file(grub, `${name}.mod`) }));
  objects.push({ type: MODULE_PREFIX, bytes: new TextEncoder().encode(`${prefix}\0`) });
  const padded = (length: number): number => Math.ceil(length / 4) * 4;
  const modulesSize = MODULE_INFO_SIZE +
    objects.reduce((sum, { bytes }) => sum + 8 + padded(bytes.length), 0);

  const kernel = loadKernel(file(grub, "kernel.img"));
  const image = new Uint8Array(kernel.length + modulesSize);
  const view = new DataView(image.buffer);
  image.set(kernel);
  let at = kernel.length;
  view.setUint32(at, MODULE_MAGIC, true);
  view.setUint32(at + 4, MODULE_INFO_SIZE, true);
  view.setUint32(at + 8, modulesSize, true);
  at += MODULE_INFO_SIZE;
  for (const { type, bytes } of objects) {
    view.setUint32(at, type, true);
    view.setUint32(at + 4, 8 + padded(bytes.length), true);
    image.set(bytes, at + 8);
    at += 8 + padded(bytes.length);
  }

  const packed = lzmaEncode(image);
  const unpacker = file(grub, "lzma_decompress.img").slice();
  const fields = new DataView(unpacker.buffer);
  fields.setUint32(DECOMPRESS_PACKED_SIZE, packed.length, true);
  fields.setUint32(DECOMPRESS_UNPACKED_SIZE, image.length, true);
  const length = unpacker.length + packed.length;
  if (length > CORE_LIMIT) throw new RangeError(`GRUB's core image of ${length} bytes is too long`);

  const sectors = Math.ceil(length / SECTOR);
  const core = new Uint8Array((1 + sectors) * SECTOR);
  core.set(file(grub, "diskboot.img"));
  const list = new DataView(core.buffer, BLOCK_LIST);
  list.setBigUint64(0, 2n, true); // the image's second sector lies in sector 2 of the disk
  list.setUint16(8, sectors, true);
  list.setUint16(10, CORE_SEGMENT, true);
  core.set(unpacker, SECTOR);
  core.set(packed, SECTOR + unpacker.length);
  return core;
}

/**
 * Builds the disk.
 *
 * @throws {RangeError} If something does not fit, or GRUB's files are not all there.
 */
export function buildGrubDisk(options: GrubDiskOptions): Uint8Array {
  const disk = new Uint8Array(options.size ?? 64 << 20);
  const core = buildGrubCore(options.grub, "(hd0,msdos1)");
  if (core.length > (PARTITION_START - 1) * SECTOR) {
    throw new RangeError("GRUB's core image does not fit before the first partition");
  }
  disk.set(file(options.grub, "boot.img").subarray(0, BOOT_CODE_END));
  disk.set(core, SECTOR);
  const view = new DataView(disk.buffer);
  view.setBigUint64(BOOT_KERNEL_SECTOR, 1n, true);
  // The jump over the check of the drive number: a hard disk's is right as the BIOS gives it.
  view.setUint16(BOOT_DRIVE_CHECK, 0x9090, true);
  const sectors = disk.length / SECTOR - PARTITION_START;
  disk.set([0x80, 0xfe, 0xff, 0xff, PARTITION_FAT16_LBA, 0xfe, 0xff, 0xff], PARTITION_TABLE);
  view.setUint32(PARTITION_TABLE + 8, PARTITION_START, true);
  view.setUint32(PARTITION_TABLE + 12, sectors, true);
  view.setUint16(SECTOR - 2, BOOT_SIGNATURE, true);

  const configuration = [
    "serial --unit=0 --speed=115200",
    "terminal_output serial",
    "set timeout=0",
    'menuentry "Linux" {',
    `  ${options.realMode ? "linux16" : "linux"} /vmlinuz ${options.commandLine}`,
    ...(options.initrd === undefined ? [] : ["  initrd /initrd.img"]),
    "}",
    "",
  ].join("\n");
  writeFat16(
    disk.subarray(PARTITION_START * SECTOR),
    [
      { name: "GRUB.CFG", bytes: new TextEncoder().encode(configuration) },
      { name: "VMLINUZ", bytes: options.kernel },
      ...(options.initrd === undefined ? [] : [{ name: "INITRD.IMG", bytes: options.initrd }]),
    ],
    PARTITION_START,
  );
  return disk;
}
