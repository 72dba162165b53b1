/**
 * How everything here is measured: blocks of a few milliseconds each, all contenders in random order in every round, so that
 * what the machine does meanwhile meets all of them. Claims are ratios within a round; times are for orientation only.
 *
 * A block is cut into slices of about a millisecond, and its time is that of its fastest slice: on a shared machine whole
 * time slices go to somebody else, and a ratio of who was interrupted more often says nothing.
 */

/** Slices of a block. */
const SLICES = 4;

/** One contender. */
export interface Block {
  readonly name: string;
  /** Does `n` units of work. */
  run(n: number): void;
  /** Requests in one unit. */
  readonly unit: number;
}

/** What was measured: nanoseconds per request in each round, by contender. */
export type Samples = Map<string, number[]>;

/** Settings of a run. */
export interface HarnessOptions {
  /** Rounds that count; 11 unless given. */
  readonly rounds?: number;
  /** Milliseconds of one block; 4 unless given. */
  readonly block?: number;
  /** Milliseconds of warm-up of each contender, thrown away; 200 unless given. */
  readonly warmUp?: number;
}

function shuffle<T>(items: T[]): void {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
}

/** Measures all blocks in alternation. */
export function alternate(blocks: readonly Block[], options: HarnessOptions = {}): Samples {
  const { rounds = 11, block = 4, warmUp = 200 } = options;
  const counts = new Map<string, number>();
  for (const each of blocks) {
    let n = 1;
    const end = performance.now() + warmUp;
    let took = 0;
    do {
      const start = performance.now();
      each.run(n);
      took = performance.now() - start;
      if (took < block / 2) n = Math.max(n + 1, Math.round(n * Math.min(4, block / (took + 0.01))));
    } while (performance.now() < end);
    counts.set(each.name, Math.max(1, Math.round(n * block / SLICES / Math.max(took, 0.01))));
  }
  const samples: Samples = new Map(blocks.map((each) => [each.name, []]));
  const order = [...blocks];
  for (let round = 0; round < rounds; round++) {
    shuffle(order);
    for (const each of order) {
      const n = counts.get(each.name)!;
      let least = Infinity;
      for (let slice = 0; slice < SLICES; slice++) {
        const start = performance.now();
        each.run(n);
        least = Math.min(least, performance.now() - start);
      }
      samples.get(each.name)!.push(least * 1e6 / (n * each.unit));
    }
  }
  return samples;
}

/** The value below which the given part of the values lies. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = part * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low]! + (sorted[high]! - sorted[low]!) * (at - low);
}

/** Median and quartiles. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** The median of values and the quartiles around it. */
export function spread(values: readonly number[]): Spread {
  return {
    median: quantile(values, 0.5),
    low: quantile(values, 0.25),
    high: quantile(values, 0.75),
  };
}

/** Ratio of two contenders, round by round. */
export function ratios(over: readonly number[], under: readonly number[]): number[] {
  return over.map((value, i) => value / under[i]!);
}

/** Takes a part off that was measured by itself, such as the fake driver's: its median. */
export function without(values: readonly number[], part: readonly number[]): number[] {
  const off = quantile(part, 0.5);
  return values.map((value) => value - off);
}
