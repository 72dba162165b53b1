/**
 * Our network against others that join guests to the host's sockets in user space: `deno task bench:virbr`. The kernel of a
 * network namespace is the guest, over a tap; iperf3, a client that connects again and again, and ping measure.
 *
 * Every contestant has a guest of its own, and all are there at once; they are measured alternately.
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Contestant, startOurs, startPasta, startSlirp } from "./bench_virbr/contestants.ts";
import { type Case, CASES, ECHO_SERVER, IPERF_PORT } from "./bench_virbr/measure.ts";
import { SERVER, World } from "./bench_virbr/world.ts";
import { installPackages } from "./debian.ts";

const HELP =
  `Measures the user-space network against slirp4netns and pasta, over taps in network namespaces.

Usage: deno task bench:virbr [options]     (needs root, for namespaces and taps)

  --rounds N   rounds of each measurement (default 5)
  --mtu LIST   of the taps (default 1500,65520)
  --json       the last line is one JSON object
  --help       this text
`;

function fail(message: string): never {
  console.error(`bench:virbr: ${message}`);
  Deno.exit(2);
}

const parsed = parseArgs(Deno.args, {
  string: ["rounds", "mtu", "only"],
  boolean: ["json", "help"],
  unknown: (argument: string) => fail(`There is no argument ${argument}: see --help`),
}) as Record<string, unknown>;
if (parsed["help"] === true) {
  console.log(HELP);
  Deno.exit(0);
}
const rounds = Number(parsed["rounds"] ?? 5);
if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) fail("--rounds is from 1 to 100");
const mtus = String(parsed["mtu"] ?? "1500,65520").split(",").map(Number);
if (!mtus.every((mtu) => mtu >= 1280 && mtu <= 65520)) fail("--mtu is from 1280 to 65520");
const only = parsed["only"] === undefined ? null : String(parsed["only"]).split(",");

interface Row {
  readonly mtu: number;
  readonly name: string;
  readonly unit: string;
  /** Median, least and greatest of each contestant. */
  readonly values: Record<string, [number, number, number]>;
  /** Ours by theirs, so that more is better: median, least and greatest of the rounds. */
  readonly ratios: Record<string, [number, number, number]>;
}

function spread(values: readonly number[]): [number, number, number] {
  const sorted = [...values].sort((a, b) => a - b);
  return [sorted[sorted.length >> 1]!, sorted[0]!, sorted.at(-1)!];
}

async function measure(one: Case, mtu: number, contestants: readonly Contestant[]): Promise<Row> {
  const got = new Map(contestants.map(({ name }) => [name, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    // Nobody is always first.
    for (let i = 0; i < contestants.length; i++) {
      const contestant = contestants[(i + round) % contestants.length]!;
      const value = await one.run(contestant);
      if (value !== null) got.get(contestant.name)!.push(value);
    }
  }
  const ours = got.get("virbr");
  const row: Row = { mtu, name: one.name, unit: one.unit, values: {}, ratios: {} };
  for (const [name, values] of got) {
    if (values.length === 0) continue;
    row.values[name] = spread(values);
    if (ours === undefined || values === ours) continue;
    row.ratios[name] = spread(
      values.map((value, i) => one.more ? ours[i]! / value : value / ours[i]!),
    );
  }
  return row;
}

if (!await installPackages(["iperf3", "iproute2", "iputils-ping", "passt", "slirp4netns"])) {
  fail("iperf3, iproute2, iputils-ping, passt and slirp4netns are needed");
}

const digits = (value: number): string => value.toPrecision(3);
const rows: Row[] = [];
for (const mtu of mtus) {
  const world = await World.make();
  try {
    await world.start(
      world.outside,
      /listening/,
      "iperf3",
      "--server",
      "--port",
      `${IPERF_PORT}`,
      "--forceflush",
    );
    await world.start(world.outside, /ready/, Deno.execPath(), "eval", "-q", ECHO_SERVER);
    const contestants: Contestant[] = [];
    for (const start of [startOurs, startSlirp, startPasta]) {
      contestants.push(await start(world, mtu));
    }
    for (const one of CASES) {
      if (only !== null && !only.some((part) => one.name.includes(part))) continue;
      const row = await measure(one, mtu, contestants);
      rows.push(row);
      const values = Object.entries(row.values).map(([name, [median, least, most]]) =>
        `${name} ${digits(median)} (${digits(least)} to ${digits(most)})`
      );
      const ratios = Object.entries(row.ratios).map(([name, [median, least, most]]) =>
        `${digits(median)} x ${name} (${digits(least)} to ${digits(most)})`
      );
      console.log(`MTU ${mtu}, ${one.name}, ${one.unit}: ${values.join(", ")}`);
      if (ratios.length > 0) console.log(`    ours: ${ratios.join(", ")}`);
    }
  } finally {
    await world.close();
  }
}
if (parsed["json"] === true) console.log(JSON.stringify({ server: SERVER, rounds, rows }));
