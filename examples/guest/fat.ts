/** Makes a FAT16 file system with some files in its root: the least that GRUB, Linux and anybody else can read. */

const SECTOR = 512;
const SECTORS_PER_CLUSTER = 4;
const CLUSTER = SECTOR * SECTORS_PER_CLUSTER;
const RESERVED_SECTORS = 1;
const FAT_COUNT = 2;
const ROOT_ENTRIES = 512;
const ENTRY_SIZE = 32;
const ROOT_SECTORS = ROOT_ENTRIES * ENTRY_SIZE / SECTOR;
const MEDIA_DISK = 0xf8;
const END_OF_CHAIN = 0xffff;
const ATTRIBUTE_ARCHIVE = 0x20;
/** 1 January 1980, so that the same files give the same bytes. */
const DATE = 0x0021;

/** A file in the root. */
export interface FatFile {
  /** Name of at most eight characters and an extension of at most three, in capitals. */
  readonly name: string;
  /** Contents. */
  readonly bytes: Uint8Array;
}

function shortName(name: string): Uint8Array {
  const match = /^([A-Z0-9_-]{1,8})(?:\.([A-Z0-9_-]{1,3}))?$/.exec(name);
  if (match === null) throw new RangeError(`Not a short file name in capitals: ${name}`);
  return new TextEncoder().encode(match[1]!.padEnd(8) + (match[2] ?? "").padEnd(3));
}

/**
 * Writes the file system over `volume`, whose bytes are zero.
 *
 * @param hiddenSectors Sectors of the disk before the volume.
 * @throws {RangeError} If the files do not fit, or the volume's size does not suit FAT16 (8 MiB to 127 MiB).
 */
export function writeFat16(
  volume: Uint8Array,
  files: readonly FatFile[],
  hiddenSectors: number,
): void {
  const sectors = Math.floor(volume.length / SECTOR);
  // Two bytes an entry; computed as if the FATs took no room, which is a few sectors too generous.
  const fatSectors = Math.ceil((sectors / SECTORS_PER_CLUSTER + 2) * 2 / SECTOR);
  const dataStart = RESERVED_SECTORS + FAT_COUNT * fatSectors + ROOT_SECTORS;
  const clusters = Math.floor((sectors - dataStart) / SECTORS_PER_CLUSTER);
  if (clusters < 4085 || clusters >= 65525) {
    throw new RangeError(`A FAT16 volume has 4085 to 65524 clusters: this one has ${clusters}`);
  }
  const view = new DataView(volume.buffer, volume.byteOffset, volume.length);
  const text = (offset: number, value: string): void => {
    volume.set(new TextEncoder().encode(value), offset);
  };
  volume.set([0xeb, 0x3c, 0x90], 0);
  text(3, "VIRTIO  ");
  view.setUint16(11, SECTOR, true);
  view.setUint8(13, SECTORS_PER_CLUSTER);
  view.setUint16(14, RESERVED_SECTORS, true);
  view.setUint8(16, FAT_COUNT);
  view.setUint16(17, ROOT_ENTRIES, true);
  view.setUint16(19, sectors < 0x1_0000 ? sectors : 0, true);
  view.setUint8(21, MEDIA_DISK);
  view.setUint16(22, fatSectors, true);
  view.setUint16(24, 63, true);
  view.setUint16(26, 255, true);
  view.setUint32(28, hiddenSectors, true);
  view.setUint32(32, sectors < 0x1_0000 ? 0 : sectors, true);
  view.setUint8(36, 0x80);
  view.setUint8(38, 0x29);
  view.setUint32(39, 0x56495254, true);
  text(43, "GUEST      ");
  text(54, "FAT16   ");
  view.setUint16(510, 0xaa55, true);

  const fat = new Uint16Array(fatSectors * SECTOR / 2);
  fat[0] = 0xff00 | MEDIA_DISK;
  fat[1] = END_OF_CHAIN;
  let next = 2;
  files.forEach(({ name, bytes }, index) => {
    const count = Math.ceil(bytes.length / CLUSTER);
    if (next + count > clusters + 2 || index >= ROOT_ENTRIES) {
      throw new RangeError(`The file ${name} does not fit into the volume`);
    }
    const entry = (RESERVED_SECTORS + FAT_COUNT * fatSectors) * SECTOR + index * ENTRY_SIZE;
    volume.set(shortName(name), entry);
    volume[entry + 11] = ATTRIBUTE_ARCHIVE;
    view.setUint16(entry + 24, DATE, true);
    view.setUint16(entry + 26, count === 0 ? 0 : next, true);
    view.setUint32(entry + 28, bytes.length, true);
    volume.set(bytes, dataStart * SECTOR + (next - 2) * CLUSTER);
    for (let i = 0; i < count; i++) fat[next + i] = i === count - 1 ? END_OF_CHAIN : next + i + 1;
    next += count;
  });
  for (let copy = 0; copy < FAT_COUNT; copy++) {
    const at = (RESERVED_SECTORS + copy * fatSectors) * SECTOR;
    volume.set(new Uint8Array(fat.buffer), at);
  }
}
