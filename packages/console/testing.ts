/** A driver that sends what a test wants, rightly or wrongly, and a back end that does. Not published. */
import {
  BUSY,
  ConfigSpace,
  CORE_FEATURES,
  type Device,
  type FeatureSet,
  QueueDevice,
  type SavedDevice,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { DriverSession } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import type { Chain } from "@virtio/vring";
import { BufferList, DmaPool, type DriverQueue } from "@virtio/vring/driver";
import { LocalTransport, pieces, turns } from "../device/testing.ts";
import type { ConsoleBackend } from "./backend.ts";
import {
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  receiveQueue,
  transmitQueue,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from "./constants.ts";
import type { ConsolePort } from "./port.ts";

export { LocalTransport, turns };

/** A control message as plain data. */
export interface Message {
  readonly id: number;
  readonly event: number;
  readonly value: number;
  /** What follows the header. */
  readonly rest?: Uint8Array;
}

/** Options of `RawConsoleDriver.open`. */
export interface RawConsoleOptions {
  /** Features of the device type to accept; all that are offered unless given. */
  readonly wanted?: FeatureSet;
  /** Ring features that both sides take; none unless given. */
  readonly core?: FeatureSet;
  readonly queues?: number;
  readonly queueSize?: number;
}

interface Posted {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

/** Posts any buffers to any queue. */
export class RawConsoleDriver {
  readonly transport: LocalTransport;
  readonly session: DriverSession;
  readonly memory: GuestMemory;
  /** Bytes that the device put into each queue's buffers, as the buffers came back. */
  readonly received: Uint8Array[][];
  /** Buffers that came back, by queue. */
  readonly used: number[];
  /** Configuration change notifications. */
  configChanges = 0;
  /** Whether the device asked for a reset. */
  needsReset = false;
  readonly #dma: DmaPool;
  readonly #list = new BufferList();
  readonly #posted: Map<number, Posted> = new Map();
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
    this.received = Array.from({ length: queues }, () => []);
    this.used = new Array<number>(queues).fill(0);
    session.handlers = {
      used: (index) => this.collect(index),
      config: () => {
        this.configChanges++;
      },
      needsReset: () => {
        this.needsReset = true;
      },
    };
  }

  static async open(device: Device, options: RawConsoleOptions = {}): Promise<RawConsoleDriver> {
    const memory = GuestMemory.allocate(16 * 2 ** 20);
    const core = options.core ?? VIRTIO_F_VERSION_1;
    const transport = new LocalTransport(device, memory, core | VIRTIO_F_VERSION_1);
    const dma = new DmaPool(memory, 4096, 15 * 2 ** 20);
    const count = options.queues ?? device.queueSizes.length;
    const session = await DriverSession.open(transport, {
      dma,
      type: 3,
      wanted: options.wanted ?? (1n << 24n) - 1n,
      core,
      queues: () =>
        Array.from(
          { length: count },
          (_, index) => ({ index, size: options.queueSize ?? 64 }),
        ),
    });
    const driver = new RawConsoleDriver(transport, session, dma, count);
    for (let i = 0; i < count; i++) session.queue(i).enableInterrupts();
    return driver;
  }

  /** Goes on with another device, which takes over a saved state. */
  moveTo(device: Device, saved: SavedDevice): void {
    const other = new LocalTransport(device, this.memory, this.session.features & CORE_FEATURES);
    other.interrupts = this.transport.interrupts;
    Object.assign(this.transport, { state: other.state });
    other.state.restore(saved);
  }

  queue(index: number): DriverQueue {
    return this.session.queue(index);
  }

  /** Posts a buffer that the device may read, cut into elements of these lengths (one unless given). */
  send(queue: number, bytes: Uint8Array, cuts: readonly number[] = [], publish = true): void {
    const address = this.#dma.allocate(Math.max(1, bytes.length));
    this.memory.write(address, bytes);
    this.#list.clear();
    for (const [at, length] of elements(bytes.length, cuts)) {
      this.#list.readable(address + at, length);
    }
    this.#post(queue, { address, length: 0, writable: false }, publish);
  }

  /** Posts a buffer of `times` elements that are all the same bytes. */
  sendSame(queue: number, length: number, times: number): void {
    const address = this.#dma.allocate(length);
    this.#list.clear();
    for (let i = 0; i < times; i++) this.#list.readable(address, length);
    this.#post(queue, { address, length: 0, writable: false }, true);
  }

  /** Posts a buffer that the device may write, cut likewise, with device-readable bytes before it if wanted. */
  provide(
    queue: number,
    length: number,
    cuts: readonly number[] = [],
    publish = true,
    readable = 0,
  ): void {
    const address = this.#dma.allocate(Math.max(1, length + readable));
    this.#list.clear();
    if (readable > 0) this.#list.readable(address + length, readable);
    for (const [at, part] of elements(length, cuts)) this.#list.writable(address + at, part);
    this.#post(queue, { address, length, writable: true }, publish);
  }

  #post(queue: number, posted: Posted, publish: boolean): void {
    const token = this.#token++;
    this.#posted.set(token, posted);
    if (!this.session.queue(queue).add(this.#list, token)) throw new Error("the queue is full");
    if (publish) this.session.publish(queue);
  }

  /** Takes what the device used. */
  collect(index: number): void {
    const queue = this.session.queue(index);
    do {
      for (let token = queue.take(); token >= 0; token = queue.take()) {
        const { address, writable } = this.#posted.get(token)!;
        this.#posted.delete(token);
        this.used[index]!++;
        const bytes = new Uint8Array(queue.usedLength);
        if (writable) {
          this.memory.read(address, bytes);
          this.received[index]!.push(bytes);
        }
        this.#dma.free(address);
      }
    } while (queue.enableInterrupts());
  }

  /** Sends a control message. */
  control(id: number, event: number, value: number, rest = new Uint8Array(0)): void {
    this.send(CONTROL_TRANSMITQ, controlBytes({ id, event, value, rest }));
  }

  /** Sends VIRTIO_CONSOLE_DEVICE_READY with `count` buffers for control messages posted before. */
  ready(count = 32): void {
    for (let i = 0; i < count; i++) this.provide(CONTROL_RECEIVEQ, 256);
    this.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
  }

  /** Says that a port is ready, and opens it unless told otherwise. */
  async portReady(id: number, open = true): Promise<void> {
    this.control(id, VIRTIO_CONSOLE_PORT_READY, 1);
    if (open) this.control(id, VIRTIO_CONSOLE_PORT_OPEN, 1);
    await turns();
  }

  /** Output of a port. */
  output(port: number, text: string, cuts: readonly number[] = []): void {
    this.send(transmitQueue(port), new TextEncoder().encode(text), cuts);
  }

  /** Control messages so far, and forgets them. */
  messages(): Message[] {
    return this.received[CONTROL_RECEIVEQ]!.splice(0).map(controlMessage);
  }

  /** Input of a port so far as text, and forgets it. */
  input(port: number): string {
    const parts = this.received[receiveQueue(port)]!.splice(0);
    return parts.map((bytes) => new TextDecoder().decode(bytes)).join("");
  }
}

/** The bytes of a control message. */
export function controlBytes(message: Message): Uint8Array {
  const rest = message.rest ?? new Uint8Array(0);
  const bytes = new Uint8Array(8 + rest.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, message.id, true);
  view.setUint16(4, message.event, true);
  view.setUint16(6, message.value, true);
  bytes.set(rest, 8);
  return bytes;
}

/** A control message from its bytes. */
export function controlMessage(bytes: Uint8Array): Message {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const message = {
    id: view.getUint32(0, true),
    event: view.getUint16(4, true),
    value: view.getUint16(6, true),
  };
  return bytes.length > 8 ? { ...message, rest: bytes.slice(8) } : message;
}

/** A back end that takes as much as a test allows, and writes down what it is told. */
export class SpyConsole implements ConsoleBackend {
  port: ConsolePort | null = null;
  /** Output so far. */
  text = "";
  /** Bytes that it takes before it is full. */
  room = Infinity;
  /** What it was told. */
  readonly told: string[] = [];
  /** Lengths of the pieces that it was given. */
  readonly pieces: number[] = [];

  write(bytes: Uint8Array, offset: number, length: number): number {
    const count = Math.min(length, this.room);
    this.room -= count;
    this.pieces.push(length);
    this.text += new TextDecoder().decode(bytes.slice(offset, offset + count));
    return count;
  }

  /** Takes `room` more bytes. */
  allow(room: number): void {
    this.room = room;
    this.port!.resume();
  }

  attached(port: ConsolePort): void {
    this.port = port;
    this.told.push("attached");
  }

  detached(): void {
    this.told.push("detached");
  }

  guestOpened(open: boolean): void {
    this.told.push(open ? "opened" : "closed");
  }

  inputDrained(): void {
    this.told.push("drained");
  }
}

/** A chain as a device finds it. */
export interface SeenChain {
  readonly queue: number;
  readonly readable: Uint8Array;
  /** Device-writable bytes. */
  readonly writable: number;
}

/** A console device that writes down what the driver sends and posts, and says what a test wants. */
export class SpyConsoleDevice extends QueueDevice {
  /** What came to the transmitqs, and to the control one. */
  readonly seen: SeenChain[] = [];
  /** What was posted to the receiveqs and looked at with `posted`. */
  readonly #taken: Map<number, Chain[]> = new Map();
  /** While set, output stays in the queue. */
  busy = false;

  constructor(features: FeatureSet, maxPorts = 4, setUp: (view: DataView) => void = () => {}) {
    const config = new ConfigSpace(12, () => true, { offset: 8, length: 4 });
    config.view.setUint32(4, maxPorts, true);
    setUp(config.view);
    const queues = Math.min(maxPorts, 64) * 2 + 2;
    super({
      type: 3,
      features,
      queueSizes: new Array<number>(queues).fill(64),
      config,
      lazyQueues: Array.from({ length: queues / 2 }, (_, i) => 2 * i),
    });
  }

  protected override handle(chain: Chain, queue: number): void | typeof BUSY {
    if (this.busy) return BUSY;
    const readable = new Uint8Array(chain.readable);
    chain.reader.read(readable);
    this.seen.push({ queue, readable, writable: chain.writable });
  }

  /** Takes output again. */
  go(queue: number): void {
    this.busy = false;
    this.resume(queue);
  }

  /** What the driver posted to a receiveq, without using it. */
  posted(queue: number): SeenChain[] {
    const chains = this.#taken.get(queue) ?? [];
    this.#taken.set(queue, chains);
    for (let chain = this.take(queue); chain !== null; chain = this.take(queue)) {
      chains.push(chain);
    }
    return chains.map((chain) => {
      const readable = new Uint8Array(chain.readable);
      return { queue, readable, writable: chain.writable };
    });
  }

  /** Uses the next posted buffer of a receiveq with these bytes, as many as fit. */
  put(queue: number, bytes: Uint8Array): void {
    const chain = this.#taken.get(queue)?.shift() ?? this.take(queue);
    if (chain === null || chain === undefined) throw new Error(`nothing is posted to ${queue}`);
    chain.writer.write(bytes);
    this.complete(queue, chain);
  }

  /** Sends control messages. */
  async say(...messages: Message[]): Promise<void> {
    for (const message of messages) this.put(CONTROL_RECEIVEQ, controlBytes(message));
    await turns();
  }

  /** Control messages of the driver so far, and forgets them. */
  heard(): Message[] {
    return this.seen.splice(0).filter(({ queue }) => queue === CONTROL_TRANSMITQ).map((
      { readable },
    ) => controlMessage(readable));
  }
}

/** As `pieces`; a chain of no bytes has an empty element. */
function elements(total: number, cuts: readonly number[]): Iterable<readonly [number, number]> {
  return total === 0 ? [[0, 0]] : pieces(total, cuts);
}
