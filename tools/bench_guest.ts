/**
 * Para-virtualisation against full emulation: `deno task bench:guest`. One Linux in v86 with v86's own IDE disk and with
 * virtio disks of this project, measured in alternation, and the host's own direct I/O beside them.
 */
import { parseArgs } from "@std/cli/parse-args";
import { FetchError } from "../examples/guest/fetch.ts";
import { benchGuest } from "./bench_guest/measure.ts";
import { benchPicture, benchTable } from "./bench_guest/report.ts";

const HELP = `Measures virtio-blk against v86's own IDE disk, in one Linux guest.

Usage: deno task bench:guest [options]

  --rounds N   rounds that count (default 25)
  --svg FILE   where the picture goes (default docs/guest.svg); none with --no-svg
  --json       the last line is one JSON object
  --help       this text
`;

const root = new URL("..", import.meta.url).pathname;

const parsed = parseArgs(Deno.args, {
  string: ["rounds", "svg"],
  boolean: ["json", "help"],
  negatable: ["svg"],
  unknown: (argument: string) => fail(`There is no argument ${argument}: see --help`),
}) as Record<string, unknown>;

function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}

if (parsed["help"] === true) {
  console.log(HELP);
  Deno.exit(0);
}
const rounds = Number(parsed["rounds"] ?? 25);
if (!Number.isInteger(rounds) || rounds < 1 || rounds > 1000) {
  fail("--rounds is a number from 1 to 1000");
}
const svg = parsed["svg"] === false ? null : String(parsed["svg"] ?? `${root}docs/guest.svg`);

const terminal = Deno.stderr.isTerminal();
function progress(line: string): void {
  if (terminal) Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${line}`));
}

try {
  const bench = await benchGuest({
    rounds,
    warmUp: 6,
    reads: 200,
    megabytes: 48,
    folder: `${root}.cache/bench`,
    progress,
  });
  progress("");
  console.log(benchTable(bench));
  if (svg !== null) {
    await Deno.mkdir(svg.replace(/[^/]*$/, "") || ".", { recursive: true });
    await Deno.writeTextFile(svg, benchPicture(bench));
    console.log(`\nThe picture is in ${svg.startsWith(root) ? svg.slice(root.length) : svg}`);
  }
  if (parsed["json"] === true) console.log(JSON.stringify(bench));
} catch (error) {
  if (!(error instanceof FetchError)) throw error;
  fail(`There is no guest here: ${error.message}`);
}
