import type { GuestMemory } from "@virtio/memory";
import { ringLayout, VIRTIO_F_RING_PACKED } from "../layout.ts";
import { resolveAreas } from "../open_queue.ts";
import type { QueueConfig } from "../queue.ts";
import type { DriverQueue } from "./driver_queue.ts";
import { PackedDriverQueue } from "./packed_driver_queue.ts";
import { SplitDriverQueue } from "./split_driver_queue.ts";

/**
 * Opens the driver side of a fresh virtqueue in the format that was negotiated. The three areas are set to zero, as both
 * sides expect them (2.7.10.1, 2.8.10); tell the device of the queue afterwards.
 *
 * @param features The negotiated features.
 * @throws {VirtqueueError} If the size is not allowed, or an area is misaligned or not in guest memory.
 */
export function openDriverQueue(
  memory: GuestMemory,
  config: QueueConfig,
  features: bigint,
): DriverQueue {
  const packed = (features & VIRTIO_F_RING_PACKED) !== 0n;
  const format = packed ? "packed" : "split";
  const areas = resolveAreas(memory, config, format);
  const layout = ringLayout(format, config.size);
  memory.fill(config.descriptorArea, layout.descriptorArea.size);
  memory.fill(config.driverArea, layout.driverArea.size);
  memory.fill(config.deviceArea, layout.deviceArea.size);
  return packed
    ? new PackedDriverQueue(memory, config, areas, features)
    : new SplitDriverQueue(memory, config, areas, features);
}
