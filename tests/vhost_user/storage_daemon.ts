/** qemu-storage-daemon, whose vhost-user disk judges our front end. */
import { dependentCommand } from "../../examples/guest/dependent.ts";
import { installPackages } from "../../tools/debian.ts";

/** Whether it can be had here. */
export function storageDaemon(): Promise<boolean> {
  return installPackages(["qemu-system-common"]);
}

/** Options of an export. */
export interface ExportOptions {
  /** Queues; 1 unless given. */
  readonly queues?: number;
  /** Whether it can be written to; it can unless given. */
  readonly writable?: boolean;
}

/** A disk that it exports. */
export interface StorageDaemon extends AsyncDisposable {
  /** Path of its socket. */
  readonly socket: string;
  /** Path of its image. */
  readonly image: string;
  /** Ends it at once, and waits until it is gone. */
  kill(): Promise<void>;
  /** Starts it again, on the same image and socket. */
  start(): Promise<void>;
}

/** Starts it on a new image of zeroes. */
export async function startStorageDaemon(
  size: number,
  { queues = 1, writable = true }: ExportOptions = {},
): Promise<StorageDaemon> {
  const folder = await Deno.makeTempDir();
  const socket = `${folder}/socket`;
  const image = `${folder}/image`;
  const file = await Deno.open(image, { write: true, create: true });
  await file.truncate(size);
  file.close();
  let child: Deno.ChildProcess | null = null;
  const kill = async (): Promise<void> => {
    child?.kill("SIGKILL");
    await child?.status;
    child = null;
  };
  const start = async (): Promise<void> => {
    await Deno.remove(socket).catch(() => {});
    child = dependentCommand("qemu-storage-daemon", {
      args: [
        "--blockdev",
        `driver=file,node-name=file,filename=${image},discard=unmap`,
        "--blockdev",
        "driver=raw,node-name=disk,file=file,discard=unmap",
        "--export",
        [
          "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix",
          `addr.path=${socket},writable=${writable ? "on" : "off"},num-queues=${queues}`,
        ].join(","),
      ],
      stdin: "null",
      stdout: "null",
    }).spawn();
    // It listens as soon as the socket is there.
    while (!await Deno.stat(socket).then(() => true, () => false)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  await start();
  return {
    socket,
    image,
    kill,
    start,
    async [Symbol.asyncDispose](): Promise<void> {
      await kill();
      await Deno.remove(folder, { recursive: true });
    },
  };
}
