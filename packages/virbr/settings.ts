import { checkInteger } from "@virtio/device";
import type { NetBackend } from "@virtio/net";
import {
  type Clock,
  coarseClock,
  formatMac,
  type MacAddress,
  parseStationMac,
} from "@virtio/net/wire";
import { cleanName, type StaticLease } from "./dhcp/leases.ts";
import type { DhcpBoot } from "./dhcp/server.ts";
import { normalName } from "./dns/names.ts";
import type { RebindingRule } from "./dns/rebinding.ts";
import { ipv4, isLinkLocal, parseAddress, parseIpv4, sameAddress, Subnet } from "./ip/address.ts";
import type { AddressWords } from "./ip/packet.ts";
import type { VirbrMode, VirbrOptions } from "./options.ts";
import type { Outside, OutsidePeer } from "./outside/outside.ts";

/** `Uplink`, checked. */
export interface UplinkSettings {
  readonly backend: NetBackend;
  readonly address: number;
  readonly network: Subnet;
  /** 0 if there is none. */
  readonly router: number;
  readonly mtu: number;
}

/** Options with everything filled in and checked. */
export interface VirbrSettings {
  /** Bytes a second, of a port that says nothing else. */
  readonly sendRate: number;
  readonly receiveRate: number;
  readonly subnet: Subnet;
  /** The network of the host's that another subnet was chosen for; null if none. */
  readonly clash: string | null;
  readonly gateway: number;
  readonly from: number;
  readonly to: number;
  readonly mac: MacAddress;
  readonly mode: VirbrMode;
  readonly uplink: UplinkSettings | null;
  readonly dhcp: boolean;
  readonly leaseTime: number;
  readonly statics: readonly StaticLease[];
  readonly claims: boolean;
  readonly boot: DhcpBoot | null;
  readonly domain: string;
  readonly search: readonly string[];
  readonly names: ReadonlyMap<string, readonly AddressWords[]>;
  readonly gatewayName: string;
  readonly dns: boolean;
  readonly resolvers: readonly OutsidePeer[];
  readonly rebinding: RebindingRule;
  readonly trusted: readonly string[];
  readonly mtu: number;
  readonly prefix: Subnet | null;
  readonly clock: Clock;
}

const RULES: readonly RebindingRule[] = ["refuse", "loopback", "allow"];
/** The third byte of the network that is taken first: that of libvirt's default one. */
const DEFAULT_THIRD = 122;
const MODES: readonly VirbrMode[] = ["nat", "isolated", "guests", "routed"];

/** Fewer bytes a second are no network: an address could not be had. */
const LEAST_RATE = 1000;

/** Checks bytes a second. @throws {RangeError} If they are too few. */
export function checkRate(name: string, rate: number = Infinity): number {
  if (!(rate >= LEAST_RATE)) {
    throw new RangeError(`${name} must be at least ${LEAST_RATE} bytes a second: it is ${rate}`);
  }
  return rate;
}

/**
 * Says with which of the host's own networks the guests' one clashes: what is there, no guest could reach.
 *
 * @returns The network, as text; null if there is no clash.
 */
export function findClash(subnet: Subnet, outside: Outside | undefined): string | null {
  for (const text of outside?.networks?.() ?? []) {
    let network: Subnet;
    try {
      network = Subnet.parse(text);
    } catch {
      continue;
    }
    if (network.overlaps(subnet)) return `${network}`;
  }
  return null;
}

/**
 * Checks options and says what they mean.
 *
 * @throws {RangeError} If a value is out of range.
 * @throws {TypeError} If a value is none of its kind.
 */
