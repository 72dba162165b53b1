/** The measurement for people: a table, and a picture. */
import type { Spread } from "../../bench/harness.ts";
import { type BarChart, drawPicture, readable } from "../svg.ts";
import { type GuestBench, type Row, type WorkName, WORKS } from "./measure.ts";

const TITLES: Readonly<Record<WorkName, string>> = {
  read4k: "4 KiB reads",
  read: "sequential read",
  write: "sequential write",
};

function unit(work: WorkName): string {
  return work === "read4k" ? "/s" : " MB/s";
}

function range({ low, high }: Spread): string {
  return `${low.toFixed(2)} to ${high.toFixed(2)}`;
}

function ratio(spread: Spread): string {
  return `${spread.median.toFixed(2)} (${range(spread)})`;
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
      .trimEnd()
  ).join("\n");
}

function speedTable(bench: GuestBench): string {
  const rows = [["", ...WORKS.flatMap((work) => [TITLES[work], "times IDE"])]];
  for (const row of bench.rows) {
    rows.push([
      row.label,
      ...WORKS.flatMap((work) => [
        `${Math.round(row.speed[work].median).toLocaleString("en-US")}${unit(work)}`,
        row.name === "ide" ? "1" : ratio(row.overIde[work]),
      ]),
    ]);
  }
  return table(rows);
}

function costTable(bench: GuestBench): string {
  const rows = [["a request of the guest's block layer", "of", "bytes", "exits", "interrupts"]];
  rows[0]!.push("copied a byte");
  for (const { label, perRequest } of bench.rows) {
    if (perRequest === null) continue;
    WORKS.forEach((work, i) => {
      const cost = perRequest[work];
      rows.push([
        i === 0 ? label : "",
        TITLES[work],
        Math.round(cost.bytes).toLocaleString("en-US"),
        cost.exits.toFixed(2),
        cost.interrupts.toFixed(2),
        cost.copies.toFixed(2),
      ]);
    });
  }
  return table(rows);
}

function method(bench: GuestBench): string[] {
  const { rounds, reads, megabytes, diskBytes, kernel, guestClock, processors, load } = bench;
  return [
    `One boot of Linux ${kernel} in v86 with all disks, ${diskBytes / 2 ** 20} MiB each, ` +
    `of the same contents. ${rounds} rounds, each with all disks in random order.`,
    `One program in the guest does ${reads} reads of 4 KiB, or ${megabytes} requests of 1 MiB, with O_DIRECT, ` +
    "one after the other, disk after disk, and takes the time of each disk.",
    "Medians; ratios are taken within a round, with their quartiles. MB are 10^6 bytes. Absolute times are the machine's.",
    `The guest's clock ran ${guestClock.toFixed(3)} times as fast as the host's. Load was ${
      load.toFixed(1)
    } on ` +
    `${processors} processors; one is the guest's, and above that the host's row gains on the others.`,
    "Exits: register accesses that the host answers (IDE: ports of the channel; virtio: BAR or window). " +
    "Interrupts and requests: the guest's count.",
    "Copied: bytes that the host's process moved, by byte of the disk, counted at what does it; for the file also " +
    "what the kernel moved from or to its page cache.",
    "IDE's writes go through a buffer of v86. virtio works on guest memory in place; requests in many pieces to a file " +
    "are put together first, in a buffer.",
    "The host's row does the same requests itself on a file with O_DIRECT: what pass-through could give at most. " +
    "Its disk is real, the others' is memory or page cache.",
  ];
}

/** The tables and how they came about. */
export function benchTable(bench: GuestBench): string {
  const parts = [speedTable(bench), "", costTable(bench), "", ...method(bench)];
  if (bench.noHost !== null) parts.push(`The host's row is missing. ${bench.noHost}`);
  return parts.join("\n");
}

/** What a bar is drawn in: IDE, virtio, the host. */
function colour(row: Row): number {
  return row.name === "ide" ? 5 : row.name === "host" ? 2 : 0;
}

function speedChart(bench: GuestBench, work: WorkName): BarChart {
  return {
    kind: "bars",
    title: `${TITLES[work]}, times as fast as IDE`,
    reference: { value: 1, label: "IDE" },
    bars: bench.rows.map((row) => ({
      label: row.label,
      value: row.overIde[work],
      text: row.overIde[work].median.toFixed(2) +
        ` (${readable(Math.round(row.speed[work].median))}${unit(work)})`,
      colour: colour(row),
    })),
  };
}

function costChart(bench: GuestBench): BarChart {
  return {
    kind: "bars",
    title: "exits to the host for a 4 KiB read",
    bars: bench.rows.flatMap((row) => {
      if (row.perRequest === null) return [];
      const { exits } = row.perRequest.read4k;
      return [{
        label: row.label,
        value: { median: exits, low: exits, high: exits },
        colour: colour(row),
      }];
    }),
  };
}

/** The picture. */
export function benchPicture(bench: GuestBench): string {
  return drawPicture({
    title: "virtio-blk against a fully emulated IDE disk, in one Linux guest in v86",
    charts: [...WORKS.map((work) => speedChart(bench, work)), costChart(bench)],
    notes: [
      `One boot with all disks, O_DIRECT, one request at a time; medians and quartiles of ${bench.rounds} rounds`,
      "in random order, ratios within a round. The host's own row is on a real disk, what pass-through could",
      "give at most; the others are in memory or, on a file, in the host's page cache.",
    ],
  });
}
