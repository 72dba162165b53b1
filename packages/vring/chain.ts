import type { MemoryRegion } from "@virtio/memory";
import { ChainReader, ChainWriter } from "./cursor.ts";

/** Whose a chain is. Kept as a number so that checks on the hot path are one comparison. */
export const ChainOwner = {
  /** In the queue's pool. */
  pool: 0,
  /** Popped: the device's. */
  device: 1,
  /** Pushed, waiting for earlier ones (VIRTIO_F_IN_ORDER). */
  ordered: 2,
  /** Was in flight when its queue was reset: nobody's, for good. */
  dropped: 3,
} as const;

/**
 * A descriptor chain, from either ring format: the device-readable bytes, then the device-writable ones, wherever the
 * driver put them. Checked as a whole when it is popped, so a device never sees a bad one.
 *
 * Use `reader` and `writer`; how the driver cut the buffer into descriptors is nobody's business (2.7.4.1, message
 * framing). The segments are public for back ends that want them raw (readv, writev).
 *
 * Hot path: chains are pooled per queue, segments are kept as parallel arrays, nothing is allocated once the arrays have
 * grown to the longest chain seen.
 */
export class Chain {
  /** Split: the head's index. Packed: the buffer id. Driver-controlled: not unique, and packed ids have no upper bound. */
  id = 0;
  /** Ring slots that the chain takes: what a packed queue skips when it is used. */
  slots = 0;
  /** Counts pops of the queue. */
  sequence = 0;
  /** Its place in the pool. */
  index = 0;
  /** One of `ChainOwner`. */
  owner: number = ChainOwner.pool;
  /** What `push` was told, while the chain waits for earlier ones. */
  held = 0;
  /** Descriptors that describe the buffer, those of an indirect table included. */
  descriptors = 0;
  /** Number of segments; the readable ones come first. A descriptor that crosses regions makes several. */
  count = 0;
  /** Number of device-readable segments. */
  readableCount = 0;
  /** Device-readable bytes in all. */
  readable = 0;
  /** Device-writable bytes in all. */
  writable = 0;
  /** Region of each segment; of regions larger than 2 GiB a window. */
  readonly regions: MemoryRegion[] = [];
  /** The region that every entry of `regions` names, so that none need be written again; not so where `mixed` is 1. */
  declare readonly region: MemoryRegion;
  /** 1: the entries of `regions` differ, or did. */
  mixed = 0;
  /** Segments that there is room for. */
  capacity = 8;
  /** Offset of each segment in its region. */
  offsets: Uint32Array = new Uint32Array(8);
  /** Bytes of each segment; never 0. */
  lengths: Uint32Array = new Uint32Array(8);
  /** Cursor over the device-readable bytes. */
  readonly reader: ChainReader = new ChainReader(this);
  /** Cursor over the device-writable bytes. */
  readonly writer: ChainWriter = new ChainWriter(this);

  /** The pool that it belongs to, which tells the queues apart. */
  declare readonly pool: object;

  /**
   * Made by queues.
   *
   * @param region Where the segments most likely lie.
   */
  constructor(pool: object, region: MemoryRegion) {
    this.pool = pool;
    this.region = region;
    while (this.regions.length < this.capacity) this.regions.push(region);
  }

  /**
   * Bytes written without a gap from the start of the device-writable part, as the used length must count them
   * (2.7.8.2): the writer's position, and the reserved tail too if all before it was written.
   */
  get written(): number {
    return this.writer.written;
  }

  /** Empties the chain for the next pop. */
  begin(): void {
    this.descriptors = 0;
    this.count = 0;
    this.readableCount = 0;
    this.readable = 0;
    this.writable = 0;
  }

  /** Takes over what a queue counted, and puts both cursors at their starts. */
  finish(
    count: number,
    descriptors: number,
    readableCount: number,
    readable: number,
    writable: number,
  ): void {
    this.count = count;
    this.descriptors = descriptors;
    this.readableCount = readableCount;
    this.readable = readable;
    this.writable = writable;
    this.reader.start(readable);
    this.writer.start(readableCount, writable);
  }

  /** Adds a segment; the queue has checked that the region holds it. */
  add(region: MemoryRegion, offset: number, length: number): void {
    const index = this.count;
    if (index === this.capacity) this.grow();
    if (this.region !== region) this.mixed = 1;
    this.regions[index] = region;
    this.offsets[index] = offset;
    this.lengths[index] = length;
    this.count = index + 1;
  }

  /** Makes room for twice as many segments. */
  grow(): void {
    const capacity = this.capacity * 2;
    this.capacity = capacity;
    while (this.regions.length < capacity) this.regions.push(this.region);
    const offsets = new Uint32Array(capacity);
    offsets.set(this.offsets);
    this.offsets = offsets;
    const lengths = new Uint32Array(capacity);
    lengths.set(this.lengths);
    this.lengths = lengths;
  }
}