export function settle(options: VirbrOptions): VirbrSettings {
  const { subnet, clash } = settleSubnet(options);
  if (subnet.version !== 4 || subnet.prefix < 16 || subnet.prefix > 29) {
    throw new RangeError(
      `subnet must be one of IPv4 with a prefix of 16 to 29 bits: it is ${subnet}`,
    );
  }
  const first = subnet.first[3]! + 1;
  const last = subnet.broadcast - 1;
  const inside = (name: string, text: string): number => {
    const value = parseIpv4(text);
    if (value === null) throw new TypeError(`${name} must be an address of IPv4: it is ${text}`);
    if (value < first || value > last) {
      throw new RangeError(`${name} must be an address of ${subnet}: it is ${text}`);
    }
    return value;
  };
  const gateway = options.gateway === undefined ? first : inside("gateway", options.gateway);
  const from = options.pool === undefined
    ? gateway === first ? first + 1 : first
    : inside("pool", options.pool[0]);
  const to = options.pool === undefined ? last : inside("pool", options.pool[1]);
  if (to < from) throw new RangeError("pool must have its first address before its last");
  const mode = options.mode ?? "nat";
  if (!MODES.includes(mode)) {
    throw new RangeError(`mode must be one of ${MODES.join(", ")}: it is ${mode}`);
  }
  const mtu = checkInteger("mtu", options.mtu, 576, 65_535, 1500);
  const prefix = settlePrefix(options.ipv6 ?? false);
  if (prefix !== null && mtu < 1280) {
    throw new RangeError(`IPv6 needs an mtu of 1280: it is ${mtu}`);
  }
  const domain = settleDomain("domain", options.domain ?? "internal");
  return {
    subnet,
    clash,
    sendRate: checkRate("sendRate", options.sendRate),
    receiveRate: checkRate("receiveRate", options.receiveRate),
    gateway,
    from,
    to,
    mac: options.mac === undefined
      ? { high: 0x52_5400, low: gateway & 0xff_ffff }
      : parseStationMac(options.mac),
    mode,
    uplink: settleUplink(options, subnet, mtu),
    dhcp: options.dhcp ?? true,
    leaseTime: checkInteger("leaseTime", options.leaseTime, 120, 2 ** 31, 3600),
    statics: settleStatics(options.leases ?? [], inside, gateway),
    claims: options.claims ?? true,
    boot: options.boot ?? null,
    domain,
    search: [domain, ...(options.search ?? []).map((one) => settleDomain("search", one))]
      .filter((one) => one !== ""),
    names: settleNames(options.names ?? {}, domain),
    gatewayName: settleLabel("gatewayName", options.gatewayName ?? "gateway"),
    dns: options.dns ?? true,
    resolvers: (options.resolvers ?? []).map(settleResolver),
    rebinding: settleRebinding(options.rebinding ?? "refuse"),
    trusted: (options.trusted ?? []).map((one) => settleDomain("trusted", one)),
    mtu,
    prefix,
    clock: options.clock ?? coarseClock,
  };
}

function settleSubnet(options: VirbrOptions): { subnet: Subnet; clash: string | null } {
  const { outside } = options;
  if (options.subnet !== undefined) {
    const subnet = Subnet.parse(options.subnet);
    const clash = options.allowClash === true ? null : findClash(subnet, outside);
    if (clash !== null) {
      throw new RangeError(
        `subnet ${subnet} clashes with ${clash}, where the host is itself: choose another, or give allowClash`,
      );
    }
    return { subnet, clash: null };
  }
  let first: string | null = null;
  for (let third = DEFAULT_THIRD; third < 256; third++) {
    const subnet = Subnet.parse(`192.168.${third}.0/24`);
    const clash = findClash(subnet, outside);
    if (clash === null) return { subnet, clash: first };
    first ??= clash;
  }
  throw new RangeError(`The host is in ${first} itself: choose a subnet`);
}

function settleUplink(
  { mode, uplink }: VirbrOptions,
  subnet: Subnet,
  mtu: number,
): UplinkSettings | null {
  if (mode !== "routed") {
    if (uplink === undefined) return null;
    throw new TypeError('An uplink is for mode "routed": give that too, or no uplink');
  }
  if (typeof uplink?.backend?.connect !== "function") {
    throw new TypeError('Mode "routed" needs an uplink: give { uplink: { backend, address } }');
  }
  const network = Subnet.parse(uplink.address);
  const address = parseIpv4(uplink.address.split("/")[0]!);
  const router = uplink.router === undefined ? 0 : parseIpv4(uplink.router);
  if (address === null || router === null) {
    throw new TypeError("An uplink has addresses of IPv4, such as 10.9.0.2/30 and 10.9.0.1");
  }
  if (network.overlaps(subnet)) {
    throw new RangeError(
      `The uplink's network ${network} must not be that of the guests, ${subnet}`,
    );
  }
  if (router !== 0 && !network.contains(ipv4(router))) {
    throw new RangeError(`The uplink's router must be in ${network}: it is ${uplink.router}`);
  }
  const most = checkInteger("The uplink's mtu", uplink.mtu, 576, 65_535, mtu);
  return { backend: uplink.backend, address, network, router, mtu: most };
}

