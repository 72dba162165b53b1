import { checkInteger, ConfigSpace, type FeatureSet } from "@virtio/device";
import type { BlkBackend } from "./backend.ts";
import {
  BLK_CONFIG_SIZE,
  BlkConfigOffset,
  SECTOR_SIZE,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SECURE_ERASE,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_BYTES,
} from "./constants.ts";

/** Limits of a command that names ranges (virtio 1.4, 5.2.4). */
export interface RangeLimits {
  /** Sectors of one range at most. */
  readonly maxSectors?: number;
  /** Ranges of one request at most, 1 to 4096. */
  readonly maxSegments?: number;
  /** Sectors that ranges are best aligned to; advice to the driver. Write zeroes has none. */
  readonly alignment?: number;
}

/** `geometry` (5.2.4). */
export interface BlkGeometry {
  /** 0 to 65535. */
  readonly cylinders: number;
  /** 0 to 255. */
  readonly heads: number;
  /** Sectors of a track, 0 to 255. */
  readonly sectors: number;
}

/** `topology` (5.2.4), all advice to the driver. */
export interface BlkTopology {
  /** Logical blocks of a physical block, as a power of two; 0 unless given. */
  readonly physicalBlockExp?: number;
  /** First aligned logical block; 0 unless given. */
  readonly alignmentOffset?: number;
  /** Suggested minimum I/O size in logical blocks; 0 unless given. */
  readonly minIoSize?: number;
  /** Suggested maximum I/O size in logical blocks; 0 unless given. */
  readonly optIoSize?: number;
}

/** Options of a `BlkDevice`. Only the back end is needed. */
export interface BlkDeviceOptions {
  /** Where the sectors are. */
  readonly backend: BlkBackend;
  /** The device ID string: ASCII, at most 20 characters; empty unless given. Linux shows it as the disk's serial. */
  readonly id?: string;
  /** Offers VIRTIO_BLK_F_RO and refuses writes; as the back end unless given. */
  readonly readonly?: boolean;
  /** Number of request queues, 1 to 1024; 1 unless given. More than one offers VIRTIO_BLK_F_MQ. */
  readonly queues?: number;
  /** Largest size of each queue, 1 to 32768; 256 unless given. */
  readonly queueSize?: number;
  /** `blk_size`, a power of two from 512 to 65536; 512 unless given. Must divide the capacity. */
  readonly blockSize?: number;
  /**
   * - `"writeback"`: a write is durable after the next flush, unless the driver chose writethrough. The default.
   * - `"writethrough"`: a write is durable when it completes, unless the driver chose writeback.
   * - `"unsafe"`: nothing is durable; VIRTIO_BLK_F_FLUSH is not offered. For disks that are thrown away.
   */
  readonly cache?: "writeback" | "writethrough" | "unsafe";
  /** Offers VIRTIO_BLK_F_CONFIG_WCE: the driver may choose the cache mode; yes unless given or the cache is unsafe. */
  readonly configWce?: boolean;
  /** `size_max`: bytes of one segment at most; not offered unless given. */
  readonly sizeMax?: number;
  /** `seg_max`: segments of one request at most; `queueSize - 2` unless given, since header and status take one each. */
  readonly segMax?: number;
  /** `geometry`; not offered unless given. */
  readonly geometry?: BlkGeometry;
  /** `topology`; not offered unless given. */
  readonly topology?: BlkTopology;
  /** Limits of discard, or false for none; offered if the back end can, up to 2 GiB in a range and 32 ranges. */
  readonly discard?: RangeLimits | false;
  /** Limits of write zeroes, or false; offered if the back end can, up to 32 MiB in one range. */
  readonly writeZeroes?: RangeLimits | false;
  /** Limits of secure erase, or false; offered if the back end can, up to 32 MiB in one range. */
  readonly secureErase?: RangeLimits | false;
  /**
   * Bytes of buffers for an asynchronous back end, at least 1 MiB; 16 MiB unless given. Requests wait when they are used up.
   */
  readonly bounceMemory?: number;
  /** Told why a request failed that the driver could not be told more about than VIRTIO_BLK_S_IOERR. */
  readonly onError?: (error: unknown) => void;
}

