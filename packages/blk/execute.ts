/**
 * Requests of 5.2.6: what one asks for, whether it may, and who does it: a `SynchronousPath` before `execute` returns, a
 * `DirectPath` with an engine, or a `LaterRequest` with an asynchronous back end.
 *
 * Hot path: nothing is allocated for a request to a synchronous back end.
 */
import type { ConfigSpace } from "@virtio/device";
import type { Chain } from "@virtio/vring";
import type { BlkBackend, BlkLifetime } from "./backend.ts";
import { BouncePool, PIECE_SIZE } from "./bounce.ts";
import {
  BlkConfigOffset,
  LIFETIME_SIZE,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_GET_LIFETIME,
  VIRTIO_BLK_T_SECURE_ERASE,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from "./constants.ts";
import * as constants from "./constants.ts";
import { type DirectHost, DirectPath } from "./direct.ts";
import type { ExecutorHost } from "./executor_host.ts";
import { type LaterHost, LaterRequest } from "./later_request.ts";
import { writeLifetime } from "./lifetime.ts";
import { Durability, Negotiated } from "./negotiated.ts";
import type { BlkSettings } from "./options.ts";
import { PENDING } from "./pending.ts";
import { RangeList } from "./ranges.ts";
import { BlkStats } from "./stats.ts";
import { type SynchronousHost, SynchronousPath } from "./synchronous.ts";

// To the compiler names of this module are constants; imported names are looked up at every use. These are used for each
// request.
const { REQUEST_HEADER_SIZE, SECTOR_SIZE, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } =
  constants;

/** Executes the requests of one device. */
export class RequestExecutor implements LaterHost, DirectHost, SynchronousHost {
  /** Where the sectors are. */
  readonly backend: BlkBackend;
  /** Buffers for an asynchronous back end. */
  readonly bounce: BouncePool;
  /** What was done. */
  readonly stats: BlkStats = new BlkStats();
  /** Capacity as the driver knows it. */
  sectors: number;
  /** What the driver negotiated. */
  negotiated: Negotiated = new Negotiated(0n, 0n, true);
  readonly #settings: BlkSettings;
  readonly #config: ConfigSpace;
  readonly #host: ExecutorHost;
  readonly #onError: ((error: unknown) => void) | null;
  /** The way of requests to a synchronous back end; null if it is asynchronous. */
  readonly #synchronous: SynchronousPath | null;
  /** The way of requests that an engine does; null if the back end has none. */
  readonly direct: DirectPath | null;
  /** Those of the request that is being executed, unless they have to be kept. */
  readonly #ranges: RangeList;
  readonly #idle: LaterRequest[] = [];

  constructor(
    backend: BlkBackend,
    settings: BlkSettings,
    config: ConfigSpace,
    host: ExecutorHost,
    onError: ((error: unknown) => void) | null,
  ) {
    this.backend = backend;
    this.bounce = new BouncePool(settings.bounceMemory);
    this.sectors = backend.capacity / SECTOR_SIZE;
    this.#settings = settings;
    this.#config = config;
    this.#host = host;
    this.#onError = onError;
    this.#synchronous = backend.asynchronous ? null : new SynchronousPath(backend, this);
    const { engine } = backend;
    this.direct = engine === undefined || engine === null ? null : new DirectPath(engine, this);
    this.#ranges = new RangeList(settings.maxSegments);
  }

  /**
   * Executes a request whose status byte is reserved.
   *
   * @returns Its status, for `answer`, or `PENDING`.
   */
  execute(chain: Chain, queue: number): number {
    const { reader } = chain;
    if (reader.remaining < REQUEST_HEADER_SIZE) return VIRTIO_BLK_S_IOERR;
    const at = reader.struct(REQUEST_HEADER_SIZE);
    const { view } = reader;
    const type = view.getUint32(at, true);
    // Rounded from 2^53 on, where no sector is.
    const low = view.getUint32(at + 8, true);
    const high = view.getUint32(at + 12, true);
    const sector = high === 0 ? low : low + high * 0x1_0000_0000;
    switch (type) {
      case VIRTIO_BLK_T_IN: {
        const length = chain.writer.remaining;
        if (!this.#within(sector, length)) return VIRTIO_BLK_S_IOERR;
        if (this.direct !== null) {
          return this.direct.start(chain, queue, type, sector * SECTOR_SIZE, length);
        }
        if (this.#synchronous === null) return this.#later(chain, queue, type, sector, length);
        return this.#synchronous.read(chain, sector * SECTOR_SIZE, length);
      }
      case VIRTIO_BLK_T_OUT: {
        const length = reader.remaining;
        if (this.#settings.readonly || !this.#within(sector, length)) return VIRTIO_BLK_S_IOERR;
        if (this.direct !== null) {
          return this.direct.start(chain, queue, type, sector * SECTOR_SIZE, length);
        }
        if (this.#synchronous === null) return this.#later(chain, queue, type, sector, length);
        return this.#synchronous.write(chain, sector * SECTOR_SIZE, length);
      }
      case VIRTIO_BLK_T_FLUSH:
        if (!this.negotiated.flush) return VIRTIO_BLK_S_UNSUPP;
        if (this.direct !== null) return this.direct.start(chain, queue, type, 0, 0);
        if (this.#synchronous === null) return this.#later(chain, queue, type, 0, 0);
        return this.#synchronous.flush();
      case VIRTIO_BLK_T_GET_ID:
        return this.#sendId(chain);
      case VIRTIO_BLK_T_GET_LIFETIME:
        if (!this.negotiated.lifetime) return VIRTIO_BLK_S_UNSUPP;
        if (chain.writer.remaining < LIFETIME_SIZE) return VIRTIO_BLK_S_IOERR;
        if (this.#synchronous === null) return this.#later(chain, queue, type, 0, 0);
        return this.#synchronous.lifetime(chain);
      case VIRTIO_BLK_T_DISCARD:
        if (!this.negotiated.discard) return VIRTIO_BLK_S_UNSUPP;
        return this.#ranged(chain, queue, type, BlkConfigOffset.max_discard_sectors, 0);
      case VIRTIO_BLK_T_WRITE_ZEROES:
        if (!this.negotiated.writeZeroes) return VIRTIO_BLK_S_UNSUPP;
        return this.#ranged(
          chain,
          queue,
          type,
          BlkConfigOffset.max_write_zeroes_sectors,
          VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        );
      case VIRTIO_BLK_T_SECURE_ERASE:
        if (!this.negotiated.secureErase) return VIRTIO_BLK_S_UNSUPP;
        return this.#ranged(chain, queue, type, BlkConfigOffset.max_secure_erase_sectors, 0);
      default:
        return VIRTIO_BLK_S_UNSUPP;
    }
  }

  /** Whether these are whole sectors of the disk. */
  #within(sector: number, length: number): boolean {
    return length % SECTOR_SIZE === 0 && sector + length / SECTOR_SIZE <= this.sectors;
  }

  #sendId(chain: Chain): number {
    if (chain.writer.remaining !== VIRTIO_BLK_ID_BYTES) return VIRTIO_BLK_S_IOERR;
    chain.writer.write(this.#settings.id);
    this.stats.ids++;
    return VIRTIO_BLK_S_OK;
  }

  /** Sends the lifetime. @throws {RangeError} If it has a reserved value. */
  sendLifetime(chain: Chain, lifetime: BlkLifetime): number {
    writeLifetime(chain.writer, lifetime);
    this.stats.lifetimes++;
    return VIRTIO_BLK_S_OK;
  }

  #ranged(chain: Chain, queue: number, type: number, limits: number, flags: number): number {
    const { view } = this.#config;
    const synchronous = this.#synchronous;
    // Engines know no secure erase: whoever has that does it by the methods of the back end.
    const direct = type === VIRTIO_BLK_T_SECURE_ERASE ? null : this.direct;
    const request = direct === null && synchronous === null ? this.#request() : null;
    if (request !== null) request.ranges ??= this.#makeRanges();
    const ranges = direct?.ranges(this.#makeRanges) ?? request?.ranges ?? this.#ranges;
    const status = ranges.read(
      chain.reader,
      view.getUint32(limits + 4, true),
      view.getUint32(limits, true),
      this.sectors,
      flags,
    );
    if (status !== VIRTIO_BLK_S_OK) {
      if (request !== null) this.#idle.push(request);
      return status;
    }
    if (direct !== null) return direct.startRanges(chain, queue, type);
    if (synchronous !== null) return synchronous.change(type, ranges);
    request!.start(chain, queue, type, 0, 0);
    return PENDING;
  }

  readonly #makeRanges = (): RangeList => new RangeList(this.#settings.maxSegments);

  /** Counts what a request did that was not counted where it was done. */
  count(type: number, bytes: number): void {
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

  /** Writes a status. */
  answer(chain: Chain, status: number): void {
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

  /** Whether a write has to be made durable before it completes. */
  mustFlush(): boolean {
    const { durability } = this.negotiated;
    return durability === Durability.always ||
      (durability === Durability.field && this.#config.bytes[BlkConfigOffset.writeback] === 0);
  }

  /** Tells the embedder why a request failed. */
  report(error: unknown): void {
    this.#onError?.(error);
  }

  #later(chain: Chain, queue: number, type: number, sector: number, length: number): number {
    this.#request().start(chain, queue, type, sector * SECTOR_SIZE, length);
    return PENDING;
  }

  #request(): LaterRequest {
    return this.#idle.pop() ?? new LaterRequest(this);
  }

  /** See `LaterHost`. */
  ready(chain: Chain): boolean {
    return this.#host.ready(chain);
  }

  /** See `LaterHost`. */
  waitFor(work: Promise<unknown>): void {
    this.#host.waitFor(work);
  }

  /** See `LaterHost`. */
  fail(error: unknown): void {
    this.#host.fail(error);
  }

  /** See `DirectHost`. */
  soon(action: () => void): void {
    this.#host.soon(action);
  }

  /** See `DirectHost`. */
  answerLater(chain: Chain, queue: number, status: number): void {
    this.answer(chain, status);
    this.#host.complete(queue, chain);
  }

  /** See `LaterHost`. */
  finished(request: LaterRequest, status: number, bytes: number): void {
    const { chain, queue, type } = request;
    this.dropped(request);
    if (status === VIRTIO_BLK_S_OK) this.count(type, bytes);
    this.answerLater(chain!, queue, status);
  }

  /** See `LaterHost`. */
  dropped(request: LaterRequest): void {
    request.chain = null;
    this.#idle.push(request);
  }
}
