/** The command lines of serve:blk, serve:net, serve:console and serve:entropy. */
import type { VirbrOptions } from "@virtio/virbr";
import { Arguments, UsageError } from "../shared/arguments.ts";
import {
  givesNetwork,
  NETWORK_BOOLEANS,
  NETWORK_HELP,
  NETWORK_STRINGS,
  readNetwork,
} from "./virbr_options.ts";

/** What every server lets the user choose. */
export interface ServeOptions {
  /** Paths of the sockets: one but for a network. */
  readonly sockets: readonly string[];
  /** Whether packed rings are offered. */
  readonly packed: boolean;
  readonly json: boolean;
}

const STRINGS = ["socket"];
const BOOLEANS = ["packed", "json", "help"];

/** What --help says of the options that are the same everywhere. */
const COMMON_HELP = `\
  --packed                offer packed rings too; a driver that can takes them
  --json                  a line of JSON each second, and for whatever happens
  --help                  this text

SIGTERM and SIGINT end it: what is in flight is finished and made durable, and the socket is removed.`;

/** Reads the arguments that are the same everywhere; null if help was asked for. */
function readCommon(
  args: string[],
  strings: readonly string[],
  booleans: readonly string[],
): { given: Arguments; options: ServeOptions } | null {
  const given = new Arguments(args, [...STRINGS, ...strings], [...BOOLEANS, ...booleans], false);
  if (given.flag("help")) return null;
  const sockets = given.texts("socket");
  if (sockets.length === 0) {
    throw new UsageError("--socket PATH says where the virtual machine finds the device");
  }
  const twice = sockets.find((path, i) => sockets.indexOf(path) !== i);
  if (twice !== undefined) throw new UsageError(`--socket ${twice} was given twice`);
  const options = { sockets, packed: given.flag("packed"), json: given.flag("json") };
  return { given, options };
}

function single({ sockets }: ServeOptions): void {
  if (sockets.length > 1) throw new UsageError("Give --socket once");
}

/** Where a device's code runs. */
export type Place = "process" | "worker" | "worker-per-queue";

/** What the user of serve:blk asked for. */
export interface BlkOptions extends ServeOptions {
  /** Path of the image; of the NBD server's disk its URI. */
  readonly image: string;
  readonly nbd: boolean;
  readonly create: number | null;
  readonly readonly: boolean;
  readonly queues: number;
  readonly engine: "auto" | "sync" | "io_uring";
  readonly direct: boolean;
  readonly in: Place;
  /** Processors that the device's threads run on, one after another; null for any. */
  readonly cpus: readonly number[] | null;
}

/** What --help prints. */
export const BLK_HELP =
  `Serves a disk to a virtual machine of another program, QEMU or User Mode Linux for instance, by vhost-user.

Usage: deno task serve:blk --socket PATH --image FILE [options]

  --socket PATH           the socket where the virtual machine finds the disk; made, and removed in the end
  --image FILE            raw image, or a block device
  --nbd URI               instead of an image: a disk on a server of network block devices, nbd://host:port/export or
                          nbd+unix:///export?socket=PATH; with nbds TLS
  --create SIZE           make the image if there is none, with this many bytes: 512M, 20G
  --readonly              a disk that the guest cannot write
  --queues N              number of virtqueues, 1 to 64 (default 1)
  --engine NAME           auto (default), sync or io_uring
  --direct                past the host's page cache
  --in PLACE              where the device runs: process (default), worker, or worker-per-queue
  --cpus LIST             with workers: processors to run them on, 0,2 or 4-7
${COMMON_HELP}
`;

/**
 * Reads the arguments of serve:blk.
 *
 * @returns The options, or null if help was asked for.
 * @throws {UsageError} If an argument is unknown or makes no sense.
 */
