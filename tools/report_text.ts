/** Results of benchmarks as text: what is the same in all reports. */
import type { Spread } from "../bench/harness.ts";

/** Rows as lines of a table with aligned columns; the first `left` columns begin at the left, numbers end at the right. */
export function textTable(rows: readonly (readonly string[])[], left: number): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((each) => each[i]!.length)));
  return rows.map((each) =>
    each.map((cell, i) => i < left ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
      .trimEnd()
  );
}

/** A median and its quartiles. */
export function spreadText({ median, low, high }: Spread): string {
  return `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

/** What else was going on. */
export function loadNote(load: number, processors: number): string {
  return `Load was ${load.toFixed(1)} on ${processors} processors.`;
}
