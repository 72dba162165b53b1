/** The ports that the user asked for, with what is at the host's end of each. */
import type { ConsolePortOptions } from "@virtio/console";
import { FileConsole } from "@virtio/console/file";
import { UnixConsole } from "@virtio/console/unix";
import { RunError } from "../shared/run.ts";
import type { PortOption } from "./options.ts";

/** Open files and sockets, to be closed. */
export interface OpenPorts extends AsyncDisposable {
  /** For the device. */
  readonly options: readonly ConsolePortOptions[];
}

/** Opens what is at the host's end. @throws {RunError} If that is not possible; what was opened is closed. */
export async function openPorts(ports: readonly PortOption[]): Promise<OpenPorts> {
  const open: (FileConsole | UnixConsole)[] = [];
  const options: ConsolePortOptions[] = [];
  const close = async (): Promise<void> => {
    for (const one of open) await one.close();
  };
  for (const { name, kind, path } of ports) {
    try {
      const backend = kind === "file" ? FileConsole.open(path) : await UnixConsole.listen(path);
      open.push(backend);
      options.push({ name, backend });
    } catch (error) {
      await close();
      const what = kind === "file" ? "written" : "made a socket";
      throw new RunError(
        `${path}, for the port ${name}, cannot be ${what}: ${(error as Error).message}`,
      );
    }
  }
  return { options, [Symbol.asyncDispose]: close };
}

/**
 * The other end of a user's port: reads what the guest sent, of a length that is known.
 *
 * @returns Null if a program of the user's is connected to the socket: then what comes is for it.
 */
export async function readAtEnd(
  port: PortOption,
  backend: ConsolePortOptions["backend"],
  length: number,
  send: () => Promise<void>,
): Promise<Uint8Array | null> {
  if (port.kind === "file") {
    const before = (await Deno.stat(port.path)).size;
    await send();
    // What a device in a worker has taken may still be on its way.
    for (let tries = 0; tries < 1000; tries++) {
      if ((await Deno.stat(port.path)).size >= before + length) break;
      await new Promise((again) => setTimeout(again, 5));
    }
    const bytes = await Deno.readFile(port.path);
    return bytes.subarray(Math.max(0, bytes.length - length));
  }
  if ((backend as UnixConsole).isConnected) return null;
  using connection = await Deno.connect({ transport: "unix", path: port.path });
  await (backend as UnixConsole).connected();
  await send();
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await connection.read(bytes.subarray(at));
    if (count === null) break;
    at += count;
  }
  return bytes;
}
