/** Runs the load of bench:vhost-net on both devices in turn. */
import { VHOST_USER_CARRIES, VhostUserServer, VhostUserWorkers } from "@virtio/vhost-user";
import { ratios, type Spread, spread } from "../../bench/harness.ts";
import { progress } from "../bench_arguments.ts";
import { type Case, nameOf } from "./cases.ts";
import { pause, Testpmd } from "./testpmd.ts";

/** The address that testpmd sends to unless told otherwise: what we send back has to pass the receiver's filter. */
const MAC = "02:00:00:00:00:00";
/** Frames of a burst of testpmd. */
const BURST = 32;
/** Milliseconds until a device is measured: ours is compiled meanwhile. */
const WARM_UP = 3000;
/** Milliseconds without a frame after which the rest is lost. */
const PATIENCE = 1000;
const QUEUE_SIZE = 256;
const VIRTIO_NET_F_MRG_RXBUF = 1n << 15n;
const VIRTIO_F_RING_PACKED = 1n << 34n;

/** How to measure. */
export interface MeasureOptions {
  readonly cases: readonly Case[];
  readonly rounds: number;
  readonly seconds: number;
  /** Bursts that are on their way at a time. */
  readonly bursts: number;
  /** Whether the driver asks for merged receive buffers. */
  readonly mergeable: boolean;
}

/** What one device did in one case. */
export interface DeviceResult {
  /** Millions of frames a second that came back. */
  readonly speed: Spread;
  /** Frames that never came back, in all rounds. */
  readonly lost: number;
}

/** What both did in one case. */
export interface CaseResult {
  readonly case: Case;
  readonly ours: DeviceResult;
  readonly dpdk: DeviceResult;
  /** Our speed by that of DPDK, of runs that followed one another. */
  readonly ratio: Spread;
}

interface Run {
  readonly speed: number;
  readonly lost: number;
}

/** Puts a device behind a socket that sends every frame back. */
async function startBack(
  stack: AsyncDisposableStack,
  ours: boolean,
  socket: string,
  name: string,
): Promise<void> {
  if (ours) {
    const device = await VhostUserWorkers.open({
      worker: () => new Worker(import.meta.resolve("./echo_worker.ts"), { type: "module" }),
      data: MAC,
      pin: [[1]],
      spin: 1000,
    });
    stack.use(new VhostUserServer({ socket, device, features: VHOST_USER_CARRIES }));
    return;
  }
  const back = stack.use(new Testpmd(name, 1, `net_vhost0,iface=${socket}`));
  await back.ready();
  await back.say("start\n", /io packet forwarding/);
}

/** The driver, which sends what comes back again. @throws {Error} If the features are not those that are wanted. */
async function startFront(
  stack: AsyncDisposableStack,
  one: Case,
  mergeable: boolean,
  socket: string,
  name: string,
): Promise<Testpmd> {
  const front = stack.use(
    new Testpmd(
      name,
      0,
      `net_virtio_user0,mac=${MAC},path=${socket},queue_size=${QUEUE_SIZE},` +
        `packed_vq=${one.packed ? 1 : 0},mrg_rxbuf=${mergeable ? 1 : 0}`,
    ),
  );
  await front.ready();
  checkFeatures(front.log, one, mergeable);
  return front;
}

/** Checks what the driver wrote down about features. @throws {Error} If they are not those that are wanted. */
export function checkFeatures(log: string, one: Case, mergeable: boolean): void {
  const said = log.match(/features after negotiate = ([0-9a-f]+)/);
  if (said === null) throw new Error("testpmd does not say what was negotiated");
  const features = BigInt(`0x${said[1]}`);
  const has = (bit: bigint): boolean => (features & bit) !== 0n;
  if (has(VIRTIO_F_RING_PACKED) !== one.packed || has(VIRTIO_NET_F_MRG_RXBUF) !== mergeable) {
    throw new Error(`The features are not those that were asked for: ${said[1]}`);
  }
}

async function run(ours: boolean, one: Case, options: MeasureOptions): Promise<Run> {
  const folder = await Deno.makeTempDir();
  const socket = `${folder}/net.sock`;
  const name = folder.replaceAll(/\W/g, "");
  const { bursts, seconds } = options;
  try {
    await using stack = new AsyncDisposableStack();
    await startBack(stack, ours, socket, `${name}b`);
    const front = await startFront(stack, one, options.mergeable, socket, `${name}f`);
    await front.say(
      `set txpkts ${one.bytes}\nstart tx_first ${bursts}\n`,
      /io packet forwarding/,
    );
    await pause(WARM_UP);
    const before = await front.received();
    const start = performance.now();
    await pause(seconds * 1000);
    const after = await front.received();
    const speed = (after - before) / (performance.now() - start) / 1000;
    if (speed === 0) throw new Error("No frame came back");
    return { speed, lost: await drain(front, bursts * BURST) };
  } catch (error) {
    const who = ours ? "our device" : "DPDK's vhost";
    throw new Error(`${nameOf(one)}, ${who}: ${(error as Error).message}`, { cause: error });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Sends nothing any more, and receives what is on its way. @returns How many frames never came. */
async function drain(front: Testpmd, frames: number): Promise<number> {
  await front.say("stop\n", /Accumulated forward statistics[^]*Done/);
  const before = await front.received();
  await front.say("set fwd rxonly\nstart\n", /rxonly packet forwarding/);
  let left = frames;
  for (let looks = 0; left > 0 && looks < PATIENCE / 50; looks++) {
    await pause(50);
    const now = frames - (await front.received() - before);
    if (now !== left) looks = 0;
    left = now;
  }
  return left;
}

async function measureCase(one: Case, options: MeasureOptions): Promise<CaseResult> {
  const runs: Record<"ours" | "dpdk", Run[]> = { ours: [], dpdk: [] };
  for (let round = 0; round < options.rounds; round++) {
    for (const ours of Math.random() < 0.5 ? [true, false] : [false, true]) {
      progress(`${nameOf(one)}: ${ours ? "ours" : "DPDK"}, round ${round + 1}`);
      runs[ours ? "ours" : "dpdk"].push(await run(ours, one, options));
    }
  }
  const speeds = (each: readonly Run[]): number[] => each.map(({ speed }) => speed);
  const result = (each: readonly Run[]): DeviceResult => ({
    speed: spread(speeds(each)),
    lost: each.reduce((sum, { lost }) => sum + lost, 0),
  });
  return {
    case: one,
    ours: result(runs.ours),
    dpdk: result(runs.dpdk),
    ratio: spread(ratios(speeds(runs.ours), speeds(runs.dpdk))),
  };
}

/** Measures all cases. @throws {Error} If one does not start, or nothing comes back, with the reason. */
export async function measure(options: MeasureOptions): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const one of options.cases) results.push(await measureCase(one, options));
  progress("");
  return results;
}
