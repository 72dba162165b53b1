import type { ChainReader } from "@virtio/vring";
import {
  RANGE_SIZE,
  SECTOR_SIZE,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from "./constants.ts";

/**
 * The ranges of a discard, write zeroes or secure erase request, read from guest memory once and checked as a whole before
 * any of them is acted on.
 */
export class RangeList {
  /** How many. */
  count = 0;
  /** Start of each, in bytes. */
  readonly positions: Float64Array;
  /** Length of each, in bytes. */
  readonly lengths: Float64Array;
  /** Whether `unmap` was set. */
  readonly unmap: Uint8Array;

  /** @param capacity Most ranges that it can hold. */
  constructor(capacity: number) {
    this.positions = new Float64Array(capacity);
    this.lengths = new Float64Array(capacity);
    this.unmap = new Uint8Array(capacity);
  }

  /**
   * Reads all of `reader`.
   *
   * @param maxSegments Most ranges, as the configuration space says.
   * @param maxSectors Most sectors of one, likewise.
   * @param capacity Of the disk, in sectors.
   * @param flags Flags that the command knows.
   * @returns A status; ranges are there if it is VIRTIO_BLK_S_OK.
   */
  read(
    reader: ChainReader,
    maxSegments: number,
    maxSectors: number,
    capacity: number,
    flags: number,
  ): number {
    const bytes = reader.remaining;
    const count = bytes / RANGE_SIZE;
    // Checked before anything is read: the driver may send 4 GiB of ranges.
    if (count < 1 || bytes % RANGE_SIZE !== 0 || count > maxSegments) return VIRTIO_BLK_S_IOERR;
    let status = VIRTIO_BLK_S_OK;
    for (let i = 0; i < count; i++) {
      const at = reader.struct(RANGE_SIZE);
      const { view } = reader;
      const sector = view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
      const sectors = view.getUint32(at + 8, true);
      const set = view.getUint32(at + 12, true);
      // An unknown flag decides, whatever else is wrong with this range or an earlier one (5.2.6.2).
      if ((set & ~flags) !== 0) return VIRTIO_BLK_S_UNSUPP;
      // Sectors of 2^53 and more are rounded, and still beyond any capacity.
      if (sectors > maxSectors || sector + sectors > capacity) status = VIRTIO_BLK_S_IOERR;
      this.positions[i] = sector * SECTOR_SIZE;
      this.lengths[i] = sectors * SECTOR_SIZE;
      this.unmap[i] = set & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    }
    this.count = count;
    return status;
  }
}
