/**
 * Sequence numbers (RFC 9293, 3.4): signed integers of 32 bits that wrap around. Two are compared by the sign of their
 * difference, which is right while they are less than 2^31 apart.
 */

/** How far `a` is ahead of `b`; negative if it is behind. */
export function ahead(a: number, b: number): number {
  return (a - b) | 0;
}

/** The number `count` after `sequence`. */
export function advance(sequence: number, count: number): number {
  return (sequence + count) | 0;
}
