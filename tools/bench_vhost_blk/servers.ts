/** The servers that bench:vhost-blk measures: ours, and QEMU's storage daemon as it can be set up. */
import { dependentCommand } from "../../examples/guest/dependent.ts";
import { root } from "../bench_arguments.ts";

/** A server that runs, and waits for a front end. */
export interface Server {
  readonly name: string;
  readonly pid: number;
  readonly socket: string;
  end(): Promise<void>;
}

/** What a server is to serve. */
export interface Serving {
  readonly image: string;
  readonly folder: string;
  readonly direct: boolean;
  readonly queues: number;
  /** The processor that its threads run on; null for any. */
  readonly processor: number | null;
  /** Where ours runs its device. */
  readonly place: string;
}

/** Ways of the storage daemon to access an image. */
type Aio = "threads" | "io_uring" | "native";

async function start(
  name: string,
  { folder, processor }: Serving,
  command: (socket: string) => readonly string[],
): Promise<Server> {
  const socket = `${folder}/${name.replaceAll(/\W/g, "-")}.sock`;
  const pin = processor === null ? [] : ["taskset", "-c", `${processor}`];
  const [program, ...args] = [...pin, ...command(socket)];
  const child = dependentCommand(program!, {
    args,
    cwd: root,
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
  let ended = false;
  child.status.then(() => ended = true);
  for (let wait = 0; !await exists(socket); wait++) {
    if (ended || wait === 400) {
      if (!ended) child.kill("SIGKILL");
      throw new Error(`${name} does not serve`);
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return {
    name,
    pid: child.pid,
    socket,
    end: async () => {
      if (!ended) child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
      await child.status;
      clearTimeout(timer);
    },
  };
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch {
    return false;
  }
}

function ours(serving: Serving): Promise<Server> {
  const { image, direct, queues, place } = serving;
  return start("ours", serving, (socket) => [
    Deno.execPath(),
    ...["run", "-A", "--quiet", `${root}examples/serve_blk.ts`],
    ...["--socket", socket, "--image", image, "--queues", `${queues}`, "--in", place],
    ...(direct ? ["--direct"] : []),
  ]);
}

function theirs(aio: Aio, serving: Serving): Promise<Server> {
  const { image, direct, queues } = serving;
  return start(`qemu ${aio}`, serving, (socket) => [
    "qemu-storage-daemon",
    ...["--object", "iothread,id=thread"],
    ...[
      "--blockdev",
      `driver=file,node-name=disk,filename=${image},aio=${aio},locking=off,discard=unmap,` +
      `cache.direct=${direct ? "on" : "off"}`,
    ],
    ...[
      "--export",
      `type=vhost-user-blk,id=export,addr.type=unix,addr.path=${socket},node-name=disk,` +
      `writable=on,num-queues=${queues},iothread=thread`,
    ],
  ]);
}

/** Starts all, each on a socket of its own. Some ways need a system that has them. */
export async function startServers(serving: Serving): Promise<Server[]> {
  const servers = [await ours(serving)];
  const ways: Aio[] = ["threads", "io_uring", ...(serving.direct ? ["native" as const] : [])];
  try {
    for (const aio of ways) servers.push(await theirs(aio, serving));
  } catch (error) {
    for (const server of servers) await server.end();
    throw error;
  }
  return servers;
}
