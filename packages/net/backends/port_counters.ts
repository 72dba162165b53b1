import type { DropReason, SwitchPortCounters } from "./switch_options.ts";

/** Where each counter is. */
export const Count = {
  framesIn: 0,
  bytesIn: 1,
  framesOut: 2,
  bytesOut: 3,
  flooded: 4,
  moves: 5,
  unlearned: 6,
} as const;

/** Where the counter of each reason is. */
export const Drop: Readonly<Record<DropReason, number>> = Object.freeze({
  down: 7,
  short: 8,
  long: 9,
  source: 10,
  spoofed: 11,
  vlan: 12,
  reserved: 13,
  filtered: 14,
  flood: 15,
  overrun: 16,
  malformed: 17,
  error: 18,
});

/** Counters in an array: counting never boxes a number. */
export function newCounts(): Float64Array {
  return new Float64Array(Math.max(...Object.values(Drop)) + 1);
}

/** The counters by name. */
export function readCounts(counts: Float64Array): SwitchPortCounters {
  const drops = Object.fromEntries(Object.entries(Drop).map(([name, at]) => [name, counts[at]!]));
  return {
    framesIn: counts[Count.framesIn]!,
    bytesIn: counts[Count.bytesIn]!,
    framesOut: counts[Count.framesOut]!,
    bytesOut: counts[Count.bytesOut]!,
    flooded: counts[Count.flooded]!,
    moves: counts[Count.moves]!,
    unlearned: counts[Count.unlearned]!,
    drops: drops as Record<DropReason, number>,
  };
}
