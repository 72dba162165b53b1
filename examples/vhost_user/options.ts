/** The command line of example:vhost-user. */
import { Arguments } from "../shared/arguments.ts";

/** What the user asked for. */
export interface Options {
  readonly vm: "uml" | "qemu";
  readonly ring: "split" | "packed";
  /** Mebibytes of the files on the disk and through the network. */
  readonly megabytes: number;
  readonly json: boolean;
}

/** What --help prints. */
export const HELP =
  `Boots a stock Linux in a virtual machine that is another program, with devices that this program serves by vhost-user, and
checks them: a file system on a disk, files through a network, and a login on a console.

Usage: deno task example:vhost-user [options]

  --vm uml|qemu           User Mode Linux (default), or QEMU. Debian's, with Debian's kernel. QEMU has no front end for
                          consoles: there the third device is a source of entropy
  --ring split|packed     format of the virtqueues (default split). User Mode Linux takes packed ones only if it is newer
                          than 6.12
  --megabytes N           size of the files, 1 to 64 (default 8)
  --json                  the last line is one JSON object with the figures and "ok"
  --help                  this text
`;

/**
 * Reads the arguments.
 *
 * @returns The options, or null if help was asked for.
 * @throws {UsageError} If an argument is unknown or makes no sense.
 */
export function readOptions(args: string[]): Options | null {
  const given = new Arguments(args, ["vm", "ring", "megabytes"], ["json", "help"], false);
  if (given.flag("help")) return null;
  return {
    vm: given.choice("vm", ["uml", "qemu"]),
    ring: given.choice("ring", ["split", "packed"]),
    megabytes: given.number("megabytes", 8, 1, 64),
    json: given.flag("json"),
  };
}
