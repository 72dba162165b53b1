/** The rings of a device, and what belongs to them: how a back end gets them, and where they go on when they are taken away. */
import {
  type FeatureSet,
  hasFeature,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
} from "@virtio/device";
import type { QueueConfig, QueuePosition } from "@virtio/vring";
import {
  decodeVringState,
  encodeVringState,
  FrontEndRequest as Request,
  ProtocolError,
  ProtocolFeature as P,
} from "../protocol/mod.ts";
import { BackEndError, type Connection } from "./connection.ts";
import { InflightRegion } from "./inflight.ts";
import type { FrontEndMemory } from "./memory.ts";
import type { CheckedOptions } from "./options.ts";
import { decodeBase, encodeBase, Vring, type VringHandlers } from "./vring.ts";

/** How rings are given. */
export interface RingOptions {
  /** Whether what the device writes into them is to be in the dirty log. */
  readonly logged: boolean;
  /** Whether they have to be enabled. */
  readonly enable: boolean;
}

/** All rings of a device. */
export class Rings {
  /** How many there may be. */
  readonly count: number;
  /** Those that were used once: each has three event files, and some back ends say that they have 256. */
  readonly #vrings: Map<number, Vring> = new Map();
  readonly #handlers: VringHandlers;
  readonly #memory: FrontEndMemory;
  readonly #timeout: number;
  #inflight: InflightRegion | null = null;
  /**
   * Whether back ends are to write down what is in flight. For rings in order the protocol has them find that in the ring, and
   * does not say what notes would mean where one used element stands for several.
   */
  #noted = true;
  /** Whether they are packed rings; as it was negotiated last. */
  #packed = false;
  /** Whether buffers are used in the order in which they were made available. */
  #inOrder = false;
  readonly #knownInOrder: boolean;

  /**
   * @param count How many.
   */
  constructor(
    count: number,
    { memory, timeout, reconnect }: CheckedOptions,
    handlers: VringHandlers,
  ) {
    this.count = count;
    this.#knownInOrder = reconnect?.inOrder ?? false;
    this.#memory = memory;
    this.#timeout = timeout;
    this.#handlers = handlers;
  }

