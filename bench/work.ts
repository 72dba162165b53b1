/**
 * The work that benchmarks measure: a ring of 256 entries, batches of 64 requests; the device pops, reads the 16-byte header,
 * writes the status byte and pushes. bench/native/reference.c does the same in C, and v86_queue.ts through v86's queue.
 *
 * Two ways to run it:
 * - device side: a fake driver makes ready descriptors available again and again. In the split format that is one store of
 *   the available index per batch. In the packed format descriptors must be written again, which `refill` does alone, so that
 *   its cost can be measured by itself and taken off;
 * - full round: a real driver adds 64 buffers and publishes, the device works, the driver takes 64 used buffers.
 */
import { GuestMemory } from "@virtio/memory";
import {
  openQueue,
  type Queue,
  type QueueConfig,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
} from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";

/** One descriptor; header, 4 KiB and status; the same three through an indirect table. */
export type RequestShape = "single" | "blk3" | "ind3";

/** Something that does the work, of whatever make. Each method does `batches` batches and gives a sum that is never 0. */
export interface World {
  /** Device side: only the fake driver's part. */
  refill(batches: number): void;
  /** Device side. */
  device(batches: number): number;
  /** Device side of a block device: 4 KiB reads from memory. */
  blk(batches: number): number;
  /** Driver and device. */
  round(batches: number): number;
}

/** Where things lie in guest memory: the same places as in reference.c. */
export const Place = {
  descriptors: 0x10000,
  driverArea: 0xa0000,
  deviceArea: 0xc0000,
  tables: 0x110000,
  headers: 0x120000,
  status: 0x130000,
  data: 0x200000,
  end: 0x400000,
} as const;

/** Bytes of a request's data. */
export const DATA_SIZE = 4096;

/** Where the parts of request `i` lie. Regions may be spread; then the three parts of one request are in different ones. */
export interface Placement {
  header(i: number): number;
  data(i: number): number;
  status(i: number): number;
  table(i: number): number;
}

/** All in one region. */
export const together: Placement = {
  header: (i) => Place.headers + 64 * (i % 64),
  data: (i) => Place.data + DATA_SIZE * (i % 64),
  status: (i) => Place.status + 64 * (i % 64),
  table: (i) => Place.tables + 64 * (i % 64),
};

/** What a request looks like: segments of one buffer, device-readable ones first. */
export function describe(list: BufferList, shape: RequestShape, i: number, at: Placement): void {
  list.clear().readable(at.header(i), 16);
  if (shape !== "single") list.writable(at.data(i), DATA_SIZE).writable(at.status(i), 1);
}

/** Ring and guest memory with prepared requests, and the fake driver that makes them available. */
export class Prepared {
  readonly memory: GuestMemory;
  readonly config: QueueConfig;
  readonly features: bigint;
  readonly batch: number;
  readonly #packed: boolean;
  readonly #view: DataView;
  readonly #u16: Uint16Array;
  readonly #availIdx: number;
  #next = 0;
  /** Packed: what to copy over the ring for each batch, in one or two pieces. */
  readonly #pieces: { bytes: Uint8Array; at: number }[][] = [];
  readonly #ring: Uint8Array;

