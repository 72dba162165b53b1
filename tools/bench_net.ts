/**
 * The network device and the console against others: `deno task bench:net`. Frames between two drivers on the switch against
 * the same in C; and in one Linux in v86 our devices against v86's own virtio-net and virtio-console.
 */
import { parseArgs } from "@std/cli/parse-args";
import { NativeNet } from "../bench/native/net_switch.ts";
import { FetchError } from "../examples/guest/fetch.ts";
import { measureGuest } from "./bench_net/measure_guest.ts";
import { CASES, measureSwitch, type SwitchRow } from "./bench_net/measure_switch.ts";
import { benchPicture, benchTable, type NetBench } from "./bench_net/report.ts";

const HELP =
  `Measures virtio-net and virtio-console against v86's own, and frames on the switch against C.

Usage: deno task bench:net [options]

  --rounds N   rounds that count (default 15)
  --no-guest   only frames on the switch
  --svg FILE   where the picture goes (default docs/net.svg); none with --no-svg
  --json       the last line is one JSON object
  --help       this text
`;

const root = new URL("..", import.meta.url).pathname;

const parsed = parseArgs(Deno.args, {
  string: ["rounds", "svg", "case"],
  boolean: ["json", "help", "guest"],
  negatable: ["svg", "guest"],
  default: { guest: true },
  unknown: (argument: string) => fail(`There is no argument ${argument}: see --help`),
}) as Record<string, unknown>;

function fail(message: string): never {
  console.error(`bench:net: ${message}`);
  Deno.exit(2);
}

if (parsed["help"] === true) {
  console.log(HELP);
  Deno.exit(0);
}
const rounds = Number(parsed["rounds"] ?? 15);
if (!Number.isInteger(rounds) || rounds < 3 || rounds > 1000) {
  fail("--rounds is a number from 3 to 1000");
}

// One case, for the process that measures all of them.
if (parsed["case"] !== undefined) {
  const one = Number(parsed["case"]);
  if (CASES[one] === undefined) fail(`--case is a number from 0 to ${CASES.length - 1}`);
  console.log(JSON.stringify(await measureSwitch(one, rounds)));
  Deno.exit(0);
}

const svg = parsed["svg"] === false ? null : String(parsed["svg"] ?? `${root}docs/net.svg`);
const terminal = Deno.stderr.isTerminal();
function progress(line: string): void {
  if (terminal) Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${line}`));
}

/** Each in a process of its own. */
async function measureCases(): Promise<SwitchRow[]> {
  const rows: SwitchRow[] = [];
  for (const [index, name] of CASES.entries()) {
    progress(name.join(", "));
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `${root}tools/bench_net.ts`]
        .concat(["--rounds", `${rounds}`, "--case", `${index}`]),
    }).output();
    if (!success) throw new Error(`${name.join(", ")}: ${new TextDecoder().decode(stderr)}`);
    rows.push(JSON.parse(new TextDecoder().decode(stdout)));
  }
  return rows;
}

try {
  const compiler = (await NativeNet.open())?.compiler ?? null;
  const rows = await measureCases();
  const guest = parsed["guest"] === true
    ? await measureGuest({ rounds, warmUp: 6, size: 1, progress })
    : null;
  const bench: NetBench = {
    rounds,
    compiler,
    switch: rows,
    guest,
    processors: navigator.hardwareConcurrency,
    load: Deno.loadavg()[0]!,
  };
  progress("");
  console.log(benchTable(bench));
  if (svg !== null) {
    await Deno.mkdir(svg.replace(/[^/]*$/, "") || ".", { recursive: true });
    await Deno.writeTextFile(svg, benchPicture(bench));
    console.log(`\nThe picture is in ${svg.startsWith(root) ? svg.slice(root.length) : svg}`);
  }
  if (parsed["json"] === true) console.log(JSON.stringify(bench));
  Deno.exit(0);
} catch (error) {
  if (!(error instanceof FetchError)) throw error;
  fail(`There is no guest here: ${error.message}`);
}
