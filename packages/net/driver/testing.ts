/** A network device that does what a test says, right or wrong, and a driver on it. Not published. */
import {
  BUSY,
  ConfigSpace,
  CORE_FEATURES,
  DeviceId,
  type FeatureSet,
  HOLD,
  QueueDevice,
  VIRTIO_F_RING_PACKED,
} from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import type { Chain, QueueConfig } from "@virtio/vring";
import { DmaPool } from "@virtio/vring/driver";
import {
  NET_CONFIG_SIZE,
  NET_HEADER_HASH_SIZE,
  NET_HEADER_SIZE,
  NetConfigOffset,
  VIRTIO_NET_F_HASH_REPORT,
} from "../constants.ts";
import {
  concat,
  headerBytes,
  type HeaderFields,
  LocalTransport,
  readHeader,
  type SeenHeader,
} from "../testing.ts";
import { NetDriver } from "./net_driver.ts";
import type { NetDriverOptions } from "./options.ts";

/** A frame that the driver sent. */
export interface SentFrame {
  readonly queue: number;
  readonly header: SeenHeader;
  /** All bytes of the header. */
  readonly headerBytes: Uint8Array;
  readonly bytes: Uint8Array;
}

/** A command that the driver sent. */
export interface SentCommand {
  readonly kind: number;
  readonly command: number;
  readonly data: Uint8Array;
  /** Bytes behind `ack` that the driver has room for. */
  readonly room: number;
}

/** What to answer: all device-writable bytes, `ack` first. "hold": nothing. */
export type Answer = readonly number[] | "hold";

/** How a frame is received. */
export interface ReceiveOptions extends HeaderFields {
  readonly hashValue?: number;
  readonly hashReport?: number;
  /** Where the bytes are cut; they fill the buffers unless given. */
  readonly cuts?: readonly number[];
}

/** A device that does what a test says. */
export class PuppetDevice extends QueueDevice {
  /** Frames that the driver sent. */
  readonly sent: SentFrame[] = [];
  /** Commands that the driver sent. */
  readonly commands: SentCommand[] = [];
  /** The answer to each. */
  answer: (command: SentCommand) => Answer = () => [0];
  /** Whether frames that are sent stay in the queue. */
  holding = false;
  /** Whether nothing that is sent is even looked at. */
  busy = false;
  /** What stays. */
  readonly held: { queue: number; chain: Chain }[] = [];
  readonly #control: number;

  constructor(
    features: FeatureSet,
    setUp: (view: DataView) => void = () => {},
    { pairs = 1, size = 64 }: { pairs?: number; size?: number } = {},
  ) {
    const config = new ConfigSpace(NET_CONFIG_SIZE);
    config.bytes.set([2, 0, 0, 0, 0, 1]);
    config.view.setUint16(NetConfigOffset.max_virtqueue_pairs, pairs, true);
    config.view.setUint16(NetConfigOffset.mtu, 1500, true);
    config.view.setUint8(NetConfigOffset.rss_max_key_size, 40);
    config.view.setUint16(NetConfigOffset.rss_max_indirection_table_length, 128, true);
    config.view.setUint32(NetConfigOffset.supported_hash_types, 0x1ff, true);
    config.view.setUint16(NetConfigOffset.status, 1, true);
    setUp(config.view);
    super({
      type: DeviceId.net,
      features,
      queueSizes: new Array<number>(2 * pairs + 1).fill(size),
      config,
      lazyQueues: Array.from({ length: pairs }, (_, pair) => 2 * pair),
    });
    this.#control = 2 * pairs;
  }

  /** Bytes of `struct virtio_net_hdr`. */
  get headerSize(): number {
    const features = this.activation?.features ?? 0n;
    return (features & VIRTIO_NET_F_HASH_REPORT) !== 0n ? NET_HEADER_HASH_SIZE : NET_HEADER_SIZE;
  }

