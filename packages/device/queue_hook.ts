/** What others see of a queue that is served: those who look on, and a device that takes chains when it likes. */
import type { Chain, Queue } from "@virtio/vring";

/** What one queue did since the device was made. Plain numbers, always counted: a few stores a batch, two a chain. */
export class QueueCounters {
  /** Kicks that reached the device. */
  kicks = 0;
  /** Used buffer notifications sent. */
  interrupts = 0;
  /** Chains handed to the device. */
  chains = 0;
  /** Descriptors of those chains. */
  descriptors = 0;
}

/** A queue of a device, for those who look on: `QueueDevice.queueHooks`. Costs nothing while nobody does. */
export interface QueueHook {
  /** The queue while it is started. */
  readonly queue: Queue | null;
  /** What it did. */
  readonly counters: QueueCounters;
  /** Whether chains stay in the queue, except for `step`. What is in flight goes on. */
  held: boolean;
  /** Lets the device have one more chain of a held queue. */
  step(): void;
}

/** A queue whose chains the device takes when it has something to say: `QueueDevice.lazyQueue`. */
export interface LazyQueue {
  /** The next chain, or null. */
  take(): Chain | null;
  /** Puts the chain that was taken last back. */
  untake(chain: Chain): void;
  /**
   * Uses a chain. Ignored if a reset dropped it.
   *
   * @param written Bytes written from the start of the device-writable part; what the chain's writer counted unless given.
   */
  complete(chain: Chain, written?: number): void;
}
