/**
 * Our rings against their peers: `deno task bench:peers`. The same work by our queues, by a C reference (where there is a C
 * compiler) and by v86's own queue, in alternating blocks of one process.
 */
import { parseArgs } from "@std/cli/parse-args";
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

const root = new URL("..", import.meta.url).pathname;

function fail(message: string): never {
  console.error(`bench:peers: ${message}`);
  Deno.exit(2);
}

const parsed = parseArgs(Deno.args, {
  string: ["rounds", "case"],
  boolean: ["json", "help", "svg", "flat"],
  negatable: ["svg", "flat"],
  default: { svg: true, flat: true },
  unknown: (argument: string) => fail(`There is no argument ${argument}: see --help`),
}) as Record<string, unknown>;

if (parsed["help"] === true) {
  console.log(HELP);
  Deno.exit(0);
}
const rounds = Number(parsed["rounds"] ?? 15);
if (!Number.isInteger(rounds) || rounds < 3 || rounds > 1000) {
  fail("--rounds is a number from 3 to 1000");
}

// One case, for the process that measures all of them.
const one = parsed["case"] as PeerCase | undefined;
if (one !== undefined) {
  if (!CASES.includes(one)) fail(`--case is one of ${CASES.join(", ")}`);
  console.log(JSON.stringify(await measureCase(one, rounds)));
  Deno.exit(0);
}

const result: PeerResult = await measurePeers(rounds, (line) => console.log(line));
console.log();
console.log(peersTable(result));
if (parsed["svg"] === true) {
  await Deno.mkdir(`${root}docs`, { recursive: true });
  await Deno.writeTextFile(`${root}docs/peers.svg`, drawPicture(peersPicture(result)));
}
const flat = parsed["flat"] === true ? measureFlatness(rounds, (line) => console.log(line)) : null;
if (flat !== null && parsed["svg"] === true) {
  await Deno.writeTextFile(`${root}docs/flat.svg`, drawPicture(flatPicture(flat)));
}
if (parsed["json"] === true) console.log(JSON.stringify({ ...result, flat }));
Deno.exit(0);
