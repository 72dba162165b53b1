/**
 * Our network against others that join guests to the host's sockets in user space: `deno task bench:virbr`. The kernel of a
 * network namespace is the guest, over a tap; iperf3, a client that connects again and again, and ping measure.
 *
 * Every contestant has a guest of its own, and all are there at once; they are measured alternately.
 */
import { ratios, type Spread, spread } from "../bench/harness.ts";
import { benchArguments, pictureFile, progress, writePicture } from "./bench_arguments.ts";
import { type Contestant, startOurs, startPasta, startSlirp } from "./bench_virbr/contestants.ts";
import { type Case, CASES, ECHO_SERVER, IPERF_PORT } from "./bench_virbr/measure.ts";
import { benchPicture, method, type Row, rowText } from "./bench_virbr/report.ts";
import { World } from "./bench_virbr/world.ts";
import { installPackages } from "./debian.ts";

const HELP =
  `Measures the user-space network against slirp4netns and pasta, over taps in network namespaces.

Usage: deno task bench:virbr [options]     (needs root, for namespaces and taps)

  --rounds N   rounds of each measurement (default 5)
  --mtu LIST   of the taps (default 1500,65520)
  --case LIST  only measurements whose names have one of these in them
  --svg FILE   where the picture goes (default docs/virbr.svg); none with --no-svg
  --json       the last line is one JSON object
  --help       this text
`;

const wanted = benchArguments({
  name: "bench:virbr",
  help: HELP,
  rounds: 5,
  leastRounds: 1,
  strings: ["mtu", "case", "svg"],
  negatable: ["svg"],
});
const { rounds, all, json, fail } = wanted;
const svg = pictureFile(wanted, "docs/virbr.svg");
const mtus = String(all["mtu"] ?? "1500,65520").split(",").map(Number);
if (!mtus.every((mtu) => mtu >= 1280 && mtu <= 65520)) fail("--mtu is from 1280 to 65520");
const only = all["case"] === undefined ? null : String(all["case"]).split(",");

async function measure(one: Case, mtu: number, contestants: readonly Contestant[]): Promise<Row> {
  const got = new Map(contestants.map(({ name }) => [name, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    // Nobody is always first.
    for (let i = 0; i < contestants.length; i++) {
      const contestant = contestants[(i + round) % contestants.length]!;
      progress(`MTU ${mtu}, ${one.name}, round ${round + 1} of ${rounds}: ${contestant.name}`);
      const value = await one.run(contestant);
      if (value !== null) got.get(contestant.name)!.push(value);
    }
  }
  progress("");
  const ours = got.get("virbr")!;
  const values: Record<string, Spread> = {};
  const others: Record<string, Spread> = {};
  for (const [name, each] of got) {
    if (each.length === 0) continue;
    values[name] = spread(each);
    if (each !== ours) others[name] = spread(one.more ? ratios(ours, each) : ratios(each, ours));
  }
  return { mtu, name: one.name, unit: one.unit, values, ratios: others };
}

async function version(program: string): Promise<string> {
  const { stdout } = await new Deno.Command(program, { args: ["--version"] }).output();
  const [first = ""] = new TextDecoder().decode(stdout).split("\n");
  const [, found] = / (\d[\w.]*)/.exec(first) ?? [];
  return `${program} ${found ?? ""}`.trimEnd();
}

if (!await installPackages(["iperf3", "iproute2", "iputils-ping", "passt", "slirp4netns"])) {
  fail("iperf3, iproute2, iputils-ping, passt and slirp4netns are needed");
}

const rows: Row[] = [];
for (const mtu of mtus) {
  const world = await World.make();
  try {
    const server = ["--server", "--port", `${IPERF_PORT}`, "--forceflush"];
    await world.start(world.outside, /listening/, "iperf3", ...server);
    await world.start(world.outside, /ready/, Deno.execPath(), "eval", "-q", ECHO_SERVER);
    const contestants: Contestant[] = [];
    for (const start of [startOurs, startSlirp, startPasta]) {
      contestants.push(await start(world, mtu));
    }
    for (const one of CASES) {
      if (only !== null && !only.some((part) => one.name.includes(part))) continue;
      const row = await measure(one, mtu, contestants);
      rows.push(row);
      console.log(rowText(row));
    }
  } finally {
    await world.close();
  }
}
if (rows.length === 0) fail(`No measurement has one of ${only} in its name`);
const bench = {
  rounds,
  rows,
  processors: navigator.hardwareConcurrency,
  load: Deno.loadavg()[0]!,
  versions: [await version("slirp4netns"), await version("pasta")],
};
console.log(`\n${method(bench).join("\n")}`);
if (svg !== null) await writePicture(svg, benchPicture(bench));
if (json) console.log(JSON.stringify(bench));
