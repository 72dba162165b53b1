/** QEMU without hardware virtualization: a PC whose devices other programs serve by vhost-user. */
import type { HostGuestFiles } from "./fetch_host.ts";
import { buildInitrd, type InitrdParts } from "./initrd.ts";
import { ProcessGuest } from "./process_guest.ts";
import { Qmp } from "./qmp.ts";

/** QEMU's name. */
export const QEMU = "qemu-system-x86_64";

/** How the machine is made. */
export interface QemuOptions {
  /** From `fetchPc`. */
  readonly files: HostGuestFiles;
  /** An empty folder for the guest's own files; the caller removes it. */
  readonly folder: string;
  /** Words that make its devices. */
  readonly devices?: readonly string[];
  /** Mebibytes of memory; 256 unless given. */
  readonly megabytes?: number;
  /** Processors; 1 unless given. */
  readonly processors?: number;
  /** More words for the kernel's command line. */
  readonly commandLine?: string;
  /** In place of the init that takes commands, and files beside it. */
  readonly initrd?: Pick<InitrdParts, "init" | "files">;
  /** Told what the guest writes to its serial line, in pieces. */
  readonly console?: (text: string) => void;
}

/** A running machine. */
export interface QemuGuest extends AsyncDisposable {
  /** Its guest. */
  readonly guest: ProcessGuest;
  /** QEMU itself. */
  readonly qmp: Qmp;
}

/** The words that make a disk of a vhost-user socket. */
export function qemuBlk(
  socket: string,
  options: { id?: string; queues?: number; packed?: boolean; reconnect?: boolean } = {},
): string[] {
  const { id = "blk0", queues = 1, packed = false, reconnect = false } = options;
  return [
    "-chardev",
    `socket,id=${id}c,path=${socket}${reconnect ? ",reconnect=1" : ""}`,
    "-device",
    `vhost-user-blk-pci,id=${id},chardev=${id}c,num-queues=${queues},packed=${
      packed ? "on" : "off"
    }`,
  ];
}

/** The words that make a network card of a vhost-user socket. */
export function qemuNet(
  socket: string,
  options: { id?: string; mac?: string; packed?: boolean } = {},
): string[] {
  const { id = "net0", mac, packed = false } = options;
  return [
    ...["-chardev", `socket,id=${id}c,path=${socket}`],
    ...["-netdev", `vhost-user,id=${id}n,chardev=${id}c`],
    "-device",
    // Without KVM, QEMU 7.2 dies of a vhost-user network card with MSI-X. And the host announces it after a move, not the guest.
    `virtio-net-pci,id=${id},netdev=${id}n,vectors=0,guest_announce=off,packed=${
      packed ? "on" : "off"
    }${mac === undefined ? "" : `,mac=${mac}`}`,
  ];
}

/** Starts the machine. Its guest is not there yet: see `ready` of the guest. */
export async function startQemu(options: QemuOptions): Promise<QemuGuest> {
  const { files, folder, devices = [] } = options;
  const initrd = `${folder}/initrd`;
  const socket = `${folder}/qmp`;
  await Deno.writeFile(initrd, buildInitrd({ ...files, ...options.initrd }));
  const megabytes = options.megabytes ?? 256;
  const guest = new ProcessGuest({
    program: QEMU,
    args: [
      ...["-nodefaults", "-display", "none", "-accel", "tcg", "-machine", "q35", "-cpu", "max"],
      ...["-m", `${megabytes}`, "-smp", `${options.processors ?? 1}`],
      ...["-object", `memory-backend-memfd,id=memory,size=${megabytes}M,share=on`],
      ...["-numa", "node,memdev=memory", "-qmp", `unix:${socket},server=on,wait=off`],
      ...["-serial", "stdio", "-kernel", files.kernelPath, "-initrd", initrd],
      "-append",
      `console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests tsc=reliable mitigations=off ${
        options.commandLine ?? ""
      }`,
      ...devices,
    ],
    ...(options.console === undefined ? {} : { console: options.console }),
  });
  try {
    const qmp = await Qmp.connect(socket);
    return {
      guest,
      qmp,
      async [Symbol.asyncDispose]() {
        qmp[Symbol.dispose]();
        await guest[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    const { complaints } = guest;
    throw complaints === "" ? error : new Error(`QEMU ended: ${complaints}`);
  }
}

/** Boots the machine until its guest takes commands. @throws {GuestError} If it does not come up. */
export async function bootQemu(options: QemuOptions): Promise<QemuGuest> {
  const machine = await startQemu(options);
  try {
    await machine.guest.ready();
    return machine;
  } catch (error) {
    machine.qmp[Symbol.dispose]();
    throw error;
  }
}
