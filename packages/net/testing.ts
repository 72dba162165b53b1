/** A driver's end without a transport, which cuts its buffers as a test wants them. Not published. */
import { type Device, type FeatureSet, hasFeature, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { DriverSession } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { BufferList, DmaPool, type DriverQueue } from "@virtio/vring/driver";
import { LocalTransport, turns } from "../device/testing.ts";
import {
  NET_HEADER_HASH_SIZE,
  NET_HEADER_SIZE,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_RSS,
} from "./constants.ts";
import { Frame } from "./frame.ts";
import { type FrameSink, type NetBackend, Offload } from "./sink.ts";

export { LocalTransport, turns };

/** Fields of a `struct virtio_net_hdr`; 0 unless given. */
export interface HeaderFields {
  readonly flags?: number;
  readonly gsoType?: number;
  readonly hdrLen?: number;
  readonly gsoSize?: number;
  readonly csumStart?: number;
  readonly csumOffset?: number;
  readonly numBuffers?: number;
}

/** A header as a driver finds it. */
export type SeenHeader = Required<HeaderFields> & {
  readonly hashValue: number;
  readonly hashReport: number;
};

/** The bytes of a header. */
export function headerBytes(fields: HeaderFields = {}, size: number = NET_HEADER_SIZE): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, fields.flags ?? 0);
  view.setUint8(1, fields.gsoType ?? 0);
  view.setUint16(2, fields.hdrLen ?? 0, true);
  view.setUint16(4, fields.gsoSize ?? 0, true);
  view.setUint16(6, fields.csumStart ?? 0, true);
  view.setUint16(8, fields.csumOffset ?? 0, true);
  view.setUint16(10, fields.numBuffers ?? 0, true);
  return bytes;
}

/** What a header says. */
export function readHeader(bytes: Uint8Array): SeenHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const hashed = bytes.length >= NET_HEADER_HASH_SIZE;
  return {
    flags: view.getUint8(0),
    gsoType: view.getUint8(1),
    hdrLen: view.getUint16(2, true),
    gsoSize: view.getUint16(4, true),
    csumStart: view.getUint16(6, true),
    csumOffset: view.getUint16(8, true),
    numBuffers: view.getUint16(10, true),
    hashValue: hashed ? view.getUint32(12, true) : 0,
    hashReport: hashed ? view.getUint16(16, true) : 0,
  };
}

/** A back end that writes down what the driver sends, and gives it what a test has. */
export class SpyBackend implements NetBackend {
  offloads: number = Offload.all;
  linkUp?: boolean;
  maxMtu?: number;
  onLinkChange: (() => void) | null = null;
  peer: FrameSink | null = null;
  /** Copies of what the driver sent. */
  readonly sent: Frame[] = [];
  /** Called with each frame, instead of the copy. */
  onFrame: ((frame: Frame) => void) | null = null;

  connect(peer: FrameSink | null): void {
    this.peer = peer;
  }

  deliver(frame: Frame): void {
    if (this.onFrame !== null) this.onFrame(frame);
    else this.sent.push(new Frame(frame.length).fromFrame(frame));
  }

  /** Bytes of what the driver sent. */
  get bytes(): Uint8Array[] {
    return this.sent.map((frame) => frame.bytes);
  }

  /** Gives the driver a frame. */
  give(bytes: Uint8Array, header: HeaderFields = {}): void {
    const frame = new Frame(bytes.length).fromBytes(bytes);
    frame.flags = header.flags ?? 0;
    frame.gsoType = header.gsoType ?? 0;
    frame.headerLength = header.hdrLen ?? 0;
    frame.gsoSize = header.gsoSize ?? 0;
    frame.csumStart = header.csumStart ?? 0;
    frame.csumOffset = header.csumOffset ?? 0;
    this.peer!.deliver(frame);
  }
}

/** Options of `RawNetDriver.open`. */
export interface RawNetOptions {
  /** Features of the device type to accept; all that are offered unless given. */
  readonly wanted?: FeatureSet;
  /** Ring features that both sides take; none unless given. */
  readonly core?: FeatureSet;
  readonly queueSize?: number;
  /** Pairs of queues to set up, instead of those that there are. */
  readonly pairs?: number;
  /** Whether to set up a control queue, negotiated or not. */
  readonly controlQueue?: boolean;
  readonly memory?: GuestMemory;
}

/** A buffer that the device used. */
export interface UsedBuffer {
  /** The used length. */
  readonly used: number;
  /** All of the buffer, UNTOUCHED where the device did not write. */
  readonly bytes: Uint8Array;
}

/** A frame as the driver got it. */
export interface ReceivedFrame {
  readonly header: SeenHeader;
  readonly bytes: Uint8Array;
}

/** What device-writable memory holds before the device writes to it. */
export const UNTOUCHED = 0xee;

/** Sends and takes buffers of any shape, rightly or wrongly formed. */
export class RawNetDriver {
  readonly transport: LocalTransport;
  readonly session: DriverSession;
  readonly memory: GuestMemory;
  readonly headerSize: number;
  /** Buffers that came back, by queue. */
  readonly used: UsedBuffer[][];
  readonly #dma: DmaPool;
  readonly #list = new BufferList();
  readonly #buffers: Map<number, { at: number; length: number }> = new Map();
  #token = 0;

  private constructor(
    transport: LocalTransport,
    session: DriverSession,
    dma: DmaPool,
    queues: number,
  ) {
    this.transport = transport;
    this.session = session;
    this.memory = dma.memory;
    this.#dma = dma;
    this.used = Array.from({ length: queues }, () => []);
    this.headerSize = hasFeature(session.features, VIRTIO_NET_F_HASH_REPORT)
      ? NET_HEADER_HASH_SIZE
      : NET_HEADER_SIZE;
    session.handlers = {
      used: (index) => this.#collect(index),
      config: () => {},
      needsReset: () => {},
    };
  }

