import { DEVICE_TYPE_FEATURES, type FeatureSet } from "./features.ts";
import type { SavedQueue } from "./queue_setup.ts";
import {
  VIRTIO_STATUS_DRIVER_OK,
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

/** The checks of a saved state that need nothing but the state. */
export function checkSaved(
  saved: SavedDevice,
  type: number,
  offered: FeatureSet,
  queueCount: number,
): void {
  if (
    saved === null || typeof saved !== "object" || saved.version !== 1 ||
    !Number.isInteger(saved.status) || saved.status < 0 || saved.status > 0xff ||
    typeof saved.accepted !== "bigint" || typeof saved.configChanged !== "boolean" ||
    !Array.isArray(saved.queues)
  ) {
    throw new TypeError("Cannot restore a device: its saved state is malformed");
  }
  if (saved.type !== type) {
    throw new TypeError(`Cannot restore a device of type ${saved.type} into one of type ${type}`);
  }
  if (saved.queues.length !== queueCount) {
    throw new RangeError(
      `Cannot restore a device of ${saved.queues.length} queues into one of ${queueCount}`,
    );
  }
  const running = VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_SUSPEND;
  if ((saved.status & running) !== 0 && (saved.status & VIRTIO_STATUS_FEATURES_OK) === 0) {
    throw new RangeError("Cannot restore a device that runs without negotiated features");
  }
  if ((saved.status & running) === running) {
    throw new RangeError("Cannot restore a device that is both running and suspended");
  }
  if (saved.accepted < 0n || (saved.accepted & ~offered & DEVICE_TYPE_FEATURES) !== 0n) {
    throw new RangeError(
      "Cannot restore a device: its driver had accepted features that this one does not offer",
    );
  }
}
