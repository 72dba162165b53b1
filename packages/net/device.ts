import {
  type Activation,
  DeviceId,
  type FeatureSet,
  hasFeature,
  type PollSource,
  type QueueCounters,
  QueueDevice,
} from "@virtio/device";
import { type Chain, type Queue, VirtqueueError } from "@virtio/vring";
import {
  NetConfigOffset,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_S_ANNOUNCE,
  VIRTIO_NET_S_LINK_UP,
} from "./constants.ts";
import { CONTROL_LIMITS, NetControl } from "./control/control.ts";
import { NO_PAIR } from "./control/steering.ts";
import type { Frame } from "./frame.ts";
import { Inbound, type InboundHost } from "./inbound.ts";
import { Moderator } from "./moderation.ts";
import type { NetDeviceOptions } from "./options.ts";
import { pass } from "./pass.ts";
import { checkSaved, type SavedNet } from "./saved_net.ts";
import { acceptable, makeConfig, type NetSettings, REQUIRES, settle } from "./settings.ts";
import type { FrameSink, NetBackend } from "./sink.ts";
import { NetStats, type TransmitStats } from "./stats.ts";
import { Transmitter } from "./transmit.ts";

/** Bytes of chains after which they are published, counted as `publishInParts` does: a burst of 32 short frames. */
const PART = 18_000;

/**
 * A network device (virtio 1.4, 5.1). Whatever its back end is, it offers all offloads: what the back end cannot, or the
 * driver did not accept, is done in software.
 *
 * A frame may be cut into descriptors in any way. One that breaks a rule is dropped and counted; only a buffer without room
 * for a header makes the device ask for a reset.
 *
 * @example A device whose frames come back
 * ```ts
 * import { type FrameSink, NetDevice, Offload } from "@virtio/net";
 * import { assertEquals } from "@std/assert";
 *
 * let peer: FrameSink | null = null;
 * const device = new NetDevice({
 *   backend: {
 *     offloads: Offload.all,
 *     connect: (sink) => peer = sink,
 *     deliver: (frame) => peer?.deliver(frame),
 *   },
 *   mac: "02:00:00:00:00:01",
 * });
 * assertEquals(device.config.read(5, 1), 1); // the last byte of the address
 * ```
 */
export class NetDevice extends QueueDevice implements FrameSink {
  /** The other end of the cable. */
  readonly backend: NetBackend;
  /** What it did. */
  readonly stats: NetStats;
  readonly #settings: NetSettings;
  readonly #options: NetDeviceOptions;
  readonly #control: NetControl;
  readonly #moderator: Moderator;
  readonly #transmitter: Transmitter = new Transmitter();
  readonly #inbound: Inbound;
  readonly #mac: Uint8Array;
  #plugged: boolean;
  #announce = false;
  /** Pairs that there are in this negotiation (5.1.2). */
  #pairs = 1;
  /** Index of the control queue in this negotiation; -1: there is none. */
  #controlQueue = -1;
  /** Queues that are started, and those that were stopped while others were not. */
  #started = 0;
  readonly #reset: Uint8Array;

  /**
   * Makes a device and plugs its back end in.
   *
   * @param options Only the back end is needed. Its `onLinkChange` is taken.
   * @throws {TypeError} If there is no back end.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(options: NetDeviceOptions) {
    const settings = settle(options);
    super({
      type: DeviceId.net,
      features: settings.features,
      requires: REQUIRES,
      queueSizes: settings.queueSizes,
      config: makeConfig(settings),
      lazyQueues: Array.from({ length: settings.pairs }, (_, pair) => 2 * pair),
    });
    this.#settings = settings;
    this.#options = options;
    this.backend = options.backend;
    this.#mac = settings.mac.slice();
    this.#plugged = settings.linkUp;
    this.#reset = new Uint8Array(settings.queueSizes.length);
    const stats = this.stats = new NetStats(settings.pairs);
    const queueCounters: readonly QueueCounters[] = this.queueCounters;
    const control = this.#control = new NetControl(
      {
        queueCounters,
        mac: this.#mac,
        maxPairs: settings.pairs,
        receives: (pair) => this.#receives(pair),
        receiveCounters: (pair) => stats.received[pair]!.counters,
        transmitCounters: (pair) => stats.sent[pair]!.counters,
        setMac: (mac) => this.#setMac(mac),
        announced: () => this.#setAnnounce(false),
        notify: (queue) => this.#moderator.notify(queue),
      },
      CONTROL_LIMITS,
      options.clock,
    );
    this.#moderator = new Moderator(control.coalescing, queueCounters);
    const host: InboundHost = {
      buffers: (queue) => this.lazyQueue(queue),
      fail: (error) => this.activation?.fail(error),
      received: (frame, queue) => {
        this.#moderator.packet(queue);
        options.tap?.(frame, "received", queue);
      },
    };
    this.#inbound = new Inbound(host, stats, control.steering, settings);
    this.#writeConfig(this.config.view);
    options.backend.onLinkChange = () => this.#refresh();
    options.backend.connect(this);
  }

  /** Which unfinished frames the driver takes now. While there is no driver, whatever comes is dropped as it is. */
  get offloads(): number {
    return this.#inbound.offloads;
  }

