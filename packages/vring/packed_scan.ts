/** Which slots of a packed ring the driver has made available: what their flags say (virtio 1.4, 2.8.1). */
import { VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from "./layout.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const AVAIL = VIRTQ_DESC_F_AVAIL;
const USED = VIRTQ_DESC_F_USED;
const BOTH = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;

/**
 * Counts the available slots from the next one on. The atomic load of the first slot orders what was published before it,
 * that of the last slot what was published later; between them plain loads are enough.
 *
 * @param ring Index of the ring's first word in the region's i32.
 * @param wrap The device's wrap counter at the slot `next`.
 */
export function availableSlots(
  u16: Uint16Array,
  ring: number,
  size: number,
  next: number,
  wrap: number,
): number {
  // The flags are the last half of a descriptor's last word.
  const start = (2 * ring + 7) | 0;
  const end = (start + (size << 3)) | 0;
  const first = (start + (next << 3)) | 0;
  const expected = wrap === 1 ? AVAIL : USED;
  if ((Atomics.load(u16, first) & BOTH) !== expected) return 0;
  let at = (first + 8) | 0;
  while (at < end && (u16[at]! & BOTH) === expected) at = (at + 8) | 0;
  let last = (at - 8) | 0;
  let seen = (at - first) >> 3;
  if (at === end) {
    const wrapped = expected ^ BOTH;
    at = start;
    while (at < first && (u16[at]! & BOTH) === wrapped) at = (at + 8) | 0;
    seen = (seen + ((at - start) >> 3)) | 0;
    if (at !== start) last = (at - 8) | 0;
  }
  if (seen > 1) Atomics.load(u16, last);
  return seen;
}

/** Whether the slot `next` is available. The parameters are those of `availableSlots`. */
export function isAvailable(u16: Uint16Array, ring: number, next: number, wrap: number): boolean {
  const flags = Atomics.load(u16, 2 * ring + 8 * next + 7);
  return (flags & BOTH) === (wrap === 1 ? AVAIL : USED);
}