function settleRebinding(rule: RebindingRule): RebindingRule {
  if (!RULES.includes(rule)) {
    throw new RangeError(`rebinding must be one of ${RULES.join(", ")}: it is ${rule}`);
  }
  return rule;
}

function settleResolver(text: string): OutsidePeer {
  const [, six, four, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const address = six ?? four ?? text;
  if (parseAddress(address) === null) {
    throw new TypeError(`resolvers must be addresses, with or without a port: ${text} is none`);
  }
  return { address, port: port === undefined ? 53 : checkInteger("port", Number(port), 1, 65_535) };
}

function settlePrefix(ipv6: boolean | string): Subnet | null {
  if (ipv6 === false) return null;
  if (ipv6 === true) {
    // A random network that nobody else has (RFC 4193, 3.2).
    const words = crypto.getRandomValues(new Uint32Array(4));
    words[0] = (0xfd00_0000 | words[0]! >>> 8) >>> 0;
    return new Subnet(words, 64);
  }
  const prefix = Subnet.parse(ipv6);
  if (prefix.version !== 6 || prefix.prefix !== 64) {
    throw new RangeError(`ipv6 must be a prefix of 64 bits, such as fd00:1::/64: it is ${ipv6}`);
  }
  if (isLinkLocal(prefix.first) || prefix.first[0]! >>> 24 === 0xff || prefix.first[0] === 0) {
    throw new RangeError(`ipv6 must be a network of stations: ${ipv6} is none`);
  }
  return prefix;
}

function settleDomain(name: string, domain: string): string {
  if (domain === "") return "";
  const normal = normalName(domain);
  if (normal === null) throw new TypeError(`${name} must be a domain: it is ${domain}`);
  return normal;
}

function settleLabel(name: string, label: string): string {
  const clean = cleanName(label);
  if (clean === "") {
    throw new TypeError(`${name} must be letters, digits and hyphens: it is ${label}`);
  }
  return clean;
}

function settleStatics(
  leases: readonly StaticLease[],
  inside: (name: string, text: string) => number,
  gateway: number,
): StaticLease[] {
  const seen = new Set<string | number>();
  const once = (what: string | number, text: string): void => {
    if (seen.has(what)) throw new RangeError(`leases must not have ${text} twice`);
    seen.add(what);
  };
  return leases.map(({ mac, address, name }) => {
    const text = formatMac(parseStationMac(mac));
    once(text, text);
    if (address !== undefined) {
      const value = inside("The address of a lease", address);
      if (value === gateway) {
        throw new RangeError(`${address} is the gateway's: no lease can have it`);
      }
      once(value, address);
    }
    if (name !== undefined) once(settleLabel("The name of a lease", name), name);
    return {
      mac: text,
      ...(address === undefined ? {} : { address }),
      ...(name === undefined ? {} : { name: name.toLowerCase() }),
    };
  });
}

function settleNames(
  names: Readonly<Record<string, string | readonly string[]>>,
  domain: string,
): Map<string, AddressWords[]> {
  const all = new Map<string, AddressWords[]>();
  for (const [name, value] of Object.entries(names)) {
    const normal = normalName(name);
    if (normal === null) throw new TypeError(`names must have names of DNS: ${name} is none`);
    const addresses: AddressWords[] = [];
    for (const text of typeof value === "string" ? [value] : value) {
      const words = parseAddress(text);
      if (words === null) throw new TypeError(`names must have addresses: ${name} has ${text}`);
      if (!addresses.some((one) => sameAddress(one, words))) addresses.push(words);
    }
    all.set(normal.includes(".") || domain === "" ? normal : `${normal}.${domain}`, addresses);
  }
  return all;
}

/** The gateway's address of a prefix. */
export function gatewayOf(prefix: Subnet): AddressWords {
  const address = prefix.first.slice();
  address[3] = 1;
  return address;
}

/** The gateway's address on each link of IPv6. */
export const GATEWAY_LINK_LOCAL: AddressWords = new Uint32Array([0xfe80_0000, 0, 0, 1]);
