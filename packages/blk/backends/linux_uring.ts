import {
  AllocateMode,
  Errno,
  EventFd,
  IOV_MAX,
  IoVectors,
  PollSet,
  readVectors,
  SystemError,
  TransferFlag,
  Uring,
  UringFlag,
  UringOp,
} from "@virtio/linux";
import { type BlkEngine, type EngineClient, LATER, type MemoryPieces } from "../engine.ts";
import { Addresses } from "./linux_address.ts";
import type { ImageFile } from "./linux_file.ts";
import { CompletionHold } from "./linux_hold.ts";
import { type PieceList, SinglePiece } from "./linux_pieces.ts";

/** Operations begun by one call at most; more are begun by several. */
const ENTRIES = 256;
/** Iovecs of the operations that are prepared. The system has copied them when it has taken an operation. */
const VECTORS = 4 * IOV_MAX;
/** Operations under way at most: beyond that the thread waits. */
const MOST = 4096;
const FSYNC_DATASYNC = 1;
/** Operations that a disk is given together: the first ones are done while the next are prepared. */
const CHUNK = 4;
/** Operations under way from which on completions may be held. */
const DEEP = 16;
/** Bytes from which on a read costs so much that a call of its own matters little. */
const LARGE = 1 << 15;
/** Bytes copied at once of a write that has to be alone. */
const LARGEST_COPY = 1 << 20;

/** What an operation is, for what its completion has to do. */
const Kind = { read: 0, write: 1, flush: 2, discard: 3, hole: 4, zero: 5 } as const;

/** How an engine uses its ring. */
export interface UringOptions {
  /**
   * The file is in the page cache: writes are done at once rather than by the ring, which would have threads do them, and so
   * are reads that need not wait, where that costs less.
   */
  readonly cached: boolean;
}

/**
 * Has the system work on all requests of a batch while the thread goes on, by io_uring: one call for a batch, completions
 * without a call.
 */
export class UringEngine implements BlkEngine {
  /** See `BlkEngine`. */
  client: EngineClient | null = null;
  /** See `BlkEngine`. */
  polled = false;
  /** See `BlkEngine`. */
  inFlight = 0;
  /** See `BlkEngine`: the ring's own. */
  readonly descriptor: number;
  readonly #file: ImageFile;
  readonly #ring: Uring;
  readonly #writeNow: boolean;
  /** Whether reads are tried before the ring does them: from the page cache they need not wait. */
  #triesNow: boolean;
  /** Whether the next read is the first of a batch. */
  #first = true;
  /** Operations that are begun together at most. */
  readonly #chunk: number;
  readonly #list: PieceList;
  readonly #vectors: IoVectors = new IoVectors(VECTORS);
  readonly #vectorsLow: number;
  readonly #vectorsHigh: number;
  /** Entries of `#vectors` that prepared operations use. */
  #used = 0;
  /** By token. */
  readonly #kinds: number[] = [];
  readonly #positions: number[] = [];
  readonly #lengths: number[] = [];
  readonly #poll: PollSet = new PollSet();
  #wake: EventFd | null = null;
  #watching: Promise<void> | null = null;
  readonly #hold: CompletionHold = new CompletionHold();

