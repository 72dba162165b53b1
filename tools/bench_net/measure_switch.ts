/** Measures frames between two guests on the switch against the same in C, in alternation. */
import { ratios, type Spread, spread } from "../../bench/harness.ts";
import { openNativeNet } from "../../bench/native/net_device.ts";
import { NativeNet } from "../../bench/native/net_switch.ts";
import { NET_SHAPES, NetWorld } from "../../bench/net_world.ts";
import { OurNet } from "./ours.ts";
import { alternateInTurns, turn, type TurningBlock } from "./slices.ts";

/** What is compared: two drivers, two devices and the switch; or devices and switch alone, on rings that are ready. */
export type What = "driver to driver" | "devices and switch";

/** One comparison. */
export interface SwitchRow {
  readonly what: What;
  readonly format: "split" | "packed";
  /** Bytes of a frame. */
  readonly length: number;
  /** Millions of frames a second, for orientation. */
  readonly frames: Spread;
  /** Megabytes (10^6 bytes) a second, for orientation. */
  readonly megabytes: Spread;
  /** Our time by that of C; null without a C compiler. */
  readonly ratio: Spread | null;
  /** Bytes of the heap that one more frame takes. */
  readonly allocated: number;
}

/** What one process measures: a process that has run another case before is slower. */
export const CASES = [
  ["driver to driver", "split", 64],
  ["driver to driver", "split", 1500],
  ["driver to driver", "split", 65_000],
  ["driver to driver", "packed", 64],
  ["driver to driver", "packed", 1500],
  ["driver to driver", "packed", 65_000],
  ["devices and switch", "split", 64],
  ["devices and switch", "split", 1500],
  ["devices and switch", "split", 65_000],
] as const satisfies readonly (readonly [What, "split" | "packed", number])[];

const SMALL_BATCH = 32;
const LARGE_BATCH = 8;
/** Frames of a slice. */
const FRAMES = 768;
const WINDOWS = 100;

interface Contender {
  run(batches: number): unknown;
  isWhole(): boolean | Promise<boolean>;
}

/** Measures one case in this process. */
export async function measureSwitch(index: number, rounds: number): Promise<SwitchRow> {
  const [what, format, length] = CASES[index]!;
  const large = length > 10_000;
  let batch = large ? LARGE_BATCH : SMALL_BATCH;
  let ours: Contender;
  let theirs: Contender | null = null;
  if (what === "driver to driver") {
    ours = await OurNet.open(format, length, batch);
    theirs = (await NativeNet.open())?.world(format, length, batch) ?? null;
  } else {
    const shape = NET_SHAPES.find(({ frame }) => frame === length)!;
    batch = shape.batch;
    // As the others: the guests' memory is shared.
    const world = new NetWorld(shape, "switch", true);
    const native = (await openNativeNet())?.(shape) ?? null;
    ours = { run: (n) => world.run(n), isWhole: () => world.check() };
    if (native !== null) theirs = { run: (n) => native.run(n), isWhole: () => native.check() };
  }
  const blocks: TurningBlock[] = [{ name: "ours", unit: batch, run: (n) => ours.run(n) }];
  if (theirs !== null) blocks.push({ name: "C", unit: batch, run: (n) => theirs.run(n) });
  const units = FRAMES / batch;
  const samples = await alternateInTurns(blocks, { rounds, units, warmUp: 500 });
  await turn();
  if (!await ours.isWhole() || await theirs?.isWhole() === false) {
    throw new Error(`${what}, ${format}, ${length}: a frame did not come as it was sent`);
  }
  // Few enough frames for one turn of a driver's.
  const kicks = Math.floor(384 / batch);
  const twice = (): unknown => ours.run(kicks);
  let once = (): unknown => ours.run(kicks / 2);
  if (what === "driver to driver") {
    const less = await OurNet.open(format, length, batch / 2);
    once = () => less.run(kicks);
  }
  const times = samples.get("ours")!;
  return {
    what,
    format,
    length,
    frames: spread(times.map((time) => 1e3 / time)),
    megabytes: spread(times.map((time) => 1e3 * length / time)),
    ratio: theirs === null ? null : spread(ratios(times, samples.get("C")!)),
    allocated: await bytesPerFrame(once, twice, batch * kicks / 2),
  };
}

/**
 * What is allocated for a frame once everything is compiled: how much more `twice` allocates than `once`, which does the same
 * with half of the frames. What a kick, an interrupt, or a turn of the event loop takes is in both.
 */
async function bytesPerFrame(
  once: () => unknown,
  twice: () => unknown,
  frames: number,
): Promise<number> {
  const least = [Infinity, Infinity];
  for (let window = 0; window < WINDOWS; window++) {
    for (const [i, run] of [once, twice].entries()) {
      await turn();
      const before = Deno.memoryUsage().heapUsed;
      await run();
      const grown = Deno.memoryUsage().heapUsed - before;
      // What is less was collected.
      if (grown >= 0) least[i] = Math.min(least[i]!, grown);
    }
  }
  return (least[1]! - least[0]!) / frames;
}
