import type { ChainWriter } from "@virtio/vring";
import type { BlkLifetime } from "./backend.ts";
import { LIFETIME_ESTIMATE_MAX, VIRTIO_BLK_PRE_EOL_INFO_URGENT } from "./constants.ts";

/**
 * Writes `struct virtio_blk_lifetime` (virtio 1.4, 5.2.6).
 *
 * @throws {RangeError} If it has a reserved value.
 */
export function writeLifetime(writer: ChainWriter, lifetime: BlkLifetime): void {
  const { preEolInfo, estimateTypeA, estimateTypeB } = lifetime;
  if (
    !isUpTo(preEolInfo, VIRTIO_BLK_PRE_EOL_INFO_URGENT) ||
    !isUpTo(estimateTypeA, LIFETIME_ESTIMATE_MAX) || !isUpTo(estimateTypeB, LIFETIME_ESTIMATE_MAX)
  ) {
    throw new RangeError(
      "The back end's lifetime has a reserved value, which must not be sent (virtio 1.4, 5.2.6.2)",
    );
  }
  writer.u16(preEolInfo);
  writer.u16(estimateTypeA);
  writer.u16(estimateTypeB);
}

function isUpTo(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}
