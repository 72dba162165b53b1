import { DeviceId, type FeatureSet, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from "@virtio/device";
import { DriverError, DriverSession, type DriverTransport } from "@virtio/device/driver";
import type { DmaPool } from "@virtio/vring/driver";
import type { BlkLifetime } from "../backend.ts";
import {
  BlkConfigOffset,
  LIFETIME_SIZE,
  RANGE_SIZE,
  SECTOR_SIZE,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SECURE_ERASE,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_S_OK,
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
import { BlkError } from "./error.ts";
import { type BlkInfo, type BlkRangeInfo, readInfo } from "./limits.ts";
import { BlkRequestQueue, type RequestNote } from "./request_queue.ts";

/** Every feature of 5.2.3 that the driver understands; all but zones. */
export const BLK_DRIVER_FEATURES: FeatureSet = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX |
  VIRTIO_BLK_F_GEOMETRY | VIRTIO_BLK_F_RO | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH |
  VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_CONFIG_WCE | VIRTIO_BLK_F_MQ | VIRTIO_BLK_F_DISCARD |
  VIRTIO_BLK_F_WRITE_ZEROES | VIRTIO_BLK_F_LIFETIME | VIRTIO_BLK_F_SECURE_ERASE;

/** Options of `BlkDriver.open`. */
export interface BlkDriverOptions {
  /** Guest memory for rings, requests and data. */
  readonly dma: DmaPool;
  /** Feature bits of 5.2.3 to accept where offered; all that the driver understands unless given. RO is always accepted. */
  readonly features?: FeatureSet;
  /** Feature bits 24 to 43 to accept where offered; all that are built unless given. */
  readonly core?: FeatureSet;
  /** Queues to use at most, 1 or more; as many as the device has, up to 4, unless given. */
  readonly queues?: number;
  /** Size of each queue at most; 128 unless given. */
  readonly queueSize?: number;
  /** Bytes of data of one request at most, a multiple of 512; 128 KiB unless given. Larger transfers are split. */
  readonly transferSize?: number;
  /** Requests with data that run at once at most; 32 unless given. Their buffers are taken from `dma` when first needed. */
  readonly buffers?: number;
  /**
   * Milliseconds that a request may go unanswered: after that, and before twice that, the device is given up. 30,000 unless
   * given, 0 for never.
   */
  readonly timeout?: number;
  /** Turns of the event loop to wait for a reset; see `DriverSessionOptions`. */
  readonly patience?: number;
}

/** A range of sectors. */
export interface BlkRange {
  /** First sector, of 512 bytes. */
  readonly sector: number;
  /** How many. */
  readonly sectors: number;
}

/**
 * A driver for block devices (virtio 1.4, 5.2), over any transport.
 *
 * ```text
 * const driver = await BlkDriver.open(transport, { dma });
 * await driver.write(0, new Uint8Array(512));
 * await driver.flush();
 * await driver.close();
 * ```
 *
 * It believes the device nothing: used lengths, statuses and configuration are checked, and a device that breaks a rule, asks
 * for a reset or answers nothing is given up: what is in flight rejects, and so does everything later. `close` resets it.
 *
 * Methods with data copy it; `queues` is the way without promises and copies.
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
  readonly #timeout: number;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #broken: Error | null = null;
  #turn = 0;
  /** Requests for which there was no room, in order. */
  readonly #waiting: PendingRequest[] = [];
  readonly #unpublished: Set<BlkRequestQueue> = new Set();
  #publishing = false;
  #inFlight = 0;

  private constructor(session: DriverSession, info: BlkInfo, options: BlkDriverOptions) {
    this.session = session;
    this.#info = info;
    this.#timeout = options.timeout ?? 30_000;
    const count = queueCount(info, options);
    this.queues = Array.from(
      { length: count },
      (_, index) => new BlkRequestQueue(session, index, info),
    );
    const wanted = options.transferSize ?? 128 * 1024;
    if (!(wanted >= SECTOR_SIZE && wanted % SECTOR_SIZE === 0)) {
      throw new RangeError(`transferSize must be a positive multiple of 512: it is ${wanted}`);
    }
    this.#transferSize = Math.min(wanted, ...this.queues.map((queue) => queue.maxTransfer));
    if (this.#transferSize < SECTOR_SIZE) {
      throw new DriverError(
        `The device takes at most ${info.segMax} segments of ${info.sizeMax} bytes: no room for a sector`,
      );
    }
    this.#buffers = new BufferPool(session.dma, this.#transferSize, options.buffers ?? 32);
    session.handlers = {
      used: (index) => this.#collect(index),
      config: () => this.#configChanged(),
      needsReset: () => this.#giveUp(new DriverError("The device asks for a reset")),
    };
    if ((session.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      throw new DriverError("The device asks for a reset as soon as it is started");
    }
    for (const queue of this.queues) queue.collect();
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
    try {
      return new BlkDriver(session, info!, options);
    } catch (error) {
      await session.reset();
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
    return this.#broken;
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
    await this.#request(VIRTIO_BLK_T_FLUSH, 0, null, false);
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
    await this.#request(VIRTIO_BLK_T_GET_ID, 0, bytes, true);
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
    await this.#request(VIRTIO_BLK_T_GET_LIFETIME, 0, bytes, true);
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
    this.session.transport.writeConfig(BlkConfigOffset.writeback, 1, writeback ? 1 : 0);
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
    this.#startWaiting();
  }

  /** Resets the device and gives all memory back. What is in flight rejects. */
  async close(): Promise<void> {
    this.#giveUp(new DriverError("The driver was closed"));
    await this.session.reset();
    for (const queue of this.queues) queue.release();
    this.#buffers.release();
  }

  #checkWorks(): void {
    if (this.#broken !== null) throw this.#broken;
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
      if (bytes.length > 0) await this.#request(type, sector, bytes, type === VIRTIO_BLK_T_IN);
      return;
    }
    const parts: Promise<void>[] = [];
    for (let at = 0; at < bytes.length; at += step) {
      const part = bytes.subarray(at, at + step);
      parts.push(this.#request(type, sector + at / SECTOR_SIZE, part, type === VIRTIO_BLK_T_IN));
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
    const pieces: BlkRange[] = [];
    for (const { sector, sectors } of ranges) {
      this.#checkRange(sector, sectors);
      for (let done = 0; done < sectors; done += limits.maxSectors) {
        pieces.push({
          sector: sector + done,
          sectors: Math.min(limits.maxSectors, sectors - done),
        });
      }
    }
    const step = Math.min(limits.maxSegments, Math.floor(this.#transferSize / RANGE_SIZE));
    const parts: Promise<void>[] = [];
    for (let at = 0; at < pieces.length; at += step) {
      parts.push(this.#request(type, 0, encodeRanges(pieces.slice(at, at + step), flags), false));
    }
    await all(parts);
  }

  #request(
    type: number,
    sector: number,
    bytes: Uint8Array | null,
    writes: boolean,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#broken !== null) {
        reject(this.#broken);
        return;
      }
      const request = new PendingRequest(this, type, sector, bytes, writes, resolve, reject);
      if (this.#waiting.length > 0 || !this.#start(request)) this.#waiting.push(request);
    });
  }

  #start(request: PendingRequest): boolean {
    const { bytes } = request;
    const length = bytes === null ? 0 : bytes.length;
    if (isTransfer(request.type) && request.sector + length / SECTOR_SIZE > this.#info.sectors) {
      // The disk has shrunk while it waited.
      if (request.address !== 0) this.#buffers.give(request.address);
      request.reject(new RangeError("The disk has become too small for the request"));
      return true;
    }
    if (length > 0 && request.address === 0) {
      const address = this.#buffers.take();
      if (address === 0) return false;
      request.address = address;
      if (!request.writes) this.session.dma.memory.write(address, bytes!);
    }
    for (let i = 0; i < this.queues.length; i++) {
      const queue = this.queues[this.#turn++ % this.queues.length]!;
      const { type, sector, address, writes } = request;
      if (queue.submit(type, sector, address, length, writes, request) < 0) continue;
      this.#inFlight++;
      this.#publishSoon(queue);
      this.#watch();
      return true;
    }
    return false;
  }

  /** What is submitted in one turn is published together. */
  #publishSoon(queue: BlkRequestQueue): void {
    this.#unpublished.add(queue);
    if (this.#publishing) return;
    this.#publishing = true;
    queueMicrotask(() => {
      this.#publishing = false;
      const queues = [...this.#unpublished];
      this.#unpublished.clear();
      if (this.#broken !== null) return;
      for (const each of queues) each.publish();
    });
  }

  /** Called by a request when the device has answered it. */
  answered(request: PendingRequest, status: number): void {
    this.#inFlight--;
    const { bytes, address } = request;
    if (status === VIRTIO_BLK_S_OK && request.writes) {
      this.session.dma.memory.read(address, bytes!);
    }
    if (address !== 0) this.#buffers.give(address);
    if (status === VIRTIO_BLK_S_OK) request.resolve();
    else request.reject(new BlkError(request.type, status));
  }

  /** Called by a request when its queue was reset. It was not answered, so it may be done again. */
  lost(request: PendingRequest): void {
    this.#inFlight--;
    if (this.#broken !== null) request.reject(this.#broken);
    else this.#waiting.push(request);
  }

  #startWaiting(): void {
    while (this.#waiting.length > 0 && this.#start(this.#waiting[0]!)) this.#waiting.shift();
  }

  #collect(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined || this.#broken !== null) return;
    try {
      queue.collect();
      this.#startWaiting();
    } catch (error) {
      this.#giveUp(error instanceof Error ? error : new DriverError(String(error)));
    }
  }

  #configChanged(): void {
    if (this.#broken !== null) return;
    try {
      const before = this.#info;
      this.#info = readInfo(this.session);
      if (
        before.sectors !== this.#info.sectors ||
        before.writeZeroes?.mayUnmap !== this.#info.writeZeroes?.mayUnmap
      ) {
        this.onChange?.(this.#info);
      }
    } catch (error) {
      this.#giveUp(error instanceof Error ? error : new DriverError(String(error)));
    }
  }

  /** A device that does not answer must not hang its driver; one timer for all requests costs the hot path nothing. */
  #watch(): void {
    if (this.#timer !== null || this.#timeout === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#inFlight === 0 || this.#broken !== null) return;
      // Every queue has its turn, or its rounds would stand still.
      if (this.queues.map((queue) => queue.overdue()).includes(true)) {
        this.#giveUp(
          new DriverError(`The device left a request unanswered for ${this.#timeout} ms`),
        );
      } else {
        this.#watch();
      }
    }, this.#timeout);
  }

  #giveUp(reason: Error): void {
    if (this.#broken !== null) return;
    this.#broken = reason;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    // The device may still write to what is in flight: its memory stays taken until `close` has reset it.
    for (const queue of this.queues) queue.abandon(reason);
    for (const request of this.#waiting.splice(0)) request.reject(reason);
  }
}

/** A request of the promise methods. */
class PendingRequest implements RequestNote {
  /** Guest-physical address of its buffer; 0: none yet. */
  address = 0;
  readonly type: number;
  readonly sector: number;
  readonly bytes: Uint8Array | null;
  readonly writes: boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  readonly #driver: BlkDriver;

  constructor(
    driver: BlkDriver,
    type: number,
    sector: number,
    bytes: Uint8Array | null,
    writes: boolean,
    resolve: () => void,
    reject: (error: Error) => void,
  ) {
    this.#driver = driver;
    this.type = type;
    this.sector = sector;
    this.bytes = bytes;
    this.writes = writes;
    this.resolve = resolve;
    this.reject = reject;
  }

  settled(status: number): void {
    this.#driver.answered(this, status);
  }

  failed(reason: Error): void {
    this.reject(reason);
  }

  lost(): void {
    this.#driver.lost(this);
  }
}

function isTransfer(type: number): boolean {
  return type === VIRTIO_BLK_T_IN || type === VIRTIO_BLK_T_OUT;
}

function queueCount(info: BlkInfo, options: BlkDriverOptions): number {
  const wanted = options.queues ?? 4;
  if (!(Number.isInteger(wanted) && wanted >= 1)) {
    throw new RangeError(`queues must be a positive integer: it is ${wanted}`);
  }
  return Math.min(wanted, info.queues);
}

function encodeRanges(ranges: readonly BlkRange[], flags: number): Uint8Array {
  const bytes = new Uint8Array(RANGE_SIZE * ranges.length);
  const view = new DataView(bytes.buffer);
  ranges.forEach(({ sector, sectors }, i) => {
    view.setUint32(RANGE_SIZE * i, sector % 0x1_0000_0000, true);
    view.setUint32(RANGE_SIZE * i + 4, Math.floor(sector / 0x1_0000_0000), true);
    view.setUint32(RANGE_SIZE * i + 8, sectors, true);
    view.setUint32(RANGE_SIZE * i + 12, flags, true);
  });
  return bytes;
}

/** Waits for all, even if one fails: their buffers are in use until then. */
async function all(parts: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(parts);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
