/** Shows what bench:vhost-blk measured: a table, and a picture. */
import { loadNote, spreadText, textTable } from "../report_text.ts";
import { type BarChart, drawPicture, readable } from "../svg.ts";
import { nameOf } from "./cases.ts";
import type { CaseResult, ServerResult } from "./measure.ts";

/** All that a run measured. */
export interface VhostBlkBench {
  readonly rounds: number;
  readonly seconds: number;
  readonly pinned: boolean;
  readonly compiler: string;
  /** What the storage daemon says it is. */
  readonly daemon: string;
  readonly results: readonly CaseResult[];
  /** Processors of the host, and how many programs wanted one meanwhile, on average over a minute. */
  readonly processors: number;
  readonly load: number;
}

function thousands(value: number): string {
  return value >= 10_000 ? `${Math.round(value / 1000)}k` : `${(value / 1000).toFixed(1)}k`;
}

function row(result: CaseResult, { name, speed, cpu, memory, latency }: ServerResult): string[] {
  const mine = name === "ours";
  return [
    mine ? `${result.case.direct ? "direct" : "cached"}, ${nameOf(result.case)}` : "",
    name,
    thousands(speed.median),
    `${thousands(speed.low)} to ${thousands(speed.high)}`,
    latency.toFixed(0),
    cpu.toFixed(1),
    memory.toFixed(0),
    mine ? spreadText(result.ratio) : name === result.best ? "1" : "",
  ];
}

/** The table and how it came about. */
export function benchTable(bench: VhostBlkBench): string {
  const rows = [
    ["", "server", "requests/s", "quartiles", "µs each", "CPU s/M", "MiB", "by QEMU's best"],
    ...bench.results.flatMap((result) => result.servers.map((server) => row(result, server))),
  ];
  return [...textTable(rows, 2), "", ...method(bench)].join("\n");
}

function method(bench: VhostBlkBench): string[] {
  const { rounds, seconds, pinned, compiler, daemon, processors, load } = bench;
  return [
    "No guest: a front end in C keeps requests in flight on split rings with event indexes, sleeps when there is nothing,",
    `and checks what it reads (${compiler}, -O2).`,
    `Against ${daemon} with an I/O thread,`,
    "in each case the best of its ways: threads, io_uring, past the page cache native too.",
    `${rounds} rounds of ${seconds} s for each server in random order; medians and quartiles; ratios of runs of one round.`,
    ...(pinned ? ["The load has one processor, the servers have another."] : []),
    loadNote(load, processors),
  ];
}

function chart(bench: VhostBlkBench, direct: boolean): BarChart[] {
  const results = bench.results.filter((result) => result.case.direct === direct);
  if (results.length === 0) return [];
  return [{
    kind: "bars",
    title: `${
      direct ? "past the page cache (O_DIRECT)" : "in the page cache"
    }: our requests a second by those of QEMU's best, more is better`,
    reference: { value: 1, label: "qemu-storage-daemon" },
    bars: results.map((result) => {
      const mine = result.servers.find(({ name }) => name === "ours")!;
      const other = result.servers.find(({ name }) => name === result.best)!;
      return {
        label: nameOf(result.case),
        value: result.ratio,
        text: `${result.ratio.median.toFixed(2)} (${readable(Math.round(mine.speed.median))}/s), ` +
          `CPU ${(mine.cpu / other.cpu).toFixed(2)}`,
        colour: result.case.direction === "read" ? 0 : 1,
      };
    }),
  }];
}

/** The picture. */
export function benchPicture(bench: VhostBlkBench): string {
  return drawPicture({
    title: "A vhost-user disk: ours against qemu-storage-daemon",
    charts: [...chart(bench, false), ...chart(bench, true)],
    notes: [...method(bench), "CPU: our processor time for a request by theirs, less is better."],
  });
}
