import {
  type Activation,
  ConfigSpace,
  DeviceId,
  type FeatureSet,
  hasFeature,
  HOLD,
  QueueDevice,
} from "@virtio/device";
import { type Chain, VirtqueueError } from "@virtio/vring";
import type { BackendResult, BlkBackend, BlkLifetime } from "./backend.ts";
import { BouncePool, PIECE_SIZE } from "./bounce.ts";
import {
  BlkConfigOffset,
  LIFETIME_ESTIMATE_MAX,
  LIFETIME_SIZE,
  REQUEST_HEADER_SIZE,
  SECTOR_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_SECURE_ERASE,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_PRE_EOL_INFO_URGENT,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_GET_LIFETIME,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_SECURE_ERASE,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from "./constants.ts";
import { LaterRequest } from "./later_request.ts";
import { type BlkDeviceOptions, type BlkSettings, setCapacity, settle } from "./options.ts";
import { RangeList } from "./ranges.ts";
import { BlkStats } from "./stats.ts";

/** In place of a status: the request is being worked on. */
const PENDING = -1;

/** When a completed write must be durable (5.2.6.2). */
const Durability = {
  /** After a flush. */
  flush: 0,
  /** When it completes. */
  always: 1,
  /** As the `writeback` field says. */
  field: 2,
} as const;

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
  readonly stats: BlkStats = new BlkStats();
  readonly #settings: BlkSettings;
  readonly #asynchronous: boolean;
  readonly #bounce: BouncePool;
  readonly #onError: ((error: unknown) => void) | null;
  readonly #ranges: RangeList;
  readonly #idle: LaterRequest[] = [];
  /** Capacity as the driver knows it. */
  #sectors: number;
  /** What the driver accepted, from FEATURES_OK to the next reset. */
  #accepted: FeatureSet = 0n;
  #queues = 1;
  #flush = false;
  #discard = false;
  #writeZeroes = false;
  #secureErase = false;
  #lifetime = false;
  #durability: number = Durability.flush;

  /**
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
    this.#asynchronous = options.backend.asynchronous;
    this.#onError = options.onError ?? null;
    this.#bounce = new BouncePool(settings.bounceMemory);
    this.#ranges = new RangeList(settings.maxSegments);
    this.#sectors = options.backend.capacity / SECTOR_SIZE;
    options.backend.onChange = () => this.refresh();
  }

  /** Size of the disk in bytes, as the driver sees it. */
  get capacity(): number {
    return this.#sectors * SECTOR_SIZE;
  }

  /** Whether the cache is in writeback mode, where the mode can be chosen (5.2.5). */
  get writeback(): boolean {
    return this.config.bytes[BlkConfigOffset.writeback] === 1;
  }

  /** Bytes of the buffers that an asynchronous back end works with. */
  get bounceMemory(): number {
    return this.#bounce.allocated;
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
    if (sectors === this.#sectors && !unmapChanged) return;
    this.#sectors = sectors;
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
    if (state?.version !== 1 || typeof state.writeback !== "boolean") {
      throw new TypeError("Cannot restore a block device: its saved state is malformed");
    }
    if (state.capacity !== this.capacity) {
      throw new RangeError(
        `Cannot restore a block device of ${state.capacity} bytes over one of ${this.capacity}: resize it afterwards`,
      );
    }
    this.config.view.setUint8(BlkConfigOffset.writeback, state.writeback ? 1 : 0);
  }

  /** See `QueueDevice.started`. */
  protected override started(activation: Activation): void {
    const { features } = activation;
    this.#accepted = features;
    this.#queues = hasFeature(features, VIRTIO_BLK_F_MQ) ? this.queueSizes.length : 1;
    this.#flush = hasFeature(features, VIRTIO_BLK_F_FLUSH);
    this.#discard = hasFeature(features, VIRTIO_BLK_F_DISCARD);
    this.#writeZeroes = hasFeature(features, VIRTIO_BLK_F_WRITE_ZEROES);
    this.#secureErase = hasFeature(features, VIRTIO_BLK_F_SECURE_ERASE);
    this.#lifetime = hasFeature(features, VIRTIO_BLK_F_LIFETIME);
    if (!hasFeature(this.features, VIRTIO_BLK_F_FLUSH)) this.#durability = Durability.flush;
    else if (hasFeature(features, VIRTIO_BLK_F_CONFIG_WCE)) this.#durability = Durability.field;
    else if (!this.#flush || !this.#settings.writeback) this.#durability = Durability.always;
    else this.#durability = Durability.flush;
  }

  /** See `QueueDevice.stopped`. What the back end still does touches only our buffers, so a reset need not wait for it. */
  protected override stopped(): void {
    this.#accepted = 0n;
    this.#bounce.forget();
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
    this.stats.requests++;
    const status = this.#execute(chain, queue);
    if (status === PENDING) return HOLD;
    this.#answer(chain, status);
  }

  #execute(chain: Chain, queue: number): number {
    const { reader } = chain;
    if (reader.remaining < REQUEST_HEADER_SIZE) return VIRTIO_BLK_S_IOERR;
    const at = reader.struct(REQUEST_HEADER_SIZE);
    const { view } = reader;
    const type = view.getUint32(at, true);
    // Rounded from 2^53 on, where no sector is.
    const sector = view.getUint32(at + 8, true) + view.getUint32(at + 12, true) * 0x1_0000_0000;
    switch (type) {
      case VIRTIO_BLK_T_IN: {
        const length = chain.writer.remaining;
        if (!this.#within(sector, length)) return VIRTIO_BLK_S_IOERR;
        if (this.#asynchronous) return this.#later(chain, queue, type, sector, length);
        return this.#read(chain, sector * SECTOR_SIZE, length);
      }
      case VIRTIO_BLK_T_OUT: {
        const length = reader.remaining;
        if (this.#settings.readonly || !this.#within(sector, length)) return VIRTIO_BLK_S_IOERR;
        if (this.#asynchronous) return this.#later(chain, queue, type, sector, length);
        return this.#write(chain, sector * SECTOR_SIZE, length);
      }
      case VIRTIO_BLK_T_FLUSH:
        if (!this.#flush) return VIRTIO_BLK_S_UNSUPP;
        if (this.#asynchronous) return this.#later(chain, queue, type, 0, 0);
        return this.#flushNow();
      case VIRTIO_BLK_T_GET_ID:
        return this.#sendId(chain);
      case VIRTIO_BLK_T_GET_LIFETIME:
        if (!this.#lifetime) return VIRTIO_BLK_S_UNSUPP;
        if (chain.writer.remaining < LIFETIME_SIZE) return VIRTIO_BLK_S_IOERR;
        if (this.#asynchronous) return this.#later(chain, queue, type, 0, 0);
        return this.#lifetimeNow(chain);
      case VIRTIO_BLK_T_DISCARD:
        if (!this.#discard) return VIRTIO_BLK_S_UNSUPP;
        return this.#ranged(chain, queue, type, BlkConfigOffset.max_discard_sectors, 0);
      case VIRTIO_BLK_T_WRITE_ZEROES:
        if (!this.#writeZeroes) return VIRTIO_BLK_S_UNSUPP;
        return this.#ranged(
          chain,
          queue,
          type,
          BlkConfigOffset.max_write_zeroes_sectors,
          VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        );
      case VIRTIO_BLK_T_SECURE_ERASE:
        if (!this.#secureErase) return VIRTIO_BLK_S_UNSUPP;
        return this.#ranged(chain, queue, type, BlkConfigOffset.max_secure_erase_sectors, 0);
      default:
        return VIRTIO_BLK_S_UNSUPP;
    }
  }

  /** Whether these are whole sectors of the disk. */
  #within(sector: number, length: number): boolean {
    return length % SECTOR_SIZE === 0 && sector + length / SECTOR_SIZE <= this.#sectors;
  }

  #read(chain: Chain, position: number, length: number): number {
    const { backend } = this;
    const { writer } = chain;
    let at = position;
    while (writer.next(length)) {
      try {
        const result = backend.read(at, writer.region!.bytes, writer.offset, writer.length);
        if (result !== undefined) this.#notSynchronous(result);
      } catch (error) {
        // The writer has counted this piece as written; then it must be, with something that is nobody's data.
        const end = writer.offset + writer.length;
        writer.region!.bytes.fill(0, writer.offset, end);
        return this.#failed(error);
      }
      at += writer.length;
    }
    this.stats.reads++;
    this.stats.bytesRead += length;
    return VIRTIO_BLK_S_OK;
  }

  #write(chain: Chain, position: number, length: number): number {
    const { backend } = this;
    const { reader } = chain;
    try {
      let at = position;
      while (reader.next(length)) {
        const result = backend.write(at, reader.region!.bytes, reader.offset, reader.length);
        if (result !== undefined) this.#notSynchronous(result);
        at += reader.length;
      }
      if (this.#mustFlush()) this.#flushBackend();
    } catch (error) {
      return this.#failed(error);
    }
    this.stats.writes++;
    this.stats.bytesWritten += length;
    return VIRTIO_BLK_S_OK;
  }

  #flushNow(): number {
    try {
      this.#flushBackend();
    } catch (error) {
      return this.#failed(error);
    }
    this.stats.flushes++;
    return VIRTIO_BLK_S_OK;
  }

  #flushBackend(): void {
    const result = this.backend.flush();
    if (result !== undefined) this.#notSynchronous(result);
  }

  #sendId(chain: Chain): number {
    if (chain.writer.remaining !== VIRTIO_BLK_ID_BYTES) return VIRTIO_BLK_S_IOERR;
    chain.writer.write(this.#settings.id);
    this.stats.ids++;
    return VIRTIO_BLK_S_OK;
  }

  #lifetimeNow(chain: Chain): number {
    try {
      const lifetime = this.backend.lifetime!();
      if (lifetime instanceof Promise) this.#notSynchronous(lifetime);
      else return this.#sendLifetime(chain, lifetime);
    } catch (error) {
      return this.#failed(error);
    }
    return VIRTIO_BLK_S_IOERR;
  }

  #sendLifetime(chain: Chain, lifetime: BlkLifetime): number {
    const { preEolInfo, estimateTypeA, estimateTypeB } = lifetime;
    if (
      !isUpTo(preEolInfo, VIRTIO_BLK_PRE_EOL_INFO_URGENT) ||
      !isUpTo(estimateTypeA, LIFETIME_ESTIMATE_MAX) || !isUpTo(estimateTypeB, LIFETIME_ESTIMATE_MAX)
    ) {
      throw new RangeError(
        "The back end's lifetime has a reserved value, which must not be sent (virtio 1.4, 5.2.6.2)",
      );
    }
    chain.writer.u16(preEolInfo);
    chain.writer.u16(estimateTypeA);
    chain.writer.u16(estimateTypeB);
    this.stats.lifetimes++;
    return VIRTIO_BLK_S_OK;
  }

  #ranged(chain: Chain, queue: number, type: number, limits: number, flags: number): number {
    const { view } = this.config;
    const request = this.#asynchronous ? this.#request() : null;
    if (request !== null) request.ranges ??= new RangeList(this.#settings.maxSegments);
    const ranges = request?.ranges ?? this.#ranges;
    const status = ranges.read(
      chain.reader,
      view.getUint32(limits + 4, true),
      view.getUint32(limits, true),
      this.#sectors,
      flags,
    );
    if (request === null) return status === VIRTIO_BLK_S_OK ? this.#rangesNow(type) : status;
    if (status !== VIRTIO_BLK_S_OK) {
      this.#idle.push(request);
      return status;
    }
    request.start(chain, queue, type, 0, 0);
    return PENDING;
  }

  #rangesNow(type: number): number {
    const { backend } = this;
    const ranges = this.#ranges;
    try {
      for (let i = 0; i < ranges.count; i++) {
        const position = ranges.positions[i]!;
        const length = ranges.lengths[i]!;
        let result: BackendResult;
        if (type === VIRTIO_BLK_T_DISCARD) {
          result = backend.discard!(position, length);
        } else if (type === VIRTIO_BLK_T_WRITE_ZEROES) {
          result = backend.writeZeroes!(position, length, ranges.unmap[i] === 1);
        } else {
          result = backend.secureErase!(position, length);
        }
        if (result !== undefined) this.#notSynchronous(result);
      }
      if (type !== VIRTIO_BLK_T_DISCARD && this.#mustFlush()) this.#flushBackend();
    } catch (error) {
      return this.#failed(error);
    }
    this.#count(type, 0);
    return VIRTIO_BLK_S_OK;
  }

  /** Counts what an asynchronous request, or one of ranges, did. */
  #count(type: number, bytes: number): void {
    const { stats } = this;
    switch (type) {
      case VIRTIO_BLK_T_IN:
        stats.reads++;
        stats.bytesRead += bytes;
        break;
      case VIRTIO_BLK_T_OUT:
        stats.writes++;
        stats.bytesWritten += bytes;
        break;
      case VIRTIO_BLK_T_FLUSH:
        stats.flushes++;
        break;
      case VIRTIO_BLK_T_DISCARD:
        stats.discards++;
        break;
      case VIRTIO_BLK_T_WRITE_ZEROES:
        stats.writeZeroes++;
        break;
      case VIRTIO_BLK_T_SECURE_ERASE:
        stats.secureErases++;
        break;
    }
  }

  #answer(chain: Chain, status: number): void {
    if (status === VIRTIO_BLK_S_IOERR) this.stats.errors++;
    else if (status === VIRTIO_BLK_S_UNSUPP) this.stats.unsupported++;
    const { writer } = chain;
    // The driver may look only at what the used length covers (2.7.8.3), and the status comes last: so data that is not there
    // is filled in. Bounded, because a bad request may have 4 GiB of it; no driver sends such a one by mistake.
    if (status !== VIRTIO_BLK_S_OK && writer.remaining <= PIECE_SIZE) {
      writer.fill(0, writer.remaining);
    }
    writer.writeTailU8(status);
  }

  #mustFlush(): boolean {
    return this.#durability === Durability.always ||
      (this.#durability === Durability.field && !this.writeback);
  }

  #failed(error: unknown): number {
    this.#report(error);
    return VIRTIO_BLK_S_IOERR;
  }

  #report(error: unknown): void {
    this.#onError?.(error);
  }

  #notSynchronous(result: PromiseLike<unknown>): never {
    result.then(undefined, () => {});
    throw new TypeError(
      "The back end answered with a promise: a back end that does must say that it is asynchronous",
    );
  }

  #later(chain: Chain, queue: number, type: number, sector: number, length: number): number {
    this.#request().start(chain, queue, type, sector * SECTOR_SIZE, length);
    return PENDING;
  }

  #request(): LaterRequest {
    return this.#idle.pop() ?? this.#makeRequest();
  }

  #makeRequest(): LaterRequest {
    return new LaterRequest({
      backend: this.backend,
      bounce: this.#bounce,
      ready: (chain) => this.#ready(chain),
      mustFlush: () => this.#mustFlush(),
      waitFor: (work) => this.track(work),
      sendLifetime: (chain, lifetime) => this.#sendLifetime(chain, lifetime),
      report: (error) => this.#report(error),
      finished: (request, status, bytes) => this.#finished(request, status, bytes),
      dropped: (request) => this.#free(request),
      fail: (error) => this.activation?.fail(error),
    });
  }

  #ready(chain: Chain): boolean {
    if (!this.isLive(chain)) return false;
    this.activation?.memory.refresh();
    return true;
  }

  #finished(request: LaterRequest, status: number, bytes: number): void {
    const { chain, queue, type } = request;
    this.#free(request);
    if (status === VIRTIO_BLK_S_OK) this.#count(type, bytes);
    this.#answer(chain!, status);
    this.complete(queue, chain!);
  }

  #free(request: LaterRequest): void {
    request.chain = null;
    this.#idle.push(request);
  }

  /** The driver writes to the configuration: only the cache mode is its to choose (5.2.5, 5.2.6.1). */
  #configWritten(offset: number, bytes: Uint8Array): boolean {
    return offset === BlkConfigOffset.writeback && bytes.length === 1 && bytes[0]! <= 1 &&
      hasFeature(this.#accepted, VIRTIO_BLK_F_CONFIG_WCE);
  }
}

function isUpTo(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}
