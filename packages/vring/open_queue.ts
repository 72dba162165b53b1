import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import { VirtqueueError } from "./errors.ts";
import {
  type AreaLayout,
  isQueueSize,
  type RingFormat,
  ringLayout,
  VIRTIO_F_RING_PACKED,
} from "./layout.ts";
import { PackedQueue } from "./packed_queue.ts";
import type { Queue, QueueConfig, QueuePosition } from "./queue.ts";
import { SplitQueue } from "./split_queue.ts";

/**
 * Opens the device side of a virtqueue in the format that was negotiated. Every value may be driver-controlled, or come
 * from a saved state: all are checked here, and rings then only work with offsets into known regions.
 *
 * @param features The negotiated features.
 * @throws {VirtqueueError} If the size is not allowed, or an area is misaligned or not in guest memory.
 *
 * @example One chain through a split queue
 * ```ts
 * import { GuestMemory } from "@virtio/memory";
 * import { openQueue } from "@virtio/vring";
 * import { BufferList, openDriverQueue } from "@virtio/vring/driver";
 * import { assertEquals } from "@std/assert";
 *
 * const memory = GuestMemory.allocate(0x10000);
 * const config = { size: 8, descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };
 * const driver = openDriverQueue(memory, config, 0n);
 * const device = openQueue(memory, config, 0n);
 *
 * memory.write(0x4000, new TextEncoder().encode("ping"));
 * driver.add(new BufferList().readable(0x4000, 4).writable(0x5000, 16), 7);
 * driver.publish();
 *
 * const chain = device.pop()!;
 * const request = new Uint8Array(4);
 * chain.reader.read(request);
 * chain.writer.write(request.reverse());
 * device.push(chain);
 * device.flush();
 *
 * assertEquals(driver.take(), 7);
 * assertEquals(driver.usedLength, 4);
 * const answer = new Uint8Array(4);
 * memory.read(0x5000, answer);
 * assertEquals(new TextDecoder().decode(answer), "gnip");
 * ```
 */
export function openQueue(memory: GuestMemory, config: QueueConfig, features: bigint): Queue {
  const packed = (features & VIRTIO_F_RING_PACKED) !== 0n;
  const areas = resolveAreas(memory, config, packed ? "packed" : "split");
  return packed
    ? new PackedQueue(memory, config, areas, features)
    : new SplitQueue(memory, config, areas, features);
}

/** One area of a queue: the region that holds it, and where. */
export interface ResolvedArea {
  /** The region that holds the whole area. */
  readonly region: MemoryRegion;
  /** Offset of its first byte there. */
  readonly offset: number;
}

/** The three areas of a queue, checked. */
export interface ResolvedAreas {
  /** Descriptor area. */
  readonly descriptor: ResolvedArea;
  /** Driver area. */
  readonly driver: ResolvedArea;
  /** Device area. */
  readonly device: ResolvedArea;
}

/** Checks the size, the addresses and the position of a queue; used by both sides. */
export function resolveAreas(
  memory: GuestMemory,
  config: QueueConfig,
  format: RingFormat,
): ResolvedAreas {
  const { size } = config;
  if (!isQueueSize(format, size)) {
    throw new VirtqueueError(
      format === "split" ? "2.7" : "2.8.10.1",
      `A ${format} queue cannot have size ${size}`,
    );
  }
  if (config.position !== undefined) checkPosition(config.position, size, format);
  const layout = ringLayout(format, size);
  const clause = format === "split" ? "2.7.1" : "2.8.11";
  return {
    descriptor: resolve(
      memory,
      config.descriptorArea,
      layout.descriptorArea,
      "descriptor",
      clause,
    ),
    driver: resolve(memory, config.driverArea, layout.driverArea, "driver", clause),
    device: resolve(memory, config.deviceArea, layout.deviceArea, "device", clause),
  };
}

function resolve(
  memory: GuestMemory,
  address: number,
  layout: AreaLayout,
  name: string,
  clause: string,
): ResolvedArea {
  if (address % layout.align !== 0) {
    throw new VirtqueueError(
      clause,
      `The ${name} area lies at 0x${address.toString(16)}, no multiple of ${layout.align}`,
    );
  }
  const region = memory.lookupSegment(address, layout.size);
  if (region === null) {
    throw new VirtqueueError(
      clause,
      `The ${name} area of ${layout.size} bytes at 0x${
        address.toString(16)
      } is not in one region of guest memory`,
    );
  }
  return { region, offset: address - region.base };
}

function checkPosition(position: QueuePosition, size: number, format: RingFormat): void {
  const limit = format === "split" ? 0x10000 : size;
  const wraps = format === "split" ? 1 : 2;
  const { nextAvail, nextUsed, availWrap, usedWrap } = position;
  for (
    const [name, value, end] of [
      ["nextAvail", nextAvail, limit],
      ["nextUsed", nextUsed, limit],
      ["availWrap", availWrap, wraps],
      ["usedWrap", usedWrap, wraps],
    ] as const
  ) {
    if (!Number.isInteger(value) || value < 0 || value >= end) {
      throw new VirtqueueError(
        format === "split" ? "2.7.6" : "2.8.1",
        `A ${format} queue cannot go on at ${name} ${value}: it must be below ${end}`,
      );
    }
  }
}
