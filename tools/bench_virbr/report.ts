/** Shows what bench:virbr measured: a line for each measurement, and a picture. */
import type { Spread } from "../../bench/harness.ts";
import { type BarChart, drawPicture } from "../svg.ts";

/** What one measurement gave. */
export interface Row {
  readonly mtu: number;
  readonly name: string;
  readonly unit: string;
  /** Of each contestant. */
  readonly values: Readonly<Record<string, Spread>>;
  /** Ours by theirs, of runs of one round, so that more is better. */
  readonly ratios: Readonly<Record<string, Spread>>;
}

/** All that a run measured. */
export interface VirbrBench {
  readonly rounds: number;
  readonly rows: readonly Row[];
  /** Processors of the machine, and how many programs wanted one meanwhile, on average over a minute. */
  readonly processors: number;
  readonly load: number;
  /** What the others say they are. */
  readonly versions: readonly string[];
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function range({ median, low, high }: Spread): string {
  return `${digits(median)} (${digits(low)} to ${digits(high)})`;
}

/** A measurement for the terminal. */
export function rowText({ mtu, name, unit, values, ratios }: Row): string {
  const all = Object.entries(values).map(([who, value]) => `${who} ${range(value)}`);
  const ours = Object.entries(ratios).map(([who, ratio]) => `${range(ratio)} of ${who}`);
  return `MTU ${mtu}, ${name}, ${unit}: ${all.join(", ")}` +
    (ours.length === 0 ? "" : `\n    ours is ${ours.join(", ")}`);
}

/** How it came about. */
export function method({ rounds, processors, load, versions }: VirbrBench): string[] {
  return [
    "The guest is the kernel of a network namespace behind a tap; servers are two hops away, in another one. iperf3 for 2 s " +
    "after 1 s.",
    `${rounds} rounds, alternately; medians and quartiles; ratios of runs of one round. Against ${
      versions.join(" and ")
    }.`,
    "Ours takes and gives segments of 64 KiB at any MTU, as the tap's offloads let it; the others take one packet at a time.",
    `Load was ${load.toFixed(1)} on ${processors} processors.`,
  ];
}

/** A ratio from which on the other does not work here, rather than being slower; it would hide all others in a picture. */
const BROKEN = 100;

/** What is left out of the picture, and why. */
function leftOut({ rows }: VirbrBench): string[] {
  return rows.flatMap(({ mtu, name, unit, values, ratios }) =>
    Object.entries(ratios).filter(([, { median }]) => median >= BROKEN).map(([who]) =>
      `Left out: MTU ${mtu}, ${name}: ${who} hardly moves here, ${
        values[who]!.median.toPrecision(2)
      } ${unit}.`
    )
  );
}

/** The picture. */
export function benchPicture(bench: VirbrBench): string {
  const mtus = [...new Set(bench.rows.map(({ mtu }) => mtu))];
  const charts = mtus.map((mtu): BarChart => ({
    kind: "bars",
    title: `MTU ${mtu}: ours by theirs, more is better`,
    reference: { value: 1, label: "the other" },
    bars: bench.rows.filter((row) => row.mtu === mtu).flatMap(({ name, unit, values, ratios }) =>
      Object.entries(ratios).filter(([, { median }]) => median < BROKEN).map(([who, value]) => ({
        label: `${name}, ${who}`,
        value,
        text: `${digits(value.median)} (${digits(values["virbr"]!.median)} ${unit})`,
        colour: who === "slirp4netns" ? 0 : 1,
      }))
    ),
  }));
  return drawPicture({
    title: "A network for guests in user space: ours against slirp4netns and pasta",
    charts,
    notes: [...method(bench), ...leftOut(bench)],
  });
}
