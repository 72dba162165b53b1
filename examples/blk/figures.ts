/** What the example counts, and how it shows it. */
import type { BlkDevice } from "@virtio/blk";

/** The figures of a run. */
export interface Figures {
  readonly requests: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly flushes: number;
  readonly discards: number;
  readonly errors: number;
  readonly kicks: number;
  readonly interrupts: number;
  readonly descriptors: number;
  /** Times that the driver's processor left its code for the host: register accesses, kicks among them. */
  readonly exits: number;
}

/** Reads a device's counters. */
export function readFigures(device: BlkDevice, exits: number): Figures {
  const { stats } = device;
  const sum = (of: (counters: BlkDevice["queueCounters"][number]) => number): number =>
    device.queueCounters.reduce((total, counters) => total + of(counters), 0);
  return {
    requests: stats.requests,
    bytesRead: stats.bytesRead,
    bytesWritten: stats.bytesWritten,
    flushes: stats.flushes,
    discards: stats.discards,
    errors: stats.errors + stats.unsupported,
    kicks: sum((counters) => counters.kicks),
    interrupts: sum((counters) => counters.interrupts),
    descriptors: sum((counters) => counters.descriptors),
    exits,
  };
}

function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function ratio(a: number, b: number): string {
  return b === 0 ? "-" : (a / b).toFixed(2);
}

/** The table that the user sees at the end. */
export function figureTable(figures: Figures): string {
  const rows: [string, string, string][] = [
    ["requests", String(figures.requests), `${figures.flushes} flushes`],
    ["read by the guest", megabytes(figures.bytesRead), ""],
    ["written by the guest", megabytes(figures.bytesWritten), ""],
    ["kicks", String(figures.kicks), `${ratio(figures.kicks, figures.requests)} a request`],
    [
      "interrupts",
      String(figures.interrupts),
      `${ratio(figures.interrupts, figures.requests)} a request`,
    ],
    [
      "descriptors",
      String(figures.descriptors),
      `${ratio(figures.descriptors, figures.requests)} a request`,
    ],
    [
      "exits to the host",
      String(figures.exits),
      `${ratio(figures.exits, figures.requests)} a request`,
    ],
  ];
  return rows.map(([name, value, note]) =>
    `  ${name.padEnd(22)}${value.padStart(12)}   ${note}`.trimEnd()
  ).join("\n");
}
