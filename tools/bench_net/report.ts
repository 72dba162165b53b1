/** Shows what bench:net measured: tables, and a picture. */
import type { Spread } from "../../bench/harness.ts";
import { type BarChart, drawPicture, readable } from "../svg.ts";
import { type GuestResult, type GuestRow, type WorkName, WORKS } from "./measure_guest.ts";
import type { SwitchRow } from "./measure_switch.ts";

/** All that a run measured. */
export interface NetBench {
  readonly rounds: number;
  /** The C compiler, or null. */
  readonly compiler: string | null;
  readonly switch: readonly SwitchRow[];
  /** Null if it was not wanted. */
  readonly guest: GuestResult | null;
  /** Processors of the host, and how many programs wanted one meanwhile, on average over a minute. */
  readonly processors: number;
  readonly load: number;
}

const TITLES: Readonly<Record<WorkName, string>> = {
  ping: "ping, round trips",
  udp: "UDP of 64 bytes sent",
  "tcp send": "TCP sent",
  "tcp receive": "TCP received",
  write: "console output",
};

function unit(work: WorkName): string {
  return work === "ping" || work === "udp" ? "/s" : " MB/s";
}

function speed({ speed, work }: GuestRow): string {
  const { median } = speed;
  return `${readable(median >= 100 ? Math.round(median) : median)}${unit(work)}`;
}

function ratio({ median, low, high }: Spread): string {
  return `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
      .trimEnd()
  ).join("\n");
}

function label({ what, format, length }: SwitchRow): string {
  return `${what}, ${format}, ${length.toLocaleString("en-US")} bytes`;
}

function switchTable(bench: NetBench): string {
  const rows = [["frames on the switch", "M frames/s", "MB/s", "time by C's", "bytes allocated"]];
  for (const row of bench.switch) {
    rows.push([
      label(row),
      row.frames.median.toFixed(2),
      Math.round(row.megabytes.median).toLocaleString("en-US"),
      row.ratio === null ? "" : ratio(row.ratio),
      row.allocated.toFixed(0),
    ]);
  }
  return table(rows);
}

function guestTable(guest: GuestResult): string {
  const rows = [["in one Linux guest", "", "", "times v86's own"]];
  for (const work of WORKS) {
    for (const row of guest.rows.filter((row) => row.work === work)) {
      rows.push([
        TITLES[work],
        row.label,
        speed(row),
        row.name === "v86" ? "1" : ratio(row.overV86),
      ]);
    }
  }
  return table(rows);
}

function method(bench: NetBench): string[] {
  const { rounds, compiler, guest, processors, load } = bench;
  return [
    `Blocks of milliseconds in random order, ratios within a round, medians and quartiles of ${rounds} rounds. MB are 10^6 ` +
    "bytes. Absolute figures are the machine's.",
    "Driver to driver: two drivers and two devices of ours and the switch between them, PCI with MSI-X joined without a machine," +
    " memory of each guest of its own; 32 frames a kick, of 65,000 bytes 8. Devices and switch: rings that are ready.",
    compiler === null ? "There is no C compiler here." : `C: ${compiler}, -O2: the same work.`,
    ...(guest === null ? [] : [
      `One boot of Linux ${guest.kernel} in v86 with all cards and consoles; the same station answers behind each card, ` +
      "ours behind the switch. Of eight slices each the fastest.",
      "No offloads: the features that v86's own card offers, and no others.",
    ]),
    `Load was ${load.toFixed(1)} on ${processors} processors.`,
  ];
}

/** The tables and how they came about. */
export function benchTable(bench: NetBench): string {
  const parts = [switchTable(bench), ""];
  if (bench.guest !== null) parts.push(guestTable(bench.guest), "");
  return [...parts, ...method(bench)].join("\n");
}

function switchChart(bench: NetBench): BarChart[] {
  const bars = bench.switch.flatMap((row) =>
    row.ratio === null ? [] : [{
      label: label(row),
      value: row.ratio,
      text: `${row.ratio.median.toFixed(1)} (${readable(Math.round(row.megabytes.median))} MB/s)`,
      colour: row.format === "split" ? 0 : 1,
    }]
  );
  if (bars.length === 0) return [];
  return [{
    kind: "bars",
    title: "frames on the switch: our time by that of C, less is better",
    reference: { value: 1, label: "C" },
    bars,
  }];
}

function guestChart(guest: GuestResult, work: WorkName): BarChart {
  return {
    kind: "bars",
    title: `${TITLES[work]}, times as fast as v86's own`,
    reference: { value: 1, label: "v86" },
    bars: guest.rows.filter((row) => row.work === work).map((row) => ({
      label: row.label,
      value: row.overV86,
      text: `${row.overV86.median.toFixed(2)} (${speed(row)})`,
      colour: row.name === "v86" ? 5 : 0,
    })),
  };
}

/** The picture. */
export function benchPicture(bench: NetBench): string {
  const { guest } = bench;
  return drawPicture({
    title: "virtio-net and virtio-console against v86's own, and against C",
    charts: [
      ...(guest === null ? [] : WORKS.map((work) => guestChart(guest, work))),
      ...switchChart(bench),
    ],
    notes: [
      "One Linux guest in v86 with all cards and consoles, the same station behind each card; no offloads: what v86's",
      "card offers and no more. Driver to driver: two drivers and devices of ours and the switch; devices and switch:",
      `rings that are ready. Alternating blocks in random order, medians and quartiles of ${bench.rounds} rounds.`,
    ],
  });
}
