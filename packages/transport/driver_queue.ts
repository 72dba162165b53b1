import { type FeatureSet, hasFeature, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { isQueueSize, type QueueConfig } from "@virtio/vring";

/**
 * Checks what a driver is about to write into the registers of a queue.
 *
 * @throws {RangeError} If the queue does not exist, or cannot have this size in the negotiated format.
 */
export function checkQueueConfig(
  index: number,
  config: QueueConfig,
  maxSize: number,
  features: FeatureSet,
): void {
  if (maxSize === 0) throw new RangeError(`The device has no queue ${index}`);
  const format = hasFeature(features, VIRTIO_F_RING_PACKED) ? "packed" : "split";
  if (!isQueueSize(format, config.size) || config.size > maxSize) {
    throw new RangeError(
      `Queue ${index} cannot have size ${config.size}: the device allows ${maxSize}${
        format === "split" ? ", and a split queue needs a power of two" : ""
      }`,
    );
  }
}

/** The lower 32 bits of an address. */
export function lowHalf(address: number): number {
  return address >>> 0;
}

/** The upper 32 bits of an address. */
export function highHalf(address: number): number {
  return Math.floor(address / 0x1_0000_0000) >>> 0;
}
