/**
 * As `alternate` of bench/harness.ts, for what needs turns of the event loop: a driver takes only so many frames in one.
 */
import type { Samples } from "../../bench/harness.ts";

/** One contender. */
export interface TurningBlock {
  readonly name: string;
  /** Does `n` units of work. */
  run(n: number): unknown;
  /** Requests in one unit. */
  readonly unit: number;
}

/** Slices of which the fastest counts: on a shared machine time slices go to somebody else. */
const SLICES = 6;

/** Settings of a run. */
export interface SliceOptions {
  /** Rounds that count. */
  readonly rounds: number;
  /** Units of work in a slice. */
  readonly units: number;
  /** Milliseconds of warm-up of each contender. */
  readonly warmUp: number;
}

/** Lets the event loop turn. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Measures all blocks in alternation, in random order in each round: nanoseconds a request. */
export async function alternateInTurns(
  blocks: readonly TurningBlock[],
  { rounds, units, warmUp }: SliceOptions,
): Promise<Samples> {
  for (const block of blocks) {
    for (const end = performance.now() + warmUp; performance.now() < end;) {
      await block.run(units);
      await turn();
    }
  }
  const samples: Samples = new Map(blocks.map((block) => [block.name, []]));
  for (let round = 0; round < rounds; round++) {
    const order = Math.random() < 0.5 ? blocks : blocks.toReversed();
    for (const block of order) {
      let least = Infinity;
      for (let slice = 0; slice < SLICES; slice++) {
        await turn();
        const start = performance.now();
        await block.run(units);
        least = Math.min(least, performance.now() - start);
      }
      samples.get(block.name)!.push(least * 1e6 / (units * block.unit));
    }
  }
  return samples;
}
