/** Runs the contenders of bench:peers in alternation. */
import { BlkWorld } from "../../bench/blk_world.ts";
import {
  alternate,
  type Block,
  ratios,
  type Samples,
  type Spread,
  spread,
  without,
} from "../../bench/harness.ts";
import { Native } from "../../bench/native/native.ts";
import { v86QueueClass, V86World } from "../../bench/v86_queue.ts";
import { OurWorld, type RequestShape } from "../../bench/work.ts";

/** One comparison. */
export interface PeerRow {
  /** What was done. */
  readonly what: string;
  /** Who is compared with us. */
  readonly peer: "C" | "v86";
  /** Ring format. */
  readonly format: "split" | "packed";
  /** Our time by the peer's for C, the peer's by ours for v86. */
  readonly ratio: Spread;
  /** Nanoseconds a request, for orientation. */
  readonly ours: number;
  /** Nanoseconds a request, for orientation. */
  readonly theirs: number;
}

/** All comparisons of a run. */
export interface PeerResult {
  /** The C compiler, or null. */
  readonly compiler: string | null;
  readonly rounds: number;
  readonly rows: readonly PeerRow[];
}

const SIZE = 256;
const BATCH = 64;
/** Small turns so that what the machine does meanwhile meets all contenders. */
const OPTIONS = { block: 4, warmUp: 200 };

/** What one process measures. A process that has run another case before is slower: its call sites have seen more. */
export type PeerCase = `${"split" | "packed"} ${RequestShape | "blk"}`;

/** All cases. */
export const CASES: readonly PeerCase[] = [
  "split single",
  "split blk3",
  "split ind3",
  "split blk",
  "packed single",
  "packed blk3",
  "packed ind3",
  "packed blk",
];

/** Measures all cases, each in a process of its own. */
export async function measurePeers(
  rounds: number,
  progress: (line: string) => void,
): Promise<PeerResult> {
  const native = await Native.open();
  progress(native === null ? "no C compiler: without the C reference" : `C: ${native.compiler}`);
  const rows: PeerRow[] = [];
  for (const name of CASES) {
    progress(name);
    const script = new URL("../bench_peers.ts", import.meta.url).pathname;
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", script, "--rounds", String(rounds), "--case", name],
    }).output();
    if (!success) throw new Error(`${name}: ${new TextDecoder().decode(stderr)}`);
    rows.push(...JSON.parse(new TextDecoder().decode(stdout)));
  }
  return { compiler: native?.compiler ?? null, rounds, rows };
}

/** Measures one case in this process. */
export async function measureCase(name: PeerCase, rounds: number): Promise<PeerRow[]> {
  const [format, shape] = name.split(" ") as ["split" | "packed", RequestShape | "blk"];
  const native = await Native.open();
  if (shape === "blk") return native === null ? [] : measureBlk(native, format, rounds);
  return await measureRing(native, format, shape, rounds);
}

/** In the packed format the fake driver's part is measured by itself and taken off. */
async function measureRing(
  native: Native | null,
  format: "split" | "packed",
  shape: RequestShape,
  rounds: number,
): Promise<PeerRow[]> {
  const rows: PeerRow[] = [];
  const ours = new OurWorld(format, shape, SIZE, BATCH);
  // Refilling without serving runs ahead, so it has a ring of its own.
  const refilled = new OurWorld(format, shape, SIZE, BATCH);
  const blocks: Block[] = [
    block("ours", (n) => ours.device(n)),
    block("our refill", (n) => refilled.refill(n)),
    block("our round", (n) => ours.round(n)),
  ];
  if (native !== null) {
    const device = native.world(format, shape, SIZE, BATCH, false);
    const nativeRefilled = native.world(format, shape, SIZE, BATCH, false);
    const fresh = native.world(format, shape, SIZE, BATCH, true);
    blocks.push(
      block("C", (n) => device.device(n)),
      block("C refill", (n) => nativeRefilled.refill(n)),
      block("C round", (n) => fresh.round(n)),
    );
  }
  const samples = alternate(blocks, { ...OPTIONS, rounds });
  if (native !== null) {
    rows.push(compare(`device side, ${shape}`, "C", format, deviceOnly(samples, format)));
    const round: [number[], number[]] = [get(samples, "our round"), get(samples, "C round")];
    rows.push(compare(`full round, ${shape}`, "C", format, round));
  }
  if (format === "split") {
    // Last and by itself: once v86 is loaded, and its memory has grown, every typed array of the process is checked for
    // having been detached.
    const v86 = new V86World(await v86QueueClass(), shape, SIZE, BATCH);
    const samples = alternate([
      block("ours", (n) => ours.device(n)),
      block("v86", (n) => v86.device(n)),
    ], { ...OPTIONS, rounds });
    const device: [number[], number[]] = [get(samples, "ours"), get(samples, "v86")];
    rows.push(compare(`device side, ${shape}`, "v86", format, device));
  }
  return rows;
}

function measureBlk(native: Native, format: "split" | "packed", rounds: number): PeerRow[] {
  const ours = new BlkWorld(format, SIZE, BATCH);
  const unshared = new BlkWorld(format, SIZE, BATCH, false);
  const refilled = new BlkWorld(format, SIZE, BATCH);
  const theirs = native.world(format, "blk3", SIZE, BATCH, false);
  const theirsRefilled = native.world(format, "blk3", SIZE, BATCH, false);
  const samples = alternate([
    block("ours", (n) => ours.blk(n)),
    block("ours, unshared", (n) => unshared.blk(n)),
    block("our refill", (n) => refilled.refill(n)),
    block("C", (n) => theirs.blk(n)),
    block("C refill", (n) => theirsRefilled.refill(n)),
  ], { ...OPTIONS, rounds });
  return [
    compare("blk 4 KiB read, shared memory", "C", format, deviceOnly(samples, format)),
    compare(
      "blk 4 KiB read, unshared memory",
      "C",
      format,
      deviceOnly(samples, format, "ours, unshared"),
    ),
  ];
}

function block(name: string, run: (n: number) => unknown): Block {
  return { name, unit: BATCH, run };
}

function get(samples: Samples, name: string): number[] {
  return samples.get(name)!;
}

/** Ours and the peer's, without the fake driver's part where that costs anything to speak of. */
function deviceOnly(
  samples: Samples,
  format: "split" | "packed",
  ours = "ours",
): [number[], number[]] {
  if (format === "split") return [get(samples, ours), get(samples, "C")];
  return [
    without(get(samples, ours), get(samples, "our refill")),
    without(get(samples, "C"), get(samples, "C refill")),
  ];
}

function compare(
  what: string,
  peer: "C" | "v86",
  format: "split" | "packed",
  [ours, theirs]: [number[], number[]],
): PeerRow {
  const ratio = peer === "C" ? ratios(ours, theirs) : ratios(theirs, ours);
  return {
    what,
    peer,
    format,
    ratio: spread(ratio),
    ours: spread(ours).median,
    theirs: spread(theirs).median,
  };
}
