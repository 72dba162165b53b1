/**
 * Our rings against their peers: `deno task bench:peers`. The same work by our queues, by a C reference (where there is a C
 * compiler) and by v86's own queue, in alternating blocks of one process.
 */
import { benchArguments, root } from "./bench_arguments.ts";
import { drawPicture } from "./svg.ts";
import {
  CASES,
  measureCase,
  measurePeers,
  type PeerCase,
  type PeerResult,
} from "./bench_peers/measure.ts";
import { measureFlatness } from "./bench_peers/flatness.ts";
import { flatPicture, peersPicture, peersTable } from "./bench_peers/report.ts";

const HELP = `Measures this project's rings against a C reference and v86's own queue.

Usage: deno task bench:peers [options]

  --rounds N   rounds that count (default 15)
  --no-svg     leaves docs/peers.svg and docs/flat.svg as they are
  --no-flat    does not measure how the cost depends on queues, ring size and memory regions
  --json       the last line is one JSON object
  --help       this text
`;

const wanted = benchArguments({
  name: "bench:peers",
  help: HELP,
  rounds: 15,
  leastRounds: 3,
  strings: ["case"],
  booleans: ["svg", "flat"],
  negatable: ["svg", "flat"],
  on: ["svg", "flat"],
});
const { rounds, all } = wanted;

// One case, for the process that measures all of them.
const one = all["case"] as PeerCase | undefined;
if (one !== undefined) {
  if (!CASES.includes(one)) wanted.fail(`--case is one of ${CASES.join(", ")}`);
  console.log(JSON.stringify(await measureCase(one, rounds)));
  Deno.exit(0);
}

const result: PeerResult = await measurePeers(rounds, (line) => console.log(line));
console.log();
console.log(peersTable(result));
if (all["svg"] === true) {
  await Deno.mkdir(`${root}docs`, { recursive: true });
  await Deno.writeTextFile(`${root}docs/peers.svg`, drawPicture(peersPicture(result)));
}
const flat = all["flat"] === true ? measureFlatness(rounds, (line) => console.log(line)) : null;
if (flat !== null && all["svg"] === true) {
  await Deno.writeTextFile(`${root}docs/flat.svg`, drawPicture(flatPicture(flat)));
}
if (wanted.json) console.log(JSON.stringify({ ...result, flat }));
Deno.exit(0);
