/** The console of serve:console, and where its other end is. */
import { type ConsoleBackend, ConsoleDevice } from "@virtio/console";
import { FileConsole } from "@virtio/console/file";
import { TerminalConsole } from "@virtio/console/terminal";
import { UnixConsole } from "@virtio/console/unix";
import { RunError } from "../shared/run.ts";
import type { ConsoleOptions } from "./options.ts";
import { offerOf, type Open } from "./server.ts";

/** The other end. */
interface End {
  readonly backend: ConsoleBackend;
  readonly what: string;
  readonly ended?: Promise<unknown>;
  close(): void | Promise<void>;
}

async function openEnd({ end }: ConsoleOptions): Promise<End> {
  if (end.kind === "terminal") {
    const backend = new TerminalConsole();
    return {
      backend,
      what: "a console on this terminal",
      ended: backend.ended,
      close: () => backend.close(),
    };
  }
  try {
    const backend = end.kind === "file"
      ? FileConsole.open(end.path)
      : await UnixConsole.listen(end.path);
    return { backend, what: `a console at ${end.path}`, close: () => backend.close() };
  } catch (error) {
    throw new RunError(`${end.path} cannot be the console's end: ${(error as Error).message}`);
  }
}

/** Opens the other end and makes the device. @throws {RunError} If it cannot be opened. */
export async function openConsole(options: ConsoleOptions): Promise<Open> {
  const end = await openEnd(options);
  const device = new ConsoleDevice({ ports: [{ backend: end.backend }] });
  const { stats } = device;
  return {
    offers: [
      offerOf(options.sockets[0]!, device, () => ({
        requests: device.queueCounters.reduce((sum, { chains }) => sum + chains, 0),
        bytesRead: stats.inputBytes,
        bytesWritten: stats.outputBytes,
        time: null,
      })),
    ],
    what: end.what,
    quiet: options.end.kind === "terminal",
    ...(end.ended === undefined ? {} : { ended: end.ended }),
    close: () => end.close(),
  };
}
