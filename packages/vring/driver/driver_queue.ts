import type { QueueConfig } from "../queue.ts";
import type { BufferList } from "./buffer_list.ts";

/**
 * The driver side of a virtqueue. It keeps its own record of what is in flight and believes the device nothing: every used
 * buffer is checked against that record, and descriptors are never read back from shared memory.
 *
 * Not reentrant and used from one thread. The life of a batch:
 *
 * ```text
 * while (add(list, token)) ...        descriptors written, not yet visible
 * if (publish()) kick                 one atomic store; does the device want a kick?
 * while ((token = take()) >= 0) ...   what the device used
 * if (enableInterrupts()) take again  interrupts wanted; more may have come in the gap
 * ```
 */
export interface DriverQueue {
  /** Where the queue lies: what the transport must tell the device. */
  readonly config: QueueConfig;
  /** Number of entries. */
  readonly size: number;
  /** Descriptors that are free. */
  readonly free: number;
  /** Buffers that the device has not given back. */
  readonly inFlight: number;
  /** Bytes that the device says it wrote, for the buffer that `take` returned last. */
  readonly usedLength: number;

  /**
   * Writes the descriptors of one buffer. The device sees it after `publish()`.
   *
   * @param buffers Copied; at least one element.
   * @param token Given back by `take`; 0 or above.
   * @param table Guest-physical address with room for 16 bytes an element, for one indirect descriptor instead of several;
   * left alone until the buffer is used. Only where VIRTIO_F_INDIRECT_DESC was negotiated.
   * @returns False if there is not enough room; nothing is written then.
   * @throws {TypeError} If the list is empty, or a table is given though indirect descriptors were not negotiated.
   * @throws {RangeError} If the buffer could never fit, or is longer than 2^32 bytes.
   */
  add(buffers: BufferList, token: number, table?: number): boolean;

  /** Makes everything added available. @returns Whether the device must be kicked. */
  publish(): boolean;

  /** What a kick carries with VIRTIO_F_NOTIFICATION_DATA: next_off, and next_wrap in bit 15 (2.9). */
  notificationData(): number;

  /**
   * The next used buffer.
   *
   * @returns Its token, or -1.
   * @throws {VirtqueueError} If the device broke a rule: the driver must reset it.
   */
  take(): number;

  /**
   * Asks for used buffer notifications.
   *
   * @param after With VIRTIO_F_EVENT_IDX: only when this many more buffers than the next one are used.
   * @returns Whether used buffers are there already, so that the caller must look again.
   */
  enableInterrupts(after?: number): boolean;

  /** Asks for no used buffer notifications. Advice only. */
  disableInterrupts(): void;

  /**
   * The tokens in flight, in no order, for a driver that has reset the device. The queue is empty afterwards and may only be
   * used again through a new one.
   */
  drain(): number[];
}