  /**
   * @param offset Moves the ring, for several queues in one memory.
   */
  constructor(options: {
    readonly format: "split" | "packed";
    readonly shape: RequestShape;
    readonly size?: number;
    readonly batch?: number;
    readonly memory?: GuestMemory;
    readonly placement?: Placement;
    readonly offset?: number;
  }) {
    const { format, shape } = options;
    const size = options.size ?? 256;
    const batch = options.batch ?? 64;
    const at = options.placement ?? together;
    const offset = options.offset ?? 0;
    this.memory = options.memory ?? GuestMemory.allocate(Place.end);
    this.batch = batch;
    this.#packed = format === "packed";
    this.features = (this.#packed ? VIRTIO_F_RING_PACKED : 0n) |
      (shape === "ind3" ? VIRTIO_F_INDIRECT_DESC : 0n);
    this.config = {
      size,
      descriptorArea: Place.descriptors + offset,
      driverArea: Place.driverArea + offset,
      deviceArea: Place.deviceArea + offset,
    };
    const region = this.memory.find(this.config.descriptorArea, 16 * size);
    this.#view = region.view;
    this.#u16 = region.u16;
    this.#availIdx = (this.config.driverArea + 2 - region.base) / 2;
    const ring = this.config.descriptorArea - region.base;
    this.#ring = region.bytes.subarray(ring, ring + 16 * size);
    for (let i = 0; i < 64; i++) writeHeader(this.memory, at.header(i), i);
    if (this.#packed) this.#preparePacked(shape, size, at);
    else this.#prepareSplit(shape, size, at);
  }

  #prepareSplit(shape: RequestShape, size: number, at: Placement): void {
    const { memory, config, batch } = this;
    const list = new BufferList();
    let next = 0;
    const heads: number[] = [];
    for (let i = 0; i < batch; i++) {
      describe(list, shape, i, at);
      heads.push(next);
      const inTable = shape === "ind3";
      const base = inTable ? 0 : next;
      for (let k = 0; k < list.count; k++) {
        const more = k + 1 < list.count;
        const place = inTable ? at.table(i) + 16 * k : config.descriptorArea + 16 * (next + k);
        memory.writeU64(place, list.address(k));
        memory.writeU32(place + 8, list.length(k));
        memory.writeU16(
          place + 12,
          (k < list.readableCount ? 0 : VIRTQ_DESC_F_WRITE) | (more ? VIRTQ_DESC_F_NEXT : 0),
        );
        memory.writeU16(place + 14, more ? base + k + 1 : 0);
      }
      if (inTable) {
        const place = config.descriptorArea + 16 * next;
        memory.writeU64(place, at.table(i));
        memory.writeU32(place + 8, 16 * list.count);
        memory.writeU16(place + 12, VIRTQ_DESC_F_INDIRECT);
        next++;
      } else {
        next += list.count;
      }
    }
    if (next > size) throw new RangeError(`${batch} requests do not fit into ${size} descriptors`);
    for (let i = 0; i < size; i++) {
      memory.writeU16(config.driverArea + 4 + 2 * i, heads[i % batch]!);
    }
  }

  #preparePacked(shape: RequestShape, size: number, at: Placement): void {
    const { memory, batch } = this;
    const list = new BufferList();
    const per = shape === "blk3" ? 3 : 1;
    const slots = per * batch;
    if (slots > size) throw new RangeError(`${batch} requests do not fit into ${size} slots`);
    let count = 1;
    while (count * slots % (2 * size) !== 0) count++;
    const image = new Uint8Array(16 * count * slots);
    const view = new DataView(image.buffer);
    for (let n = 0; n < count * slots; n++) {
      const wrap = Math.floor(n / size) % 2 === 0;
      const i = Math.floor(n % slots / per);
      const k = n % per;
      const flags = wrap ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
      describe(list, shape, i, at);
      const entry = shape === "ind3" ? at.table(i) : list.address(k);
      view.setUint32(16 * n, entry % 0x1_0000_0000, true);
      view.setUint32(16 * n + 4, Math.floor(entry / 0x1_0000_0000), true);
      view.setUint32(16 * n + 8, shape === "ind3" ? 48 : list.length(k), true);
      view.setUint16(16 * n + 12, i, true);
      view.setUint16(
        16 * n + 14,
        shape === "ind3"
          ? flags | VIRTQ_DESC_F_INDIRECT
          : flags | (k < list.readableCount ? 0 : VIRTQ_DESC_F_WRITE) |
            (k + 1 < list.count ? VIRTQ_DESC_F_NEXT : 0),
        true,
      );
      if (shape !== "ind3") continue;
      for (let e = 0; e < 3; e++) {
        const place = at.table(i) + 16 * e;
        memory.writeU64(place, list.address(e));
        memory.writeU32(place + 8, list.length(e));
        memory.writeU16(place + 14, e < list.readableCount ? 0 : VIRTQ_DESC_F_WRITE);
      }
    }
    for (let n = 0; n < count; n++) {
      const start = n * slots % size;
      const first = Math.min(slots, size - start);
      const from = 16 * n * slots;
      const pieces = [{ bytes: image.subarray(from, from + 16 * first), at: 16 * start }];
      if (first < slots) {
        pieces.push({ bytes: image.subarray(from + 16 * first, from + 16 * slots), at: 0 });
      }
      this.#pieces.push(pieces);
    }
  }

