/**
 * Para-virtualisation against full emulation: `deno task bench:guest`. One Linux in v86 with v86's own IDE disk and with
 * virtio disks of this project, measured in alternation, and the host's own direct I/O beside them.
 */
import { FetchError } from "../examples/guest/fetch.ts";
import { benchArguments, pictureFile, progress, root, writePicture } from "./bench_arguments.ts";
import { benchGuest } from "./bench_guest/measure.ts";
import { benchPicture, benchTable } from "./bench_guest/report.ts";

const HELP = `Measures virtio-blk against v86's own IDE disk, in one Linux guest.

Usage: deno task bench:guest [options]

  --rounds N   rounds that count (default 25)
  --svg FILE   where the picture goes (default docs/guest.svg); none with --no-svg
  --json       the last line is one JSON object
  --help       this text
`;

const wanted = benchArguments({
  name: "bench:guest",
  help: HELP,
  rounds: 25,
  leastRounds: 1,
  strings: ["svg"],
  negatable: ["svg"],
});
const { rounds } = wanted;
const svg = pictureFile(wanted, "docs/guest.svg");

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
  if (svg !== null) await writePicture(svg, benchPicture(bench));
  if (wanted.json) console.log(JSON.stringify(bench));
} catch (error) {
  if (!(error instanceof FetchError)) throw error;
  wanted.fail(`There is no guest here: ${error.message}`);
}
