/** A device of another process, as a device of this one: for virtual machines, behind any transport. */
import {
  type Activation,
  ConfigSpace,
  type Device,
  DEVICE_TYPE_FEATURES,
  type FeatureSet,
  hasFeature,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import type { UnixSocket } from "@virtio/linux";
import type { GuestMemory } from "@virtio/memory";
import { openQueue, type Queue, type QueueConfig } from "@virtio/vring";
import type { DirtyLog } from "./dirty_log.ts";
import { FrontEnd } from "./front_end.ts";
import type { FrontEndOptions } from "./options.ts";

/** What only the back end can do with rings, and what is done here whoever it is. */
const RING_FEATURES = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX |
  VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER;
const DONE_HERE = VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND;

/**
 * A vhost-user back end as a `Device`: any transport can have a device of a native daemon behind it, if guest memory is in a
 * file. Rings and buffers are seen by the back end itself; only kicks, interrupts and what happens seldom pass here.
 *
 * Give `ringFeatures` to the transport: a driver must not be offered rings that the back end does not know.
 *
 * Whoever has a `tracker` at its guest memory (v86, for its code cache) is told what the back end wrote before the driver is
 * told to look: by the dirty log if the back end has one, else everything counts as written.
 *
 * @example A disk of qemu-storage-daemon in a guest of v86
 * ```ts ignore
 * const machine = await V86Machine.create({ shared: true });
 * const memory = new FrontEndMemory([
 *   { base: 0, size: 128 * 2 ** 20, descriptor: machine.memoryDescriptor! },
 * ]);
 * const disk = await RemoteDevice.connect("disk.sock", { deviceType: 2, memory });
 * machine.addPci(8, (host) =>
 *   new PciTransport(disk, { memory: machine.memory, host, features: disk.ringFeatures }));
 * ```
 */
export class RemoteDevice implements Device {
  /** Device type (5), as given. */
  readonly type: number;
  /** Feature bits of the device type that the back end offers. */
  readonly features: FeatureSet;
  /** Feature bits 24 to 43 that the back end, or this, can do: what the transport may offer. */
  readonly ringFeatures: FeatureSet;
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** The configuration space, as the back end showed it last. */
  readonly config: ConfigSpace;
  /** What is below. */
  readonly frontEnd: FrontEnd;
  #activation: Activation | null = null;
  #log: DirtyLog | null = null;
  readonly #queues: Map<number, QueueConfig> = new Map();

  private constructor(frontEnd: FrontEnd) {
    this.frontEnd = frontEnd;
    const { deviceType, queueSize } = frontEnd.options;
    this.type = deviceType;
    this.features = frontEnd.features & DEVICE_TYPE_FEATURES;
    this.ringFeatures = (frontEnd.features & RING_FEATURES) | DONE_HERE;
    this.queueSizes = new Array<number>(frontEnd.queueCount).fill(queueSize);
    this.config = new ConfigSpace(frontEnd.config.length, (offset, bytes) => {
      frontEnd.writeConfig(offset, bytes);
      return true;
    });
    this.config.bytes.set(frontEnd.config);
    frontEnd.handlers = {
      call: (index) => this.#called(index),
      config: () => this.#configChanged(),
      failed: (error) => this.#activation?.fail(error),
    };
  }

  /**
   * Connects to a back end.
   *
   * @param to Its socket: a path, or a connected socket, which is the device's from then on.
   * @throws {RangeError} If an option is out of range.
   * @throws {SystemError} If nobody listens.
   * @throws {BackEndError} If the back end does not answer.
   * @throws {ProtocolError} If it answers nonsense.
   */
  static async connect(to: string | UnixSocket, options: FrontEndOptions): Promise<RemoteDevice> {
    return new RemoteDevice(await FrontEnd.connect(to, options));
  }

  /** See `Device.accepts`. */
  accepts(features: FeatureSet): boolean {
    const own = features & (DEVICE_TYPE_FEATURES | RING_FEATURES);
    return this.frontEnd.failure === null && hasFeature(this.frontEnd.features, own);
  }

  /** See `Device.start`. */
  start(activation: Activation): void {
    this.#activation = activation;
    if (activation.memory.tracker !== null) this.#log = this.frontEnd.startLog();
    this.frontEnd.start(activation.features);
  }

  /** See `Device.startQueue`. */
  startQueue(index: number, queue: Queue): void {
    const state = queue.snapshot();
    this.#queues.set(index, state);
    this.frontEnd.setQueue(index, state);
  }

  /** See `Device.stopQueue`. */
  async stopQueue(index: number): Promise<Queue> {
    const config = this.#queues.get(index);
    const activation = this.#activation;
    if (config === undefined || activation === null) {
      throw new RangeError(`Queue ${index} is not started`);
    }
    this.#queues.delete(index);
    const position = await this.frontEnd.stopQueue(index);
    this.#tellWritten(activation.memory);
    return openQueue(activation.memory, { ...config, position }, activation.features);
  }

  /** See `Device.notify`. */
  notify(index: number): void {
    this.frontEnd.kick(index);
  }

  /** See `Device.stop`. */
  stop(): Promise<void> {
    const activation = this.#activation;
    this.#activation = null;
    this.#queues.clear();
    return this.frontEnd.reset().then(() => {
      if (activation !== null) this.#tellWritten(activation.memory);
    });
  }

  /** Closes the connection. The device cannot be used again. */
  async close(): Promise<void> {
    this.#activation = null;
    this.#log = null;
    await this.frontEnd.close();
  }

  #called(index: number): void {
    const activation = this.#activation;
    if (activation === null) return;
    activation.memory.refresh();
    // What was written is told before the driver is told to look at it.
    this.#tellWritten(activation.memory);
    activation.interrupt.queue(index);
  }

  #tellWritten(memory: GuestMemory): void {
    const { tracker } = memory;
    if (tracker === null) return;
    if (this.#log !== null) {
      this.#log.bitmap.drain((address, length) => tracker.mark(address, length));
      return;
    }
    for (const { base, size } of memory.regions) tracker.mark(base, size);
  }

  #configChanged(): void {
    this.config.update((view) => {
      const { config } = this.frontEnd;
      const into = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
      into.set(config.subarray(0, into.length));
    });
  }
}
