/** In place of a number of bytes: the engine tells when it is done. */
export const LATER = -1;

/**
 * Pieces of memory, one after another, as the cursors of a chain show them. What `next` passed shows until the next call.
 */
export interface MemoryPieces {
  /** Passes the next piece of at most `max` bytes. @returns Whether there was one. */
  next(max: number): boolean;
  /** Where the piece lies. Its `bytes` are views of memory that does not move while an operation is under way. */
  readonly region: { readonly bytes: Uint8Array } | null;
  /** Offset of the piece in the region's bytes. */
  readonly offset: number;
  /** Its length. */
  readonly length: number;
}

/** Who uses an engine. */
export interface EngineClient {
  /**
   * An operation that was answered with `LATER` has ended. Called from `submit`, `reap` and `drain`, and from an operation
   * that had to wait for room.
   *
   * @param token Of the operation.
   * @param done Bytes that a read or write transferred, from its start; the rest is to be asked for again. 0 for all of it.
   * @param error Why it failed; undefined if it did not.
   */
  completed(token: number, done: number, error: unknown): void;
}

/**
 * The way of a back end to work on guest memory itself, for whole requests, several at a time, without a promise or an object
 * for any of them.
 *
 * Operations are begun one by one, with `submit` after the last of a batch. One that could be done at once says so: reads and
 * writes by the number of bytes, the others by 0. They may do less than they were asked for, and are asked for the rest then. One
 * that takes longer answers `LATER`: guest memory is in use until `completed` was called with its token. Failures throw, or come
 * with the completion. Operations under way together are done in any order.
 *
 * Ranges are as for `BlkBackend`. The methods for discarding and zeroes are called only where the back end has its own.
 */
export interface BlkEngine {
  /** Who is told of completions; the device sets it. */
  client: EngineClient | null;
  /** Reads into memory. The pieces are longer than `length` at least by nothing. */
  read(position: number, length: number, into: MemoryPieces, token: number): number;
  /** Writes from memory. `durable`: it survives a crash of the host once it is done. */
  write(
    position: number,
    length: number,
    from: MemoryPieces,
    durable: boolean,
    token: number,
  ): number;
  /** Makes all writes durable that were done before. */
  flush(token: number): number;
  /** See `BlkBackend.discard`. */
  discard(position: number, length: number, token: number): number;
  /** See `BlkBackend.writeZeroes`. */
  writeZeroes(position: number, length: number, unmap: boolean, token: number): number;
  /** Has the system begin with what was asked for since the last call. */
  submit(): void;
  /** Operations that were answered with `LATER` and have not ended. */
  readonly inFlight: number;
  /**
   * Waits until nothing is under way; all completions have been told then, and guest memory is left alone. What is begun from
   * inside a completion is waited for too.
   */
  drain(): void | Promise<void>;

  /** Readable when there are completions, for a thread that waits for descriptors; -1 if there is no such thing. */
  readonly descriptor: number;
  /**
   * Tells of completions that are there. Where `polled` is set it may leave them for some microseconds, for more to come;
   * `descriptor` stays readable then.
   *
   * @param most How many it tells of at most; all unless given.
   * @returns How many it told of.
   */
  reap(most?: number): number;
  /**
   * Whether the thread itself calls `reap`. Unless that is set the engine sees to it by the event loop, which costs more time
   * for each completion.
   */
  polled: boolean;
}
