/** The options of a network for guests, on the command lines of serve:virbr and serve:net, and the command line of the former. */
import type { ForwardOptions, StaticLease, VirbrMode, VirbrOptions } from "@virtio/virbr";
import { FileLeaseStore } from "@virtio/virbr/leases";
import { denoOutside } from "@virtio/virbr/outside/deno";
import { linuxOutside } from "@virtio/virbr/outside/linux";
import { Arguments, UsageError } from "../shared/arguments.ts";

/** Names of the network's options that have a value. */
export const NETWORK_STRINGS: readonly string[] = [
  ...[
    "subnet",
    "mode",
    "lease",
    "leases",
    "name",
    "domain",
    "resolver",
    "rate",
    "forward",
    "allow",
  ],
];
/** Names of those that have none. */
export const NETWORK_BOOLEANS: readonly string[] = ["host-loopback", "host-networks", "ipv6"];

/** What --help says of them. */
export const NETWORK_HELP = `\
  --subnet NETWORK        of the guests, such as 10.7.0.0/24 (default 192.168.122.0/24, or the next one that is free)
  --mode MODE             nat (default): guests reach the outside; isolated: this machine and each other; guests: each other
  --lease MAC=ADDRESS     the guest with this MAC address gets this address always; MAC=ADDRESS,NAME names it too
  --leases FILE           leases are kept there over a restart
  --name NAME=ADDRESS     one more name
  --domain NAME           of the guests' names (default internal)
  --resolver ADDRESS      a resolver to ask, with or without :PORT (default those of this machine)
  --forward FROM=TO       a port of this machine's leads to a guest: 8080=web:80, udp:0.0.0.0:5353=192.168.122.5:53; the
                          guest is a name, an address or a MAC address, this machine's address 127.0.0.1 unless given
  --allow NETWORK         guests reach this network though it is this machine's own
  --host-networks         guests reach all networks that this machine is in
  --host-loopback         the gateway's address leads to this machine's loopback
  --rate N                megabits a second that each guest may send, and receive (default no limit)
  --ipv6                  guests get IPv6 too`;

function readForward(text: string): ForwardOptions {
  const found =
    /^(?:(?<protocol>tcp|udp):)?(?:(?:\[(?<six>[^\]]+)\]|(?<four>[\d.]+)):)?(?<port>\d{1,5})=(?<guest>.+):(?<to>\d{1,5})$/
      .exec(text)?.groups;
  const port = Number(found?.["port"]);
  const guestPort = Number(found?.["to"]);
  if (found === undefined || port > 65_535 || guestPort < 1 || guestPort > 65_535) {
    throw new UsageError(`--forward is as 8080=web:80 or udp:0.0.0.0:53=192.168.122.5:53: ${text}`);
  }
  const address = found["six"] ?? found["four"];
  return {
    protocol: found["protocol"] === "udp" ? "udp" : "tcp",
    ...(address === undefined ? {} : { address }),
    port,
    guest: found["guest"]!,
    guestPort,
  };
}

function readLease(text: string): StaticLease {
  const [, mac, address, name] = /^([0-9a-fA-F:]{17})=([\d.]+)(?:,(.+))?$/.exec(text) ?? [];
  if (mac === undefined || address === undefined) {
    throw new UsageError(`--lease is as 52:54:00:00:00:01=192.168.122.50,web: ${text}`);
  }
  return { mac, address, ...(name === undefined ? {} : { name }) };
}

function readNames(texts: readonly string[]): Record<string, string[]> {
  const names: Record<string, string[]> = {};
  for (const text of texts) {
    const [, name, address] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (name === undefined || address === undefined) {
      throw new UsageError(`--name is as printer=192.168.122.1: ${text}`);
    }
    (names[name] ??= []).push(address);
  }
  return names;
}

/** Whether one of the network's options is among the arguments. */
export function givesNetwork(given: Arguments): boolean {
  return NETWORK_STRINGS.some((name) => given.given(name)) ||
    NETWORK_BOOLEANS.some((name) => given.flag(name));
}

/** Reads the network's options. @throws {UsageError} If one makes no sense. */
export function readNetwork(given: Arguments, mtu: number): VirbrOptions {
  const modes: readonly VirbrMode[] = ["nat", "isolated", "guests"];
  const subnet = given.text("subnet");
  const domain = given.text("domain");
  const file = given.text("leases");
  const rate = given.text("rate") === null ? null : 125_000 * given.number("rate", 0, 1, 1_000_000);
  return {
    mtu,
    mode: given.choice("mode", modes),
    // Linux tells more: echoes, and that nobody is at a port.
    outside: Deno.build.os === "linux" ? linuxOutside() : denoOutside(),
    ...(subnet === null ? {} : { subnet }),
    ...(domain === null ? {} : { domain }),
    ...(rate === null ? {} : { sendRate: rate, receiveRate: rate }),
    ...(file === null ? {} : { store: new FileLeaseStore(file) }),
    leases: given.texts("lease").map(readLease),
    names: readNames(given.texts("name")),
    resolvers: given.texts("resolver"),
    forwards: given.texts("forward").map(readForward),
    allow: given.texts("allow"),
    hostNetworks: given.flag("host-networks"),
    hostLoopback: given.flag("host-loopback"),
    ipv6: given.flag("ipv6"),
  };
}

/** What the user of serve:virbr asked for. */
export interface VirbrServeOptions {
  readonly sockets: readonly string[];
  readonly taps: readonly string[];
  readonly network: VirbrOptions;
  readonly json: boolean;
}

/** What --help prints. */
export const VIRBR_HELP =
  `Runs a network for guests in user space, without rights: addresses by DHCP, names by DNS, and the way out through this
machine's own sockets. A virtual machine plugs itself in at the socket, QEMU by
-netdev stream,id=n,server=off,addr.type=unix,addr.path=PATH

Usage: deno task serve:virbr --socket PATH [options]

  --socket PATH           a Unix socket where guests plug themselves in, as many as like; it may be given several times
  --tap NAME              a tap of this machine's is a port too; made if there is none, which root may
${NETWORK_HELP}
  --mtu N                 largest packet on the network, 576 to 65520 bytes (default 1500)
  --json                  a line of JSON each second, and for whatever happens
  --help                  this text

SIGTERM and SIGINT end it: leases are kept, and the socket is removed.
`;

/**
 * Reads the arguments of serve:virbr.
 *
 * @returns The options, or null if help was asked for.
 * @throws {UsageError} If an argument is unknown or makes no sense.
 */
export function readVirbrOptions(args: string[]): VirbrServeOptions | null {
  const strings = ["socket", "tap", "mtu", ...NETWORK_STRINGS];
  const given = new Arguments(args, strings, NETWORK_BOOLEANS, false);
  if (given.flag("help")) return null;
  const sockets = given.texts("socket");
  const taps = given.texts("tap");
  if (sockets.length + taps.length === 0) {
    throw new UsageError("--socket PATH says where guests plug themselves in; or give --tap NAME");
  }
  const network = readNetwork(given, given.number("mtu", 1500, 576, 65_520));
  return { sockets, taps, network, json: given.flag("json") };
}