  /** Brings the device up, with all queues that there are in this negotiation. */
  static async open(device: Device, options: RawNetOptions = {}): Promise<RawNetDriver> {
    const memory = options.memory ?? GuestMemory.allocate(8 * 2 ** 20);
    const core = (options.core ?? 0n) | VIRTIO_F_VERSION_1;
    const transport = new LocalTransport(device, memory, core);
    const dma = new DmaPool(memory, 4096, memory.regions[0]!.size - 2 * 4096);
    let queues: number[] = [];
    const session = await DriverSession.open(transport, {
      dma,
      type: 1,
      wanted: options.wanted ?? ~0n,
      core,
      queues: ({ features }) => {
        const many = (features & (VIRTIO_NET_F_MQ | VIRTIO_NET_F_RSS)) !== 0n;
        const pairs = options.pairs ?? (many ? device.config.view.getUint16(8, true) : 1);
        const count = 2 * pairs +
          (options.controlQueue ?? hasFeature(features, VIRTIO_NET_F_CTRL_VQ) ? 1 : 0);
        queues = Array.from({ length: count }, (_, index) => index);
        return queues.map((index) => ({ index, size: options.queueSize ?? 64 }));
      },
    });
    const driver = new RawNetDriver(transport, session, dma, queues.length);
    for (const index of queues) session.queue(index).enableInterrupts();
    return driver;
  }

  queue(index: number): DriverQueue {
    return this.session.queue(index);
  }

  /** Index of the control queue. */
  get controlQueue(): number {
    return this.used.length - 1;
  }

  /** Gives the device a buffer of these elements to write to. @returns Its token. */
  post(queue: number, elements: readonly number[], publish = true): number {
    return this.add(queue, [], [], elements, publish);
  }

  /** Gives it several of one size. */
  postMany(queue: number, count: number, size: number): void {
    for (let i = 0; i < count; i++) this.post(queue, [size], i === count - 1);
  }

  /** Sends a frame behind its header. */
  send(
    bytes: Uint8Array,
    header: HeaderFields = {},
    options: { queue?: number; cuts?: readonly number[]; publish?: boolean } = {},
  ): number {
    const all = concat(headerBytes(header, this.headerSize), bytes);
    return this.add(options.queue ?? 1, all, options.cuts ?? [], [], options.publish ?? true);
  }

  /** Adds any buffer: bytes for the device to read, cut as wanted, and elements for it to write to. */
  add(
    queue: number,
    readable: Uint8Array | readonly number[],
    cuts: readonly number[],
    writable: readonly number[],
    publish = true,
  ): number {
    const bytes = Uint8Array.from(readable);
    const room = writable.reduce((sum, size) => sum + size, 0);
    const list = this.#list.clear();
    const size = bytes.length + room;
    const at = size === 0 ? 0 : this.#dma.allocate(size);
    if (bytes.length > 0) this.memory.write(at, bytes);
    if (room > 0) this.memory.fill(at + bytes.length, room, UNTOUCHED);
    let offset = 0;
    for (const cut of [...cuts, Infinity]) {
      const length = Math.min(cut, bytes.length - offset);
      if (length > 0) list.readable(at + offset, length);
      offset += Math.max(0, length);
    }
    for (const length of writable) {
      list.writable(at + offset, length);
      offset += length;
    }
    const token = this.#token++;
    this.#buffers.set(token, { at: at + bytes.length, length: room });
    if (!this.session.queue(queue).add(list, token)) throw new Error("the queue is full");
    if (publish) this.session.publish(queue);
    return token;
  }

  /** Sends a control command. @returns ack, and what follows it. */
  async control(
    cls: number,
    command: number,
    data: readonly number[],
    result = 0,
  ): Promise<Uint8Array> {
    this.add(this.controlQueue, [cls, command, ...data], [], [1 + result]);
    await turns(1);
    return this.used[this.controlQueue]!.shift()!.bytes;
  }

  /** Takes the frames out of what came back of a receive queue. */
  frames(queue = 0): ReceivedFrame[] {
    const frames: ReceivedFrame[] = [];
    const used = this.used[queue]!;
    while (used.length > 0) {
      const first = used.shift()!;
      const header = readHeader(first.bytes.subarray(0, this.headerSize));
      let bytes: Uint8Array = first.bytes.slice(this.headerSize, first.used);
      for (let i = 1; i < header.numBuffers; i++) {
        const next = used.shift()!;
        bytes = concat(bytes, next.bytes.subarray(0, next.used));
      }
      frames.push({ header, bytes });
    }
    return frames;
  }

  #collect(index: number): void {
    const queue = this.session.queue(index);
    do {
      for (let token = queue.take(); token >= 0; token = queue.take()) {
        const { at, length } = this.#buffers.get(token)!;
        this.#buffers.delete(token);
        const bytes = new Uint8Array(length);
        if (length > 0) this.memory.read(at, bytes);
        this.used[index]!.push({ used: queue.usedLength, bytes });
      }
    } while (queue.enableInterrupts());
  }
}

/** Joins two arrays. */
export function concat(one: Uint8Array, other: Uint8Array): Uint8Array {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

/** A frame of so many bytes to a station, with bytes that are all different from their neighbours. */
export function plainFrame(
  length: number,
  seed = 0,
  to: readonly number[] = [2, 0, 0, 0, 0, 1],
): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => (i * 37 + (i >> 8) * 11 + seed) & 0xff);
  bytes.set(to);
  // An EtherType for experiments: nobody looks into it.
  bytes.set([2, 0, 0, 0, 0, 2, 0x88, 0xb5], 6);
  return bytes;
}
