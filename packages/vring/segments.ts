import type { GuestMemory, WriteTracker } from "@virtio/memory";
import type { Chain } from "./chain.ts";
import { VirtqueueError } from "./errors.ts";

/** A chain describes at most this many bytes (2.7.5.2). */
const MAX_CHAIN_BYTES = 0x1_0000_0000;

/**
 * Adds one descriptor's buffer to a chain: the checks that do not depend on the ring's format. Everything here is
 * driver-controlled and was read once.
 *
 * @param high Upper half of the address.
 */
export function addBuffer(
  chain: Chain,
  memory: GuestMemory,
  low: number,
  high: number,
  length: number,
  writable: boolean,
): void {
  if (writable) {
    chain.writable += length;
  } else {
    if (chain.count !== chain.readableCount) throw wrongOrder();
    chain.readable += length;
  }
  const address = high === 0 ? low : low + high * 0x1_0000_0000;
  const region = memory.lookupSegment(address, length);
  if (region !== null && length !== 0) {
    chain.add(region, address - region.base, length);
    if (!writable) chain.readableCount = chain.count;
  } else {
    addAcrossRegions(chain, memory, address, length, writable);
  }
}

/** Device-readable buffers come first (2.7.4.2, 2.8.17). */
export function wrongOrder(): VirtqueueError {
  return new VirtqueueError(
    "2.7.4.2",
    "A device-readable descriptor comes after a device-writable one",
  );
}

/** The slow way: an empty buffer, one that crosses from a region into an adjacent one, or one outside of memory. */
function addAcrossRegions(
  chain: Chain,
  memory: GuestMemory,
  address: number,
  length: number,
  writable: boolean,
): void {
  let done = 0;
  while (done < length) {
    const region = memory.lookupSegment(address + done, 1);
    if (region === null) {
      throw new VirtqueueError(
        "2.7.5",
        `A descriptor points to 0x${
          address.toString(16)
        }, ${length} bytes, where no guest memory is`,
      );
    }
    const offset = address + done - region.base;
    const part = Math.min(region.size - offset, length - done);
    chain.add(region, offset, part);
    done += part;
  }
  if (!writable) chain.readableCount = chain.count;
}

/** The check of the whole chain, after its last descriptor. */
export function checkTotal(chain: Chain): void {
  if (chain.readable + chain.writable > MAX_CHAIN_BYTES) {
    throw new VirtqueueError("2.7.5.2", "A descriptor chain is longer than 2^32 bytes in total");
  }
}

/** Tells the tracker what a device may have written through a chain. */
export function trackWrites(tracker: WriteTracker, chain: Chain): void {
  for (let i = chain.readableCount; i < chain.count; i++) {
    tracker.mark(chain.regions[i]!.base + chain.offsets[i]!, chain.lengths[i]!);
  }
}
