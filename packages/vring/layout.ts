/** The constants of both ring formats, with the spelling of the standard, and the sizes of the three areas. */

/** The buffer goes on in the descriptor `next` (2.7.5) or in the next ring slot (2.8.1). */
export const VIRTQ_DESC_F_NEXT = 1;
/** The buffer is device-writable; otherwise it is device-readable (2.7.5, 2.8.2). */
export const VIRTQ_DESC_F_WRITE = 2;
/** The buffer holds a table of descriptors (2.7.5.3, 2.8.7). */
export const VIRTQ_DESC_F_INDIRECT = 4;
/** Packed: compared with the wrap counter, tells whether a descriptor is available (2.8.1). */
export const VIRTQ_DESC_F_AVAIL = 1 << 7;
/** Packed: compared with the wrap counter, tells whether a descriptor is used (2.8.1). */
export const VIRTQ_DESC_F_USED = 1 << 15;
/** Split, driver area: the driver asks for no used buffer notifications (2.7.6). */
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
/** Split, device area: the device asks for no available buffer notifications (2.7.8). */
export const VIRTQ_USED_F_NO_NOTIFY = 1;
/** Packed event suppression: notify always (2.8.10). */
export const RING_EVENT_FLAGS_ENABLE = 0;
/** Packed event suppression: never notify (2.8.10). */
export const RING_EVENT_FLAGS_DISABLE = 1;
/** Packed event suppression: notify when the given descriptor is reached; needs EVENT_IDX (2.8.10). */
export const RING_EVENT_FLAGS_DESC = 2;

/** VIRTIO_F_INDIRECT_DESC (6). */
export const VIRTIO_F_INDIRECT_DESC: bigint = 1n << 28n;
/** VIRTIO_F_EVENT_IDX (6). */
export const VIRTIO_F_EVENT_IDX: bigint = 1n << 29n;
/** VIRTIO_F_RING_PACKED (6). */
export const VIRTIO_F_RING_PACKED: bigint = 1n << 34n;
/** VIRTIO_F_IN_ORDER (6). */
export const VIRTIO_F_IN_ORDER: bigint = 1n << 35n;

/** Bytes of one descriptor, in a ring or in an indirect table, in either format. */
export const DESCRIPTOR_SIZE = 16;
/** The largest queue that the standard allows, in either format (2.7, 2.8.10.1). */
export const MAX_QUEUE_SIZE = 32768;

/** Bytes and alignment of one area. */
export interface AreaLayout {
  /** Bytes. */
  readonly size: number;
  /** The address must be a multiple of this. */
  readonly align: number;
}

/** Bytes and alignment of the three areas of a virtqueue (2.7 and 2.8.11). */
export interface RingLayout {
  /** Descriptor table (split) or descriptor ring (packed). */
  readonly descriptorArea: AreaLayout;
  /** Available ring (split) or driver event suppression (packed). */
  readonly driverArea: AreaLayout;
  /** Used ring (split) or device event suppression (packed). */
  readonly deviceArea: AreaLayout;
}

/** Which format a queue has: decided once, by whether VIRTIO_F_RING_PACKED was negotiated. */
export type RingFormat = "split" | "packed";

/** Whether a queue may have this size: 1 to 32768; in the split format a power of two (2.7, 2.8.10.1). */
export function isQueueSize(format: RingFormat, size: number): boolean {
  return Number.isInteger(size) && size >= 1 && size <= MAX_QUEUE_SIZE &&
    (format === "packed" || (size & (size - 1)) === 0);
}

/**
 * The layout of a virtqueue of `size` entries.
 *
 * @throws {RangeError} If the format does not allow the size.
 */
export function ringLayout(format: RingFormat, size: number): RingLayout {
  if (!isQueueSize(format, size)) {
    throw new RangeError(
      `A ${format} queue cannot have size ${size}: use 1 to ${MAX_QUEUE_SIZE}${
        format === "split" ? ", a power of two" : ""
      }`,
    );
  }
  if (format === "packed") {
    return {
      descriptorArea: { size: DESCRIPTOR_SIZE * size, align: 16 },
      driverArea: { size: 4, align: 4 },
      deviceArea: { size: 4, align: 4 },
    };
  }
  // The event words at the ends are there whether EVENT_IDX is negotiated or not.
  return {
    descriptorArea: { size: DESCRIPTOR_SIZE * size, align: 16 },
    driverArea: { size: 6 + 2 * size, align: 2 },
    deviceArea: { size: 6 + 8 * size, align: 4 },
  };
}
