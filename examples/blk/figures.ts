/** What the example counts, and how it shows it. */
import type { BlkStats } from "@virtio/blk";
import type { QueueCounters } from "@virtio/device";
import { mebibytes, type QueueFigures, queueFigures, ratio, table } from "../shared/figures.ts";

/** The figures of a run. */
export interface Figures extends QueueFigures {
  readonly requests: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly flushes: number;
  readonly discards: number;
  readonly errors: number;
  /** Times that the driver's processor left its code for the host: register accesses, kicks among them. */
  readonly exits: number;
}

/** What a block device counts. */
export interface Counted {
  readonly stats: Readonly<BlkStats>;
  readonly queueCounters: readonly Readonly<QueueCounters>[];
}

/** Reads a device's counters. */
export function readFigures(device: Counted, exits: number): Figures {
  const { stats } = device;
  return {
    requests: stats.requests,
    bytesRead: stats.bytesRead,
    bytesWritten: stats.bytesWritten,
    flushes: stats.flushes,
    discards: stats.discards,
    errors: stats.errors + stats.unsupported,
    ...queueFigures(device.queueCounters),
    exits,
  };
}

/** The table that the user sees at the end. */
export function figureTable(figures: Figures): string {
  const { requests } = figures;
  // What another program's disk did, that program knows.
  if (requests === 0) return table([["exits to the host", String(figures.exits)]], {});
  const each = (count: number): string => `${ratio(count, requests)} a request`;
  return table([
    ["requests", String(requests)],
    ["read by the guest", mebibytes(figures.bytesRead)],
    ["written by the guest", mebibytes(figures.bytesWritten)],
    ["kicks", String(figures.kicks)],
    ["interrupts", String(figures.interrupts)],
    ["descriptors", String(figures.descriptors)],
    ["exits to the host", String(figures.exits)],
  ], {
    requests: `${figures.flushes} flushes`,
    kicks: each(figures.kicks),
    interrupts: each(figures.interrupts),
    descriptors: each(figures.descriptors),
    "exits to the host": each(figures.exits),
  });
}
