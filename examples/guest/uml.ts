/** User Mode Linux: a Linux that is an ordinary program, and takes its devices from others by vhost-user. */
import type { HostGuestFiles } from "./fetch_host.ts";
import { buildInitrd, type InitrdParts } from "./initrd.ts";
import { ProcessGuest } from "./process_guest.ts";

/** A device that another program serves. */
export interface UmlDevice {
  /** Path of the socket where it is served. */
  readonly socket: string;
  /** Its virtio device ID. */
  readonly id: number;
}

/** How the guest is made. */
export interface UmlOptions {
  /** From `fetchUml`. */
  readonly files: HostGuestFiles;
  /** An empty folder for the guest's own files; the caller removes it. */
  readonly folder: string;
  /** Its devices, in this order. */
  readonly devices?: readonly UmlDevice[];
  /** Mebibytes of memory; 256 unless given. */
  readonly megabytes?: number;
  /** More words for the kernel's command line. */
  readonly commandLine?: string;
  /** In place of the init that takes commands, and files beside it. */
  readonly initrd?: Pick<InitrdParts, "init" | "files">;
  /** Told what the guest writes to its serial line, in pieces. */
  readonly console?: (text: string) => void;
}

/** Starts the guest; `ready` of what it gives tells when it takes commands. */
export async function startUml(options: UmlOptions): Promise<ProcessGuest> {
  const { files, folder, devices = [] } = options;
  const initrd = `${folder}/initrd`;
  await Deno.writeFile(initrd, buildInitrd({ ...files, ...options.initrd }));
  return new ProcessGuest({
    program: files.kernelPath,
    // Each process of the guest is one.
    family: true,
    args: [
      ...[`mem=${options.megabytes ?? 256}M`, `initrd=${initrd}`, `uml_dir=${folder}`],
      ...["umid=guest", "ssl0=fd:0,fd:1", "ssl=null", "con=null", "con0=null"],
      ...["console=ttyS0", "quiet", "panic=-1", "random.trust_cpu=on"],
      ...devices.map(({ socket, id }) => `virtio_uml.device=${socket}:${id}`),
      ...(options.commandLine?.split(" ") ?? []),
    ],
    ...(options.console === undefined ? {} : { console: options.console }),
  });
}

/** Boots the guest until it takes commands. @throws {GuestError} If it does not come up. */
export async function bootUml(options: UmlOptions): Promise<ProcessGuest> {
  const guest = await startUml(options);
  await guest.ready();
  return guest;
}
