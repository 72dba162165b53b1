import type { Chain } from "@virtio/vring";
import type { BackendResult, BlkBackend, BlkLifetime } from "./backend.ts";
import { type BouncePool, type BounceWaiter, PIECE_SIZE } from "./bounce.ts";
import {
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_LIFETIME,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from "./constants.ts";
import type { RangeList } from "./ranges.ts";

/** What a request needs of its device. */
export interface LaterHost {
  /** The back end. */
  readonly backend: BlkBackend;
  /** The buffers. */
  readonly bounce: BouncePool;
  /** Whether the chain was not dropped by a reset; guest memory is there and its views are fresh if so. */
  ready(chain: Chain): boolean;
  /** Whether a write has to be made durable before it completes. */
  mustFlush(): boolean;
  /** Counts an operation that a reset has to wait for. */
  waitFor(work: Promise<unknown>): void;
  /** Sends the lifetime. */
  sendLifetime(chain: Chain, lifetime: BlkLifetime): number;
  /** Reports why a request failed. */
  report(error: unknown): void;
  /** Answers the request, and takes the object back. */
  finished(request: LaterRequest, status: number, bytes: number): void;
  /** Takes the object of a dropped request back. */
  dropped(request: LaterRequest): void;
  /** Something that cannot be answered: asks for a reset. */
  fail(error: unknown): void;
}

const FINISHED = Symbol("finished");
const WAITING = Symbol("waiting");

/**
 * A request to an asynchronous back end: operations one after another, between which the device may be reset. Guest memory
 * is touched only here, after asking whether the chain is still ours; the back end sees a buffer.
 *
 * Objects are kept by the device and used again.
 */
export class LaterRequest implements BounceWaiter {
  /** The chain; null while the object is not used. */
  chain: Chain | null = null;
  /** Index of its queue. */
  queue = 0;
  /** Type. */
  type = 0;
  /** Ranges, for the types that have them. */
  ranges: RangeList | null = null;
  readonly #host: LaterHost;
  #position = 0;
  #length = 0;
  #left = 0;
  #piece = 0;
  #range = 0;
  #flushed = false;
  #lifetime: BlkLifetime | null = null;
  #buffer: Uint8Array | null = null;
  readonly #done: () => void;
  readonly #failed: (error: unknown) => void;

  constructor(host: LaterHost) {
    this.#host = host;
    this.#done = () => this.#settled();
    this.#failed = (error) => this.#error(error);
  }

  /** Starts; may end before it returns. */
  start(chain: Chain, queue: number, type: number, position: number, length: number): void {
    this.chain = chain;
    this.queue = queue;
    this.type = type;
    this.#position = position;
    this.#length = length;
    this.#left = length;
    this.#range = 0;
    this.#flushed = false;
    this.#lifetime = null;
    this.#advance();
  }

  /** A buffer for which it waited. */
  granted(buffer: Uint8Array): void {
    this.#buffer = buffer;
    if (!this.#host.ready(this.chain!)) this.#drop();
    else this.#advance();
  }

  #settled(): void {
    if (!this.#host.ready(this.chain!)) {
      this.#drop();
      return;
    }
    try {
      this.#landed();
    } catch (error) {
      this.#release();
      this.#host.fail(error);
      return;
    }
    this.#advance();
  }

  #advance(): void {
    for (;;) {
      let result: BackendResult | typeof FINISHED | typeof WAITING;
      try {
        result = this.#next();
      } catch (error) {
        this.#error(error);
        return;
      }
      if (result === WAITING) return;
      if (result === FINISHED) {
        this.#finish(this.#lifetime === null ? VIRTIO_BLK_S_OK : this.#answerLifetime());
        return;
      }
      if (result !== undefined) {
        // Ours first: a chain is answered, or its buffer free, before the next life may start.
        result.then(this.#done, this.#failed);
        this.#host.waitFor(result);
        return;
      }
      this.#landed();
    }
  }

  /** Starts the next operation. */
  #next(): BackendResult | typeof FINISHED | typeof WAITING {
    const { backend } = this.#host;
    switch (this.type) {
      case VIRTIO_BLK_T_IN:
      case VIRTIO_BLK_T_OUT:
        return this.#nextPiece(backend);
      case VIRTIO_BLK_T_FLUSH:
        return this.#flushOnce(backend);
      case VIRTIO_BLK_T_GET_LIFETIME:
        return this.#askLifetime(backend);
      default:
        return this.#nextRange(backend);
    }
  }

  #nextPiece(backend: BlkBackend): BackendResult | typeof FINISHED | typeof WAITING {
    const writes = this.type === VIRTIO_BLK_T_OUT;
    if (this.#left === 0) {
      return writes && this.#host.mustFlush() ? this.#flushOnce(backend) : FINISHED;
    }
    const piece = Math.min(this.#left, PIECE_SIZE);
    this.#buffer ??= this.#host.bounce.take(piece, this);
    if (this.#buffer === null) return WAITING;
    this.#piece = piece;
    if (!writes) return backend.read(this.#position, this.#buffer, 0, piece);
    this.chain!.reader.read(this.#buffer.subarray(0, piece));
    // Of several pieces a flush makes all durable together.
    const alone = piece === this.#length;
    if (alone && backend.writeDurably !== undefined && this.#host.mustFlush()) {
      this.#flushed = true;
      return backend.writeDurably(this.#position, this.#buffer, 0, piece);
    }
    return backend.write(this.#position, this.#buffer, 0, piece);
  }

  #nextRange(backend: BlkBackend): BackendResult | typeof FINISHED {
    const ranges = this.ranges!;
    const index = this.#range;
    if (index === ranges.count) {
      const durable = this.type !== VIRTIO_BLK_T_DISCARD && this.#host.mustFlush();
      return durable ? this.#flushOnce(backend) : FINISHED;
    }
    this.#range = index + 1;
    const position = ranges.positions[index]!;
    const length = ranges.lengths[index]!;
    if (this.type === VIRTIO_BLK_T_DISCARD) return backend.discard!(position, length);
    if (this.type === VIRTIO_BLK_T_WRITE_ZEROES) {
      return backend.writeZeroes!(position, length, ranges.unmap[index] === 1);
    }
    return backend.secureErase!(position, length);
  }

  #flushOnce(backend: BlkBackend): BackendResult | typeof FINISHED {
    if (this.#flushed) return FINISHED;
    this.#flushed = true;
    return backend.flush();
  }

  #askLifetime(backend: BlkBackend): BackendResult | typeof FINISHED {
    if (this.#lifetime !== null) return FINISHED;
    const answer = backend.lifetime!();
    if (answer instanceof Promise) {
      return answer.then((lifetime) => {
        this.#lifetime = lifetime;
      });
    }
    this.#lifetime = answer;
  }

  #answerLifetime(): number {
    try {
      return this.#host.sendLifetime(this.chain!, this.#lifetime!);
    } catch (error) {
      this.#host.report(error);
      return VIRTIO_BLK_S_IOERR;
    }
  }

  /** An operation has ended well. */
  #landed(): void {
    if (this.#piece === 0) return;
    const piece = this.#piece;
    this.#piece = 0;
    if (this.type === VIRTIO_BLK_T_IN) {
      this.chain!.writer.write(this.#buffer!.subarray(0, piece));
    }
    this.#position += piece;
    this.#left -= piece;
  }

  #error(error: unknown): void {
    this.#host.report(error);
    if (this.#host.ready(this.chain!)) this.#finish(VIRTIO_BLK_S_IOERR);
    else this.#drop();
  }

  #finish(status: number): void {
    const length = this.#length;
    this.#release();
    this.#host.finished(this, status, length);
  }

  #drop(): void {
    this.#release();
    this.#host.dropped(this);
  }

  #release(): void {
    this.#piece = 0;
    const buffer = this.#buffer;
    this.#buffer = null;
    if (buffer !== null) this.#host.bounce.give(buffer);
  }
}
