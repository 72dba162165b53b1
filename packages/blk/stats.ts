/** What a block device did since it was made. Plain numbers: counting costs a store. */
export class BlkStats {
  /** Requests of any type, answered with any status or still being worked on. */
  requests = 0;
  /** VIRTIO_BLK_T_IN requests that succeeded. */
  reads = 0;
  /** VIRTIO_BLK_T_OUT requests that succeeded. */
  writes = 0;
  /** VIRTIO_BLK_T_FLUSH requests that succeeded. */
  flushes = 0;
  /** VIRTIO_BLK_T_DISCARD requests that succeeded. */
  discards = 0;
  /** VIRTIO_BLK_T_WRITE_ZEROES requests that succeeded. */
  writeZeroes = 0;
  /** VIRTIO_BLK_T_SECURE_ERASE requests that succeeded. */
  secureErases = 0;
  /** VIRTIO_BLK_T_GET_ID requests that succeeded. */
  ids = 0;
  /** VIRTIO_BLK_T_GET_LIFETIME requests that succeeded. */
  lifetimes = 0;
  /** Requests answered with VIRTIO_BLK_S_IOERR. */
  errors = 0;
  /** Requests answered with VIRTIO_BLK_S_UNSUPP. */
  unsupported = 0;
  /** Bytes that successful reads read. */
  bytesRead = 0;
  /** Bytes that successful writes wrote. */
  bytesWritten = 0;
}
