/**
 * serve:blk against QEMU's storage daemon, both behind vhost-user, without a guest: `deno task bench:vhost-blk`. Needs a C
 * compiler, and Debian's qemu-system-common, which it installs where it may.
 */
import { compile } from "../bench/native/compile.ts";
import { benchArguments, pictureFile, root, writePicture } from "./bench_arguments.ts";
import { measure } from "./bench_vhost_blk/measure.ts";
import { benchPicture, benchTable } from "./bench_vhost_blk/report.ts";
import { installPackages } from "./debian.ts";

const HELP = `Measures serve:blk against qemu-storage-daemon, both behind vhost-user.

Usage: deno task bench:vhost-blk [options]

  --rounds N     rounds that count (default 5)
  --seconds N    seconds of one run (default 1)
  --size N       MiB of the image (default 512)
  --folder PATH  where the image is put (default .cache/bench); O_DIRECT needs a file system that can do it
  --case TEXT    only cases whose name has it, such as "4k random read"
  --in PLACE     where our device runs: process, worker, worker-per-queue (default worker)
  --no-pin       leaves it to the system which processors are used
  --svg FILE     where the picture goes (default docs/vhost-blk.svg); none with --no-svg
  --json         the last line is one JSON object
  --help         this text
`;

const wanted = benchArguments({
  name: "bench:vhost-blk",
  help: HELP,
  rounds: 5,
  leastRounds: 1,
  strings: ["svg", "seconds", "size", "folder", "case", "in"],
  booleans: ["pin"],
  negatable: ["svg", "pin"],
  on: ["pin"],
});
const { rounds, all, json } = wanted;
const svg = pictureFile(wanted, "docs/vhost-blk.svg");
const seconds = Number(all["seconds"] ?? 1);
const mebibytes = Number(all["size"] ?? 512);
if (!(seconds > 0 && seconds <= 60)) wanted.fail("--seconds is a number up to 60");
if (!(Number.isInteger(mebibytes) && mebibytes >= 64 && mebibytes <= 65536)) {
  wanted.fail("--size is a number from 64 to 65536");
}
const text = (all["case"] ?? "") as string;
const place = all["in"] as string | undefined;

/**
 * Writes the image: every block begins with its own number. Block by block, since the system keeps what is written together
 * in the page cache in one piece, and a small write into a large piece costs ten times as much, whoever does it.
 */
function writeImage(path: string): void {
  using file = Deno.openSync(path, { create: true, write: true, truncate: true });
  const block = new Uint8Array(4096);
  const view = new DataView(block.buffer);
  for (let number = 0; number < mebibytes * 256; number++) {
    view.setBigUint64(0, BigInt(number), true);
    if (file.writeSync(block) !== block.length) throw new Error("The image cannot be written");
  }
  file.syncSync();
}

async function firstLine(command: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command(command, { args }).output();
  return new TextDecoder().decode(stdout).split("\n")[0]!;
}

await installPackages(["qemu-system-common"]);
const load = await compile("vhost_blk.c", "program");
if (load === null) wanted.fail("There is no C compiler here: the load is written in C");
const parent = String(all["folder"] ?? `${root}.cache/bench`);
await Deno.mkdir(parent, { recursive: true });
const folder = await Deno.makeTempDir({ dir: parent, prefix: "vhost-blk-" });
try {
  const image = `${folder}/disk`;
  writeImage(image);
  const processors = navigator.hardwareConcurrency;
  const pin = all["pin"] === true && processors > 1 ? [0, 1] as const : null;
  const results = await measure({
    program: load!.library.pathname,
    image,
    folder,
    rounds,
    seconds,
    pin,
    place: place ?? "worker",
    wanted: (name) => name.includes(text),
  });
  if (results.length === 0) wanted.fail(`No case has "${text}" in its name`);
  const bench = {
    rounds,
    seconds,
    pinned: pin !== null,
    compiler: load!.compiler,
    daemon: (await firstLine("qemu-storage-daemon", "--version")).replace(" version", ""),
    results,
    processors,
    load: Deno.loadavg()[0]!,
  };
  console.log(benchTable(bench));
  if (svg !== null) await writePicture(svg, benchPicture(bench));
  if (json) console.log(JSON.stringify(bench));
} finally {
  await Deno.remove(folder, { recursive: true });
}
