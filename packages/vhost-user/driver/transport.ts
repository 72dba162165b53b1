/** The driver half of a transport whose device is a vhost-user back end. */
import {
  CORE_FEATURES,
  type FeatureSet,
  hasFeature,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from "@virtio/device";
import type { DriverInterrupts, DriverTransport } from "@virtio/device/driver";
import type { UnixSocket } from "@virtio/linux";
import type { QueueConfig } from "@virtio/vring";
import { FrontEnd } from "./front_end.ts";
import type { FrontEndOptions } from "./options.ts";

/** Kicks carry no data, and the protocol has no way to suspend a device. */
const CARRIED = CORE_FEATURES &
  ~(VIRTIO_F_NOTIFICATION_DATA | VIRTIO_F_NOTIF_CONFIG_DATA | VIRTIO_F_SUSPEND);

/**
 * A driver's transport to a device in another process, by vhost-user: rings and buffers are in memory that both share, kicks
 * and interrupts are event files. Every driver of these packages runs over it unchanged.
 *
 * What takes messages is done in order behind the registers; a status of 0 is read when a reset is complete. A back end that
 * breaks the protocol, does not answer or goes away makes the device ask for a reset, unless it may come back
 * (`FrontEndOptions.reconnect`). A reset looks for it again.
 *
 * @example A disk in a server of ours; another program's is used the same way
 * ```ts
 * import { BlkDevice } from "@virtio/blk";
 * import { BlkDriver } from "@virtio/blk/driver";
 * import { MemoryBackend } from "@virtio/blk/memory";
 * import { VhostUserServer } from "@virtio/vhost-user";
 * import { FrontEndMemory, VhostUserTransport } from "@virtio/vhost-user/driver";
 * import { DmaPool } from "@virtio/vring/driver";
 * import { assertEquals } from "@std/assert";
 *
 * const folder = await Deno.makeTempDir();
 * const socket = `${folder}/disk.sock`;
 * const device = new BlkDevice({ backend: new MemoryBackend(2 ** 20) });
 * const server = new VhostUserServer({ socket, device });
 *
 * const memory = FrontEndMemory.allocate(2 ** 23);
 * const transport = await VhostUserTransport.connect(socket, { deviceType: 2, memory });
 * const disk = await BlkDriver.open(transport, { dma: new DmaPool(memory.guest, 0, 2 ** 23) });
 * await disk.write(0, new Uint8Array(4096).fill(7));
 * const back = new Uint8Array(4096);
 * await disk.read(0, back);
 * assertEquals(back[4095], 7);
 *
 * await disk.close();
 * await transport.close();
 * memory.close();
 * await server.close();
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export class VhostUserTransport implements DriverTransport {
  /** Device type (5), as given. */
  readonly deviceType: number;
  /** Everything of the core but SUSPEND and data in notifications. */
  readonly carries: FeatureSet = CARRIED;
  /** Where interrupts go; null drops them. */
  interrupts: DriverInterrupts | null = null;
  /** What is below: memory, dirty log, and messages that drivers have no registers for. */
  readonly frontEnd: FrontEnd;
  #status = 0;
  #accepted: FeatureSet = 0n;
  #generation = 0;
  #used = false;
  readonly #resetting: Set<number> = new Set();

  private constructor(frontEnd: FrontEnd) {
    this.frontEnd = frontEnd;
    this.deviceType = frontEnd.options.deviceType;
    frontEnd.handlers = {
      call: (index) => this.interrupts?.queue(index),
      config: () => {
        this.#generation = (this.#generation + 1) >>> 0;
        this.interrupts?.config();
      },
      failed: () => {
        if (this.#status === 0) return;
        this.#status |= VIRTIO_STATUS_DEVICE_NEEDS_RESET;
        this.interrupts?.config();
      },
    };
  }

  /**
   * Connects to a back end.
   *
   * @param to Its socket: a path, or a connected socket, which is the transport's from then on.
   * @throws {RangeError} If an option is out of range.
   * @throws {SystemError} If nobody listens.
   * @throws {BackEndError} If the back end does not answer.
   * @throws {ProtocolError} If it answers nonsense.
   */
  static async connect(
    to: string | UnixSocket,
    options: FrontEndOptions,
  ): Promise<VhostUserTransport> {
    return new VhostUserTransport(await FrontEnd.connect(to, options));
  }

  /** Number of queues that there may be. */
  get queueCount(): number {
    return this.frontEnd.queueCount;
  }

  /** Reads the device status. */
  readStatus(): number {
    return this.#status;
  }

  /** Writes the device status; 0 resets, and is read when that is done. */
  writeStatus(status: number): void {
    if (status === 0) {
      this.#reset();
      return;
    }
    const fresh = status & ~this.#status & ~VIRTIO_STATUS_DEVICE_NEEDS_RESET;
    this.#status |= fresh & ~(VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK);
    if ((fresh & VIRTIO_STATUS_FEATURES_OK) !== 0 && this.#acceptable()) {
      this.#status |= VIRTIO_STATUS_FEATURES_OK;
    }
    const ready = (this.#status & VIRTIO_STATUS_FEATURES_OK) !== 0;
    if ((fresh & VIRTIO_STATUS_DRIVER_OK) !== 0 && ready) {
      this.#status |= VIRTIO_STATUS_DRIVER_OK;
      this.#used = true;
      this.frontEnd.start(this.#accepted);
    }
  }

  #acceptable(): boolean {
    return this.frontEnd.failure === null && hasFeature(this.readDeviceFeatures(), this.#accepted);
  }

  #reset(): void {
    if (!this.#used && this.frontEnd.failure === null) {
      this.#status = 0;
      return;
    }
    const { frontEnd } = this;
    this.#used = false;
    void frontEnd.reset().then(() => {
      this.#resetting.clear();
      this.#status = 0;
    });
  }

  /** All feature bits that the device offers. A queue reset needs no help of the back end's. */
  readDeviceFeatures(): FeatureSet {
    return this.frontEnd.features | VIRTIO_F_RING_RESET;
  }

  /** Writes the accepted feature bits. */
  writeDriverFeatures(features: FeatureSet): void {
    if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) this.#accepted = features;
  }

  /** Nothing here depends on them before DRIVER_OK. */
  negotiated(_features: FeatureSet): void {}

  /** The configuration's generation. */
  configGeneration(): number {
    return this.#generation;
  }

  /** Reads a field of the device's configuration; beyond what the back end shows there are zeroes. */
  readConfig(offset: number, size: 1 | 2 | 4): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      value = value * 256 + (this.frontEnd.config[offset + i] ?? 0);
    }
    return value;
  }

  /** Writes a field of the device's configuration. */
  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i++) bytes[i] = value >>> (8 * i);
    this.frontEnd.writeConfig(offset, bytes);
  }

  /** Largest size of a queue; 0 if there is no such queue. */
  queueMaxSize(index: number): number {
    return index < this.queueCount ? this.frontEnd.options.queueSize : 0;
  }

  /** Tells where a queue lies. @throws {RangeError} If there is no such queue. */
  enableQueue(index: number, config: QueueConfig): void {
    this.#used = true;
    this.frontEnd.setQueue(index, config);
  }

  /** Starts a queue reset. */
  resetQueue(index: number): void {
    this.#resetting.add(index);
    const done = (): void => {
      this.#resetting.delete(index);
    };
    // Where it was is of no interest.
    this.frontEnd.stopQueue(index).then(done, done);
  }

  /** Whether the queue reset is complete. */
  queueResetDone(index: number): boolean {
    return !this.#resetting.has(index);
  }

  /** Sends an available buffer notification. */
  kick(index: number, _data: number): void {
    this.frontEnd.kick(index);
  }

  /** Closes the connection. Reset the device before (`BlkDriver.close`), or its back end drops what is in flight. */
  close(): Promise<void> {
    return this.frontEnd.close();
  }
}
