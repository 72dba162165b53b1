/**
 * Our network card in a worker against DPDK's own vhost, both behind vhost-user: `deno task bench:vhost-net`. DPDK's testpmd is
 * the driver of both, and sends what comes back again. Needs Debian's dpdk-dev, which it installs where it may.
 */
import { benchArguments, pictureFile, writePicture } from "./bench_arguments.ts";
import { CASES, nameOf } from "./bench_vhost_net/cases.ts";
import { measure } from "./bench_vhost_net/measure.ts";
import { benchPicture, benchTable } from "./bench_vhost_net/report.ts";
import { installPackages } from "./debian.ts";

const HELP = `Measures our network card against DPDK's vhost, by testpmd as virtio-user.

Usage: deno task bench:vhost-net [options]

  --rounds N      rounds that count (default 5)
  --seconds N     seconds of one run (default 1.5)
  --bursts N      bursts of 32 frames that are on their way (default 4)
  --case TEXT     only cases whose name has it, such as "packed, 64"
  --no-mergeable  the driver does not ask for merged receive buffers
  --svg FILE      where the picture goes (default docs/vhost-net.svg); none with --no-svg
  --json          the last line is one JSON object
  --help          this text
`;
const wanted = benchArguments({
  name: "bench:vhost-net",
  help: HELP,
  rounds: 5,
  leastRounds: 1,
  strings: ["svg", "seconds", "bursts", "case"],
  booleans: ["mergeable"],
  negatable: ["svg", "mergeable"],
  on: ["mergeable"],
});
const { rounds, all, json } = wanted;
const svg = pictureFile(wanted, "docs/vhost-net.svg");
const seconds = Number(all["seconds"] ?? 1.5);
const bursts = Number(all["bursts"] ?? 4);
if (!(seconds > 0 && seconds <= 60)) wanted.fail("--seconds is a number up to 60");
if (!(Number.isInteger(bursts) && bursts >= 1 && bursts <= 7)) {
  wanted.fail("--bursts is a number from 1 to 7, as rings have 256 entries");
}
const text = (all["case"] ?? "") as string;
const cases = CASES.filter((one) => nameOf(one).includes(text));
if (cases.length === 0) wanted.fail(`No case has "${text}" in its name`);
const processors = navigator.hardwareConcurrency;
if (processors < 2) wanted.fail("Driver and device need a processor each");
if (!await installPackages(["dpdk-dev", "librte-meta-all"])) wanted.fail("There is no DPDK here");

async function dpdkVersion(): Promise<string> {
  const { stdout } = await new Deno.Command("dpkg-query", {
    args: ["-W", "-f", "DPDK ${Version}", "dpdk-dev"],
  }).output();
  return new TextDecoder().decode(stdout).replace(/-.*/, "");
}

const mergeable = all["mergeable"] === true;
const results = await measure({ cases, rounds, seconds, bursts, mergeable })
  .catch((error: Error) => wanted.fail(error.message));
const bench = {
  rounds,
  seconds,
  bursts,
  mergeable,
  dpdk: await dpdkVersion(),
  results,
  processors,
  load: Deno.loadavg()[0]!,
};
console.log(benchTable(bench));
if (svg !== null) await writePicture(svg, benchPicture(bench));
if (json) console.log(JSON.stringify(bench));
