/** Runs the load of bench:vhost-blk on all servers in turn. */
import { quantile, ratios, type Spread, spread } from "../../bench/harness.ts";
import { progress } from "../bench_arguments.ts";
import { type Case, CASES, nameOf } from "./cases.ts";
import { type Server, startServers } from "./servers.ts";

/** What one server did in one case. */
export interface ServerResult {
  readonly name: string;
  /** Requests a second. */
  readonly speed: Spread;
  /** Seconds of processor time for a million requests. */
  readonly cpu: number;
  /** MiB of memory of its own: neither the guest's, nor the page cache. */
  readonly memory: number;
  /** Microseconds of a request, on average. */
  readonly latency: number;
}

/** What all servers did in one case. */
export interface CaseResult {
  readonly case: Case;
  readonly servers: readonly ServerResult[];
  /** The best of the storage daemon's ways. */
  readonly best: string;
  /** Our speed by that one's, of runs that followed one another. */
  readonly ratio: Spread;
}

/** How to measure. */
export interface MeasureOptions {
  readonly program: string;
  readonly image: string;
  readonly folder: string;
  readonly rounds: number;
  readonly seconds: number;
  /** Processors of the load and of the servers; null: any. */
  readonly pin: readonly [number, number] | null;
  /** Where ours runs its device. */
  readonly place: string;
  /** Whether a case is wanted. */
  readonly wanted: (name: string) => boolean;
}

interface Run {
  readonly requests: number;
  readonly seconds: number;
  readonly cpu: number;
  readonly ownKiB: number;
  readonly meanNs: number;
}

async function load(options: MeasureOptions, server: Server, one: Case): Promise<Run> {
  const { program, seconds, pin } = options;
  const [command, ...args] = [
    ...(pin === null ? [] : ["taskset", "-c", `${pin[0]}`]),
    ...[program, server.socket, `${server.pid}`, `${one.queues}`, `${one.depth}`],
    ...[one.direction, one.order, `${one.bytes}`, `${seconds}`],
  ];
  const { success, stdout, stderr } = await new Deno.Command(command!, { args }).output();
  if (!success) {
    throw new Error(`${server.name}, ${nameOf(one)}: ${new TextDecoder().decode(stderr)}`);
  }
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function measureCase(
  options: MeasureOptions,
  servers: readonly Server[],
  one: Case,
): Promise<CaseResult> {
  const runs = new Map<string, Run[]>(servers.map(({ name }) => [name, []]));
  for (let round = 0; round < options.rounds; round++) {
    const order = servers.map((server) => ({ server, at: Math.random() }))
      .sort((a, b) => a.at - b.at);
    for (const { server } of order) {
      progress(`${one.direct ? "direct" : "cached"}, ${nameOf(one)}: ${server.name}, ${round}`);
      runs.get(server.name)!.push(await load(options, server, one));
    }
  }
  const speeds = (name: string): number[] =>
    runs.get(name)!.map(({ requests, seconds }) => requests / seconds);
  const median = (name: string): number => quantile(speeds(name), 0.5);
  const best = servers.map(({ name }) => name).filter((name) => name !== "ours")
    .reduce((a, b) => median(a) >= median(b) ? a : b);
  return {
    case: one,
    best,
    ratio: spread(ratios(speeds("ours"), speeds(best))),
    servers: servers.map(({ name }) => {
      const all = runs.get(name)!;
      const middle = (value: (run: Run) => number): number => quantile(all.map(value), 0.5);
      return {
        name,
        speed: spread(speeds(name)),
        cpu: middle(({ cpu, requests }) => cpu / requests * 1e6),
        memory: middle(({ ownKiB }) => ownKiB / 1024),
        latency: middle(({ meanNs }) => meanNs / 1000),
      };
    }),
  };
}

/** What a server does first, uncounted: programs get faster while they run. */
const WARM_UP: readonly Pick<Case, "direction" | "depth">[] = [
  { direction: "read", depth: 1 },
  { direction: "read", depth: 32 },
  { direction: "write", depth: 32 },
];

/** Takes the image out of the page cache: a write past that is slow where it has to take a page out. */
async function dropCache(image: string): Promise<void> {
  const args = [`of=${image}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"];
  const { success } = await new Deno.Command("dd", { args, stdout: "null", stderr: "null" })
    .output();
  if (!success) throw new Error("dd failed on the image");
}

/** Measures all cases that are wanted; each way of serving is started once for those that it is for. */
export async function measure(options: MeasureOptions): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  const cases = CASES.filter((one) => options.wanted(nameOf(one)));
  // What was just written is in the page cache.
  for (const direct of [false, true]) {
    for (const queues of [1, 4]) {
      const these = cases.filter((one) => one.direct === direct && one.queues === queues);
      if (these.length === 0) continue;
      const servers = await startServers({
        image: options.image,
        folder: options.folder,
        direct,
        queues,
        processor: options.pin?.[1] ?? null,
        place: options.place,
      });
      try {
        if (direct) await dropCache(options.image);
        for (const server of servers) {
          progress(`${direct ? "direct" : "cached"}: ${server.name} warms up`);
          for (const each of WARM_UP) await load(options, server, { ...these[0]!, ...each });
        }
        for (const one of these) results.push(await measureCase(options, servers, one));
      } finally {
        for (const server of servers) await server.end();
      }
    }
  }
  return results;
}
