/**
 * Requests to a synchronous back end: it works on guest memory itself, and is done with it when a method here returns.
 *
 * Hot path: nothing is allocated for a request.
 */
import type { Chain } from "@virtio/vring";
import {
  type BackendResult,
  type BlkBackend,
  type BlkLifetime,
  notSynchronous,
} from "./backend.ts";
import * as constants from "./constants.ts";
import { Gather } from "./gather.ts";
import type { RangeList } from "./ranges.ts";
import type { BlkStats } from "./stats.ts";

const {
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_WRITE_ZEROES,
} = constants;

/** What the synchronous path needs of its device. */
export interface SynchronousHost {
  /** What was done. */
  readonly stats: BlkStats;
  /** Whether a write has to be made durable before it completes. */
  mustFlush(): boolean;
  /** Reports why a request failed. */
  report(error: unknown): void;
  /** Counts a request that was done. */
  count(type: number, bytes: number): void;
  /** Sends the lifetime. */
  sendLifetime(chain: Chain, lifetime: BlkLifetime): number;
}

/** The way of requests to a synchronous back end. Every method returns the status of its request. */
export class SynchronousPath {
  readonly #backend: BlkBackend;
  readonly #host: SynchronousHost;
  readonly #stats: BlkStats;
  readonly #gather: Gather | null;

  constructor(backend: BlkBackend, host: SynchronousHost) {
    this.#backend = backend;
    this.#host = host;
    this.#stats = host.stats;
    this.#gather = backend.gather === true ? new Gather(backend) : null;
  }

  /** Reads `length` bytes of the disk. */
  read(chain: Chain, position: number, length: number): number {
    if (this.#gather?.pays(chain.count - chain.readableCount, length)) {
      return this.#readGathered(this.#gather, chain, position, length);
    }
    const backend = this.#backend;
    const { writer } = chain;
    let at = position;
    while (writer.next(length)) {
      try {
        const result = backend.read(at, writer.region!.bytes, writer.offset, writer.length);
        if (result !== undefined) notSynchronous(result);
      } catch (error) {
        // The writer has counted this piece as written; then it must be, with something that is nobody's data.
        const end = writer.offset + writer.length;
        writer.region!.bytes.fill(0, writer.offset, end);
        return this.#failed(error);
      }
      at += writer.length;
    }
    this.#stats.reads++;
    this.#stats.bytesRead += length;
    return VIRTIO_BLK_S_OK;
  }

  #readGathered(gather: Gather, chain: Chain, position: number, length: number): number {
    try {
      gather.read(chain.writer, position, length);
    } catch (error) {
      return this.#failed(error);
    }
    this.#stats.reads++;
    this.#stats.bytesRead += length;
    return VIRTIO_BLK_S_OK;
  }

  /** Writes `length` bytes to the disk, durably where that is asked for. */
  write(chain: Chain, position: number, length: number): number {
    const backend = this.#backend;
    const { reader } = chain;
    try {
      let at = position;
      const gather = this.#gather?.pays(chain.readableCount, length) ? this.#gather : null;
      gather?.write(reader, position, length);
      while (gather === null && reader.next(length)) {
        const result = backend.write(at, reader.region!.bytes, reader.offset, reader.length);
        if (result !== undefined) notSynchronous(result);
        at += reader.length;
      }
      if (this.#host.mustFlush()) this.#flushBackend();
    } catch (error) {
      return this.#failed(error);
    }
    this.#stats.writes++;
    this.#stats.bytesWritten += length;
    return VIRTIO_BLK_S_OK;
  }

  /** Makes what was written durable. */
  flush(): number {
    try {
      this.#flushBackend();
    } catch (error) {
      return this.#failed(error);
    }
    this.#stats.flushes++;
    return VIRTIO_BLK_S_OK;
  }

  /** Discards, zeroes or erases ranges. */
  change(type: number, ranges: RangeList): number {
    const backend = this.#backend;
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
        if (result !== undefined) notSynchronous(result);
      }
      if (type !== VIRTIO_BLK_T_DISCARD && this.#host.mustFlush()) this.#flushBackend();
    } catch (error) {
      return this.#failed(error);
    }
    this.#host.count(type, 0);
    return VIRTIO_BLK_S_OK;
  }

  /** Sends the wear of the storage. */
  lifetime(chain: Chain): number {
    try {
      const lifetime = this.#backend.lifetime!();
      if (lifetime instanceof Promise) notSynchronous(lifetime);
      else return this.#host.sendLifetime(chain, lifetime);
    } catch (error) {
      return this.#failed(error);
    }
    return VIRTIO_BLK_S_IOERR;
  }

  #flushBackend(): void {
    const result = this.#backend.flush();
    if (result !== undefined) notSynchronous(result);
  }

  #failed(error: unknown): number {
    this.#host.report(error);
    return VIRTIO_BLK_S_IOERR;
  }
}