  /**
   * Makes a ring for a file.
   *
   * @throws {SystemError} If the system has none for us.
   */
  constructor(file: ImageFile, options: UringOptions) {
    this.#file = file;
    this.#writeNow = options.cached;
    this.#triesNow = options.cached;
    this.#chunk = file.facts.direct ? CHUNK : ENTRIES;
    this.#list = file.pieces();
    const addresses = new Addresses();
    addresses.find(this.#vectors.bytes, 0, 0);
    this.#vectorsLow = addresses.low >>> 0;
    this.#vectorsHigh = addresses.high;
    this.#ring = new Uring(ENTRIES);
    this.descriptor = this.#ring.descriptor;
    try {
      this.#ring.registerFiles([file.descriptor]);
    } catch (error) {
      this.#ring.close();
      throw error;
    }
  }

  /** See `BlkEngine`. */
  read(position: number, length: number, into: MemoryPieces, token: number): number {
    const list = this.#collect(length, into);
    if (!this.#file.fits(position, list)) return this.#file.readBounced(position, list);
    if (this.#triesNow && (this.#first || list.bytes >= LARGE) && this.#used === 0) {
      const done = this.#readNow(position, list.count);
      if (done > 0) return done;
    }
    this.#transfer(Kind.read, position, list, 0, token);
    return LATER;
  }

  /**
   * Reads what need not be waited for: the first of a batch, which may be its only one, and large ones, of which the ring's way
   * is no part.
   *
   * @returns Bytes, or none: the ring does it, or tells why not.
   */
  #readNow(position: number, count: number): number {
    this.#first = false;
    const done = readVectors(
      this.#file.descriptor,
      this.#vectors,
      count,
      position,
      TransferFlag.noWait,
    );
    if (done === -Errno.EOPNOTSUPP || done === -Errno.EINVAL) this.#triesNow = false;
    return done;
  }

  /** See `BlkEngine`. */
  write(
    position: number,
    length: number,
    from: MemoryPieces,
    durable: boolean,
    token: number,
  ): number {
    if (this.#writeNow && !durable) return this.#file.write(position, length, from, false);
    const list = this.#collect(length, from);
    if (!this.#file.fits(position, list)) {
      return this.inFlight > 0
        ? this.#writeAlone(position, list, durable)
        : this.#file.writeBounced(position, list, durable);
    }
    this.#transfer(Kind.write, position, list, durable ? TransferFlag.durable : 0, token);
    return LATER;
  }

  /** See `BlkEngine`. */
  flush(token: number): number {
    this.#makeRoom(0);
    this.#prepare(UringOp.fsync, Kind.flush, 0, 0, 0, 0, FSYNC_DATASYNC, token);
    return LATER;
  }

  /** See `BlkEngine`. */
  discard(position: number, length: number, token: number): number {
    const file = this.#file;
    if (!file.holes || length === 0 || file.facts.block) {
      file.discard(position, length);
      return 0;
    }
    this.#allocate(Kind.discard, AllocateMode.hole, position, length, token);
    return LATER;
  }

  /** See `BlkEngine`. */
  writeZeroes(position: number, length: number, unmap: boolean, token: number): number {
    const mode = this.#file.zeroMode(unmap);
    if (mode === 0 || length === 0) {
      if (this.inFlight > 0) this.drain();
      this.#file.zero(position, length, unmap);
      return 0;
    }
    const kind = mode === AllocateMode.hole ? Kind.hole : Kind.zero;
    this.#allocate(kind, mode, position, length, token);
    return LATER;
  }

  /** See `BlkEngine`. */
  submit(): void {
    this.#first = true;
    this.#push();
    this.reap();
    if (this.polled || this.inFlight === 0 || this.#watching !== null) return;
    if (this.#wake === null) {
      this.#wake = EventFd.create();
      this.#poll.add(this.descriptor);
      this.#poll.add(this.#wake.descriptor);
    }
    this.#watching = this.#watch();
  }

  /** See `BlkEngine`. */
  reap(most = Infinity): number {
    const ring = this.#ring;
    // Who polls does so between batches.
    this.#first = true;
    // Only a thread that comes back soon may leave something for later.
    if (this.polled && this.inFlight >= DEEP) {
      const { ready } = ring;
      if (ready > 0 && this.#hold.holds(ready, this.inFlight, performance.now())) return 0;
    }
    const count = this.#take(most);
    if (count > 0 && this.inFlight >= DEEP) {
      this.#hold.took(count, this.inFlight, performance.now());
    }
    this.#wakeWatcher();
    return count;
  }

  /** If nothing is under way any more, whoever waits for completions does so in vain. */
  #wakeWatcher(): void {
    if (this.#watching !== null && this.inFlight === 0) this.#wake!.signal();
  }

  /** Tells of completions that are there. */
  #take(most = Infinity): number {
    const ring = this.#ring;
    let count = 0;
    while (count < most && ring.next()) {
      count++;
      this.#ended(ring.token, ring.result);
    }
    return count;
  }

  /** See `BlkEngine`. */
  drain(): void {
    this.#waitFor(0);
    this.#wakeWatcher();
  }

  /** Waits until no more than so many operations are under way. */
  #waitFor(most: number): void {
    while (this.inFlight > most) {
      this.#ring.submit(1);
      if (this.#ring.prepared === 0) this.#used = 0;
      this.#take();
    }
  }

  /** Closes the ring. Waits for what is under way. @returns A promise if the event loop was waiting for completions. */
  close(): void | Promise<void> {
    this.drain();
    if (this.#watching === null) return this.#closeNow();
    this.#wake!.signal();
    return this.#watching.then(() => this.#closeNow());
  }

  #closeNow(): void {
    this.#wake?.close();
    this.#ring.close();
  }

  #collect(length: number, pieces: MemoryPieces): PieceList {
    this.#makeRoom(IOV_MAX);
    const list = this.#list;
    list.collect(pieces, length, this.#vectors, this.#used, IOV_MAX);
    return list;
  }

  /** Makes room for an operation, and for so many iovecs. */
  #makeRoom(vectors: number): void {
    this.#waitFor(MOST - 1);
    if (this.#ring.room === 0 || this.#used + vectors > VECTORS) this.#push();
  }

  #push(): void {
    const ring = this.#ring;
    if (ring.prepared === 0) return;
    // If the system has no room for more completions, those that are there have to be taken first.
    while (!ring.submit()) this.#take();
    this.#used = 0;
  }

  #transfer(kind: number, position: number, list: PieceList, how: number, token: number): void {
    const { count, bytes } = list;
    this.#lengths[token] = bytes;
    if (count === 1) {
      const op = kind === Kind.read ? UringOp.read : UringOp.write;
      this.#prepare(op, kind, position, list.firstLow, list.firstHigh, bytes, how, token);
      return;
    }
    const op = kind === Kind.read ? UringOp.readv : UringOp.writev;
    const low = this.#vectorsLow + 16 * this.#used;
    const high = this.#vectorsHigh + (low > 0xffff_ffff ? 1 : 0);
    this.#used += count;
    this.#prepare(op, kind, position, low | 0, high, count, how, token);
  }

  #allocate(kind: number, mode: number, position: number, length: number, token: number): void {
    this.#makeRoom(0);
    this.#lengths[token] = length;
    // The address is the length of the range, the length the mode.
    const high = Math.floor(length / 0x1_0000_0000);
    this.#prepare(UringOp.fallocate, kind, position, length, high, mode, 0, token);
  }

