import { type FeatureSet, VIRTIO_F_SUSPEND } from "./features.ts";
import type { SavedQueue } from "./queue_setup.ts";
import {
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
  VIRTIO_STATUS_SUSPEND,
} from "./status.ts";

/** A device as plain data that `structuredClone` takes: what a transport's own state does not hold. */
export interface SavedDevice {
  /** Which layout this object has. */
  readonly version: 1;
  /** Device type. */
  readonly type: number;
  /** Device status. */
  readonly status: number;
  /** Feature bits that the driver wrote. */
  readonly accepted: FeatureSet;
  /** Whether a configuration change notification waits for the device to run again. */
  readonly configChanged: boolean;
  /** The queues, all of them. */
  readonly queues: readonly SavedQueue[];
  /** What the device itself saved; null if it has no state. */
  readonly device: unknown;
}

/** Bits that a status can have. */
const STATUS_BITS = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
  VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_SUSPEND | VIRTIO_STATUS_DEVICE_NEEDS_RESET |
  VIRTIO_STATUS_FAILED;

/** Whether a device with this status has queues that run, or will run on when it is resumed. */
export function hasQueues(status: number): boolean {
  return (status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_SUSPEND)) !== 0 &&
    (status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) === 0;
}

/**
 * The checks of a saved state that need nothing but the state. What it says about queues and features is checked where it
 * is used.
 *
 * @throws {TypeError} If it is malformed, or of another device type.
 * @throws {RangeError} If it contradicts itself.
 */
export function checkSaved(saved: SavedDevice, type: number, queueCount: number): void {
  if (
    saved === null || typeof saved !== "object" || saved.version !== 1 ||
    !Number.isInteger(saved.type) || !Number.isInteger(saved.status) ||
    typeof saved.accepted !== "bigint" ||
    saved.accepted < 0n || saved.accepted >= 1n << 128n ||
    typeof saved.configChanged !== "boolean" || !Array.isArray(saved.queues)
  ) {
    throw new TypeError("Cannot restore a device: its saved state is malformed");
  }
  const { status, accepted, queues } = saved;
  if (saved.type !== type) {
    throw new TypeError(
      `Cannot restore a device of type ${saved.type} into one of type ${type}`,
    );
  }
  if (queues.length !== queueCount) {
    throw new RangeError(
      `Cannot restore a device of ${queues.length} queues into one of ${queueCount}`,
    );
  }
  if ((status & ~STATUS_BITS) !== 0) {
    throw new RangeError(`Cannot restore a device with status 0x${status.toString(16)}`);
  }
  const running = VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_SUSPEND;
  if ((status & running) !== 0 && (status & VIRTIO_STATUS_FEATURES_OK) === 0) {
    throw new RangeError("Cannot restore a device that runs without negotiated features");
  }
  if ((status & running) === running) {
    throw new RangeError("Cannot restore a device that is both running and suspended");
  }
  if ((status & VIRTIO_STATUS_SUSPEND) !== 0 && (accepted & VIRTIO_F_SUSPEND) === 0n) {
    throw new RangeError("Cannot restore a suspended device: VIRTIO_F_SUSPEND was not negotiated");
  }
}

/** @throws {RangeError} If a queue has a position though it cannot have run, or the other way round. */
export function checkPosition(queue: SavedQueue, status: number): void {
  if ((queue.position !== null) !== (queue.enabled && hasQueues(status))) {
    throw new RangeError("Cannot restore a queue: whether it runs contradicts the device's status");
  }
  const position = queue.position;
  if (
    position !== null &&
    (position.nextAvail !== position.nextUsed || position.availWrap !== position.usedWrap)
  ) {
    throw new RangeError("Cannot restore a queue with chains in flight: none are when it is saved");
  }
}
