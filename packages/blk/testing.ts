/** A driver's end without a transport, and a driver that cuts its requests as a test wants them. Not published. */
import {
  ConfigSpace,
  type Device,
  type FeatureSet,
  QueueDevice,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { DriverSession } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import type { Chain } from "@virtio/vring";
import { BufferList, DmaPool, type DriverQueue } from "@virtio/vring/driver";
import { LocalTransport, pieces, turns } from "../device/testing.ts";

export { LocalTransport, turns };

/** One request as a test wants it. */
export interface RawRequest {
  readonly type: number;
  /** As written into the header. */
  readonly sector?: bigint;
  readonly reserved?: number;
  /** Device-readable bytes after the header. */
  readonly out?: Uint8Array;
  /** Device-writable bytes before the status. */
  readonly in?: number;
  /** Instead of the 16-byte header. */
  readonly header?: Uint8Array;
  /** Device-writable bytes for the status; 1 unless given. */
  readonly statusBytes?: number;
  /** Lengths of the device-readable and device-writable elements; the last takes what is left. One of each unless given. */
  readonly cuts?: { readonly readable: readonly number[]; readonly writable: readonly number[] };
  readonly queue?: number;
  /** Whether the device is told at once; yes unless given. */
  readonly publish?: boolean;
}

/** What became of it. */
export interface RawAnswer {
  /** 0xee: not written. */
  readonly status: number;
  /** The used length. */
  readonly used: number;
  /** The device-writable bytes before the status; 0xee where not written. */
  readonly data: Uint8Array;
}

/** What device-writable memory holds before the device writes to it. */
export const UNTOUCHED = 0xee;

/** Options of `RawDriver.open`. */
export interface RawDriverOptions {
  /** Features of the device type to accept; all that are offered unless given. */
  readonly wanted?: FeatureSet;
  /** Ring features that both sides take; none unless given. */
  readonly core?: FeatureSet;
  readonly queues?: number;
  readonly queueSize?: number;
}

/** Sends any bytes as requests, rightly or wrongly formed. */
export class RawDriver {
  readonly transport: LocalTransport;
  readonly session: DriverSession;
  readonly memory: GuestMemory;
  readonly #dma: DmaPool;
  readonly #list = new BufferList();
  readonly #waiting: Map<number, (used: number) => void> = new Map();
  #token = 0;

  private constructor(transport: LocalTransport, session: DriverSession, dma: DmaPool) {
    this.transport = transport;
    this.session = session;
    this.memory = dma.memory;
    this.#dma = dma;
    session.handlers = {
      used: (index) => this.#collect(index),
      config: () => {},
      needsReset: () => {},
    };
  }

  static async open(device: Device, options: RawDriverOptions = {}): Promise<RawDriver> {
    const memory = GuestMemory.allocate(16 * 2 ** 20);
    const core = options.core ?? VIRTIO_F_VERSION_1;
    const transport = new LocalTransport(device, memory, core | VIRTIO_F_VERSION_1);
    const dma = new DmaPool(memory, 4096, 15 * 2 ** 20);
    const session = await DriverSession.open(transport, {
      dma,
      type: 2,
      wanted: options.wanted ?? (1n << 24n) - 1n,
      core,
      queues: () =>
        Array.from(
          { length: options.queues ?? 1 },
          (_, index) => ({ index, size: options.queueSize ?? 256 }),
        ),
    });
    const driver = new RawDriver(transport, session, dma);
    for (let i = 0; i < (options.queues ?? 1); i++) session.queue(i).enableInterrupts();
    return driver;
  }

  /** Sends a request, waits for its answer. */
  async request(request: RawRequest): Promise<RawAnswer> {
    return await this.submit(request).answer;
  }

  /** Sends a request. `peek` shows the device-writable bytes as they are now. */
  submit(request: RawRequest): { answer: Promise<RawAnswer>; peek: () => Uint8Array } {
    const readable = concat(request.header ?? header(request), request.out ?? new Uint8Array(0));
    const statusBytes = request.statusBytes ?? 1;
    const writable = (request.in ?? 0) + statusBytes;
    const queue = request.queue ?? 0;
    const from = readable.length === 0 ? 0 : this.#dma.allocate(readable.length);
    const to = writable === 0 ? 0 : this.#dma.allocate(writable);
    if (readable.length > 0) this.memory.write(from, readable);
    if (writable > 0) this.memory.fill(to, writable, UNTOUCHED);
    const list = this.#list.clear();
    for (const [at, length] of pieces(readable.length, request.cuts?.readable ?? [])) {
      list.readable(from + at, length);
    }
    for (const [at, length] of pieces(writable, request.cuts?.writable ?? [])) {
      list.writable(to + at, length);
    }
    const token = this.#token++;
    if (!this.session.queue(queue).add(list, token)) throw new Error("the queue is full");
    const peek = (): Uint8Array => {
      const bytes = new Uint8Array(writable);
      if (writable > 0) this.memory.read(to, bytes);
      return bytes;
    };
    const answer = new Promise<RawAnswer>((resolve) => {
      this.#waiting.set(token, (used) => {
        const bytes = peek();
        resolve({
          used,
          status: statusBytes === 0 ? UNTOUCHED : bytes[writable - 1]!,
          data: bytes.slice(0, request.in ?? 0),
        });
      });
    });
    if (request.publish !== false) this.session.publish(queue);
    return { answer, peek };
  }

  /** Answers so far; the queue for what a test wants to look at. */
  queue(index = 0): DriverQueue {
    return this.session.queue(index);
  }

  #collect(index: number): void {
    const queue = this.session.queue(index);
    do {
      for (let token = queue.take(); token >= 0; token = queue.take()) {
        this.#waiting.get(token)?.(queue.usedLength);
        this.#waiting.delete(token);
      }
    } while (queue.enableInterrupts());
  }
}

