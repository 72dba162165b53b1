/**
 * A driver in one thread, a device in another, main idle: `deno task bench:workers`. The same work by C threads over futexes
 * (where there is a C compiler), in alternating blocks.
 */
import { compile } from "../bench/native/compile.ts";
import { benchArguments } from "./bench_arguments.ts";
import type { Measured, Order, Setup } from "./bench_workers/driver_worker.ts";

const HELP = `Measures a device in a worker against C threads that do the same over futexes.

Usage: deno task bench:workers [options]

  --only TEXT  only cases whose name has this in it
  --rounds N   rounds that count (default 9)
  --json       the last line is one JSON object
  --help       this text
`;

/** A figure of one case: the middle of the rounds, and how far they lie apart. */
interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (part: number): number => sorted[Math.round(part * (sorted.length - 1))]!;
  return { median: at(0.5), low: at(0.1), high: at(0.9) };
}

const wanted = benchArguments({
  name: "bench:workers",
  help: HELP,
  rounds: 9,
  leastRounds: 3,
  strings: ["only"],
});
const { rounds } = wanted;

const only = String(wanted.all["only"] ?? "");
const isWanted = (name: string): boolean => name.includes(only);
/** Rounds that do not count. */
const WARM = 10;

const driver = new Worker(new URL("./bench_workers/driver_worker.ts", import.meta.url), {
  type: "module",
});

/** Has the driver's thread do something. */
function order(what: Order): Promise<Measured> {
  return new Promise((resolve, reject) => {
    driver.onmessage = ({ data }: MessageEvent<{ measured: Measured } | { error: string }>) =>
      "error" in data ? reject(new Error(data.error)) : resolve(data.measured);
    driver.onerror = (event) => reject(new Error(event.message));
    driver.postMessage(what);
  });
}

const compiled = await compile("threads.c");
const library = compiled === null ? null : Deno.dlopen(compiled.library, {
  threads_run: { parameters: ["u32", "u32", "f64", "buffer"], result: "f64", nonblocking: true },
});

/** One of two who do the same. */
interface Party {
  readonly name: string;
  run(requests: number): Promise<Measured>;
}

let opened = 0;

/** Threads of our own, which stay for all rounds. */
async function ours(name: string, setup: Setup): Promise<Party> {
  const id = `${opened++}`;
  await order({ open: id, setup });
  return { name, run: (requests) => order({ run: id, requests }) };
}

/** C threads. */
function native({ depth, spin }: Setup): Party | null {
  if (library === null) return null;
  return {
    name: "C threads",
    run: async (requests) => {
      const told = new Float64Array(1);
      const nanoseconds = await library.symbols.threads_run(requests, depth, 1000 * spin, told);
      if (nanoseconds < 0) throw new Error("The C threads lost a request");
      return { nanoseconds, notifications: told[0]! };
    },
  };
}

const SPIN: Setup = { depth: 1, spin: 20_000, queues: 1, workers: 1 };
const SLEEP: Setup = { ...SPIN, spin: 0 };
const LOAD: Setup = { ...SPIN, depth: 64, spin: 50 };
const FOUR: Setup = { ...LOAD, depth: 16, queues: 4 };

/** What a case is measured against, and how much of it it may take. */
const CASES: readonly {
  readonly name: string;
  readonly requests: number;
  readonly setup: Setup;
  /** Against this setup of ours; against C unless given. */
  readonly against?: Setup;
  readonly most: number;
}[] = [
  { name: "round trip, both sides spinning", requests: 10_000, setup: SPIN, most: 1 },
  { name: "round trip, both sides sleeping", requests: 1_000, setup: SLEEP, most: 1.3 },
  { name: "64 in flight, event index", requests: 20_000, setup: LOAD, most: 2 },
  { name: "4 queues, 1 worker", requests: 20_000, setup: FOUR, against: LOAD, most: 1 },
  {
    name: "4 queues, a worker each",
    requests: 20_000,
    setup: { ...FOUR, workers: 4 },
    against: LOAD,
    most: 1,
  },
];

const results = [];
for (
  const { name, requests, setup, against, most } of CASES.filter((each) => isWanted(each.name))
) {
  const we = await ours("ours", setup);
  const they = against === undefined ? native(setup) : await ours("1 queue", against);
  // What the compilers of our side wait for.
  for (let i = 0; i < WARM; i++) await we.run(requests);
  for (let i = 0; i < WARM && against !== undefined; i++) await they!.run(requests);
  // Threads of ours that have nothing to do look for a while before they sleep, but not while C is measured.
  const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 150));
  const own: number[] = [];
  const theirs: number[] = [];
  const ratios: number[] = [];
  const woken: number[] = [];
  for (let round = 0; round < rounds; round++) {
    // Which comes first alternates, so that a drift of the machine's speed falls on both.
    await rest();
    const first = round % 2 === 0 ? null : await they?.run(requests) ?? null;
    const mine = await we.run(requests);
    await rest();
    const second = first ?? await they?.run(requests) ?? null;
    own.push(mine.nanoseconds / requests);
    woken.push(mine.notifications / requests * 1000);
    if (second === null) continue;
    theirs.push(second.nanoseconds / requests);
    ratios.push(mine.nanoseconds / second.nanoseconds);
  }
  results.push({
    name,
    nanoseconds: spread(own),
    other: theirs.length === 0 ? null : { name: they!.name, nanoseconds: spread(theirs) },
    ratio: ratios.length === 0 ? null : spread(ratios),
    most,
    notificationsPerThousand: spread(woken),
  });
  await order({ close: true });
  console.log(`${name}: measured`);
}
driver.terminate();

const number = (value: number): string => value.toFixed(value < 10 ? 2 : 0);
console.log(
  `\n  ${"".padEnd(34)}${"ns a request".padStart(14)}${"against".padStart(20)}${
    "ratio (10% to 90%)".padStart(24)
  }${"at most".padStart(9)}${"woken per 1,000".padStart(17)}`,
);
for (const { name, nanoseconds, other, ratio, most, notificationsPerThousand } of results) {
  const against = other === null ? "-" : `${other.name} ${number(other.nanoseconds.median)}`;
  const ratios = ratio === null
    ? "-"
    : `${number(ratio.median)} (${number(ratio.low)} to ${number(ratio.high)})`;
  console.log(
    `  ${name.padEnd(34)}${number(nanoseconds.median).padStart(14)}${against.padStart(20)}${
      ratios.padStart(24)
    }${String(most).padStart(9)}${number(notificationsPerThousand.median).padStart(17)}`,
  );
}
if (wanted.json) {
  console.log(JSON.stringify({ rounds, compiler: compiled?.compiler ?? null, results }));
}
Deno.exit(0);
