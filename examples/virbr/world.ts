/** The example's network: two cards on it, servers on this machine's loopback, and a port of this machine's that leads back. */
import { type Forward, Virbr } from "@virtio/virbr";
import { denoOutside } from "@virtio/virbr/outside/deno";
import { checkCapture, makeCard, openCapture, type Place } from "../net/network.ts";
import { md5, randomBytes } from "../shared/bytes.ts";
import type { Checks } from "../shared/run.ts";
import type { Figures } from "./figures.ts";
import type { Options } from "./options.ts";
import {
  OUTSIDE_ADDRESS,
  OUTSIDE_NAME,
  REBINDING_NAME,
  type Servers,
  startServers,
} from "./servers.ts";

/** Port of a guest's web server. */
export const WEB_PORT = 80;
const MIB = 2 ** 20;

/** A guest's card, its port, and what the guest is called. */
export type Member = Omit<Place, "ip">;

/** Everything but the machines. */
export interface World extends AsyncDisposable {
  readonly net: Virbr;
  readonly members: readonly [Member, Member];
  readonly servers: Servers;
  /** The page of the server outside. */
  readonly page: Uint8Array;
  /** Leads to the web server of the first guest. */
  readonly forward: Forward;
  /** Bytes of each page. */
  readonly size: number;
  /** Why the capture ended before its time; null if it did not. */
  readonly captureError: Error | null;
}

/** Puts it together. @throws {RunError} If the capture file cannot be written. */
export async function makeWorld(options: Options): Promise<World> {
  let captureError: Error | null = null;
  const capture = openCapture(options.pcap, (error) => captureError = error);
  const size = options.megabytes * MIB;
  const page = randomBytes(size);
  const servers = await startServers(page);
  const net = new Virbr({
    mtu: options.mtu,
    outside: denoOutside(),
    resolvers: [servers.resolver],
    // The gateway's address leads to this machine's loopback; but to nothing there but the page.
    hostLoopback: true,
    onFlow: ({ direction, port }) => direction === "in" || port === servers.port,
  });
  const place = async (number: number): Promise<Member & Disposable> => {
    const name = `guest${number}`;
    const mac = `52:54:00:00:00:0${number}`;
    const port = net.port({ name });
    const card = await makeCard(options, port, mac, capture?.writer.add(name) ?? null);
    return { name, mac, ...card };
  };
  const members = [await place(1), await place(2)] as const;
  // By name: the guest has no address yet.
  const forward = await net.forward({ guest: "guest1", guestPort: WEB_PORT });
  return {
    net,
    members,
    servers,
    page,
    forward,
    size,
    get captureError() {
      return captureError;
    },
    [Symbol.asyncDispose]: async () => {
      for (const member of members) member[Symbol.dispose]();
      await net.close();
      await servers[Symbol.asyncDispose]();
      capture?.close();
    },
  };
}

/** What a guest can do on the network, whatever it is made of. */
export interface Visitor {
  readonly name: string;
  /** The address that it got by DHCP. */
  readonly address: string;
  /** The gateway that it was told. */
  readonly gateway: string;
  /** Whether a guest answers to its name. */
  reaches(name: string): Promise<boolean>;
  /** The addresses of a name. */
  resolve(name: string): Promise<readonly string[]>;
  /** MD5 of what it fetches from the gateway's address; null if it gets nothing. */
  fetch(port: number): Promise<string | null>;
}

/** Has both do what the example shows. */
export async function visit(
  world: World,
  visitors: readonly [Visitor, Visitor],
  step: (line: string) => void,
  checks: Checks,
): Promise<void> {
  const { net, servers } = world;
  for (const { name, address, gateway } of visitors) {
    const last = /^192\.168\.\d+\.(\d+)$/.exec(address)?.[1] ?? "0";
    const lease = net.leases.find((lease) => lease.address === address);
    checks.add(
      `${name} got the address ${address} by DHCP, and the gateway ${gateway}`,
      Number(last) >= 2 && Number(last) <= 254 && gateway === net.gateway && lease?.name === name,
    );
  }
  const [one, two] = visitors;
  step("they look for each other, and ask for names");
  checks.add("guest1 reaches guest2 by its name", await one.reaches("guest2"));
  checks.add("guest2 reaches guest1 by its name", await two.reaches("guest1"));
  const own = await two.resolve("guest1.internal");
  checks.add("the name of a lease resolves to its address", own.join() === one.address);
  const found = await one.resolve(OUTSIDE_NAME);
  checks.add(
    `${OUTSIDE_NAME} resolves to what a resolver outside says`,
    found.join() === OUTSIDE_ADDRESS,
  );
  const trick = await two.resolve(REBINDING_NAME);
  checks.add(
    "a name outside that claims to be the loopback is kept from them",
    trick.length === 0 && net.stats.dns.rebinding > 0,
  );

  step(`both fetch a page of ${world.size / MIB} MiB from a server on this machine, through NAT`);
  const sum = md5(world.page);
  const sums = await Promise.all(visitors.map((each) => each.fetch(servers.port)));
  checks.add("both fetch at once what the server outside has", sums.every((one) => one === sum));
  const secret = await one.fetch(servers.privatePort);
  checks.add(
    "a port of this machine's that is not allowed is not reached",
    secret === null && servers.trespassers() === 0,
  );
}

/** Fetches what the first guest serves, through the forwarded port. */
export async function fetchForward({ forward }: World, path: string): Promise<string> {
  const response = await fetch(`http://${forward.address}:${forward.port}${path}`);
  return md5(new Uint8Array(await response.arrayBuffer()));
}

/** Checks in the end that nothing was lost, or is left. */
export async function checkEnd(world: World, checks: Checks): Promise<void> {
  const { net } = world;
  const flows = (): number => net.stats.flows.tcp;
  // The last acknowledgements may be on their way.
  for (let turn = 0; flows() > 0 && turn < 50; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  checks.add("no flow is left", flows() === 0);
  const { malformed, checksum } = net.stats.gateway;
  checks.add("no packet was malformed on the way", malformed === 0 && checksum === 0);
  checkCapture(world, checks);
}

/** The network's part of the figures. */
export function networkFigures({ net }: World): Omit<Figures, "cards"> {
  return {
    network: net.stats,
    leases: net.leases.map(({ name, address }) => ({ name, address })),
  };
}