  /** The MAC address, 6 bytes: the one that the driver set, if it did. A copy. */
  get mac(): Uint8Array {
    return this.#mac.slice();
  }

  /** Whether the link is up: the cable is plugged in, and leads somewhere. */
  get linkUp(): boolean {
    return this.#plugged && this.backend.linkUp !== false;
  }

  /** Pairs of queues that the driver uses now (5.1.9.5.5). */
  get pairs(): number {
    return this.#control.pairs;
  }

  /** Frames that wait for the driver's buffers. */
  get waiting(): number {
    return this.#inbound.waiting;
  }

  /** Plugs the cable in, or pulls it. The driver is told (5.1.4); while it is pulled, no frame passes. */
  setLink(up: boolean): void {
    this.#plugged = up;
    this.#refresh();
  }

  /**
   * Asks the driver to make itself known in the network, as after it has moved to another host (5.1.9.5.4).
   *
   * @returns False if the driver did not negotiate that.
   */
  announce(): boolean {
    const { activation } = this;
    if (activation === null || !hasFeature(activation.features, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
      return false;
    }
    this.#setAnnounce(true);
    return true;
  }

  /** Takes a frame for the driver: the back end's way to it. See `FrameSink.deliver`. */
  deliver(frame: Frame): void {
    const { stats } = this;
    const control = this.#control;
    if (this.activation === null || !this.linkUp) {
      stats.unheard++;
      return;
    }
    if ((frame.needs & ~this.#inbound.offloads) !== 0) {
      stats.finished++;
      if (!pass(frame, this)) stats.malformed++;
      return;
    }
    if (!control.filter.accepts(frame)) {
      stats.filtered++;
      return;
    }
    const pair = control.steering.pairOf(frame);
    if (pair === NO_PAIR) {
      stats.unheard++;
      return;
    }
    // It is looked at after its bytes went to the driver.
    if (this.#options.tap !== undefined) frame.hold();
    this.#inbound.receive(frame, pair);
  }

  /** See `Device.accepts`: what the driver sets through the control queue is as after a reset. */
  accepts(features: FeatureSet): boolean {
    if (!acceptable(features)) return false;
    this.#control.reset(features);
    return true;
  }

  /** What the device itself has to save beside its queues. */
  save(): SavedNet {
    return {
      version: 1,
      mac: [...this.#mac],
      announce: this.#announce,
      control: this.#control.save(),
    };
  }

  /**
   * Takes over what `save` gave.
   *
   * @throws {TypeError} If it is malformed, or says what the driver could not have brought about.
   */
  restore(saved: unknown): void {
    const state = checkSaved(saved);
    this.#control.restore(state.control);
    this.#mac.set(state.mac);
    this.#announce = state.announce;
    // The driver has read it already.
    this.#writeConfig(this.config.view);
  }

  /** See `Device.pollSources`: there are none, but whoever polls has the driver in another thread. */
  pollSources(): readonly PollSource[] {
    this.publishInParts(PART);
    return [];
  }

  /** See `Device.start`. */
  override start(activation: Activation): void {
    super.start(this.#moderator.start(activation));
  }

  /** See `Device.startQueue`. */
  override startQueue(index: number, queue: Queue): void {
    super.startQueue(index, queue);
    this.#started++;
    if (this.#reset[index] === 1) {
      this.#reset[index] = 0;
      this.#control.coalescing.reenable(index);
    }
    if (this.#isReceive(index)) this.#inbound.setSize(index >> 1, queue.size);
  }

  /** See `Device.stopQueue`. */
  override stopQueue(index: number): Queue | Promise<Queue> {
    this.#moderator.stopQueue(index);
    this.#started--;
    // One is reset by itself; if all are stopped, the device is suspended, and nothing is to be different afterwards.
    if (this.#started === 0) this.#reset.fill(0);
    else if (index < this.#control.coalescing.queues) this.#reset[index] = 1;
    if (this.#isReceive(index)) this.#inbound.setSize(index >> 1, 0);
    return super.stopQueue(index);
  }

  /** See `QueueDevice.started`. */
  protected override started(activation: Activation): void {
    const { features } = activation;
    const many = (features & (VIRTIO_NET_F_MQ | VIRTIO_NET_F_RSS)) !== 0n;
    this.#pairs = many ? this.#settings.pairs : 1;
    this.#controlQueue = hasFeature(features, VIRTIO_NET_F_CTRL_VQ) ? 2 * this.#pairs : -1;
    this.#transmitter.start(features, this.#settings.mtu);
    this.#inbound.start(features, this.#settings.mtu);
    this.#inbound.offloads = this.#control.offloads;
  }

  /** See `QueueDevice.stopped`. */
  protected override stopped(): void {
    this.#started = 0;
    this.#reset.fill(0);
    this.#moderator.stop();
    this.#inbound.stop();
    this.#mac.set(this.#settings.mac);
    this.#announce = false;
    this.#control.reset(0n);
    this.#refresh();
  }

  /** See `QueueDevice.handle`. */
  protected override handle(chain: Chain, queue: number): void {
    if ((queue & 1) === 1 && queue < 2 * this.#pairs) this.#transmit(chain, queue);
    else if (queue === this.#controlQueue) this.#command(chain);
    else throw new VirtqueueError("5.1.2", `Queue ${queue} is used, which was not negotiated`);
  }

  /** See `QueueDevice.kicked`: receive queues, and a control queue where there could be one of those. */
  protected override kicked(queue: number): void {
    if ((queue & 1) === 1) return;
    if (queue < 2 * this.#pairs) {
      this.#inbound.drain(queue >> 1);
    } else if (queue === this.#controlQueue) {
      // As many as the queue has entries: what is used now is published later.
      for (let chain = this.take(queue); chain !== null; chain = this.take(queue)) {
        this.#command(chain);
        this.complete(queue, chain);
      }
    }
  }

  #isReceive(queue: number): boolean {
    return (queue & 1) === 0 && queue < 2 * this.#pairs;
  }

  /** Whether frames may be steered to a pair: while all queues are stopped, the device is suspended and frames wait. */
  #receives(pair: number): boolean {
    return this.#inbound.isStarted(pair) || this.#started === 0;
  }

  #command(chain: Chain): void {
    const control = this.#control;
    control.handle(chain);
    this.#inbound.offloads = control.offloads;
    this.#inbound.abandon(control.steering.receivePairs);
  }

  #transmit(chain: Chain, queue: number): void {
    const pair = queue >> 1;
    const stats = this.stats.sent[pair]!;
    const transmitter = this.#transmitter;
    this.#moderator.packet(queue);
    if (!transmitter.read(chain, stats)) {
      this.#options.onError?.(new VirtqueueError(transmitter.clause, transmitter.reason));
      return;
    }
    if (!this.linkUp) {
      stats.linkDown++;
      return;
    }
    const { frame } = transmitter;
    const { needs } = frame;
    stats.frames++;
    stats.bytes += frame.length;
    this.#control.steering.sentOn(frame, pair);
    this.#options.tap?.(frame, "sent", queue);
    if (needs === 0) this.backend.deliver(frame);
    else this.#transmitUnfinished(frame, needs, stats);
  }

  #transmitUnfinished(frame: Frame, needs: number, stats: TransmitStats): void {
    const asItIs = (needs & ~this.backend.offloads) === 0;
    stats.needsChecksum++;
    if (!asItIs) stats.finished++;
    if (frame.gsoType === VIRTIO_NET_HDR_GSO_NONE) {
      pass(frame, this.backend);
      return;
    }
    stats.gsoFrames++;
    stats.gsoBytes += frame.length;
    if (!asItIs) {
      stats.cutFrames++;
      stats.cutBytes += frame.length;
    }
    pass(frame, this.backend, stats.segments);
  }

  #setMac(mac: Uint8Array): void {
    this.#mac.set(mac);
    this.#refresh();
  }

  #setAnnounce(announce: boolean): void {
    this.#announce = announce;
    this.#refresh();
  }

  #refresh(): void {
    this.config.update((view) => this.#writeConfig(view));
  }

  #writeConfig(view: DataView): void {
    const features = this.activation?.features ?? this.features;
    // Without VIRTIO_NET_F_MAC the driver has an address of its own, which is not reflected (5.1.9.5.2).
    if (hasFeature(features, VIRTIO_NET_F_MAC)) {
      for (let i = 0; i < 6; i++) view.setUint8(NetConfigOffset.mac + i, this.#mac[i]!);
    }
    const status = (this.linkUp ? VIRTIO_NET_S_LINK_UP : 0) |
      (this.#announce ? VIRTIO_NET_S_ANNOUNCE : 0);
    view.setUint16(NetConfigOffset.status, status, true);
  }
}
