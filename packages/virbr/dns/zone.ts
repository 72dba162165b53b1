/** The names of the network itself: leases, the gateway, and those that were given as options. */
import {
  formatAddress,
  formatIpv4,
  ipv4,
  isIpv4,
  parseAddress,
  parseIpv4,
  sameAddress,
  type Subnet,
} from "../ip/address.ts";
import type { AddressWords } from "../ip/packet.ts";

/** What the zone is made of. */
export interface ZoneOptions {
  /** Empty if there is none. */
  readonly domain: string;
  readonly gatewayName: string;
  /** The gateway's addresses. */
  readonly gateway: readonly AddressWords[];
  /** More names, in full. */
  readonly names: ReadonlyMap<string, readonly AddressWords[]>;
  readonly subnet: Subnet;
  /** Null without IPv6. */
  readonly prefix: Subnet | null;
  /** Addresses of the guest with a name; null if there is none. */
  guest(name: string): readonly AddressWords[] | null;
  /** The name of the guest with an address; null if there is none. */
  guestAt(address: AddressWords): string | null;
}

/** What the zone says of a name. */
export type ZoneAnswer =
  /** Somebody else knows. */
  | { readonly kind: "elsewhere" }
  /** There is no such name. */
  | { readonly kind: "none" }
  /** Addresses of both versions. */
  | { readonly kind: "addresses"; readonly addresses: readonly AddressWords[] }
  /** The name of an address. */
  | { readonly kind: "name"; readonly name: string };

const LOOPBACK: readonly AddressWords[] = [
  ipv4(0x7f00_0001),
  new Uint32Array([0, 0, 0, 1]),
];

/** Answers for the names of the network. */
export class Zone {
  readonly #options: ZoneOptions;

  constructor(options: ZoneOptions) {
    this.#options = options;
  }

  /** Looks a name up, in small letters, without its last dot. */
  find(name: string): ZoneAnswer {
    const { domain, gatewayName, gateway, names } = this.#options;
    if (name === "localhost" || name.endsWith(".localhost")) {
      return { kind: "addresses", addresses: LOOPBACK };
    }
    if (name.endsWith(".arpa")) return this.#reverse(name);
    const own = names.get(name) ?? (domain === "" ? undefined : names.get(`${name}.${domain}`));
    if (own !== undefined) return { kind: "addresses", addresses: own };
    const label = this.#label(name);
    if (label === null) return { kind: "elsewhere" };
    if (label === gatewayName) return { kind: "addresses", addresses: gateway };
    const guest = label === "" ? null : this.#options.guest(label);
    if (guest !== null) return { kind: "addresses", addresses: guest };
    // The domain's own name exists, without addresses.
    if (label === "") return { kind: "addresses", addresses: [] };
    return { kind: "none" };
  }

  /** The name of a guest in full. */
  full(label: string): string {
    const { domain } = this.#options;
    return domain === "" ? label : `${label}.${domain}`;
  }

  /** The label of a name of ours; empty for the domain itself, null if it is none of ours. */
  #label(name: string): string | null {
    // Names without a dot are nobody else's.
    if (!name.includes(".")) return name === this.#options.domain ? "" : name;
    const { domain } = this.#options;
    if (domain === "") return null;
    if (name === domain) return "";
    return name.endsWith(`.${domain}`) ? name.slice(0, -domain.length - 1) : null;
  }

  #reverse(name: string): ZoneAnswer {
    const address = addressOfReverse(name);
    if (address === null) return { kind: "elsewhere" };
    const { subnet, prefix, gateway, gatewayName, names } = this.#options;
    for (const [full, addresses] of names) {
      if (addresses.some((one) => sameAddress(one, address))) return { kind: "name", name: full };
    }
    if (!subnet.contains(address) && !(prefix?.contains(address) ?? false)) {
      return { kind: "elsewhere" };
    }
    if (gateway.some((one) => sameAddress(one, address))) {
      return { kind: "name", name: this.full(gatewayName) };
    }
    const guest = this.#options.guestAt(address);
    return guest === null ? { kind: "none" } : { kind: "name", name: this.full(guest) };
  }
}

/** The address that a name for reverse lookups means; null if it is none. */
export function addressOfReverse(name: string): AddressWords | null {
  if (name.endsWith(".in-addr.arpa")) {
    const value = parseIpv4(name.slice(0, -13).split(".").reverse().join("."));
    return value === null ? null : ipv4(value);
  }
  if (!name.endsWith(".ip6.arpa")) return null;
  const digits = name.slice(0, -9).split(".");
  if (digits.length !== 32 || !digits.every((digit) => /^[0-9a-f]$/.test(digit))) return null;
  return parseAddress(digits.reverse().join("").replace(/....(?=.)/g, "$&:"));
}

/** The name for a reverse lookup. */
export function reverseName(address: AddressWords): string {
  if (isIpv4(address)) {
    return `${formatIpv4(address[3]!).split(".").reverse().join(".")}.in-addr.arpa`;
  }
  const digits = [...address].map((word) => word.toString(16).padStart(8, "0")).join("");
  return `${[...digits].reverse().join(".")}.ip6.arpa`;
}

/** Addresses of one version, as text. */
export function textOf(addresses: readonly AddressWords[], version: 4 | 6): string[] {
  return addresses.filter((one) => isIpv4(one) === (version === 4)).map(formatAddress);
}
