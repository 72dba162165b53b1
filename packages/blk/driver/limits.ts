import type { DriverSession, DriverTransport } from "@virtio/device/driver";
import {
  BlkConfigOffset,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SECURE_ERASE,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from "../constants.ts";
import type { BlkGeometry, BlkTopology } from "../options.ts";

/** Limits of a command that names ranges. */
export interface BlkRangeInfo {
  /** Sectors of one range at most. */
  readonly maxSectors: number;
  /** Ranges of one request at most. */
  readonly maxSegments: number;
  /** What ranges are best aligned to, in sectors; 0 if the device does not say. */
  readonly alignment: number;
}

/** What the configuration space of a block device says (virtio 1.4, 5.2.4), as far as the negotiated features define it. */
export interface BlkInfo {
  /** In sectors of 512 bytes. */
  readonly sectors: number;
  /** Whether writes are refused. */
  readonly readonly: boolean;
  /** Bytes of one segment at most. */
  readonly sizeMax: number;
  /** Segments of one request at most. */
  readonly segMax: number;
  /** Logical block size in bytes. */
  readonly blockSize: number;
  /** Null unless negotiated. */
  readonly geometry: Required<BlkGeometry> | null;
  /** Null unless negotiated. */
  readonly topology: Required<BlkTopology> | null;
  /** Whether completed writes may be volatile until a flush (5.2.5.1). */
  readonly writeback: boolean;
  /** Number of request queues. */
  readonly queues: number;
  /** Null unless negotiated. */
  readonly discard: BlkRangeInfo | null;
  /** Null unless negotiated. */
  readonly writeZeroes: BlkRangeInfo & { readonly mayUnmap: boolean } | null;
  /** Null unless negotiated. */
  readonly secureErase: BlkRangeInfo | null;
}

/**
 * Reads the configuration consistently. Only after FEATURES_OK: `writeback` may not be read before (5.2.5.1).
 *
 * @throws {DriverError} If it never stands still.
 */
export function readInfo(session: DriverSession): BlkInfo {
  return session.readConfig((transport) => read(session, transport));
}

function read(session: DriverSession, transport: DriverTransport): BlkInfo {
  const at = BlkConfigOffset;
  const u8 = (offset: number): number => transport.readConfig(offset, 1);
  const u16 = (offset: number): number => transport.readConfig(offset, 2);
  const u32 = (offset: number): number => transport.readConfig(offset, 4);
  const range = (feature: bigint, offset: number, aligned: boolean): BlkRangeInfo | null => {
    if (!session.has(feature)) return null;
    // Devices that leave a limit at 0 mean none, or one; what they cannot mean is that the command is no use.
    return {
      maxSectors: u32(offset) || 0xffff_ffff,
      maxSegments: u32(offset + 4) || 1,
      alignment: aligned ? u32(offset + 8) : 0,
    };
  };
  // qemu-storage-daemon offers the feature and leaves the limit at 0.
  const sizeMax = (session.has(VIRTIO_BLK_F_SIZE_MAX) ? u32(at.size_max) : 0) || 0xffff_ffff;
  const zeroes = range(VIRTIO_BLK_F_WRITE_ZEROES, at.max_write_zeroes_sectors, false);
  return {
    sectors: u32(at.capacity) + u32(at.capacity + 4) * 0x1_0000_0000,
    readonly: session.has(VIRTIO_BLK_F_RO),
    sizeMax,
    segMax: session.has(VIRTIO_BLK_F_SEG_MAX) ? Math.max(1, u32(at.seg_max)) : 0xffff_ffff,
    blockSize: session.has(VIRTIO_BLK_F_BLK_SIZE) ? u32(at.blk_size) : 512,
    geometry: session.has(VIRTIO_BLK_F_GEOMETRY)
      ? {
        cylinders: u16(at.geometry_cylinders),
        heads: u8(at.geometry_heads),
        sectors: u8(at.geometry_sectors),
      }
      : null,
    topology: session.has(VIRTIO_BLK_F_TOPOLOGY)
      ? {
        physicalBlockExp: u8(at.topology_physical_block_exp),
        alignmentOffset: u8(at.topology_alignment_offset),
        minIoSize: u16(at.topology_min_io_size),
        optIoSize: u32(at.topology_opt_io_size),
      }
      : null,
    writeback: session.has(VIRTIO_BLK_F_CONFIG_WCE)
      ? u8(at.writeback) !== 0
      : session.has(VIRTIO_BLK_F_FLUSH),
    queues: session.has(VIRTIO_BLK_F_MQ) ? Math.max(1, u16(at.num_queues)) : 1,
    discard: range(VIRTIO_BLK_F_DISCARD, at.max_discard_sectors, true),
    writeZeroes: zeroes && { ...zeroes, mayUnmap: u8(at.write_zeroes_may_unmap) !== 0 },
    secureErase: range(VIRTIO_BLK_F_SECURE_ERASE, at.max_secure_erase_sectors, true),
  };
}
