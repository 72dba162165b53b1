/** The frame of an example: progress, verdict, exit status and errors are the same in all of them. */
import { FetchError } from "../guest/fetch.ts";
import { GuestError } from "../guest/guest.ts";
import { UsageError } from "./arguments.ts";
import { type Outcome, type Progress, RunError } from "./run.ts";

/** What makes an example. */
export interface Program<Options, Figures> {
  /** Its name, as the user calls it. */
  readonly name: string;
  /** What --help prints. */
  readonly help: string;
  /** Reads the arguments; null if help was asked for. @throws {UsageError} */
  readonly readOptions: (args: string[]) => Options | null;
  /**
   * Runs it.
   *
   * @param judge Shows how it went, and says whether it went well. To be called once, unless only the user can judge.
   */
  readonly run: (
    options: Options,
    progress: Progress,
    judge: (outcome: Outcome<Figures>) => boolean,
  ) => Promise<boolean>;
  /** The figures as a table. */
  readonly table: (figures: Figures) => string;
  /** One sentence for a run that went well. */
  readonly verdict: (outcome: Outcome<Figures>) => string;
  /** One sentence for a run that did not. */
  readonly failure: string;
  /** Whether the figures themselves are good; yes unless given. */
  readonly good?: (figures: Figures) => boolean;
  /** More kinds of errors whose message is a sentence for the user. */
  // deno-lint-ignore no-explicit-any -- constructors of any arguments
  readonly errors?: readonly (new (...args: any[]) => Error)[];
}

/** Progress on the terminal, each line with the time since the start. */
class Terminal implements Progress {
  readonly #start = performance.now();
  readonly #live = Deno.stdout.isTerminal();
  #detailShown = false;

  step(line: string): void {
    this.clear();
    console.log(`${this.#stamp()}  ${line}`);
  }

  detail(line: string): void {
    const text = `${this.#stamp()}    ${line}`;
    if (!this.#live) {
      console.log(text);
      return;
    }
    const width = Deno.consoleSize().columns - 1;
    Deno.stdout.writeSync(new TextEncoder().encode(`\r\x1b[K${text.slice(0, width)}`));
    this.#detailShown = true;
  }

  /** Takes the detail off the screen. */
  clear(): void {
    if (this.#detailShown) Deno.stdout.writeSync(new TextEncoder().encode("\r\x1b[K"));
    this.#detailShown = false;
  }

  #stamp(): string {
    return `${((performance.now() - this.#start) / 1000).toFixed(1).padStart(6)} s`;
  }
}

/** Progress for a program that is no example of this frame. */
export function terminalProgress(): Progress {
  return new Terminal();
}

/**
 * Runs an example with the process's arguments.
 *
 * @returns The exit status: 0 if everything checked held, 1 if something did not or could not be done, 2 for a wrong
 * argument.
 */
export async function runProgram<Options, Figures>(
  program: Program<Options, Figures>,
): Promise<number> {
  const terminal = new Terminal();
  // Needed even where reading the arguments fails.
  const json = Deno.args.includes("--json");
  try {
    const options = program.readOptions(Deno.args);
    if (options === null) {
      console.log(program.help);
      return 0;
    }
    let line = "";
    const ok = await program.run(options, terminal, (outcome) => {
      terminal.clear();
      const good = report(program, outcome);
      line = JSON.stringify({ ok: good, ...outcome });
      return good;
    });
    if (json) console.log(line === "" ? JSON.stringify({ ok }) : line);
    return ok ? 0 : 1;
  } catch (error) {
    terminal.clear();
    // What is a defect of this program deserves its stack.
    const known = [UsageError, RunError, FetchError, GuestError, ...(program.errors ?? [])]
      .some((kind) => error instanceof kind);
    const message = known ? (error as Error).message : null;
    console.error(message === null ? error : `${program.name}: ${message}`);
    if (json) console.log(JSON.stringify({ ok: false, error: message ?? String(error) }));
    return error instanceof UsageError ? 2 : 1;
  }
}

function report<Options, Figures>(
  program: Program<Options, Figures>,
  outcome: Outcome<Figures>,
): boolean {
  const { figures, checks } = outcome;
  console.log();
  console.log(program.table(figures));
  console.log();
  for (const { what, ok } of checks) console.log(`  ${ok ? "ok    " : "FAILED"}  ${what}`);
  const good = checks.every(({ ok }) => ok) && (program.good?.(figures) ?? true);
  console.log();
  console.log(good ? program.verdict(outcome) : program.failure);
  return good;
}

/** Runs with Linux, or with our own driver where no kernel can be had and `instead` is not null. */
export async function orOwnDriver<T>(
  progress: Progress,
  linux: () => Promise<T>,
  instead: (() => Promise<T>) | null,
): Promise<T> {
  try {
    return await linux();
  } catch (error) {
    if (!(error instanceof FetchError) || instead === null) throw error;
    progress.step(`no Linux here: ${error.message}. Going on with --guest ts`);
    return await instead();
  }
}
