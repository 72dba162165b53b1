import { MutantError, mutate, type PlacedMutant } from "./mutant.ts";
import { orderFor, runSuite, type SuiteRun } from "./suite.ts";

/** What of the tree a run of the suite needs. */
const COPIED = ["packages", "tests", "tools", "deno.json", "deno.lock"];
const LEFT_OUT = [".cache", "node_modules", "guests"];

/** What became of a mutant. */
export interface MutantResult {
  /** Its name. */
  readonly name: string;
  /** What it breaks. */
  readonly about: string;
  /** The file it breaks. */
  readonly file: string;
  /**
   * - `noticed`: a test failed, or the run did not end and the mutant says so.
   * - `survived`: all tests passed.
   * - `hung`: the run did not end, though the mutant should not have that effect.
   * - `invalid`: the mutant is no program.
   */
  readonly outcome: "noticed" | "survived" | "hung" | "invalid";
  /** Which test noticed it, or how else it was noticed. */
  readonly by: string | null;
  /** Seconds that it took. */
  readonly seconds: number;
}

/** A copy of the tree, in which one mutant at a time is tried. */
export class MutantWorker {
  readonly #root: string;

  private constructor(root: string) {
    this.#root = root;
  }

  /** Copies the tree into a temporary folder. */
  static async open(source: string): Promise<MutantWorker> {
    const root = await Deno.makeTempDir({ prefix: "mutants-" });
    for (const name of COPIED) await copy(`${source}${name}`, `${root}/${name}`);
    return new MutantWorker(root);
  }

  /** Removes the copy. */
  async close(): Promise<void> {
    await Deno.remove(this.#root, { recursive: true });
  }

  /** Runs tests on the tree as it is, for so many milliseconds at most. */
  run(path: string, limit: number): Promise<SuiteRun> {
    return runSuite(this.#root, path, limit);
  }

  /** The text of a file. */
  read(file: string): Promise<string> {
    return Deno.readTextFile(`${this.#root}/${file}`);
  }

  /**
   * Tries a mutant.
   *
   * @param times The parts of the suite, and how many seconds each takes without mutants.
   */
  async try(mutant: PlacedMutant, times: ReadonlyMap<string, number>): Promise<MutantResult> {
    const { name, about, file } = mutant;
    const original = await this.read(file);
    const start = performance.now();
    const result = (outcome: MutantResult["outcome"], by: string | null): MutantResult => ({
      name,
      about,
      file,
      outcome,
      by,
      seconds: (performance.now() - start) / 1000,
    });
    await Deno.writeTextFile(`${this.#root}/${file}`, mutate(mutant, original));
    try {
      for (const path of orderFor(file, mutant.first ?? [], [...times.keys()])) {
        const run = await this.run(path, 10_000 + 4000 * secondsOf(path, times));
        if (run.end === "passed") continue;
        if (run.end === "failed") {
          if (/could not be parsed|SyntaxError/.test(run.output)) {
            return result("invalid", firstError(run.output));
          }
          return result("noticed", `${run.place ?? "?"}: ${run.test ?? firstError(run.output)}`);
        }
        const how = run.end === "late" ? "the run did not end" : "the run died";
        return mutant.hangs ? result("noticed", how) : result("hung", how);
      }
      return result("survived", null);
    } finally {
      await Deno.writeTextFile(`${this.#root}/${file}`, original);
    }
  }

  /**
   * Checks the types of all mutants, several in one copy where they do not touch each other: a mutant that is no valid program
   * would be noticed by any test.
   *
   * @returns What is wrong, a text for each group with an error.
   */
  async check(mutants: readonly PlacedMutant[]): Promise<string[]> {
    const problems: string[] = [];
    for (let left = [...mutants]; left.length > 0;) {
      const texts = new Map<string, string>();
      const originals = new Map<string, string>();
      const later: PlacedMutant[] = [];
      const group: PlacedMutant[] = [];
      for (const mutant of left) {
        const { file } = mutant;
        if (!originals.has(file)) originals.set(file, await this.read(file));
        try {
          texts.set(file, mutate(mutant, texts.get(file) ?? originals.get(file)!));
          group.push(mutant);
        } catch (error) {
          if (!(error instanceof MutantError)) throw error;
          later.push(mutant);
        }
      }
      for (const [file, text] of texts) await Deno.writeTextFile(`${this.#root}/${file}`, text);
      const { success, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["check", "--quiet", ...texts.keys()],
        cwd: this.#root,
        env: { NO_COLOR: "1" },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).output();
      if (!success) {
        const text = new TextDecoder().decode(stderr);
        const names = group.filter(({ file }) => text.includes(file)).map(({ name }) => name);
        problems.push(`Among ${names.join(", ")}:\n${text}`);
      }
      for (const [file, text] of originals) await Deno.writeTextFile(`${this.#root}/${file}`, text);
      if (later.length === left.length) break;
      left = later;
    }
    return problems;
  }
}

/** Of a part of the suite, or, for a file that is looked at first, of the part that it belongs to. */
function secondsOf(path: string, times: ReadonlyMap<string, number>): number {
  const part = [...times.keys()].find((each) => path === each || path.startsWith(`${each}/`));
  return part === undefined ? 10 : times.get(part)!;
}

function firstError(output: string): string {
  return /^(?:error: )?\(?.*[Ee]rror.*$/m.exec(output)?.[0] ?? "an error outside of a test";
}

async function copy(from: string, to: string): Promise<void> {
  const { isDirectory } = await Deno.stat(from);
  if (!isDirectory) {
    await Deno.copyFile(from, to);
    return;
  }
  await Deno.mkdir(to, { recursive: true });
  for await (const entry of Deno.readDir(from)) {
    if (!LEFT_OUT.includes(entry.name)) await copy(`${from}/${entry.name}`, `${to}/${entry.name}`);
  }
}
