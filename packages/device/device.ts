import type { GuestMemory } from "@virtio/memory";
import type { Queue } from "@virtio/vring";
import type { ConfigSpace } from "./config_space.ts";
import type { FeatureRequirement, FeatureSet } from "./features.ts";

/** Device types (virtio 1.4, 5). */
export const DeviceId = {
  /** Network device (5.1). */
  net: 1,
  /** Block device (5.2). */
  block: 2,
  /** Console (5.3). */
  console: 3,
  /** Entropy source (5.4). */
  entropy: 4,
} as const;

/** How a device tells the driver something. Transports implement it. */
export interface Interrupt {
  /** Sends a used buffer notification for the queue. */
  queue(index: number): void;
  /** Sends a configuration change notification. */
  config(): void;
}

/** What a device gets when the driver sets it going. */
export interface Activation {
  /** Guest memory; `refresh()` has been called. */
  readonly memory: GuestMemory;
  /** The negotiated features. */
  readonly features: FeatureSet;
  /** The way to the driver. */
  readonly interrupt: Interrupt;
  /**
   * Asks for a reset (DEVICE_NEEDS_RESET): for an error that the device cannot answer a request with. Queues are not served
   * any more.
   */
  fail(error: unknown): void;
}

/** Something outside of the rings that a device waits for, such as completions of the host's. */
export interface PollSource {
  /** Readable when there is something. */
  readonly descriptor: number;
  /**
   * Sees to what is there; all that completes is published when this returns. May be called at any time: a look costs next to
   * nothing.
   *
   * @returns How much there was.
   */
  ready(): number;
}

/** A piece of memory that a device shows to the driver beside its queues (virtio 1.4, 2.10). */
export interface SharedMemoryRegion {
  /** The shmid, 0 to 255; what it means is defined by the device type. */
  readonly id: number;
  /** The bytes; for a transport that exposes them. */
  readonly bytes: Uint8Array;
  /** Guest-physical address, for a transport that tells rather than maps it (MMIO). */
  readonly address: number;
}

/**
 * A virtio device, behind any transport. It has no status, knows no registers and not where it runs: `DeviceState` drives it.
 *
 * ```text
 *            start()            startQueue(i)...          stop()
 *  reset  ----------> started ------------------> live ----------> reset
 *                        ^                          |
 *                        |  stopQueue(i) ...        |   drained: the queue is the caller's again
 *                        +--------------------------+   (queue reset, suspend, snapshot, hand-over)
 * ```
 */
export interface Device {
  /** Device type (5). */
  readonly type: number;
  /** Feature bits of the device type that it offers; bits of the ring and the transport are not its business. */
  readonly features: FeatureSet;
  /** Pairs of features of which the first needs the second (2.2); none unless given. */
  readonly requires?: readonly FeatureRequirement[];
  /** Largest size of each queue; its length is the number of queues. */
  readonly queueSizes: readonly number[];
  /** The device-specific configuration space (2.5). */
  readonly config: ConfigSpace;
  /** Shared memory regions, if the device has any. */
  readonly sharedMemory?: readonly SharedMemoryRegion[];

  /**
   * Whether the device can work with this subset of its features; asked when the driver sets FEATURES_OK. Always, unless
   * given: `requires` is checked before.
   */
  accepts?(features: FeatureSet): boolean;
  /** The driver set DRIVER_OK, or resumed. Queues follow. */
  start(activation: Activation): void;
  /** A queue is ready. Kicks may come from now on. */
  startQueue(index: number, queue: Queue): void;
  /**
   * Stops one queue. The promise (or the return) comes when nothing of it is in flight and everything used was flushed;
   * the queue is the caller's again.
   */
  stopQueue(index: number): Queue | Promise<Queue>;
  /** The driver kicked the queue. May be called for a queue that is not started, and more often than needed. */
  notify(index: number): void;
  /**
   * Reset: drops everything that is in flight. When this returns (or its promise resolves) nothing may touch guest memory
   * or raise an interrupt any more.
   */
  stop(): void | Promise<void>;
  /**
   * What a thread has to see to that serves the device by waiting for descriptors. Who calls this does that from then on; for
   * others the device sees to it by the event loop.
   */
  pollSources?(): readonly PollSource[];
  /** The device's own state as plain data, for `DeviceState.save`; called while no queue is started. */
  save?(): unknown;
  /**
   * Takes over what `save` gave; called before `start`.
   *
   * @throws {TypeError} If it is malformed.
   */
  restore?(saved: unknown): void;
}
