/** How an example shows what it counted. */
import type { QueueCounters } from "@virtio/device";

/** What the queues of a device did, all together. */
export interface QueueFigures {
  readonly kicks: number;
  readonly interrupts: number;
  readonly descriptors: number;
}

/** Adds up the counters of a device's queues. */
export function queueFigures(counters: readonly QueueCounters[]): QueueFigures {
  const sum = (of: (one: QueueCounters) => number): number =>
    counters.reduce((total, one) => total + of(one), 0);
  return {
    kicks: sum((one) => one.kicks),
    interrupts: sum((one) => one.interrupts),
    descriptors: sum((one) => one.descriptors),
  };
}

/** Bytes as mebibytes. */
export function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** How many of `a` there are for each of `b`. */
export function ratio(a: number, b: number): string {
  return b === 0 ? "-" : (a / b).toFixed(2);
}

/**
 * A table of figures.
 *
 * @param rows Name, then one cell for each column.
 * @param notes What to write behind a row, by its name.
 */
export function table(
  rows: readonly (readonly string[])[],
  notes: Readonly<Record<string, string>> = {},
): string {
  const columns = Math.max(...rows.map((row) => row.length));
  const width = (column: number): number =>
    Math.max(12, ...rows.map((row) => (row[column] ?? "").length + 2));
  return rows.map((row) => {
    let line = `  ${row[0]!.padEnd(22)}`;
    for (let column = 1; column < columns; column++) {
      line += (row[column] ?? "").padStart(width(column));
    }
    return `${line}   ${notes[row[0]!] ?? ""}`.trimEnd();
  }).join("\n");
}
