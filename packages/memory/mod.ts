/**
 * Guest memory as a device sees it: regions of guest-physical addresses, checked once, then accessed without copies.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { GuestMemory } from "@virtio/memory";
 * import { assertEquals } from "@std/assert";
 *
 * const memory = GuestMemory.allocate(64 * 1024);
 * memory.writeU32(0x1000, 0x12345678);
 * assertEquals(memory.readU16(0x1002), 0x1234);
 * ```
 *
 * @module
 */
export { allocateBytes } from "./copy.ts";
export { DIRTY_PAGE_SIZE, DirtyBitmap } from "./dirty_bitmap.ts";
export { AddressError } from "./errors.ts";
export { type BufferHolder, MemoryRegion, type RegionSource } from "./region.ts";
export { GuestMemory, type SharedMemory, type SharedRegion, type WriteTracker } from "./memory.ts";