  #prepare(
    op: number,
    kind: number,
    position: number,
    low: number,
    high: number,
    length: number,
    how: number,
    token: number,
  ): void {
    this.#kinds[token] = kind;
    this.#positions[token] = position;
    this.#ring.prepare(op, UringFlag.fixedFile, 0, position, low, high, length, how, token);
    this.inFlight++;
    if (this.#ring.prepared >= this.#chunk) this.#push();
  }

  #ended(token: number, result: number): void {
    this.inFlight--;
    const client = this.client!;
    const kind = this.#kinds[token]!;
    if (kind <= Kind.write) {
      if (result > 0) client.completed(token, result, undefined);
      else this.#failedTransfer(client, token, kind, result);
      return;
    }
    let error: unknown;
    try {
      this.#rangeEnded(kind, this.#positions[token]!, this.#lengths[token]!, -result);
    } catch (reason) {
      error = reason;
    }
    client.completed(token, 0, error);
  }

  #failedTransfer(client: EngineClient, token: number, kind: number, result: number): void {
    const { path } = this.#file.facts;
    if (result === -Errno.EAGAIN || result === -Errno.EINTR) {
      client.completed(token, 0, undefined);
    } else if (result === 0) {
      const error = kind === Kind.read
        ? this.#file.truncated()
        : new Error(`${path} takes no more bytes`);
      client.completed(token, 0, error);
    } else {
      const call = kind === Kind.read ? "preadv" : "pwritev";
      client.completed(token, 0, new SystemError(call, -result, path));
    }
  }

  #rangeEnded(kind: number, position: number, length: number, code: number): void {
    if (kind === Kind.flush) {
      if (code !== 0) throw new SystemError("fdatasync", code, this.#file.facts.path);
    } else if (kind === Kind.discard) {
      this.#file.discarded(code);
    } else {
      const hole = kind === Kind.hole;
      const mode = hole ? AllocateMode.hole : AllocateMode.zero;
      // What the file system cannot do is known now, and done in another way at once.
      if (!this.#file.zeroed(mode, code)) this.#file.zero(position, length, hole);
    }
  }

  /** The blocks around it are read and written: nobody else may write there meanwhile. */
  #writeAlone(position: number, list: PieceList, durable: boolean): number {
    // Taken out before: what is told from inside may begin operations, which use the list.
    const bytes = new Uint8Array(Math.min(list.bytes, LARGEST_COPY));
    list.gather(bytes);
    this.drain();
    const piece = new SinglePiece();
    piece.set(bytes, 0, bytes.length);
    return this.#file.write(position, bytes.length, piece, durable);
  }

  /** Has the event loop look when there are completions, as long as something is under way. */
  async #watch(): Promise<void> {
    const poll = this.#poll;
    while (this.inFlight > 0 && !this.polled) {
      await poll.waitLater(-1);
      this.#wake!.take();
      // Nobody need be woken up by this look.
      const watching = this.#watching;
      this.#watching = null;
      this.reap();
      this.#watching = watching;
    }
    this.#watching = null;
  }
}