export function readBlkOptions(args: string[]): BlkOptions | null {
  const common = readCommon(
    args,
    ["image", "nbd", "create", "queues", "engine", "in", "cpus"],
    ["readonly", "direct"],
  );
  if (common === null) return null;
  const { given } = common;
  single(common.options);
  const nbd = given.text("nbd");
  const image = given.text("image") ?? nbd;
  if (image === null) throw new UsageError("--image FILE says what is on the disk, or --nbd URI");
  const create = given.text("create");
  const cpus = given.text("cpus");
  const options: BlkOptions = {
    ...common.options,
    image,
    nbd: nbd !== null,
    create: create === null ? null : readSize(create),
    readonly: given.flag("readonly"),
    queues: given.number("queues", 1, 1, 64),
    engine: given.choice("engine", ["auto", "sync", "io_uring"]),
    direct: given.flag("direct"),
    in: given.choice("in", ["process", "worker", "worker-per-queue"]),
    cpus: cpus === null ? null : readCpus(cpus),
  };
  const local = given.given("image") || create !== null || given.given("engine") ||
    options.direct || options.in !== "process";
  if (options.nbd && local) {
    throw new UsageError(
      "--nbd goes without --image, --create, --engine, --direct and --in worker",
    );
  }
  if (options.readonly && create !== null) {
    throw new UsageError("--readonly and --create contradict each other");
  }
  if (cpus !== null && options.in === "process") {
    throw new UsageError("--cpus is for --in worker and --in worker-per-queue");
  }
  return options;
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

function readSize(text: string): number {
  const [, digits, unit] = /^(\d+)([KMGT]?)$/i.exec(text) ?? [];
  const factor = UNITS[unit?.toUpperCase() ?? "-"];
  const size = factor === undefined ? NaN : Number(digits) * factor;
  if (!Number.isSafeInteger(size) || size <= 0 || size % 512 !== 0) {
    throw new UsageError(
      `--create is a size in whole sectors of 512 bytes, as 512M or 20G, not ${text}`,
    );
  }
  return size;
}

function readCpus(text: string): number[] {
  const cpus: number[] = [];
  for (const part of text.split(",")) {
    const [, first, last] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? [];
    if (first === undefined || Number(last ?? first) < Number(first)) {
      throw new UsageError(`--cpus is a list of numbers and ranges, as 0,2 or 4-7, not ${text}`);
    }
    for (let cpu = Number(first); cpu <= Number(last ?? first); cpu++) cpus.push(cpu);
  }
  return cpus;
}

/** What the user of serve:net asked for. */
export interface NetOptions extends ServeOptions {
  /** A tap of the host's that is a port of the switch too. */
  readonly tap: string | null;
  readonly mtu: number;
  readonly queues: number;
  /** The network that gives guests addresses, names and the way out; null for a switch alone. */
  readonly virbr: VirbrOptions | null;
}

/** What --help prints. */
export const NET_HELP =
  `Serves network cards to virtual machines of other programs by vhost-user: ports of one switch, one for each socket.

Usage: deno task serve:net --socket PATH [--socket PATH ...] [options]

  --socket PATH           a socket where a virtual machine finds its card; as many as you like
  --tap NAME              a tap of this machine's is a port too; made if there is none, which root may
  --queues N              pairs of virtqueues of each card, 1 to 16 (default 1)
  --mtu N                 largest packet on the network, 576 to 9000 bytes (default 1500)
  --virbr                 the network gives guests addresses, names and the way out, as serve:virbr's; then also:
${NETWORK_HELP}
${COMMON_HELP}
`;

/** Reads the arguments of serve:net, as `readBlkOptions`. */
export function readNetOptions(args: string[]): NetOptions | null {
  const common = readCommon(
    args,
    ["tap", "mtu", "queues", ...NETWORK_STRINGS],
    ["virbr", ...NETWORK_BOOLEANS],
  );
  if (common === null) return null;
  const { given } = common;
  const mtu = given.number("mtu", 1500, 576, 9000);
  const virbr = given.flag("virbr");
  if (!virbr && givesNetwork(given)) throw new UsageError("Options of the network need --virbr");
  return {
    ...common.options,
    tap: given.text("tap"),
    mtu,
    virbr: virbr ? readNetwork(given, mtu) : null,
    queues: given.number("queues", 1, 1, 16),
  };
}

/** What the user of serve:console asked for. */
export interface ConsoleOptions extends ServeOptions {
  /** Where the console's other end is. */
  readonly end: { readonly kind: "terminal" } | {
    readonly kind: "file" | "unix";
    readonly path: string;
  };
}

/** What --help prints. */
export const CONSOLE_HELP = `Serves a console to a virtual machine of another program by vhost-user.

Usage: deno task serve:console --socket PATH [options]

  --socket PATH           the socket where the virtual machine finds the console; made, and removed in the end
  --file FILE             what the guest writes is appended to the file
  --unix PATH             the console's other end is a Unix socket, made at PATH, where one program at a time may connect
                          Without either it is this terminal: Ctrl-A x leaves, Ctrl-A h helps
${COMMON_HELP}
`;

/** Reads the arguments of serve:console, as `readBlkOptions`. */
export function readConsoleOptions(args: string[]): ConsoleOptions | null {
  const common = readCommon(args, ["file", "unix"], []);
  if (common === null) return null;
  const { given } = common;
  single(common.options);
  const file = given.text("file");
  const unix = given.text("unix");
  if (file !== null && unix !== null) throw new UsageError("Give --file or --unix, not both");
  const end: ConsoleOptions["end"] = file !== null
    ? { kind: "file", path: file }
    : unix !== null
    ? { kind: "unix", path: unix }
    : { kind: "terminal" };
  if (end.kind === "terminal" && common.options.json) {
    throw new UsageError("--json needs --file or --unix: the terminal is the guest's");
  }
  return { ...common.options, end };
}

/** What --help prints. */
export const ENTROPY_HELP =
  `Serves an entropy device to a virtual machine of another program by vhost-user: random bytes of this machine's.

Usage: deno task serve:entropy --socket PATH [options]

  --socket PATH           the socket where the virtual machine finds the device; made, and removed in the end
${COMMON_HELP}
`;

/** Reads the arguments of serve:entropy, as `readBlkOptions`. */
export function readEntropyOptions(args: string[]): ServeOptions | null {
  const common = readCommon(args, [], []);
  if (common === null) return null;
  single(common.options);
  return common.options;
}
