/** The command line of example:virbr. */
import { Arguments, COMMON_HELP, type CommonOptions, UsageError } from "../shared/arguments.ts";

/** What the user asked for. */
export interface Options extends CommonOptions {
  /** Where captured frames go. */
  readonly pcap: string | null;
  /** Mebibytes of the page that the guests fetch. */
  readonly megabytes: number;
  readonly mtu: number;
  readonly kernel: string | null;
}

/** What --help prints. */
export const HELP =
  `Boots two stock Linux guests on a network made of this project's packages alone, in this process and without rights: they
get addresses by DHCP, find each other by name, ask a resolver, fetch a page from a server on this machine's loopback, and
this machine fetches one from a guest through a forwarded port. Nothing beyond this machine's loopback is talked to.

Usage: deno task example:virbr [options]

${COMMON_HELP.first}
  --pcap FILE             capture what the two cards send and receive, for Wireshark and tshark (pcapng)
  --megabytes N           size of the pages, 1 to 64 (default 4)
  --mtu N                 largest packet on the network, 576 to 9000 bytes (default 1500)
  --kernel FILE           a kernel of your own: an i386 bzImage that fits Debian's modules
${COMMON_HELP.last}
`;

/**
 * Reads the arguments.
 *
 * @returns The options, or null if help was asked for.
 * @throws {UsageError} If an argument is unknown or makes no sense.
 */
export function readOptions(args: string[]): Options | null {
  const given = new Arguments(args, ["pcap", "megabytes", "mtu", "kernel"], []);
  if (given.flag("help")) return null;
  const options: Options = {
    ...given.common("its queues share filters and control, and belong together"),
    pcap: given.text("pcap"),
    megabytes: given.number("megabytes", 4, 1, 64),
    mtu: given.number("mtu", 1500, 576, 9000),
    kernel: given.text("kernel"),
  };
  if (options.in !== "process" && options.pcap !== null) {
    throw new UsageError("--pcap is for --in process: the cards themselves capture");
  }
  if (options.guest === "ts" && options.kernel !== null) {
    throw new UsageError("--kernel is for --guest linux");
  }
  return options;
}
