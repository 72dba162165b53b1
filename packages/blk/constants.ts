/** What the standard names in its block device section (virtio 1.4, 5.2). */

/** The unit of the protocol, whatever the block size of the disk is (5.2.6). */
export const SECTOR_SIZE = 512;

/** Maximum size of any single segment is in `size_max` (5.2.3). */
export const VIRTIO_BLK_F_SIZE_MAX: bigint = 1n << 1n;
/** Maximum number of segments in a request is in `seg_max` (5.2.3). */
export const VIRTIO_BLK_F_SEG_MAX: bigint = 1n << 2n;
/** Disk-style geometry is in `geometry` (5.2.3). */
export const VIRTIO_BLK_F_GEOMETRY: bigint = 1n << 4n;
/** The device is read-only (5.2.3). */
export const VIRTIO_BLK_F_RO: bigint = 1n << 5n;
/** Block size of the disk is in `blk_size` (5.2.3). */
export const VIRTIO_BLK_F_BLK_SIZE: bigint = 1n << 6n;
/** Cache flush command (5.2.3). */
export const VIRTIO_BLK_F_FLUSH: bigint = 1n << 9n;
/** Optimal I/O alignment is in `topology` (5.2.3). */
export const VIRTIO_BLK_F_TOPOLOGY: bigint = 1n << 10n;
/** The cache can be toggled between writeback and writethrough (5.2.3). */
export const VIRTIO_BLK_F_CONFIG_WCE: bigint = 1n << 11n;
/** Several request queues (5.2.3). */
export const VIRTIO_BLK_F_MQ: bigint = 1n << 12n;
/** Discard command (5.2.3). */
export const VIRTIO_BLK_F_DISCARD: bigint = 1n << 13n;
/** Write zeroes command (5.2.3). */
export const VIRTIO_BLK_F_WRITE_ZEROES: bigint = 1n << 14n;
/** Storage lifetime information (5.2.3). */
export const VIRTIO_BLK_F_LIFETIME: bigint = 1n << 15n;
/** Secure erase command (5.2.3). */
export const VIRTIO_BLK_F_SECURE_ERASE: bigint = 1n << 16n;
/** Zoned block device (5.2.3). Not built: never offered, never accepted. */
export const VIRTIO_BLK_F_ZONED: bigint = 1n << 17n;

/** Request type: read (5.2.6). */
export const VIRTIO_BLK_T_IN = 0;
/** Request type: write (5.2.6). */
export const VIRTIO_BLK_T_OUT = 1;
/** Request type: flush (5.2.6). */
export const VIRTIO_BLK_T_FLUSH = 4;
/** Request type: get device ID string (5.2.6). */
export const VIRTIO_BLK_T_GET_ID = 8;
/** Request type: get device lifetime (5.2.6). */
export const VIRTIO_BLK_T_GET_LIFETIME = 10;
/** Request type: discard (5.2.6). */
export const VIRTIO_BLK_T_DISCARD = 11;
/** Request type: write zeroes (5.2.6). */
export const VIRTIO_BLK_T_WRITE_ZEROES = 13;
/** Request type: secure erase (5.2.6). */
export const VIRTIO_BLK_T_SECURE_ERASE = 14;

/** Status: success (5.2.6). */
export const VIRTIO_BLK_S_OK = 0;
/** Status: device or driver error (5.2.6). */
export const VIRTIO_BLK_S_IOERR = 1;
/** Status: request unsupported by the device (5.2.6). */
export const VIRTIO_BLK_S_UNSUPP = 2;

/** Bytes of a device ID string (5.2.6). */
export const VIRTIO_BLK_ID_BYTES = 20;
/** Flag of a write zeroes segment: the range may be deallocated (5.2.6). */
export const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1;

/** Bytes of `type`, `reserved` and `sector` at the head of `struct virtio_blk_req` (5.2.6). */
export const REQUEST_HEADER_SIZE = 16;
/** Bytes of `struct virtio_blk_discard_write_zeroes` (5.2.6). */
export const RANGE_SIZE = 16;
/** Bytes of `struct virtio_blk_lifetime` (5.2.6). */
export const LIFETIME_SIZE = 6;

/** Value of `pre_eol_info` (5.2.6): not available. */
export const VIRTIO_BLK_PRE_EOL_INFO_UNDEFINED = 0;
/** Value of `pre_eol_info` (5.2.6): less than 80% of the reserved blocks are consumed. */
export const VIRTIO_BLK_PRE_EOL_INFO_NORMAL = 1;
/** Value of `pre_eol_info` (5.2.6): 80% of the reserved blocks are consumed. */
export const VIRTIO_BLK_PRE_EOL_INFO_WARNING = 2;
/** Value of `pre_eol_info` (5.2.6): 90% of the reserved blocks are consumed. */
export const VIRTIO_BLK_PRE_EOL_INFO_URGENT = 3;
/** Greatest value of the lifetime estimates (5.2.6): lifetime exceeded. What is above is reserved. */
export const LIFETIME_ESTIMATE_MAX = 11;

/** Offsets of the fields of `struct virtio_blk_config` (5.2.4). */
export const BlkConfigOffset = {
  /** le64, in sectors. */
  capacity: 0,
  /** le32. */
  size_max: 8,
  /** le32. */
  seg_max: 12,
  /** le16. */
  geometry_cylinders: 16,
  /** u8. */
  geometry_heads: 18,
  /** u8. */
  geometry_sectors: 19,
  /** le32. */
  blk_size: 20,
  /** u8. */
  topology_physical_block_exp: 24,
  /** u8. */
  topology_alignment_offset: 25,
  /** le16. */
  topology_min_io_size: 26,
  /** le32. */
  topology_opt_io_size: 28,
  /** u8, 0 writethrough, 1 writeback. */
  writeback: 32,
  /** le16. */
  num_queues: 34,
  /** le32. */
  max_discard_sectors: 36,
  /** le32. */
  max_discard_seg: 40,
  /** le32. */
  discard_sector_alignment: 44,
  /** le32. */
  max_write_zeroes_sectors: 48,
  /** le32. */
  max_write_zeroes_seg: 52,
  /** u8. */
  write_zeroes_may_unmap: 56,
  /** le32. */
  max_secure_erase_sectors: 60,
  /** le32. */
  max_secure_erase_seg: 64,
  /** le32. */
  secure_erase_sector_alignment: 68,
} as const;

/** Bytes of `struct virtio_blk_config` without the zoned characteristics (5.2.4). */
export const BLK_CONFIG_SIZE = 72;