/** A request as a device finds it. */
export interface SeenRequest {
  readonly type: number;
  readonly reserved: number;
  readonly sector: bigint;
  /** Device-readable bytes after the header. */
  readonly out: Uint8Array;
  /** Device-writable bytes before the status. */
  readonly in: number;
}

/** A block device that writes down what the driver sends, and answers as the test says: data of zeroes, and a status. */
export class SpyDevice extends QueueDevice {
  readonly seen: SeenRequest[] = [];
  /** The status of the next answers. */
  status: (request: SeenRequest) => number = () => 0;

  constructor(features: FeatureSet, setUp: (view: DataView) => void = () => {}) {
    const config = new ConfigSpace(96, () => true);
    config.view.setUint32(0, 2048, true);
    setUp(config.view);
    super({ type: 2, features, queueSizes: [128], config });
  }

  protected override handle(chain: Chain): void {
    chain.writer.reserveTail(1);
    const bytes = new Uint8Array(chain.readable);
    chain.reader.read(bytes);
    const view = new DataView(bytes.buffer);
    const request: SeenRequest = {
      type: view.getUint32(0, true),
      reserved: view.getUint32(4, true),
      sector: view.getBigUint64(8, true),
      out: bytes.subarray(16),
      in: chain.writer.remaining,
    };
    this.seen.push(request);
    chain.writer.fill(0, chain.writer.remaining);
    chain.writer.writeTailU8(this.status(request));
  }
}

/** The 16 bytes of a request's header. */
export function header(request: RawRequest): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request.type, true);
  view.setUint32(4, request.reserved ?? 0, true);
  view.setBigUint64(8, request.sector ?? 0n, true);
  return bytes;
}

/** Ranges of a discard, write zeroes or secure erase request. */
export function ranges(
  ...each: { sector: bigint | number; sectors: number; flags?: number }[]
): Uint8Array {
  const bytes = new Uint8Array(16 * each.length);
  const view = new DataView(bytes.buffer);
  each.forEach(({ sector, sectors, flags }, i) => {
    view.setBigUint64(16 * i, BigInt(sector), true);
    view.setUint32(16 * i + 8, sectors, true);
    view.setUint32(16 * i + 12, flags ?? 0, true);
  });
  return bytes;
}

/** Joins two arrays. */
export function concat(one: Uint8Array, other: Uint8Array): Uint8Array {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
