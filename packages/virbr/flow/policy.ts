import { isGroup, isIpv4, isUnspecified, parseAddress, Subnet } from "../ip/address.ts";
import type { AddressWords } from "../ip/packet.ts";

/** Networks that a guest has no business in by way of the host, whatever else is allowed. */
const NEVER = ["0.0.0.0/8", "240.0.0.0/4", "::/96"].map((text) => Subnet.parse(text));
/** Networks of the host's own: reached only if they are named. */
const OWN = ["127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10", "fec0::/10"]
  .map((text) => Subnet.parse(text));
/** Milliseconds for which what the host said about its networks holds. */
const FRESH = 10_000;

/** What guests may reach. */
export interface PolicyOptions {
  /** The networks of the guests: what is in there is not reached by way of the host. */
  readonly inside: readonly Subnet[];
  /** Networks that are reached though they are the host's own, such as `127.0.0.0/8` or its LAN. */
  readonly allow?: readonly string[];
  /** Networks that are not reached. */
  readonly deny?: readonly string[];
  /** Whether the networks that the host itself is in are reached; no unless given. */
  readonly hostNetworks?: boolean;
  /** The host's networks. */
  readonly networks?: () => readonly string[];
  /** Milliseconds. */
  readonly now: () => number;
}

/**
 * Says which addresses of the outside guests may reach: not the host's loopback, not what is local to a link, not the networks
 * that the host is in, unless they are allowed by name.
 */
export class Policy {
  readonly #options: PolicyOptions;
  readonly #allow: readonly Subnet[];
  readonly #deny: readonly Subnet[];
  #host: readonly Subnet[] = [];
  #known = -Infinity;

  /** @throws {TypeError} If a network is none. */
  constructor(options: PolicyOptions) {
    this.#options = options;
    this.#allow = (options.allow ?? []).map((text) => Subnet.parse(text));
    this.#deny = (options.deny ?? []).map((text) => Subnet.parse(text));
  }

  /**
   * Whether an address may be reached.
   *
   * @param version Of the packet: a mapped address in a packet of IPv6 means trickery.
   */
  allows(address: AddressWords, version: number): boolean {
    if (isIpv4(address) !== (version === 4)) return false;
    if (isGroup(address) || isUnspecified(address)) return false;
    const inIt = (network: Subnet): boolean => network.contains(address);
    if (NEVER.some((network) => network.version === version && inIt(network))) return false;
    const { inside } = this.#options;
    if (inside.some(inIt) || this.#deny.some(inIt)) return false;
    if (this.#allow.some(inIt)) return true;
    if (OWN.some(inIt)) return false;
    return this.#options.hostNetworks === true || !this.#hostNetworks().some(inIt);
  }

  #hostNetworks(): readonly Subnet[] {
    const { networks, now } = this.#options;
    if (networks === undefined) return [];
    const time = now();
    if (time - this.#known < FRESH) return this.#host;
    this.#known = time;
    this.#host = networks().map(networkOf).filter((network) => network !== null);
    return this.#host;
  }
}

function networkOf(text: string): Subnet | null {
  const [address, prefix] = text.split("/");
  const words = parseAddress(address!.replace(/%.*$/, ""));
  if (words === null) return null;
  try {
    return new Subnet(words, Number(prefix ?? (isIpv4(words) ? 32 : 128)));
  } catch {
    return null;
  }
}