  /** Queues that the driver uses: the last one's index plus one. */
  get used(): number {
    return 1 + Math.max(-1, ...this.#inUse().map(({ index }) => index));
  }

  /** Whether what is in flight is written down somewhere. */
  get hasInflight(): boolean {
    return this.#inflight !== null;
  }

  /** The features that rings follow. */
  set features(features: FeatureSet) {
    this.#packed = hasFeature(features, VIRTIO_F_RING_PACKED);
    const inOrder = hasFeature(features, VIRTIO_F_IN_ORDER);
    this.#inOrder = this.#knownInOrder || inOrder;
    this.#noted = !inOrder;
  }

  /**
   * The driver tells where a queue is.
   *
   * @throws {RangeError} If there is no such queue.
   */
  set(index: number, config: QueueConfig): void {
    const vring = this.#at(index);
    vring.config = config;
    vring.begun = false;
  }

  #at(index: number): Vring {
    let vring = this.#vrings.get(index);
    if (vring !== undefined) return vring;
    if (!(index >= 0 && index < this.count)) {
      throw new RangeError(`There is no queue ${index}: the device has ${this.count}`);
    }
    vring = new Vring(index, this.#handlers);
    this.#vrings.set(index, vring);
    return vring;
  }

  /** Those that the driver uses, in order. */
  #inUse(): Vring[] {
    return [...this.#vrings.values()].filter(({ config }) => config !== null)
      .sort((a, b) => a.index - b.index);
  }

  /** Tells the back end that a queue has buffers. */
  kick(index: number): void {
    this.#vrings.get(index)?.kick();
  }

  /** After a back end came back: a kick or a call may have gone with the one before. */
  wakeAll(): void {
    for (const vring of this.#vrings.values()) {
      if (!vring.live) continue;
      vring.kick();
      this.#handlers.call(vring.index);
    }
  }

  /** The connection is gone: no back end has any ring. */
  lose(): void {
    for (const vring of this.#vrings.values()) vring.live = false;
  }

  /**
   * Gives all rings that the driver uses to a back end.
   *
   * @param told Where promises go, one for each answer that is outstanding.
   */
  async begin(
    connection: Connection,
    options: RingOptions,
    told: Promise<unknown>[],
  ): Promise<void> {
    const used = this.#inUse().filter(({ live }) => !live);
    if (this.#noted && connection.has(P.INFLIGHT_SHMFD) && used.length > 0) {
      if (this.#inflight === null) {
        const largest = Math.max(...used.map((vring) => vring.config!.size));
        this.#inflight = await InflightRegion.request(connection, this.used, largest);
      }
      if (this.#inflight !== null) told.push(this.#inflight.give(connection));
    }
    for (const vring of used) {
      if (vring.config !== null) told.push(this.#begin(connection, vring, vring.config, options));
    }
  }

  /** Gives one ring to a back end that has the others, if the driver still uses it. */
  async beginOne(connection: Connection, index: number, options: RingOptions): Promise<void> {
    const vring = this.#at(index);
    if (vring.config === null || vring.live) return;
    await this.#begin(connection, vring, vring.config, options);
  }

  #begin(
    connection: Connection,
    vring: Vring,
    config: QueueConfig,
    { logged, enable }: RingOptions,
  ): Promise<unknown> {
    const base = vring.begun
      ? this.#baseOfDead(vring, config)
      : encodeBase(config.position, this.#packed);
    return vring.begin(connection, config, base, logged, enable);
  }

  /** Tells again where live rings are, since logging began or ended. */
  tellAddresses(connection: Connection, logged: boolean): Promise<unknown> {
    const live = this.#inUse().filter(({ live }) => live);
    return Promise.all(live.map((vring) => vring.tellAddress(connection, vring.config!, logged)));
  }

  /** Where a ring goes on whose back end did not say so. */
  #baseOfDead(vring: Vring, config: QueueConfig): number {
    if (!this.#packed) {
      const memory = this.#memory.guest;
      const used = vring.usedIndex(memory, config);
      // What comes after the used index is all that was in flight only if it was used in order.
      if (
        used !== null &&
        (this.#inflight !== null || this.#inOrder || vring.outstanding(memory, config, used) === 0)
      ) {
        return used;
      }
    } else if (this.#inflight !== null) {
      return this.#inflight.packedBase(vring.index) ?? encodeBase(config.position, true);
    }
    throw new RangeError(
      `Nobody knows what of queue ${vring.index} was in flight: the back end has no INFLIGHT_SHMFD`,
    );
  }

  /**
   * The driver takes a queue away. It does not begin again from now on.
   *
   * @returns Takes it away from the back end, if one has it, and tells where it goes on.
   * @throws {RangeError} If the driver does not use it.
   */
  take(index: number): (connection: Connection | null) => Promise<QueuePosition> {
    const vring = this.#at(index);
    const { config } = vring;
    const packed = this.#packed;
    if (config === null) throw new RangeError(`Queue ${index} is not in use`);
    vring.config = null;
    return async (connection) => {
      if (connection !== null && vring.live) {
        return decodeBase(await this.#stop(connection, vring, config, packed), packed);
      }
      const base = vring.begun
        ? this.#baseOfDead(vring, config)
        : encodeBase(config.position, packed);
      return decodeBase(base, packed);
    };
  }

  /** As `take`, for all queues that the driver uses. */
  takeAll(): ((connection: Connection) => Promise<unknown>)[] {
    return this.#inUse().map((vring) => {
      const stop = this.take(vring.index);
      // What nobody has, nobody has to be asked about.
      return (connection) => vring.live ? stop(connection) : Promise.resolve();
    });
  }

  async #stop(
    connection: Connection,
    vring: Vring,
    config: QueueConfig,
    packed: boolean,
  ): Promise<number> {
    const { index } = vring;
    const base = await connection.ask(
      Request.GET_VRING_BASE,
      encodeVringState({ index, value: 0 }),
      ({ payload }) => {
        const state = decodeVringState(payload);
        if (state.index !== index) {
          throw new ProtocolError(
            `The base of queue ${index} was asked for, and that of ${state.index} came`,
          );
        }
        return state.value;
      },
    );
    if (!packed) await this.#drain(vring, config, base & 0xffff);
    if (vring.takeCall()) this.#handlers.call(index);
    vring.live = false;
    return base;
  }

  /** Some back ends answer while requests are in flight, and write to guest memory until they are done. */
  async #drain(vring: Vring, config: QueueConfig, base: number): Promise<void> {
    const end = performance.now() + this.#timeout;
    for (;;) {
      const used = vring.usedIndex(this.#memory.guest, config);
      if (used === null || used === base) return;
      if (performance.now() > end) {
        throw new BackEndError(
          `Queue ${vring.index} is stopped at ${base}, but only ${used} of its buffers were used`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** The device is reset: what was in flight is nobody's. */
  forgetInflight(): void {
    this.#inflight?.close();
    this.#inflight = null;
  }

  /** Ends all for good. */
  close(): void {
    for (const vring of this.#vrings.values()) vring.close();
    this.forgetInflight();
  }
}
