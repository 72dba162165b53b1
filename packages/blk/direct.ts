/**
 * Requests to an engine: it works on guest memory itself, and what is not done at once is answered when it says so.
 *
 * Hot path: nothing is allocated for a request; the objects are kept and used again.
 */
import type { Chain } from "@virtio/vring";
import {
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from "./constants.ts";
import * as constants from "./constants.ts";
import { type BlkEngine, type EngineClient, LATER } from "./engine.ts";
import { PENDING } from "./pending.ts";
import type { RangeList } from "./ranges.ts";

const { REQUEST_HEADER_SIZE } = constants;

/** Times that an operation may come to nothing before that counts as a failure. */
const MOST_TRIES = 16;

/** What the direct path needs of its device. */
export interface DirectHost {
  /** Whether the chain was not dropped by a reset; the views of guest memory are fresh if so. */
  ready(chain: Chain): boolean;
  /** Whether a write has to be made durable before it completes. */
  mustFlush(): boolean;
  /** Reports why a request failed. */
  report(error: unknown): void;
  /** Something that cannot be answered: asks for a reset. */
  fail(error: unknown): void;
  /** Counts a request that was done. */
  count(type: number, bytes: number): void;
  /** Answers a request that was not done at once. */
  answerLater(chain: Chain, queue: number, status: number): void;
  /** Calls a function at the end of the kick or the turn. */
  soon(action: () => void): void;
}

/** A request that an engine works on. */
class DirectRequest {
  chain: Chain | null = null;
  queue = 0;
  type = 0;
  position = 0;
  /** Bytes of a read or write; 0 for the others. */
  length = 0;
  done = 0;
  /** Bytes are durable when written, or a flush follows. */
  durable = false;
  tries = 0;
  /** Flushes that are due. */
  flushes = 0;
  /** The range that is next, for the types that have them. */
  range = 0;
  ranges: RangeList | null = null;
}

/** The way of requests to an engine, and of its completions back. */
export class DirectPath implements EngineClient {
  readonly #engine: BlkEngine;
  readonly #host: DirectHost;
  readonly #requests: DirectRequest[] = [];
  readonly #free: number[] = [];
  /** Whether the engine has something to begin with. */
  #asked = false;
  /** Whether it is told to at the end of the kick. */
  #due = false;
  readonly #submitDue: () => void;

  /** Takes the engine: it tells this object of its completions from now on. */
  constructor(engine: BlkEngine, host: DirectHost) {
    this.#engine = engine;
    this.#host = host;
    this.#submitDue = () => {
      this.#due = false;
      this.submit();
    };
    engine.client = this;
  }

  /** The engine. */
  get engine(): BlkEngine {
    return this.#engine;
  }

  /** Has the engine begin with what it was asked for. */
  submit(): void {
    if (!this.#asked) return;
    this.#asked = false;
    try {
      this.#engine.submit();
    } catch (error) {
      this.#host.fail(error);
    }
  }

  /**
   * Begins a read, a write or a flush.
   *
   * @param length Bytes to read or write.
   * @returns A status, or `PENDING`.
   */
  start(chain: Chain, queue: number, type: number, position: number, length: number): number {
    const token = this.#free.pop() ?? this.#make();
    const request = this.#requests[token]!;
    request.position = position;
    request.length = length;
    request.flushes = type === VIRTIO_BLK_T_FLUSH ? 1 : 0;
    request.durable = type === VIRTIO_BLK_T_OUT && this.#host.mustFlush();
    return this.#begin(request, token, chain, queue, type);
  }

  /** An object whose ranges the next `startRanges` acts on, to be filled. */
  ranges(make: () => RangeList): RangeList {
    const token = this.#free.pop() ?? this.#make();
    this.#free.push(token);
    return this.#requests[token]!.ranges ??= make();
  }

  /** Begins a request with the ranges that `ranges` gave just before. @returns A status, or `PENDING`. */
  startRanges(chain: Chain, queue: number, type: number): number {
    const token = this.#free.pop()!;
    const request = this.#requests[token]!;
    request.position = 0;
    request.length = 0;
    request.durable = false;
    request.range = 0;
    request.flushes = type !== VIRTIO_BLK_T_DISCARD && this.#host.mustFlush() ? 1 : 0;
    return this.#begin(request, token, chain, queue, type);
  }

  #make(): number {
    return this.#requests.push(new DirectRequest()) - 1;
  }

  #begin(
    request: DirectRequest,
    token: number,
    chain: Chain,
    queue: number,
    type: number,
  ): number {
    request.chain = chain;
    request.queue = queue;
    request.type = type;
    request.done = 0;
    request.tries = 0;
    const status = this.#advance(request, token);
    if (status !== PENDING) this.#release(request, token);
    return status;
  }

  #release(request: DirectRequest, token: number): void {
    request.chain = null;
    this.#free.push(token);
  }

  #advance(request: DirectRequest, token: number): number {
    try {
      for (;;) {
        const moves = request.done < request.length;
        let done: number;
        if (moves) done = this.#transfer(request, token);
        else if (this.#hasRange(request)) done = this.#rangeOperation(request, token);
        else if (request.flushes > 0) {
          request.flushes--;
          done = this.#engine.flush(token);
        } else break;
        if (done === LATER) {
          this.#asked = true;
          if (!this.#due) {
            this.#due = true;
            this.#host.soon(this.#submitDue);
          }
          return PENDING;
        }
        if (moves) this.#moved(request, done);
      }
    } catch (error) {
      return this.#failed(request, error);
    }
    this.#host.count(request.type, request.length);
    return VIRTIO_BLK_S_OK;
  }

  #transfer(request: DirectRequest, token: number): number {
    const { done } = request;
    const chain = request.chain!;
    const position = request.position + done;
    const left = request.length - done;
    return request.type === VIRTIO_BLK_T_IN
      ? this.#engine.read(position, left, chain.writer, token)
      : this.#engine.write(position, left, chain.reader, request.durable, token);
  }

  #hasRange(request: DirectRequest): boolean {
    const { type } = request;
    if (type === VIRTIO_BLK_T_IN || type === VIRTIO_BLK_T_OUT || type === VIRTIO_BLK_T_FLUSH) {
      return false;
    }
    return request.range < request.ranges!.count;
  }

  #rangeOperation(request: DirectRequest, token: number): number {
    const ranges = request.ranges!;
    const index = request.range++;
    const position = ranges.positions[index]!;
    const length = ranges.lengths[index]!;
    if (request.type === VIRTIO_BLK_T_DISCARD) {
      return this.#engine.discard(position, length, token);
    }
    return this.#engine.writeZeroes(position, length, ranges.unmap[index] === 1, token);
  }

  /** Bytes were transferred: the cursor, which may have passed more, is set behind them. */
  #moved(request: DirectRequest, done: number): void {
    request.done += done;
    if (request.done === request.length) return;
    if (!(done >= 0 && request.done < request.length)) {
      throw new Error(`The engine transferred ${done} of fewer bytes`);
    }
    if (done > 0) request.tries = 0;
    else if (++request.tries === MOST_TRIES) throw new Error("The engine gets no further");
    this.#rewind(request, request.done);
  }

  #rewind(request: DirectRequest, done: number): void {
    const { reader, writer } = request.chain!;
    if (request.type === VIRTIO_BLK_T_IN) {
      writer.begin();
      // It was there the first time.
      writer.reserveTail(1);
      writer.skip(done);
    } else if (request.type === VIRTIO_BLK_T_OUT) {
      reader.begin();
      reader.skip(REQUEST_HEADER_SIZE + done);
    }
  }

  #failed(request: DirectRequest, error: unknown): number {
    // Nothing counts as written: what did arrive is overwritten by the answer, if it is not too much.
    this.#rewind(request, 0);
    this.#host.report(error);
    return VIRTIO_BLK_S_IOERR;
  }

  /** See `EngineClient.completed`. */
  completed(token: number, done: number, error: unknown): void {
    const request = this.#requests[token]!;
    const chain = request.chain!;
    if (!this.#host.ready(chain)) {
      this.#release(request, token);
      return;
    }
    const status = this.#after(request, token, done, error);
    if (status === PENDING) return;
    const { queue } = request;
    this.#release(request, token);
    this.#host.answerLater(chain, queue, status);
  }

  #after(request: DirectRequest, token: number, done: number, error: unknown): number {
    if (error !== undefined) return this.#failed(request, error);
    try {
      if (request.done < request.length) this.#moved(request, done);
    } catch (error) {
      return this.#failed(request, error);
    }
    return this.#advance(request, token);
  }
}
