/**
 * The network device and the console against others: `deno task bench:net`. Frames between two drivers on the switch against
 * the same in C; and in one Linux in v86 our devices against v86's own virtio-net and virtio-console.
 */
import { NativeNet } from "../bench/native/net_switch.ts";
import { FetchError } from "../examples/guest/fetch.ts";
import { benchArguments, pictureFile, progress, root, writePicture } from "./bench_arguments.ts";
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

const wanted = benchArguments({
  name: "bench:net",
  help: HELP,
  rounds: 15,
  leastRounds: 3,
  strings: ["svg", "case"],
  booleans: ["guest"],
  negatable: ["svg", "guest"],
  on: ["guest"],
});
const { rounds, all } = wanted;

// One case, for the process that measures all of them.
if (all["case"] !== undefined) {
  const one = Number(all["case"]);
  if (CASES[one] === undefined) wanted.fail(`--case is a number from 0 to ${CASES.length - 1}`);
  console.log(JSON.stringify(await measureSwitch(one, rounds)));
  Deno.exit(0);
}

const svg = pictureFile(wanted, "docs/net.svg");

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
  const guest = all["guest"] === true
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
  if (svg !== null) await writePicture(svg, benchPicture(bench));
  if (wanted.json) console.log(JSON.stringify(bench));
  Deno.exit(0);
} catch (error) {
  if (!(error instanceof FetchError)) throw error;
  wanted.fail(`There is no guest here: ${error.message}`);
}
