import type { Chain } from "./chain.ts";
import type { QueueLook } from "./queue_look.ts";

/** Where a virtqueue lies in guest memory, and where to go on. What a driver gave through registers, or a saved state. */
export interface QueueConfig {
  /** Number of entries. */
  readonly size: number;
  /** Guest-physical address of the descriptor area. */
  readonly descriptorArea: number;
  /** Guest-physical address of the driver area. */
  readonly driverArea: number;
  /** Guest-physical address of the device area. */
  readonly deviceArea: number;
  /** Where to go on; a fresh queue unless given. */
  readonly position?: QueuePosition;
}

/** How far a queue is. All numbers, so that it can be saved, sent to another thread, or over vhost-user. */
export interface QueuePosition {
  /** Split: the next available index, 0 to 65535. Packed: the ring slot of the next available descriptor. */
  readonly nextAvail: number;
  /** Split: the next used index, 0 to 65535. Packed: the ring slot of the next used descriptor. */
  readonly nextUsed: number;
  /** Packed: the device's wrap counter for available descriptors, 0 or 1. Split: 0. */
  readonly availWrap: number;
  /** Packed: the device's wrap counter for used descriptors, 0 or 1. Split: 0. */
  readonly usedWrap: number;
}

/** A stopped queue as plain data; `openQueue` takes it again, with every check. */
export interface QueueState extends QueueConfig {
  /** Which layout this object has. */
  readonly version: 1;
  /** Where to go on. */
  readonly position: QueuePosition;
}

/**
 * The device side of a virtqueue. Two classes implement it, `SplitQueue` and `PackedQueue`; do not add more: a call site
 * that sees five is ten times slower. Observe at the device's boundary instead.
 *
 * Not reentrant and used from one thread. The life of a batch:
 *
 * ```text
 * suspend()                       the driver need not kick while we look
 * while (chain = pop()) push(...) one atomic load at the first, one at the end
 * if (flush()) interrupt          one atomic store; was an interrupt asked for?
 * if (arm()) start again          kicks wanted again; more may have come in the gap
 * ```
 */
export interface Queue {
  /** Number of entries. */
  readonly size: number;
  /** Chains popped and not yet used. */
  readonly inFlight: number;

  /**
   * The next available chain, checked as a whole, or null. It is the caller's until `push` or `undo`.
   *
   * @throws {VirtqueueError} If the driver broke a rule; every later call throws the same.
   */
  pop(): Chain | null;

  /**
   * Uses a chain: gives it back to the driver with the number of bytes written. The driver sees it after `flush()`.
   * With VIRTIO_F_IN_ORDER it is held back until all earlier ones are used.
   *
   * @param written Bytes written from the start of the device-writable part; what the chain's writer counted unless given.
   * @throws {TypeError} If the chain is not in flight on this queue.
   * @throws {RangeError} If `written` is more than the chain's device-writable bytes.
   */
  push(chain: Chain, written?: number): void;

  /**
   * Puts the chain that was popped last back, as if it had not been popped. Several can be put back, last first.
   *
   * @throws {TypeError} If it is not the one popped last.
   */
  undo(chain: Chain): void;

  /** Publishes what was pushed. @returns Whether the driver asked for a used buffer notification now. */
  flush(): boolean;

  /** Asks for kicks. @returns Whether buffers became available meanwhile, so that the caller must look again. */
  arm(): boolean;

  /** Whether there are buffers, without asking for kicks: at most one atomic load. For those who look again and again. */
  available(): boolean;

  /** Tells the driver that it need not kick. Advice only. */
  suspend(): void;

  /**
   * Gives up on all chains in flight: they may no longer be pushed, and are empty: nothing is written through them any more. For a reset, when the driver will not see them used.
   */
  abandon(): void;

  /**
   * The queue as plain data.
   *
   * @throws {TypeError} If chains are in flight or used chains are not flushed.
   */
  snapshot(): QueueState;

  /** What it knows of itself now, for those who look on. At any time; costs nothing while nobody asks. */
  look(): QueueLook;
}
