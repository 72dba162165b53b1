/**
 * Fuzzing: `deno task fuzz [--seconds N] [--seed S] [--target NAME] [--replay FILE]`.
 *
 * Drivers that mostly keep the rules, with rare broken ones, against the queues, the devices and both transports. What
 * must hold: no exception escapes, no memory outside of what was given is changed, nothing hangs, the device works or asks
 * for a reset, and after one it works. A failing case is made small, printed, and written to a file under .cache/fuzz, from
 * which it replays.
 */
import { parseArgs } from "@std/cli/parse-args";
import { fuzz, type FuzzFile, type FuzzResult, TARGET_NAMES } from "../tests/fuzz/fuzz.ts";

const HELP = `deno task fuzz [options]

Runs drivers that mostly keep the rules against the packages, and looks for what must not happen.

  --seconds N    how long in all, shared by the targets (60)
  --seed S       an integer; the same seed makes the same cases (of the clock)
  --target NAME  only this one: ${TARGET_NAMES.join(", ")}; can be given several times
  --replay FILE  runs the case of a file that an earlier run wrote
  --help         this text`;

const folder = new URL("../.cache/fuzz/", import.meta.url);

function fail(message: string): never {
  console.error(`${message}; --help tells more`);
  Deno.exit(2);
}

function integer(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isSafeInteger(value)) {
    fail(`--${name} must be an integer: it is "${text}"`);
  }
  return value;
}

function print({ target, cases, seconds, seed, failure }: FuzzResult): void {
  const outcome = failure === null ? "no failure" : "FAILED";
  console.log(`${target}: ${cases} cases in ${seconds.toFixed(1)} s, seed ${seed}: ${outcome}`);
  if (failure === null) return;
  console.log(failure.reason);
  console.log(JSON.stringify(failure.case, null, 1));
}

async function replay(path: string): Promise<boolean> {
  let file: FuzzFile;
  try {
    file = JSON.parse(await Deno.readTextFile(path)) as FuzzFile;
  } catch (error) {
    fail(`Cannot read ${path}: ${error instanceof Error ? error.message : error}`);
  }
  if (!TARGET_NAMES.includes(file.target) || file.case === undefined) {
    fail(`${path} is not a case that fuzzing wrote`);
  }
  const result = await fuzz({ target: file.target, seconds: 0, seed: 0, replay: file.case });
  print(result);
  return result.failure === null;
}

async function run(targets: readonly string[], seconds: number, seed: number): Promise<boolean> {
  let fine = true;
  for (const target of targets) {
    const result = await fuzz({ target, seconds: seconds / targets.length, seed });
    print(result);
    if (result.failure === null) continue;
    fine = false;
    const file: FuzzFile = {
      target,
      seed,
      reason: result.failure.reason,
      case: result.failure.case,
    };
    await Deno.mkdir(folder, { recursive: true });
    const path = new URL(`${target}-${seed}.json`, folder).pathname;
    await Deno.writeTextFile(path, JSON.stringify(file, null, 1));
    console.log(`deno task fuzz --replay ${path}`);
  }
  return fine;
}

const args = parseArgs(Deno.args, {
  string: ["seconds", "seed", "target", "replay"],
  boolean: ["help"],
  collect: ["target"],
  unknown: (name: string) => fail(`There is no argument ${name}`),
});
if (args.help) {
  console.log(HELP);
  Deno.exit(0);
}
const seconds = integer("seconds", args.seconds ?? "60");
if (seconds < 1) fail(`--seconds must be at least 1: it is ${seconds}`);
const seed = args.seed === undefined ? Date.now() % 2 ** 31 : integer("seed", args.seed);
const targets = args.target.length === 0 ? TARGET_NAMES : args.target as string[];
for (const name of targets) {
  if (!TARGET_NAMES.includes(name)) {
    fail(`There is no target ${name}: use ${TARGET_NAMES.join(", ")}`);
  }
}
const fine = args.replay !== undefined
  ? await replay(args.replay)
  : await run(targets, seconds, seed);
Deno.exit(fine ? 0 : 1);
