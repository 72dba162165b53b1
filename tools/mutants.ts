/**
 * Shows that the tests are worth something: `deno task mutants`.
 *
 * Breaks the packages in a fixed list of small ways, one at a time in a copy of the tree, and runs the part of the suite
 * that takes seconds. A mutant that no test notices is a missing test. First the suite has to pass without any.
 *
 * Exits with 1 if a mutant survives, does not fit the source any more, or hangs without being expected to.
 */
import { parseArgs } from "@std/cli/parse-args";
import { MutantError, mutate, type PlacedMutant } from "./mutants/mutant.ts";
import { MUTANTS } from "./mutants/list.ts";
import { FAST_SUITE } from "./mutants/suite.ts";
import { type MutantResult, MutantWorker } from "./mutants/worker.ts";

const HELP = `deno task mutants [options]

Breaks the packages in small ways, one at a time, and shows that the tests notice.

  --only NAME  this mutant; or all whose names begin so, with a * at the end; can be given several times
  --list       says what there is, and runs nothing
  --check      only checks that every mutant fits the source and is a valid program
  --json       the results as JSON on standard output; what happens meanwhile goes to standard error
  --workers N  how many mutants are tried at a time (2)
  --help       this text`;

const source = new URL("..", import.meta.url).pathname;
const args = parseArgs(Deno.args, {
  boolean: ["json", "list", "check", "help"],
  string: ["only", "workers"],
  collect: ["only"],
  default: { workers: "2" },
  unknown: (name: string) => {
    console.error(`There is no argument ${name}; --help tells more`);
    Deno.exit(2);
  },
});
if (args.help) {
  console.log(HELP);
  Deno.exit(0);
}
const say = args.json ? console.error : console.log;

function chosen(): PlacedMutant[] {
  if (args.only.length === 0) return [...MUTANTS];
  return args.only.flatMap((name: string) => {
    const found = name.endsWith("*")
      ? MUTANTS.filter((mutant) => mutant.name.startsWith(name.slice(0, -1)))
      : MUTANTS.filter((mutant) => mutant.name === name);
    if (found.length === 0) {
      console.error(`There is no mutant ${name}; \`deno task mutants --list\` names them`);
      Deno.exit(2);
    }
    return found;
  });
}

/** Whether every mutant fits its source; says which does not. */
async function fit(mutants: readonly PlacedMutant[]): Promise<boolean> {
  let all = true;
  const names = new Set<string>();
  for (const mutant of mutants) {
    try {
      if (names.has(mutant.name)) throw new MutantError(`Two mutants are named ${mutant.name}`);
      names.add(mutant.name);
      mutate(mutant, await Deno.readTextFile(`${source}${mutant.file}`));
    } catch (error) {
      all = false;
      console.error(error instanceof Error ? `${error.message}\n` : error);
    }
  }
  return all;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(`${source}${path}`).then(() => true, () => false);
}

async function tryAll(mutants: readonly PlacedMutant[], count: number): Promise<MutantResult[]> {
  const workers: MutantWorker[] = [];
  try {
    for (let i = 0; i < count; i++) workers.push(await MutantWorker.open(source));
    const times = await baseline(workers);
    const seconds = [...times.values()].reduce((sum, each) => sum + each, 0);
    say(`The suite passes without mutants (${seconds.toFixed(1)} s)`);
    const results: MutantResult[] = [];
    const left = [...mutants];
    // Copies are removed all the same.
    Deno.addSignalListener("SIGINT", () => left.length = 0);
    Deno.addSignalListener("SIGTERM", () => left.length = 0);
    await Promise.all(workers.map(async (worker) => {
      for (let mutant = left.shift(); mutant !== undefined; mutant = left.shift()) {
        const result = await worker.try(mutant, times);
        results.push(result);
        say(line(result, results.length, mutants.length));
      }
    }));
    return results;
  } finally {
    for (const worker of workers) await worker.close();
  }
}

/** Runs the suite without mutants. @returns Its parts, and the seconds that each takes. */
async function baseline(workers: readonly MutantWorker[]): Promise<Map<string, number>> {
  const times = new Map<string, number>();
  const left: string[] = [];
  for (const path of FAST_SUITE) if (await exists(path)) left.push(path);
  // In the order of the suite, whichever ends first.
  for (const path of left) times.set(path, 0);
  await Promise.all(workers.map(async (worker) => {
    for (let path = left.shift(); path !== undefined; path = left.shift()) {
      const run = await worker.run(path, 300_000);
      if (run.end !== "passed") {
        console.error(run.output);
        console.error(
          `${path} does not pass as it is (${run.end}): nothing can be said about mutants`,
        );
        throw new MutantError("The suite does not pass without mutants");
      }
      times.set(path, run.seconds);
    }
  }));
  return times;
}

function line(result: MutantResult, done: number, of: number): string {
  const { outcome, name, by, about, seconds } = result;
  const state = outcome === "noticed" ? "noticed " : outcome.toUpperCase().padEnd(8);
  const detail = outcome === "survived" ? about : outcome === "hung" ? `${by}: ${about}` : by;
  const count = `${done}/${of}`.padStart(7);
  return `${count} ${state} ${name} (${seconds.toFixed(1)} s)  ${detail}`;
}

const mutants = chosen();
if (args.list) {
  if (args.json) {
    console.log(JSON.stringify(mutants, null, 2));
  } else {
    for (const { name, about, file } of mutants) console.log(`${name}\n    ${file}: ${about}`);
    console.log(`${mutants.length} mutants`);
  }
  Deno.exit(0);
}
if (!await fit(mutants)) Deno.exit(1);
if (args.check) {
  const worker = await MutantWorker.open(source);
  try {
    const problems = await worker.check(mutants);
    for (const problem of problems) console.error(problem);
    if (problems.length > 0) Deno.exitCode = 1;
    else say(`${mutants.length} mutants fit the source and are valid programs`);
  } finally {
    await worker.close();
  }
} else {
  const start = performance.now();
  const results = await tryAll(mutants, Math.max(1, Number(args.workers) || 1)).catch((error) => {
    console.error(error instanceof MutantError ? error.message : error);
    Deno.exit(1);
  });
  const seconds = (performance.now() - start) / 1000;
  const count = (outcome: MutantResult["outcome"]): number =>
    results.filter((result) => result.outcome === outcome).length;
  const bad = results.filter((result) => result.outcome !== "noticed");
  if (args.json) {
    console.log(JSON.stringify({ seconds, results }, null, 2));
  }
  if (bad.length > 0) {
    say("\nMissing tests:");
    for (const { name, file, about, outcome } of bad) {
      say(`  ${name} (${outcome}) ${file}: ${about}`);
    }
  }
  say(
    `${results.length} mutants: ${count("noticed")} noticed, ${count("survived")} survived` +
      (count("hung") > 0 ? `, ${count("hung")} hung` : "") +
      (count("invalid") > 0 ? `, ${count("invalid")} invalid` : "") +
      ` (${(seconds / 60).toFixed(1)} min)`,
  );
  if (bad.length > 0) Deno.exitCode = 1;
}
