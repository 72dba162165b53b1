/** Shows what bench:vhost-net measured: a table, and a picture. */
import { loadNote, spreadText, textTable } from "../report_text.ts";
import { drawPicture } from "../svg.ts";
import { nameOf } from "./cases.ts";
import type { CaseResult } from "./measure.ts";

/** All that a run measured. */
export interface VhostNetBench {
  readonly rounds: number;
  readonly seconds: number;
  readonly bursts: number;
  readonly mergeable: boolean;
  /** Which DPDK. */
  readonly dpdk: string;
  readonly results: readonly CaseResult[];
  /** Processors of the host, and how many programs wanted one meanwhile, on average over a minute. */
  readonly processors: number;
  readonly load: number;
}

/** The table and how it came about. */
export function benchTable(bench: VhostNetBench): string {
  const rows = [
    ["", "ours, Mframes/s", "lost", "DPDK, Mframes/s", "lost", "ours by DPDK's"],
    ...bench.results.map(({ case: one, ours, dpdk, ratio }) => [
      nameOf(one),
      spreadText(ours.speed),
      `${ours.lost}`,
      spreadText(dpdk.speed),
      `${dpdk.lost}`,
      spreadText(ratio),
    ]),
  ];
  return [...textTable(rows, 1), "", ...method(bench)].join("\n");
}

function method(bench: VhostNetBench): string[] {
  const { rounds, seconds, bursts, mergeable, dpdk, processors, load } = bench;
  return [
    "No guest: DPDK's testpmd as virtio-user on one processor sends what comes back again; on the other a worker of ours",
    `with a network device whose frames come back, or testpmd with DPDK's own vhost (${dpdk}).`,
    `${bursts} bursts of 32 frames on their way, rings of 256, ${
      mergeable ? "merged" : "no merged"
    } receive buffers, buffers used in order.`,
    `${rounds} rounds of ${seconds} s for each in random order; medians and quartiles; ratios of runs of one round.`,
    loadNote(load, processors),
  ];
}

/** The picture. */
export function benchPicture(bench: VhostNetBench): string {
  return drawPicture({
    title: "A vhost-user network card: ours against DPDK's vhost",
    charts: [{
      kind: "bars",
      title: "our frames a second by DPDK's, more is better",
      reference: { value: 1, label: "DPDK's vhost" },
      bars: bench.results.map(({ case: one, ours, dpdk, ratio }) => ({
        label: nameOf(one),
        value: ratio,
        text: `${ratio.median.toFixed(2)} (${ours.speed.median.toFixed(2)} of ${
          dpdk.speed.median.toFixed(2)
        } M/s)`,
        colour: one.packed ? 1 : 0,
      })),
    }],
    notes: method(bench),
  });
}
