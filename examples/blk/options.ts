/** The command line of example:blk. */
import { Arguments, COMMON_HELP, type CommonOptions, UsageError } from "../shared/arguments.ts";

/** What the user asked for. */
export interface Options extends CommonOptions {
  readonly queues: number;
  readonly image: string | null;
  readonly format: boolean;
  readonly readonly: boolean;
  readonly shell: boolean;
  /** Shows the rings on a page of this machine's. */
  readonly inspect: boolean;
  /** Megabytes that the guest writes and reads back. */
  readonly megabytes: number;
  readonly kernel: string | null;
  readonly initrd: string | null;
  /** Socket of another program that has the disk. */
  readonly vhostUser: string | null;
}

/** What --help prints. */
export const HELP =
  `Boots a stock Linux in a virtual machine on a virtio disk made of this project's packages, and checks that
what the guest writes is what the disk image holds.

Usage: deno task example:blk [options]

${COMMON_HELP.first}. With --guest ts the driver
                          is in a worker of its own then, and the main thread does nothing
  --queues N              number of virtqueues, 1 to 16 (default 1)
  --image FILE            use this raw image; it is formatted only with --format
  --format                make a file system on --image first; everything on it is lost
  --readonly              give the guest a disk that it cannot write; needs --image
  --megabytes N           how much the guest writes and reads back, 1 to 512 (default 8)
  --shell                 afterwards, the guest's shell on this terminal; "exit" leaves it
  --inspect               what the rings do, live, on a page of this machine's; its address is printed
  --kernel FILE           a kernel of your own: an i386 bzImage
  --initrd FILE           an initial RAM disk of your own, for --kernel; needs --shell
  --vhost-user SOCKET     the disk is another program's: qemu-storage-daemon's, or serve:blk's. --image names the file
                          that it has, for the host's own look; --format as above
${COMMON_HELP.last}
`;

/**
 * Reads the arguments.
 *
 * @returns The options, or null if help was asked for.
 * @throws {UsageError} If an argument is unknown or makes no sense.
 */
export function readOptions(args: string[]): Options | null {
  const given = new Arguments(
    args,
    ["queues", "image", "megabytes", "kernel", "initrd", "vhost-user"],
    ["format", "readonly", "shell", "inspect"],
  );
  if (given.flag("help")) return null;
  const options: Options = {
    ...given.common(true),
    queues: given.number("queues", 1, 1, 16),
    image: given.text("image"),
    format: given.flag("format"),
    readonly: given.flag("readonly"),
    shell: given.flag("shell"),
    inspect: given.flag("inspect"),
    megabytes: given.number("megabytes", 8, 1, 512),
    kernel: given.text("kernel"),
    initrd: given.text("initrd"),
    vhostUser: given.text("vhost-user"),
  };
  const clash = findClash(options);
  if (clash !== null) throw new UsageError(clash);
  return options;
}

function findClash(options: Options): string | null {
  if (options.readonly && options.image === null) {
    return "--readonly needs --image: an empty disk that nobody can write holds nothing to read";
  }
  if (options.readonly && options.format) return "--readonly and --format contradict each other";
  if (options.format && options.image === null) {
    return "--format needs --image: the example's own image is always formatted";
  }
  if (options.in !== "process" && options.inspect) {
    return "--inspect is for --in process: it looks at the device itself";
  }
  if (
    options.guest === "ts" &&
    (options.shell || options.inspect || options.kernel !== null || options.initrd !== null)
  ) {
    return "--shell, --inspect, --kernel and --initrd are for --guest linux";
  }
  if (options.vhostUser !== null) {
    if (options.image === null) {
      return "--vhost-user needs --image: the file that the other program has, for the host to look into";
    }
    if (
      options.guest === "ts" || options.in !== "process" || options.inspect ||
      options.initrd !== null || options.queues !== 1
    ) {
      return "--vhost-user is for a guest on another program's disk: not with --guest ts, --in, --inspect, --initrd, --queues";
    }
  }
  if (options.initrd !== null && !options.shell) {
    return "--initrd needs --shell: only the example's own initial RAM disk takes its commands";
  }
  if (options.initrd !== null && options.kernel === null) {
    return "--initrd needs --kernel, since its modules must fit the kernel";
  }
  return null;
}
