import {
  type Activation,
  ConfigSpace,
  DeviceId,
  type FeatureSet,
  hasFeature,
  HOLD,
  type PollSource,
  QueueDevice,
} from "@virtio/device";
import { type Chain, type Queue, VirtqueueError } from "@virtio/vring";
import type { BackendResult, BlkBackend } from "./backend.ts";
import {
  BlkConfigOffset,
  SECTOR_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from "./constants.ts";
import { RequestExecutor } from "./execute.ts";
import type { ExecutorHost } from "./executor_host.ts";
import { Negotiated } from "./negotiated.ts";
import { type BlkDeviceOptions, type BlkSettings, setCapacity, settle } from "./options.ts";
import { PENDING } from "./pending.ts";
import type { BlkStats } from "./stats.ts";

/** Bytes that are read or written before what is done is published; a descriptor counts as some too. */
const PART = 1 << 17;
/** The same at first: a driver that sleeps is woken up while most of a batch is still to be done. */
const FIRST_PART = 1 << 15;
/** Completions that are published together: the driver goes on with the first ones while the next are dealt with. */
const REAP = 4;

/** A block device's own state as plain data. The sectors are the back end's to keep. */
export interface SavedBlk {
  /** Which layout this object has. */
  readonly version: 1;
  /** The cache mode. */
  readonly writeback: boolean;
  /** In bytes. */
  readonly capacity: number;
}

/**
 * A block device (virtio 1.4, 5.2), without zones. It offers what its back end can do.
 *
 * A request may be cut into descriptors in any way. What is wrong with a request is answered with its status; only a request
 * without a byte for the status makes the device ask for a reset.
 *
 * @example A disk in memory
 * ```ts
 * import { BlkDevice } from "@virtio/blk";
 * import { MemoryBackend } from "@virtio/blk/memory";
 * import { assertEquals } from "@std/assert";
 *
 * const device = new BlkDevice({ backend: new MemoryBackend(64 * 1024 * 1024), id: "disk-0" });
 * assertEquals(device.capacity, 64 * 1024 * 1024);
 * assertEquals(device.config.read(0, 4), 131072); // capacity, in sectors of 512 bytes
 * ```
 */
export class BlkDevice extends QueueDevice {
  /** Where the sectors are. */
  readonly backend: BlkBackend;
  /** What it did. */
  readonly stats: BlkStats;
  readonly #settings: BlkSettings;
  readonly #executor: RequestExecutor;
  /** What the driver accepted, from FEATURES_OK to the next reset. */
  #accepted: FeatureSet = 0n;
  #queues = 1;

  /**
   * Makes a device.
   *
   * @param options Only the back end is needed. Its `onChange` is taken.
   * @throws {TypeError} If there is no back end.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(options: BlkDeviceOptions) {
    const settings = settle(options);
    const config = new ConfigSpace(
      settings.config.length,
      (offset, bytes) => this.#configWritten(offset, bytes),
    );
    config.bytes.set(settings.config);
    super({
      type: DeviceId.block,
      features: settings.features,
      queueSizes: settings.queueSizes,
      config,
    });
    this.#settings = settings;
    this.backend = options.backend;
    const host: ExecutorHost = {
      ready: (chain) => this.#ready(chain),
      complete: (queue, chain) => this.complete(queue, chain),
      waitFor: (work) => this.track(work),
      fail: (error) => this.activation?.fail(error),
      soon: (action) => this.soon(action),
    };
    const onError = options.onError ?? null;
    this.#executor = new RequestExecutor(options.backend, settings, config, host, onError);
    this.stats = this.#executor.stats;
    options.backend.onChange = () => this.refresh();
  }

  /** Size of the disk in bytes, as the driver sees it. */
  get capacity(): number {
    return this.#executor.sectors * SECTOR_SIZE;
  }

  /** Whether the cache is in writeback mode, where the mode can be chosen (5.2.5). */
  get writeback(): boolean {
    return this.config.bytes[BlkConfigOffset.writeback] === 1;
  }

  /** Bytes of the buffers that an asynchronous back end works with. */
  get bounceMemory(): number {
    return this.#executor.bounce.allocated;
  }

  /**
   * Changes the size of the disk, back end and all; the driver is told (5.2.6.2).
   *
   * @param capacity In bytes, a multiple of the block size.
   * @throws {TypeError} If the back end cannot be resized.
   * @throws {RangeError} If the capacity is no such multiple.
   */
  resize(capacity: number): BackendResult {
    if (this.backend.resize === undefined) {
      throw new TypeError("The back end cannot be resized");
    }
    if (capacity % this.#settings.blockSize !== 0) {
      throw new RangeError(
        `The capacity must be a multiple of ${this.#settings.blockSize}: it is ${capacity}`,
      );
    }
    const result = this.backend.resize(capacity);
    if (result !== undefined) return result.then(() => this.refresh());
    this.refresh();
  }

  /**
   * Takes over what the back end says about itself: its capacity, and whether writing zeroes can give storage back. The
   * driver is told of a change. Back ends that call `onChange` need no call of this.
   */
  refresh(): void {
    const { capacity } = this.backend;
    // A disk of a piece of a block would be refused by drivers; the rest is not shown.
    const sectors = (capacity - capacity % this.#settings.blockSize) / SECTOR_SIZE;
    const offered = hasFeature(this.features, VIRTIO_BLK_F_WRITE_ZEROES);
    const unmap = offered && this.backend.writeZeroesMayUnmap === true ? 1 : 0;
    const { view } = this.config;
    const unmapChanged = view.getUint8(BlkConfigOffset.write_zeroes_may_unmap) !== unmap;
    if (sectors === this.#executor.sectors && !unmapChanged) return;
    this.#executor.sectors = sectors;
    this.config.update((view) => {
      setCapacity(view, sectors);
      view.setUint8(BlkConfigOffset.write_zeroes_may_unmap, unmap);
    });
  }

  /** See `Device.accepts`: sets the cache mode, which the driver may read once FEATURES_OK is set (5.2.5.1). */
  accepts(features: FeatureSet): boolean {
    this.#accepted = features;
    const flush = hasFeature(features, VIRTIO_BLK_F_FLUSH);
    const writeback = this.#settings.writeback &&
      // Without flushes only writethrough keeps anything (5.2.5.2).
      (flush || !hasFeature(features, VIRTIO_BLK_F_CONFIG_WCE));
    this.config.view.setUint8(BlkConfigOffset.writeback, writeback ? 1 : 0);
    return true;
  }

  /** What the device itself has to save beside its queues: the cache mode that the driver chose. */
  save(): SavedBlk {
    return { version: 1, writeback: this.writeback, capacity: this.capacity };
  }

  /**
   * Takes over what `save` gave.
   *
   * @throws {TypeError} If it is malformed.
   * @throws {RangeError} If the disk has another size now; the driver does not know of that.
   */
  restore(saved: unknown): void {
    const state = saved as Partial<SavedBlk> | null;
    if (
      state?.version !== 1 || typeof state.writeback !== "boolean" ||
      typeof state.capacity !== "number"
    ) {
      throw new TypeError("Cannot restore a block device: its saved state is malformed");
    }
    if (state.capacity !== this.capacity) {
      throw new RangeError(
        `Cannot restore a block device of ${
          String(state.capacity)
        } bytes over one of ${this.capacity}: resize it afterwards`,
      );
    }
    this.config.view.setUint8(BlkConfigOffset.writeback, state.writeback ? 1 : 0);
  }

  /** See `QueueDevice.started`. */
  protected override started(activation: Activation): void {
    const { features } = activation;
    this.#accepted = features;
    this.#queues = hasFeature(features, VIRTIO_BLK_F_MQ) ? this.queueSizes.length : 1;
    this.#executor.negotiated = new Negotiated(this.features, features, this.#settings.writeback);
  }

  /**
   * See `QueueDevice.stopped`. What an asynchronous back end still does touches only our buffers, so a reset need not wait for
   * it; an engine works on guest memory, and is waited for.
   */
  protected override stopped(): void | Promise<void> {
    this.#accepted = 0n;
    this.#executor.bounce.forget();
    return this.#drain();
  }

  /** See `Device.stopQueue`. */
  override stopQueue(index: number): Queue | Promise<Queue> {
    // In a thread whose event loop never turns nobody else would see to the completions.
    void this.#drain();
    return super.stopQueue(index);
  }

  /** See `Device.pollSources`: the completions of a back end that works on guest memory itself. */
  pollSources(): readonly PollSource[] {
    const engine = this.backend.engine ?? null;
    if (engine === null || engine.descriptor < 0) return [];
    engine.polled = true;
    // Whoever polls has the driver in another thread.
    this.publishInParts(PART, () => this.#executor.direct?.submit(), FIRST_PART);
    const reap = (): number => engine.reap(REAP);
    const ready = (): number => {
      let count = 0;
      for (let part = REAP; part === REAP; count += part) part = this.together(reap);
      return count;
    };
    return [{ descriptor: engine.descriptor, ready }];
  }

  #drain(): void | Promise<void> {
    const engine = this.#executor.direct?.engine;
    if (engine === undefined || engine.inFlight === 0) return;
    return this.together(() => engine.drain());
  }

  /** See `QueueDevice.handle`. */
  protected override handle(chain: Chain, queue: number): void | typeof HOLD {
    if (queue >= this.#queues) {
      throw new VirtqueueError("5.2.2", `Queue ${queue} is used without VIRTIO_BLK_F_MQ`);
    }
    if (!chain.writer.reserveTail(1)) {
      throw new VirtqueueError(
        "5.2.6",
        "A block request cannot be answered: it has no device-writable byte for the status",
      );
    }
    const executor = this.#executor;
    executor.stats.requests++;
    const status = executor.execute(chain, queue);
    if (status === PENDING) return HOLD;
    executor.answer(chain, status);
  }

  #ready(chain: Chain): boolean {
    if (!this.isLive(chain)) return false;
    this.activation?.memory.refresh();
    return true;
  }

  /** The driver writes to the configuration: only the cache mode is its to choose (5.2.5, 5.2.6.1). */
  #configWritten(offset: number, bytes: Uint8Array): boolean {
    return offset === BlkConfigOffset.writeback && bytes.length === 1 && bytes[0]! <= 1 &&
      hasFeature(this.#accepted, VIRTIO_BLK_F_CONFIG_WCE);
  }
}
