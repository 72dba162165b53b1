/**
 * A driver in one thread, a device in another, main idle: `deno task bench:workers`. The same work by C threads over futexes
 * (where there is a C compiler), in alternating blocks.
 */
import { parseArgs } from "@std/cli/parse-args";
import { compile } from "../bench/native/compile.ts";
import type { Measured, Work } from "./bench_workers/driver_worker.ts";

const HELP = `Measures a device in a worker against C threads that do the same over futexes.

Usage: deno task bench:workers [options]

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

function fail(message: string): never {
  console.error(`bench:workers: ${message}`);
  Deno.exit(2);
}

const parsed = parseArgs(Deno.args, {
  string: ["rounds"],
  boolean: ["json", "help"],
  unknown: (argument: string) => fail(`There is no argument ${argument}: see --help`),
}) as Record<string, unknown>;
if (parsed["help"] === true) {
  console.log(HELP);
  Deno.exit(0);
}
const rounds = Number(parsed["rounds"] ?? 9);
if (!Number.isInteger(rounds) || rounds < 3 || rounds > 1000) {
  fail("--rounds is a number from 3 to 1000");
}

const driver = new Worker(new URL("./bench_workers/driver_worker.ts", import.meta.url), {
  type: "module",
});

/** Has our own threads do it. */
function ours(work: Work): Promise<Measured> {
  return new Promise((resolve, reject) => {
    driver.onmessage = ({ data }: MessageEvent<Measured | { error: string }>) =>
      "error" in data ? reject(new Error(data.error)) : resolve(data);
    driver.onerror = (event) => reject(new Error(event.message));
    driver.postMessage(work);
  });
}

const compiled = await compile("threads.c");
const library = compiled === null ? null : Deno.dlopen(compiled.library, {
  threads_run: { parameters: ["u32", "u32", "f64", "buffer"], result: "f64", nonblocking: true },
});

/** Has C threads do it. */
async function native({ requests, depth, spin }: Work): Promise<Measured> {
  const told = new Float64Array(1);
  const nanoseconds = await library!.symbols.threads_run(requests, depth, spin ? -1 : 50_000, told);
  if (nanoseconds < 0) throw new Error("The C threads lost a request");
  return { nanoseconds, notifications: told[0]! };
}

const one = { queues: 1, workers: 1 };
const SPIN: Work = { requests: 2_000, depth: 1, spin: true, ...one };
const SLEEP: Work = { requests: 500, depth: 1, spin: false, ...one };
const LOAD: Work = { requests: 20_000, depth: 64, spin: false, ...one };

/** What a case is measured against, and how much of it it may take. */
const CASES: readonly {
  readonly name: string;
  readonly work: Work;
  readonly against: (() => Promise<Measured>) | null;
  readonly other: string;
  readonly most: number;
}[] = [
  ...([
    ["round trip, both sides spinning", SPIN, 1],
    ["round trip, both sides sleeping", SLEEP, 1.3],
    ["64 in flight, event index", LOAD, 2],
  ] as const).map(([name, work, most]) => ({
    name,
    work,
    against: library === null ? null : () => native(work),
    other: "C threads",
    most,
  })),
];

const results = [];
for (const { name, work, against, other, most } of CASES) {
  await ours(work);
  await against?.();
  const own: number[] = [];
  const theirs: number[] = [];
  const ratios: number[] = [];
  const woken: number[] = [];
  for (let round = 0; round < rounds; round++) {
    // Which comes first alternates, so that a drift of the machine's speed falls on both.
    const first = round % 2 === 0 ? null : await against?.() ?? null;
    const mine = await ours(work);
    const second = first ?? await against?.() ?? null;
    own.push(mine.nanoseconds / work.requests);
    woken.push(mine.notifications / work.requests * 1000);
    if (second === null) continue;
    theirs.push(second.nanoseconds / work.requests);
    ratios.push(mine.nanoseconds / second.nanoseconds);
  }
  results.push({
    name,
    nanoseconds: spread(own),
    other: theirs.length === 0 ? null : { name: other, nanoseconds: spread(theirs) },
    ratio: ratios.length === 0 ? null : spread(ratios),
    most,
    notificationsPerThousand: spread(woken),
  });
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
if (parsed["json"] === true) {
  console.log(JSON.stringify({ rounds, compiler: compiled?.compiler ?? null, results }));
}
Deno.exit(0);