/** Options with everything filled in and checked. */
export interface BlkSettings {
  /** Bits of 5.2.3 to offer. */
  readonly features: FeatureSet;
  /** Bytes of the configuration space at first. */
  readonly config: Uint8Array;
  /** 20 bytes. */
  readonly id: Uint8Array;
  /** Whether writes are refused. */
  readonly readonly: boolean;
  /** Size of each queue. */
  readonly queueSizes: number[];
  /** In bytes. */
  readonly blockSize: number;
  /** The mode after a reset. */
  readonly writeback: boolean;
  /** Most ranges of a request of any type. */
  readonly maxSegments: number;
  /** In bytes. */
  readonly bounceMemory: number;
}

/**
 * Checks options and says what they mean.
 *
 * @throws {TypeError} If there is no back end.
 * @throws {RangeError} If a value is out of range.
 */
export function settle(options: BlkDeviceOptions): BlkSettings {
  const { backend } = options;
  if (typeof backend?.read !== "function") {
    throw new TypeError("A block device needs a back end: give { backend }");
  }
  const readonly = options.readonly ?? backend.readonly;
  if (!readonly && backend.readonly) {
    throw new RangeError("The back end is read-only: the device must be too");
  }
  const queues = checkInteger("queues", options.queues, 1, 1024, 1);
  const queueSize = checkInteger("queueSize", options.queueSize, 1, 32768, 256);
  const blockSize = checkInteger("blockSize", options.blockSize, 512, 65536, 512);
  if (Math.log2(blockSize) % 1 !== 0) {
    throw new RangeError(`blockSize must be a power of two: it is ${blockSize}`);
  }
  if (backend.capacity % blockSize !== 0) {
    throw new RangeError(
      `The capacity must be a multiple of blockSize: ${backend.capacity} bytes are none of ${blockSize}`,
    );
  }
  const cache = options.cache ?? "writeback";
  const config = new ConfigSpace(BLK_CONFIG_SIZE);
  const { view } = config;
  const at = BlkConfigOffset;
  let features = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE;
  setCapacity(view, backend.capacity / SECTOR_SIZE);
  const segMax = checkInteger("segMax", options.segMax, 1, 32768, Math.max(1, queueSize - 2));
  view.setUint32(at.seg_max, segMax, true);
  view.setUint32(at.blk_size, blockSize, true);
  if (options.sizeMax !== undefined) {
    features |= VIRTIO_BLK_F_SIZE_MAX;
    view.setUint32(at.size_max, checkInteger("sizeMax", options.sizeMax, 1, 2 ** 32 - 1, 0), true);
  }
  if (options.geometry !== undefined) {
    features |= VIRTIO_BLK_F_GEOMETRY;
    setGeometry(view, options.geometry);
  }
  if (options.topology !== undefined) {
    features |= VIRTIO_BLK_F_TOPOLOGY;
    setTopology(view, options.topology);
  }
  if (readonly) features |= VIRTIO_BLK_F_RO;
  if (cache !== "unsafe") {
    features |= VIRTIO_BLK_F_FLUSH;
    if (options.configWce ?? true) features |= VIRTIO_BLK_F_CONFIG_WCE;
  } else if (options.configWce === true) {
    throw new RangeError(
      "An unsafe cache has no modes: leave configWce out, or choose another cache",
    );
  }
  view.setUint8(at.writeback, cache === "writeback" ? 1 : 0);
  if (queues > 1) {
    features |= VIRTIO_BLK_F_MQ;
    view.setUint16(at.num_queues, queues, true);
  }
  let maxSegments = 1;
  const offer = (
    feature: bigint,
    can: boolean,
    limits: RangeLimits | false | undefined,
    defaults: Required<RangeLimits>,
    offset: number,
    aligned: boolean,
  ): boolean => {
    // What changes the disk is not offered for one that must not be changed.
    if (!can || limits === false || readonly) return false;
    features |= feature;
    const segments = checkInteger(
      "maxSegments",
      limits?.maxSegments,
      1,
      4096,
      defaults.maxSegments,
    );
    const sectors = checkInteger(
      "maxSectors",
      limits?.maxSectors,
      1,
      2 ** 32 - 1,
      defaults.maxSectors,
    );
    maxSegments = Math.max(maxSegments, segments);
    view.setUint32(offset, sectors, true);
    view.setUint32(offset + 4, segments, true);
    if (aligned) {
      const alignment = checkInteger(
        "alignment",
        limits?.alignment,
        1,
        2 ** 32 - 1,
        defaults.alignment,
      );
      view.setUint32(offset + 8, alignment, true);
    }
    return true;
  };
  const alignment = blockSize / SECTOR_SIZE;
  offer(
    VIRTIO_BLK_F_DISCARD,
    backend.discard !== undefined,
    options.discard,
    { maxSectors: 2 ** 22, maxSegments: 32, alignment },
    at.max_discard_sectors,
    true,
  );
  const zeroes = offer(
    VIRTIO_BLK_F_WRITE_ZEROES,
    backend.writeZeroes !== undefined,
    options.writeZeroes,
    { maxSectors: 2 ** 16, maxSegments: 1, alignment },
    at.max_write_zeroes_sectors,
    false,
  );
  if (zeroes) view.setUint8(at.write_zeroes_may_unmap, backend.writeZeroesMayUnmap ? 1 : 0);
  offer(
    VIRTIO_BLK_F_SECURE_ERASE,
    backend.secureErase !== undefined,
    options.secureErase,
    { maxSectors: 2 ** 16, maxSegments: 1, alignment },
    at.max_secure_erase_sectors,
    true,
  );
  if (backend.lifetime !== undefined) features |= VIRTIO_BLK_F_LIFETIME;
  return {
    features,
    config: config.bytes,
    id: encodeId(options.id ?? ""),
    readonly,
    queueSizes: new Array<number>(queues).fill(queueSize),
    blockSize,
    writeback: cache === "writeback",
    maxSegments,
    bounceMemory: checkInteger(
      "bounceMemory",
      options.bounceMemory,
      2 ** 20,
      Number.MAX_SAFE_INTEGER,
      2 ** 24,
    ),
  };
}

