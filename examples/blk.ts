/**
 * example:blk: a stock Linux on a virtio disk made of this project's packages. `--help` says what it can do.
 *
 * The exit status is 0 if everything checked held, 1 if something did not or could not be done, 2 for a wrong argument.
 */
import { ImageError } from "@virtio/blk/file";
import { figureTable } from "./blk/figures.ts";
import { openImage } from "./blk/image.ts";
import { runLinux } from "./blk/linux_guest.ts";
import { HELP, type Options, readOptions, UsageError } from "./blk/options.ts";
import { type Outcome, type Progress, RunError } from "./blk/run.ts";
import { runTs } from "./blk/ts_guest.ts";
import { FetchError } from "./guest/fetch.ts";
import { GuestError } from "./guest/guest.ts";

const start = performance.now();
const live = Deno.stdout.isTerminal();
let detailShown = false;

/** Progress on the terminal, each line with the time since the start. */
const progress: Progress = {
  step(line) {
    clearDetail();
    console.log(`${stamp()}  ${line}`);
  },
  detail(line) {
    if (!live) {
      console.log(`${stamp()}    ${line}`);
      return;
    }
    const width = Deno.consoleSize().columns - 1;
    Deno.stdout.writeSync(
      new TextEncoder().encode(`\r\x1b[K${`${stamp()}    ${line}`.slice(0, width)}`),
    );
    detailShown = true;
  },
};

function stamp(): string {
  return `${((performance.now() - start) / 1000).toFixed(1).padStart(6)} s`;
}

function clearDetail(): void {
  if (detailShown) Deno.stdout.writeSync(new TextEncoder().encode("\r\x1b[K"));
  detailShown = false;
}

/** Runs the guest that was asked for, or our own where no kernel can be had. */
async function run(options: Options, judge: (outcome: Outcome) => boolean): Promise<boolean> {
  using image = openImage(options);
  if (options.guest === "linux") {
    try {
      return await runLinux(options, image, progress, judge);
    } catch (error) {
      if (!(error instanceof FetchError) || options.shell) throw error;
      progress.step(`no Linux here: ${error.message}. Going on with --guest ts`);
    }
  }
  return judge(await runTs(options, image, progress));
}

function report(outcome: Outcome): boolean {
  clearDetail();
  console.log();
  console.log(figureTable(outcome.figures));
  console.log();
  for (const { what, ok } of outcome.checks) console.log(`  ${ok ? "ok    " : "FAILED"}  ${what}`);
  const good = outcome.checks.every(({ ok }) => ok) && outcome.figures.errors === 0;
  const driver = outcome.guest === "linux" ? "Linux" : "our own driver";
  console.log();
  console.log(
    good
      ? `The disk works: ${driver} and the host agree on what is on it.`
      : "The disk does NOT work: see above.",
  );
  return good;
}

/** One sentence for what went wrong, or null if it is a defect of this program, which deserves its stack. */
function sentence(error: unknown): string | null {
  const known = error instanceof UsageError || error instanceof ImageError ||
    error instanceof RunError || error instanceof FetchError || error instanceof GuestError;
  return known ? error.message : null;
}

async function main(): Promise<number> {
  let options: Options | null = null;
  // Needed even where reading the arguments fails.
  const json = Deno.args.includes("--json");
  try {
    options = readOptions(Deno.args);
    if (options === null) {
      console.log(HELP);
      return 0;
    }
    let line = "";
    const ok = await run(options, (outcome) => {
      const good = report(outcome);
      line = JSON.stringify({ ok: good, ...outcome });
      return good;
    });
    if (json) console.log(line === "" ? JSON.stringify({ ok }) : line);
    return ok ? 0 : 1;
  } catch (error) {
    clearDetail();
    const message = sentence(error);
    console.error(message === null ? error : `example:blk: ${message}`);
    if (json) console.log(JSON.stringify({ ok: false, error: message ?? String(error) }));
    return error instanceof UsageError ? 2 : 1;
  }
}

Deno.exit(await main());