  /** Makes the next batch available. */
  refill(): void {
    if (this.#packed) {
      const pieces = this.#pieces[this.#next]!;
      for (let i = 0; i < pieces.length; i++) this.#ring.set(pieces[i]!.bytes, pieces[i]!.at);
      this.#next = this.#next + 1 === this.#pieces.length ? 0 : this.#next + 1;
    } else {
      this.#next = (this.#next + this.batch) & 0xffff;
      Atomics.store(this.#u16, this.#availIdx, this.#next);
    }
  }
}

/** The header of a 4 KiB read, as a block driver writes it. */
function writeHeader(memory: GuestMemory, address: number, i: number): void {
  memory.writeU32(address, 0);
  memory.writeU32(address + 4, 0);
  memory.writeU32(address + 8, 8 * i);
  memory.writeU32(address + 12, 0);
}

/** Handles what is available: what every device does, and nothing more. @returns A sum of the headers. */
export function serveQueue(queue: Queue): number {
  let sum = 0;
  for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
    const { reader, writer } = chain;
    const at = reader.struct(16);
    const { view } = reader;
    sum += view.getUint32(at, true) + view.getUint32(at + 8, true) + view.getUint32(at + 12, true);
    if (writer.reserveTail(1)) writer.writeTailU8(0);
    queue.push(chain, chain.writable);
  }
  return sum;
}

/** Our queues. */
export class OurWorld implements World {
  readonly #prepared: Prepared;
  readonly #queue: Queue;
  readonly #driver: DriverQueue;
  readonly #device: Queue;
  readonly #list: BufferList = new BufferList();
  readonly #batch: number;

  constructor(
    format: "split" | "packed",
    shape: RequestShape,
    size: number,
    batch: number,
  ) {
    this.#batch = batch;
    this.#prepared = new Prepared({ format, shape, size, batch });
    const { config, features } = this.#prepared;
    this.#queue = openQueue(this.#prepared.memory, config, features);
    const memory = GuestMemory.allocate(Place.end);
    this.#driver = openDriverQueue(memory, config, features);
    this.#device = openQueue(memory, config, features);
    for (let i = 0; i < 64; i++) {
      writeHeader(memory, together.header(i), i);
    }
    this.#shape = shape;
  }

  readonly #shape: RequestShape;

  refill(batches: number): void {
    for (let n = 0; n < batches; n++) this.#prepared.refill();
  }

  device(batches: number): number {
    const prepared = this.#prepared;
    const queue = this.#queue;
    let sum = 0;
    let interrupts = 0;
    for (let n = 0; n < batches; n++) {
      prepared.refill();
      sum = (sum + serveQueue(queue)) >>> 0;
      if (queue.flush()) interrupts++;
    }
    if (interrupts !== batches) throw new Error("A batch was not used");
    return sum;
  }

  blk(_batches: number): number {
    throw new TypeError("Use BlkWorld");
  }

  round(batches: number): number {
    const device = this.#device;
    const indirect = this.#shape === "ind3";
    let done = 0;
    let kicks = 0;
    for (let n = 0; n < batches; n++) {
      if (indirect) this.#sendIndirect();
      else this.#send();
      if (this.#driver.publish()) kicks++;
      serveQueue(device);
      if (device.flush()) kicks++;
      done += this.#takeAll();
    }
    if (kicks !== 2 * batches || done !== batches * this.#batch) {
      throw new Error("A batch was not used");
    }
    return done;
  }

  // A driver's parts, in functions of their own, as they are in a driver.

  #send(): void {
    const driver = this.#driver;
    const list = this.#list;
    const single = this.#shape === "single";
    const batch = this.#batch;
    for (let i = 0; i < batch; i++) {
      const at = i & 63;
      list.clear().readable(Place.headers + 64 * at, 16);
      if (!single) {
        list.writable(Place.data + DATA_SIZE * at, DATA_SIZE);
        list.writable(Place.status + 64 * at, 1);
      }
      driver.add(list, i);
    }
  }

  #sendIndirect(): void {
    const driver = this.#driver;
    const list = this.#list;
    const batch = this.#batch;
    for (let i = 0; i < batch; i++) {
      const at = i & 63;
      list.clear().readable(Place.headers + 64 * at, 16);
      list.writable(Place.data + DATA_SIZE * at, DATA_SIZE);
      list.writable(Place.status + 64 * at, 1);
      driver.add(list, i, Place.tables + 64 * at);
    }
  }

  #takeAll(): number {
    const driver = this.#driver;
    let done = 0;
    while (driver.take() >= 0) done++;
    return done;
  }
}