/** Writes `capacity`. */
export function setCapacity(view: DataView, sectors: number): void {
  view.setUint32(BlkConfigOffset.capacity, sectors % 2 ** 32, true);
  view.setUint32(BlkConfigOffset.capacity + 4, Math.floor(sectors / 2 ** 32), true);
}

function setGeometry(view: DataView, geometry: BlkGeometry): void {
  const { cylinders, heads, sectors } = geometry;
  view.setUint16(
    BlkConfigOffset.geometry_cylinders,
    checkInteger("cylinders", cylinders, 0, 65535, 0),
    true,
  );
  view.setUint8(BlkConfigOffset.geometry_heads, checkInteger("heads", heads, 0, 255, 0));
  view.setUint8(BlkConfigOffset.geometry_sectors, checkInteger("sectors", sectors, 0, 255, 0));
}

function setTopology(view: DataView, topology: BlkTopology): void {
  const at = BlkConfigOffset;
  const { physicalBlockExp, alignmentOffset, minIoSize, optIoSize } = topology;
  view.setUint8(
    at.topology_physical_block_exp,
    checkInteger("physicalBlockExp", physicalBlockExp, 0, 31, 0),
  );
  view.setUint8(
    at.topology_alignment_offset,
    checkInteger("alignmentOffset", alignmentOffset, 0, 255, 0),
  );
  view.setUint16(at.topology_min_io_size, checkInteger("minIoSize", minIoSize, 0, 65535, 0), true);
  view.setUint32(
    at.topology_opt_io_size,
    checkInteger("optIoSize", optIoSize, 0, 2 ** 32 - 1, 0),
    true,
  );
}

function encodeId(id: string): Uint8Array {
  // deno-lint-ignore no-control-regex
  if (id.length > VIRTIO_BLK_ID_BYTES || !/^[\x01-\x7f]*$/.test(id)) {
    throw new RangeError(`A device id has at most ${VIRTIO_BLK_ID_BYTES} ASCII characters: ${id}`);
  }
  const bytes = new Uint8Array(VIRTIO_BLK_ID_BYTES);
  for (let i = 0; i < id.length; i++) bytes[i] = id.charCodeAt(i);
  return bytes;
}
