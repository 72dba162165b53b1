/** Shows what bench:peers measured: a table and two pictures. */
import type { LineChart, Picture } from "../svg.ts";
import type { Curve, Flatness } from "./flatness.ts";
import type { PeerResult, PeerRow } from "./measure.ts";

/** The table on the terminal. */
export function peersTable(result: PeerResult): string {
  const lines = [
    "                                                  ratio   half of the rounds      ours    theirs",
  ];
  for (const row of result.rows) {
    const name = `${row.format.padEnd(7)} ${row.what}`;
    const verb = row.peer === "C" ? "x C" : "x as fast as v86";
    lines.push(
      `${name.padEnd(47)} ${row.ratio.median.toFixed(2).padStart(7)}   ${
        `${row.ratio.low.toFixed(2)} to ${row.ratio.high.toFixed(2)}`.padEnd(16)
      } ${`${row.ours.toFixed(1)} ns`.padStart(9)} ${
        `${row.theirs.toFixed(1)} ns`.padStart(9)
      }  ${verb}`,
    );
  }
  lines.push(
    "",
    "Ring of 256, batches of 64; alternating blocks of 4 ms in random order, ratios within a round, median of",
    `${result.rounds} rounds. Nanoseconds are for orientation only.`,
  );
  return lines.join("\n");
}

function bar(row: PeerRow) {
  const { median, low, high } = row.ratio;
  return {
    label: `${row.format}, ${row.what}`,
    value: row.ratio,
    text: `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
    colour: row.format === "split" ? 0 : 1,
  };
}

/** The picture of the comparisons. */
export function peersPicture(result: PeerResult): Picture {
  const c = result.rows.filter(({ peer }) => peer === "C");
  const v86 = result.rows.filter(({ peer }) => peer === "v86");
  return {
    title: "Virtqueues in TypeScript against C and against v86's own",
    charts: [
      ...(c.length === 0 ? [] : [{
        kind: "bars" as const,
        title: "time of ours by time of the C reference, less is better",
        reference: { value: 1, label: "C" },
        bars: c.map(bar),
      }]),
      {
        kind: "bars" as const,
        title: "times as fast as v86's VirtQueue, more is better",
        reference: { value: 1, label: "v86" },
        bars: v86.map(bar),
      },
    ],
    notes: [
      "Ring of 256, batches of 64; single: one descriptor, blk3: header, 4 KiB, status, ind3: those in an indirect table.",
      "blk: guest memory and disk are memories of WebAssembly, as those of GuestMemory.allocate and allocateBytes are.",
      `Alternating blocks of 4 ms in one process, medians and quartiles of ${result.rounds} rounds.`,
      ...(result.compiler === null
        ? []
        : [`C: ${result.compiler}, -O2, with the same duties and the same checks.`]),
    ],
  };
}

function lines(title: string, axis: string, curves: readonly Curve[]): LineChart {
  return {
    kind: "lines",
    title,
    axis,
    lines: curves.map(({ format, points }) => ({ label: format, points })),
  };
}

/** The picture of what the cost does not depend on. */
export function flatPicture(flat: Flatness): Picture {
  return {
    title: "Nanoseconds a request, device side",
    charts: [
      lines("by the number of queues served in turn", "queues", flat.queues),
      lines("by the size of the ring", "entries", flat.ringSize),
      lines(
        "by the number of memory regions that requests are spread over",
        "regions",
        flat.regions,
      ),
    ],
    notes: [
      "Header, 4 KiB, status; batches of 16, by ring size of 4; the fake driver's part included, which in the packed format",
      "copies descriptors.",
      "Medians and quartiles of alternating blocks.",
    ],
  };
}