  protected override handle(chain: Chain, queue: number): boolean | void {
    if (this.busy) return BUSY;
    const bytes = new Uint8Array(chain.readable);
    chain.reader.read(bytes);
    if (queue === this.#control) return this.#command(chain, bytes);
    const head = bytes.subarray(0, this.headerSize);
    this.sent.push({
      queue,
      header: readHeader(head),
      headerBytes: head,
      bytes: bytes.subarray(this.headerSize),
    });
    if (!this.holding) return;
    this.held.push({ queue, chain });
    return HOLD;
  }

  #command(chain: Chain, bytes: Uint8Array): false | void {
    const command: SentCommand = {
      kind: bytes[0]!,
      command: bytes[1]!,
      data: bytes.subarray(2),
      room: chain.writer.remaining - 1,
    };
    this.commands.push(command);
    const answer = this.answer(command);
    if (answer !== "hold") {
      chain.writer.write(Uint8Array.from(answer));
      return;
    }
    this.held.push({ queue: this.#control, chain });
    return HOLD;
  }

  /** Takes the next buffer of a receive queue. */
  takeBuffer(queue = 0): Chain | null {
    return this.take(queue);
  }

  /** Uses a buffer that was held or taken. */
  use(queue: number, chain: Chain): void {
    this.complete(queue, chain);
  }

  /** Lets go of what was held. */
  release(): void {
    this.holding = false;
    for (const { queue, chain } of this.held.splice(0)) {
      if (queue === this.#control) chain.writer.write(Uint8Array.of(0));
      this.complete(queue, chain);
    }
  }

  /**
   * Puts a frame into the driver's buffers, with a header that may say anything.
   *
   * @returns How many buffers it took; 0 if there were none.
   */
  receive(bytes: Uint8Array, options: ReceiveOptions = {}, queue = 0): number {
    const head = headerBytes({ ...options, numBuffers: options.numBuffers ?? 1 }, this.headerSize);
    const view = new DataView(head.buffer);
    if (this.headerSize === NET_HEADER_HASH_SIZE) {
      view.setUint32(12, options.hashValue ?? 0, true);
      view.setUint16(16, options.hashReport ?? 0, true);
    }
    const all = concat(head, bytes);
    const chains: Chain[] = [];
    for (let done = 0, i = 0; done < all.length; i++) {
      const chain = this.take(queue);
      if (chain === null) break;
      const part = Math.min(options.cuts?.[i] ?? Infinity, all.length - done, chain.writable);
      chain.writer.write(all.subarray(done, done + part));
      chains.push(chain);
      done += part;
    }
    for (const chain of chains) this.complete(queue, chain);
    return chains.length;
  }

  /** The configuration changes. */
  change(update: (view: DataView) => void): void {
    this.config.update(update);
  }
}

/** Remembers where the queues are, so that a test can write into them behind everybody's back. */
export class TappedTransport extends LocalTransport {
  readonly configs: Map<number, QueueConfig> = new Map();

  override enableQueue(index: number, config: QueueConfig): void {
    this.configs.set(index, config);
    super.enableQueue(index, config);
  }
}

/** A driver on a device, with all that is around them. */
export interface DriverRig<D> {
  readonly device: D;
  readonly driver: NetDriver;
  readonly transport: TappedTransport;
  readonly memory: GuestMemory;
  readonly dma: DmaPool;
  /** Copies of what the driver received. */
  readonly got: Uint8Array[];
}

/** Bytes of guest memory of a rig. */
export const RIG_MEMORY = 0x100_0000;

/** Opens a driver on a device without a transport; split queues without options unless `core` is given. */
export async function openRig<D extends QueueDevice>(
  device: D,
  options: Partial<NetDriverOptions> = {},
): Promise<DriverRig<D>> {
  const memory = GuestMemory.allocate(RIG_MEMORY + 4096);
  // What memory holds at first is not for anybody to rely on.
  memory.fill(4096, RIG_MEMORY, 0xee);
  const transport = new TappedTransport(device, memory);
  const dma = new DmaPool(memory, 4096, RIG_MEMORY);
  const core = CORE_FEATURES & ~VIRTIO_F_RING_PACKED;
  const driver = await NetDriver.open(transport, { dma, core, ...options });
  const got: Uint8Array[] = [];
  driver.onFrame = (frame) => got.push(frame.bytes.slice());
  return { device, driver, transport, memory, dma, got };
}
