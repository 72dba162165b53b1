import { DeviceId, type FeatureSet, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from "@virtio/device";
import { DriverError, DriverSession, type DriverTransport } from "@virtio/device/driver";
import type { BlkLifetime } from "../backend.ts";
import {
  BlkConfigOffset,
  LIFETIME_SIZE,
  SECTOR_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_GET_LIFETIME,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_SECURE_ERASE,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from "../constants.ts";
import { BufferPool } from "./buffer_pool.ts";
import { type BlkInfo, type BlkRangeInfo, readInfo } from "./limits.ts";
import { BLK_DRIVER_FEATURES, type BlkDriverOptions, queueCount } from "./options.ts";
import { type BlkRange, rangeRequests } from "./ranges.ts";
import { BlkRequestQueue } from "./request_queue.ts";
import { RequestScheduler } from "./scheduler.ts";

/**
 * A driver for block devices (virtio 1.4, 5.2), over any transport.
 *
 * It believes the device nothing: used lengths, statuses and configuration are checked, and a device that breaks a rule, asks
 * for a reset or answers nothing is given up: what is in flight rejects, and so does everything later. `close` resets it.
 *
 * Methods with data copy it; `queues` is the way without promises and copies.
 *
 * @example A driver and a device of one process, over MMIO
 * ```ts
 * import { BlkDevice } from "@virtio/blk";
 * import { BlkDriver } from "@virtio/blk/driver";
 * import { MemoryBackend } from "@virtio/blk/memory";
 * import { GuestMemory } from "@virtio/memory";
 * import { MmioTransport } from "@virtio/transport/mmio";
 * import { connectMmio } from "@virtio/transport/mmio/driver";
 * import { DmaPool } from "@virtio/vring/driver";
 * import { assertEquals } from "@std/assert";
 *
 * const memory = GuestMemory.allocate(1024 * 1024);
 * const device = new BlkDevice({ backend: new MemoryBackend(1024 * 1024), id: "disk-0" });
 * const { driver: transport } = connectMmio((host) => new MmioTransport(device, { memory, host }));
 *
 * const driver = await BlkDriver.open(transport, { dma: new DmaPool(memory, 0, 1024 * 1024) });
 * assertEquals(driver.sectors, 2048);
 * assertEquals(await driver.getId(), "disk-0");
 * await driver.write(8, new Uint8Array(4096).fill(7));
 * await driver.flush();
 * const back = new Uint8Array(4096);
 * await driver.read(8, back);
 * assertEquals(back[4095], 7);
 * await driver.close();
 * ```
 */
export class BlkDriver {
  /** The queues, for requests by token. */
  readonly queues: readonly BlkRequestQueue[];
  /** Called when the capacity, or whether zeroes can unmap, changed. */
  onChange: ((info: BlkInfo) => void) | null = null;
  /** The session. */
  readonly session: DriverSession;
  #info: BlkInfo;
  readonly #buffers: BufferPool;
  readonly #transferSize: number;
  readonly #scheduler: RequestScheduler;

  private constructor(
    session: DriverSession,
    queues: readonly BlkRequestQueue[],
    options: BlkDriverOptions,
  ) {
    this.session = session;
    this.queues = queues;
    this.#info = readInfo(session);
    const { sectors, segMax, sizeMax } = this.#info;
    const wanted = options.transferSize ?? 128 * 1024;
    if (!(wanted >= SECTOR_SIZE && wanted % SECTOR_SIZE === 0)) {
      throw new RangeError(`transferSize must be a positive multiple of 512: it is ${wanted}`);
    }
    this.#transferSize = Math.min(wanted, ...queues.map((queue) => queue.maxTransfer));
    if (this.#transferSize < SECTOR_SIZE) {
      throw new DriverError(
        `The device takes at most ${segMax} segments of ${sizeMax} bytes: no room for a sector`,
      );
    }
    this.#buffers = new BufferPool(session.dma, this.#transferSize, options.buffers ?? 32);
    const timeout = options.timeout ?? 30_000;
    const scheduler = new RequestScheduler(session, queues, this.#buffers, sectors, timeout);
    this.#scheduler = scheduler;
    session.handlers = {
      used: (index) => scheduler.collect(index),
      config: () => this.#configChanged(),
      needsReset: () => scheduler.giveUp(new DriverError("The device asks for a reset")),
    };
    if ((session.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      throw new DriverError("The device asks for a reset as soon as it is started");
    }
    for (const queue of queues) queue.collect();
  }

  /**
   * Initialises a device.
   *
   * @throws {DriverError} If it is no block device, or cannot be driven.
   * @throws {RangeError} If an option is out of range, or there is too little memory.
   */
  static async open(transport: DriverTransport, options: BlkDriverOptions): Promise<BlkDriver> {
    let info: BlkInfo | null = null;
    const session = await DriverSession.open(transport, {
      dma: options.dma,
      type: DeviceId.block,
      // A driver that does not know that the disk is read-only would write to it.
      wanted: ((options.features ?? BLK_DRIVER_FEATURES) & BLK_DRIVER_FEATURES) | VIRTIO_BLK_F_RO,
      ...(options.core === undefined ? {} : { core: options.core }),
      ...(options.patience === undefined ? {} : { patience: options.patience }),
      queues: (session) => {
        info = readInfo(session);
        const size = options.queueSize ?? 128;
        return Array.from({ length: queueCount(info, options) }, (_, index) => ({ index, size }));
      },
    });
    const queues: BlkRequestQueue[] = [];
    try {
      for (let index = 0; index < queueCount(info!, options); index++) {
        queues.push(new BlkRequestQueue(session, index, info!));
      }
      return new BlkDriver(session, queues, options);
    } catch (error) {
      await session.reset();
      for (const queue of queues) queue.release();
      throw error;
    }
  }

  /** What the device says about itself. */
  get info(): BlkInfo {
    return this.#info;
  }

  /** Size of the disk in sectors of 512 bytes. */
  get sectors(): number {
    return this.#info.sectors;
  }

  /** The negotiated features. */
  get features(): FeatureSet {
    return this.session.features;
  }

  /** Why the device was given up; null while it works. */
  get broken(): Error | null {
    return this.#scheduler.broken;
  }

  /** Bytes of data of one request at most. */
  get transferSize(): number {
    return this.#transferSize;
  }

  /**
   * Reads sectors.
   *
   * @param sector The first.
   * @param into Takes the bytes; a multiple of 512.
   * @throws {RangeError} If the range is not within the disk, or no multiple of 512.
   * @throws {BlkError} If the device could not.
   * @throws {DriverError} If the device was given up.
   */
  async read(sector: number, into: Uint8Array): Promise<void> {
    this.#checkTransfer(sector, into.length);
    await this.#transfer(VIRTIO_BLK_T_IN, sector, into);
  }

  /**
   * Writes sectors. They survive a crash after `flush`, unless `info.writeback` is false.
   *
   * @param sector The first.
   * @param from The bytes; a multiple of 512. Copied before this returns or later: leave them alone until it resolves.
   * @throws As `read`; {TypeError} if the device is read-only.
   */
  async write(sector: number, from: Uint8Array): Promise<void> {
    this.#checkWritable();
    this.#checkTransfer(sector, from.length);
    await this.#transfer(VIRTIO_BLK_T_OUT, sector, from);
  }

  /**
   * Has every write that was completed before made durable. Nothing to do where VIRTIO_BLK_F_FLUSH was not negotiated: the
   * cache is writethrough then (5.2.5.1).
   *
   * @throws {BlkError} If the device could not.
   */
  async flush(): Promise<void> {
    if (!this.session.has(VIRTIO_BLK_F_FLUSH)) {
      this.#checkWorks();
      return;
    }
    await this.#scheduler.request(VIRTIO_BLK_T_FLUSH, 0, null, false);
  }

  /**
   * Tells the device that ranges are not needed. What they read as afterwards is not defined.
   *
   * @throws {TypeError} If the device cannot, or is read-only.
   * @throws {RangeError} If a range is not within the disk.
   * @throws {BlkError} If the device failed; each range may then be discarded or not.
   */
  async discard(...ranges: BlkRange[]): Promise<void> {
    await this.#ranges(VIRTIO_BLK_T_DISCARD, "discard", this.#info.discard, ranges, 0);
  }

  /**
   * Makes ranges read as zeroes.
   *
   * @param unmap Lets the device give the storage back.
   * @throws As `discard`.
   */
  async writeZeroes(ranges: BlkRange | readonly BlkRange[], unmap = false): Promise<void> {
    await this.#ranges(
      VIRTIO_BLK_T_WRITE_ZEROES,
      "write zeroes",
      this.#info.writeZeroes,
      Array.isArray(ranges) ? ranges as readonly BlkRange[] : [ranges as BlkRange],
      unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0,
    );
  }

  /** Destroys what ranges held. @throws As `discard`. */
  async secureErase(...ranges: BlkRange[]): Promise<void> {
    await this.#ranges(VIRTIO_BLK_T_SECURE_ERASE, "erase", this.#info.secureErase, ranges, 0);
  }

  /** The device ID string. @throws {BlkError} If the device has none. */
  async getId(): Promise<string> {
    const bytes = new Uint8Array(VIRTIO_BLK_ID_BYTES);
    await this.#scheduler.request(VIRTIO_BLK_T_GET_ID, 0, bytes, true);
    const end = bytes.indexOf(0);
    return String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end));
  }

  /**
   * Wear of the storage. Values that the standard reserves are given as they came.
   *
   * @throws {TypeError} If VIRTIO_BLK_F_LIFETIME was not negotiated.
   * @throws {BlkError} If the device could not.
   */
  async lifetime(): Promise<BlkLifetime> {
    if (!this.session.has(VIRTIO_BLK_F_LIFETIME)) {
      throw new TypeError("The device does not know its lifetime");
    }
    const bytes = new Uint8Array(LIFETIME_SIZE);
    await this.#scheduler.request(VIRTIO_BLK_T_GET_LIFETIME, 0, bytes, true);
    const view = new DataView(bytes.buffer);
    return {
      preEolInfo: view.getUint16(0, true),
      estimateTypeA: view.getUint16(2, true),
      estimateTypeB: view.getUint16(4, true),
    };
  }

  /**
   * Chooses the cache mode (5.2.6.1). What was written before is not durable by that: `flush` makes it so.
   *
   * @returns The mode that the device is in now.
   * @throws {TypeError} If VIRTIO_BLK_F_CONFIG_WCE was not negotiated.
   */
  setWriteback(writeback: boolean): boolean {
    this.#checkWorks();
    if (!this.session.has(VIRTIO_BLK_F_CONFIG_WCE)) {
      throw new TypeError("The cache mode cannot be chosen: the device does not offer it");
    }
    this.session.writeConfig(BlkConfigOffset.writeback, 1, writeback ? 1 : 0);
    this.#info = readInfo(this.session);
    return this.#info.writeback;
  }

  /**
   * Resets one queue (2.6.1). Requests in it that the device does not answer are sent again; others wait.
   *
   * @throws {DriverError} If VIRTIO_F_RING_RESET was not negotiated, or the device does not finish.
   */
  async resetQueue(index: number): Promise<void> {
    this.#checkWorks();
    const queue = this.queues[index];
    if (queue === undefined) throw new RangeError(`There is no queue ${index}`);
    await queue.reset();
    this.#scheduler.startWaiting();
  }

  /** Resets the device and gives all memory back. What is in flight rejects. */
  async close(): Promise<void> {
    this.#scheduler.giveUp(new DriverError("The driver was closed"));
    await this.session.reset();
    for (const queue of this.queues) queue.release();
    this.#buffers.release();
  }

  #checkWorks(): void {
    if (this.#scheduler.broken !== null) throw this.#scheduler.broken;
  }

  #checkWritable(): void {
    if (this.#info.readonly) throw new TypeError("The disk is read-only");
  }

  #checkTransfer(sector: number, length: number): void {
    if (length % SECTOR_SIZE !== 0) {
      throw new RangeError(`Data must be a multiple of 512 bytes: it has ${length}`);
    }
    this.#checkRange(sector, length / SECTOR_SIZE);
  }

  #checkRange(sector: number, sectors: number): void {
    if (
      !Number.isSafeInteger(sector) || !Number.isSafeInteger(sectors) || sector < 0 ||
      sectors < 0 ||
      sector + sectors > this.#info.sectors
    ) {
      throw new RangeError(
        `Sectors ${sector} to ${
          sector + sectors
        } are not within the ${this.#info.sectors} of the disk`,
      );
    }
  }

  async #transfer(type: number, sector: number, bytes: Uint8Array): Promise<void> {
    this.#checkWorks();
    const step = this.#transferSize;
    if (bytes.length <= step) {
      if (bytes.length > 0) {
        await this.#scheduler.request(type, sector, bytes, type === VIRTIO_BLK_T_IN);
      }
      return;
    }
    const parts: Promise<void>[] = [];
    for (let at = 0; at < bytes.length; at += step) {
      const part = bytes.subarray(at, at + step);
      parts.push(
        this.#scheduler.request(type, sector + at / SECTOR_SIZE, part, type === VIRTIO_BLK_T_IN),
      );
    }
    await all(parts);
  }

  async #ranges(
    type: number,
    name: string,
    limits: BlkRangeInfo | null,
    ranges: readonly BlkRange[],
    flags: number,
  ): Promise<void> {
    this.#checkWorks();
    this.#checkWritable();
    if (limits === null) throw new TypeError(`The device cannot ${name}: it does not offer it`);
    for (const { sector, sectors } of ranges) this.#checkRange(sector, sectors);
    const requests = rangeRequests(ranges, limits, flags, this.#transferSize);
    await all(requests.map((bytes) => this.#scheduler.request(type, 0, bytes, false)));
  }

  #configChanged(): void {
    if (this.#scheduler.broken !== null) return;
    try {
      const before = this.#info;
      this.#info = readInfo(this.session);
      this.#scheduler.sectors = this.#info.sectors;
      if (
        before.sectors !== this.#info.sectors ||
        before.writeZeroes?.mayUnmap !== this.#info.writeZeroes?.mayUnmap
      ) {
        this.onChange?.(this.#info);
      }
    } catch (error) {
      this.#scheduler.giveUp(error instanceof Error ? error : new DriverError(String(error)));
    }
  }
}

/** Waits for all, even if one fails: their buffers are in use until then. */
async function all(parts: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(parts);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
