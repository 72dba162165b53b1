/** The command line of a benchmark, and what it shows meanwhile: what is the same in all of them. */
import { parseArgs } from "@std/cli/parse-args";

/** The root of the tree, with a slash at its end. */
export const root: string = new URL("..", import.meta.url).pathname;

/** What a benchmark has beside --rounds, --json and --help. */
export interface BenchOptions {
  /** Its name as a task. */
  readonly name: string;
  /** What --help says. */
  readonly help: string;
  /** Rounds that count: unless given, and at least. */
  readonly rounds: number;
  readonly leastRounds: number;
  /** Options with a value. */
  readonly strings?: readonly string[];
  /** Options without one. */
  readonly booleans?: readonly string[];
  /** Those of both that --no-NAME turns off. */
  readonly negatable?: readonly string[];
  /** Options without a value that are on unless turned off. */
  readonly on?: readonly string[];
}

/** What the user wants. */
export interface BenchArguments {
  readonly rounds: number;
  readonly json: boolean;
  /** All options by name, as parsed. */
  readonly all: Readonly<Record<string, unknown>>;
  /** Ends the program: wrong use. */
  readonly fail: (message: string) => never;
}

/** Reads the command line. Help, and wrong use, end the program. */
export function benchArguments(options: BenchOptions): BenchArguments {
  const { name, help, strings = [], booleans = [], negatable = [], on = [], leastRounds } = options;
  const fail = (message: string): never => {
    console.error(`${name}: ${message}`);
    Deno.exit(2);
  };
  const all = parseArgs(Deno.args, {
    string: ["rounds", ...strings],
    boolean: ["json", "help", ...booleans],
    negatable: [...negatable],
    default: Object.fromEntries(on.map((each) => [each, true])),
    unknown: (argument: string) => fail(`There is no argument ${argument}: see --help`),
  }) as Record<string, unknown>;
  if (all["help"] === true) {
    console.log(help);
    Deno.exit(0);
  }
  const rounds = Number(all["rounds"] ?? options.rounds);
  if (!Number.isInteger(rounds) || rounds < leastRounds || rounds > 1000) {
    fail(`--rounds is a number from ${leastRounds} to 1000`);
  }
  return { rounds, json: all["json"] === true, all, fail };
}

/** Where the picture goes: what --svg says, else `otherwise`, a path from the root; null with --no-svg. */
export function pictureFile({ all }: BenchArguments, otherwise: string): string | null {
  return all["svg"] === false ? null : String(all["svg"] ?? `${root}${otherwise}`);
}

/** Writes a picture, and says where it is. */
export async function writePicture(path: string, picture: string): Promise<void> {
  await Deno.mkdir(path.replace(/[^/]*$/, "") || ".", { recursive: true });
  await Deno.writeTextFile(path, picture);
  console.log(`\nThe picture is in ${path.startsWith(root) ? path.slice(root.length) : path}`);
}

/** Shows what is being done, in one line of a terminal; the next one takes its place. */
export function progress(line: string): void {
  if (Deno.stderr.isTerminal()) {
    Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${line}`));
  }
}
