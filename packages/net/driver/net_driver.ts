import { type FeatureSet, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from "@virtio/device";
import { DriverError, type DriverSession, type DriverTransport } from "@virtio/device/driver";
import { VirtqueueError } from "@virtio/vring";
import {
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MQ,
} from "../constants.ts";
import type { Frame } from "../frame.ts";
import { hostOffloads, randomMac } from "../settings.ts";
import type { NetBackend } from "../sink.ts";
import { Announcer } from "./announcer.ts";
import { NetControl } from "./control.ts";
import { type NetInfo, readNetInfo, sameInfo } from "./info.ts";
import { type NetDriverOptions, type NetDriverSettings, settleDriver } from "./options.ts";
import { DriverPort } from "./port.ts";
import { QueueSet } from "./queue_set.ts";
import { type OpenedQueues, openQueues } from "./queues.ts";
import type { FrameHandler } from "./receive_pump.ts";
import type { ReceiveQueue } from "./receive_queue.ts";
import type { TransmitQueue } from "./transmit_queue.ts";

/**
 * A driver for network devices (virtio 1.4, 5.1), over any transport.
 *
 * It believes the device nothing: used lengths, numbers of buffers, headers, answers and configuration are checked. A frame
 * whose header makes no sense is dropped and counted; a device that breaks a rule of its queues, asks for a reset, or leaves
 * a command unanswered is given up: everything later throws, and `onBroken` is told. `close` resets it.
 *
 * @example A driver whose frames come back
 * ```ts
 * import { GuestMemory } from "@virtio/memory";
 * import { type FrameSink, NetDevice, Offload } from "@virtio/net";
 * import { NetDriver } from "@virtio/net/driver";
 * import { MmioTransport } from "@virtio/transport/mmio";
 * import { connectMmio } from "@virtio/transport/mmio/driver";
 * import { DmaPool } from "@virtio/vring/driver";
 * import { assertEquals } from "@std/assert";
 *
 * let peer: FrameSink | null = null;
 * const backend = {
 *   offloads: Offload.all,
 *   connect: (sink: FrameSink | null) => void (peer = sink),
 *   deliver: (frame: Frame) => peer?.deliver(frame),
 * };
 * import type { Frame } from "@virtio/net";
 *
 * const memory = GuestMemory.allocate(8 * 1024 * 1024);
 * const device = new NetDevice({ backend, mac: "02:00:00:00:00:01" });
 * const { driver: transport } = connectMmio((host) => new MmioTransport(device, { memory, host }));
 *
 * const driver = await NetDriver.open(transport, { dma: new DmaPool(memory, 0, 8 * 1024 * 1024) });
 * const bytes = new Uint8Array(60);
 * bytes.set(driver.mac, 0);
 * const back = new Promise<number>((resolve) => {
 *   driver.onFrame = (frame) => resolve(frame.length);
 * });
 * driver.sendBytes(bytes);
 * assertEquals(await back, 60);
 * await driver.close();
 * ```
 */
export class NetDriver {
  /** The session. */
  readonly session: DriverSession;
  /** The commands. */
  readonly control: NetControl;
  /** Receive queues, by pair. */
  readonly receiveQueues: readonly ReceiveQueue[];
  /** Transmit queues, by pair. */
  readonly transmitQueues: readonly TransmitQueue[];
  /** What the device may be asked for in frames that are sent: bits of `Offload`. */
  readonly offloads: number;
  /** Called when the link went up or down. */
  onLinkChange: ((up: boolean) => void) | null = null;
  /** Called when anything in `info` changed. */
  onChange: ((info: NetInfo) => void) | null = null;
  /**
   * Called when the device wants the driver to announce itself (5.1.9.5.4), for gratuitous ARP and the like of those who know
   * their IP addresses. The driver itself has sent a frame that shows the network where its MAC address is.
   */
  onAnnounce: (() => void) | null = null;
  /** Called once, when the device was given up. */
  onBroken: ((reason: Error) => void) | null = null;
  readonly #queues: QueueSet;
  #mac: Uint8Array;
  #info: NetInfo;
  readonly #announcer: Announcer = new Announcer(this, () => this.#configChanged());
  #broken: Error | null = null;
  #closed = false;

  private constructor(
    opened: OpenedQueues,
    mac: Uint8Array,
    settings: NetDriverSettings,
    finished: boolean,
  ) {
    const { session, info, receive, transmit } = opened;
    this.session = session;
    this.receiveQueues = receive;
    this.transmitQueues = transmit;
    this.offloads = hostOffloads(session.features);
    this.#info = info;
    this.#mac = mac;
    this.#queues = new QueueSet(opened, settings, finished, (reason) => this.#giveUp(reason));
    this.control = new NetControl({
      session,
      queue: this.#queues.control,
      pairs: receive.length,
      info: () => this.#info,
      onMac: (mac) => this.#mac = mac,
    });
    session.handlers = {
      used: (index) => this.#queues.used(index),
      config: () => this.#configChanged(),
      needsReset: () => this.#giveUp(new DriverError("The device asks for a reset")),
    };
  }

  /**
   * Initialises a device (virtio 1.4, 5.1.5), and uses as many pairs of queues as `queuePairs` says.
   *
   * @throws {DriverError} If it is no network device, or cannot be driven.
   * @throws {RangeError} If an option is out of range, or there is too little memory.
   * @throws {NetControlError} If the device does not take the number of pairs, or the MAC address.
   */
  static async open(transport: DriverTransport, options: NetDriverOptions): Promise<NetDriver> {
    const settings = settleDriver(options);
    const opened = await openQueues(transport, options, settings);
    const mac = options.mac?.slice() ?? opened.info.mac ?? randomMac();
    const driver = new NetDriver(opened, mac, settings, options.finished ?? false);
    try {
      await driver.#start();
    } catch (error) {
      await driver.close();
      throw error;
    }
    return driver;
  }

  async #start(): Promise<void> {
    const { session, control } = this;
    if ((session.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      throw new DriverError("The device asks for a reset as soon as it is started");
    }
    // 5.1.9.5.2.2. Where the device cannot be told, it has to receive everything.
    const { mac } = this.#info;
    const other = mac === null || mac.some((byte, i) => byte !== this.#mac[i]);
    if (other && session.has(VIRTIO_NET_F_CTRL_RX)) {
      if (session.has(VIRTIO_NET_F_CTRL_MAC_ADDR)) await control.setMac(this.#mac);
      else await control.setReceiveMode("promiscuous", true);
    }
    const pairs = this.receiveQueues.length;
    if (pairs > 1 && session.has(VIRTIO_NET_F_MQ)) await control.setQueuePairs(pairs);
    this.#configChanged();
    for (const queue of this.receiveQueues) this.#queues.used(queue.index);
    if (this.#broken !== null) throw this.#broken;
  }

  /** Takes received frames. While there is none, they are dropped. */
  get onFrame(): FrameHandler | null {
    return this.#queues.pump.onFrame;
  }

  /** Says who takes received frames. */
  set onFrame(handler: FrameHandler | null) {
    this.#queues.pump.onFrame = handler;
  }

  /** What the device says about itself. */
  get info(): NetInfo {
    return this.#info;
  }

  /**
   * The MAC address, 6 bytes: that of `control.setMac` or the option, else the device's, or a random one that is locally
   * administered (5.1.4.2).
   */
  get mac(): Uint8Array {
    return this.#mac.slice();
  }

  /** Whether the link is up. */
  get linkUp(): boolean {
    return this.#info.linkUp;
  }

  /** The negotiated features. */
  get features(): FeatureSet {
    return this.session.features;
  }

  /** Why the device was given up; null while it works. */
  get broken(): Error | null {
    return this.#broken;
  }

  /**
   * Sends a frame. What is sent in one turn of the event loop is published together; `flush` does it at once.
   *
   * @param frame Copied. What it needs must be among `offloads`: `pass(frame, driver.port())` finishes it if need be.
   * @param pair Which transmit queue; 0 unless given.
   * @returns False if there is no room now: `ready` tells when there is.
   * @throws {TypeError} If it needs what was not negotiated, or its header makes no sense.
   * @throws {RangeError} If it is too short or too long (5.1.4.2), or the queue is not in use (5.1.9.5.6.1).
   * @throws {Error} Why the device was given up.
   */
  send(frame: Frame, pair = 0): boolean {
    const queue = this.#transmitQueue(pair);
    if (queue === null) return false;
    try {
      return queue.send(frame);
    } catch (error) {
      throw this.#judge(error);
    }
  }

  /** Sends a frame that needs nothing done, as `send` does. */
  sendBytes(bytes: Uint8Array, pair = 0): boolean {
    const queue = this.#transmitQueue(pair);
    if (queue === null) return false;
    try {
      return queue.sendBytes(bytes);
    } catch (error) {
      throw this.#judge(error);
    }
  }

  /** Makes what was sent available at once, with one kick for each queue at most. */
  flush(): void {
    this.#queues.publisher.flush();
  }

  /**
   * Resolves when there is room for a frame of any length.
   *
   * @throws {Error} Why the device was given up.
   */
  async ready(pair = 0): Promise<void> {
    this.#checkWorks();
    if (this.transmitQueues[pair] === undefined) throw new RangeError(`There is no pair ${pair}`);
    this.flush();
    await this.#queues.room.wait(pair);
  }

  /**
   * The driver as one end of a cable: what it receives goes to whom `connect` names, and what is delivered is sent. It takes
   * `onFrame` and `onLinkChange`.
   */
  port(): NetBackend & { readonly dropped: number } {
    return new DriverPort(this);
  }

  /**
   * Resets one queue and sets it up again (2.6.1). Frames in a transmit queue that the device did not take are lost; a
   * command that it did not answer is sent again.
   *
   * @throws {DriverError} If VIRTIO_F_RING_RESET was not negotiated, or the device does not finish.
   */
  async resetQueue(index: number): Promise<void> {
    this.#checkWorks();
    const { session } = this;
    const { resetting } = this.#queues;
    // Throws if there is no such queue.
    const { size } = session.queue(index);
    resetting.add(index);
    let lost: number[];
    try {
      lost = await session.resetQueue(index, size);
    } finally {
      resetting.delete(index);
    }
    this.#checkWorks();
    try {
      this.#queues.restart(index, lost);
    } catch (error) {
      throw this.#judge(error);
    }
  }

  /** Suspends the device (3.4). What is sent meanwhile waits, as far as there is room. @throws As `DriverSession.suspend`. */
  async suspend(): Promise<void> {
    this.#checkWorks();
    this.#queues.suspended = true;
    try {
      await this.session.suspend();
    } catch (error) {
      this.#queues.suspended = false;
      throw error;
    }
  }

  /** Resumes the device after `suspend`. @throws As `DriverSession.resume`. */
  async resume(): Promise<void> {
    this.#checkWorks();
    await this.session.resume();
    this.#queues.suspended = false;
    this.#queues.usedAny();
    this.#configChanged();
  }

  /** Resets the device and gives all memory back. What waits rejects. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.onBroken = null;
    this.#giveUp(new DriverError("The driver was closed"));
    await this.session.reset();
    this.#queues.release();
  }

  #checkWorks(): void {
    if (this.#broken !== null) throw this.#broken;
  }

  /** Null while the queue is being reset. */
  #transmitQueue(pair: number): TransmitQueue | null {
    if (this.#broken !== null) throw this.#broken;
    const queue = this.transmitQueues[pair];
    if (queue === undefined || pair >= this.control.transmitPairs) {
      throw new RangeError(
        `Transmit queue ${pair} is not in use: control.setQueuePairs and setRss say how many are`,
      );
    }
    const { resetting } = this.#queues;
    return resetting.size > 0 && resetting.has(queue.index) ? null : queue;
  }

  /** What an error of a queue means: one of the device's ends it. @returns What to throw. */
  #judge(error: unknown): Error {
    if (error instanceof VirtqueueError) this.#giveUp(error);
    return error as Error;
  }

  #configChanged(): void {
    if (this.#broken !== null) return;
    const before = this.#info;
    try {
      this.#info = readNetInfo(this.session);
    } catch (error) {
      this.#giveUp(error as Error);
      return;
    }
    const now = this.#info;
    if (before.linkUp !== now.linkUp) this.onLinkChange?.(now.linkUp);
    if (!sameInfo(before, now)) this.onChange?.(now);
    if (now.announce && this.session.has(VIRTIO_NET_F_GUEST_ANNOUNCE)) this.#announcer.asked();
  }

  /** Fails everything, now and later. The device may still write to its buffers: they stay taken until `close`. */
  #giveUp(reason: Error): void {
    if (this.#broken !== null) return;
    this.#broken = reason;
    this.#queues.abandon(reason);
    this.onBroken?.(reason);
  }
}
