import type { NetBackend } from "@virtio/net";
import type { Clock } from "@virtio/net/wire";
import type { Lease, StaticLease } from "./dhcp/leases.ts";
import type { DhcpBoot } from "./dhcp/server.ts";
import type { RebindingRule } from "./dns/rebinding.ts";
import type { FlowHook } from "./flow/flow.ts";
import type { ForwardOptions } from "./flow/forward.ts";
import type { LimitOptions } from "./flow/limits.ts";
import type { Outside } from "./outside/outside.ts";
import type { TcpOptions } from "./tcp/engine.ts";

/** Where leases are kept over a restart. */
export interface LeaseStore {
  /** What was kept. Guests get no answers from DHCP until it is there. */
  load(): readonly Lease[] | Promise<readonly Lease[]>;
  /** Keeps all leases. It is called again only after its promise has resolved. */
  save(leases: readonly Lease[]): void | Promise<void>;
}

/**
 * How guests reach more than each other.
 *
 * - `"nat"`: the outside, through the host's sockets. The default.
 * - `"isolated"`: the host (the gateway's services, and forwards) and each other.
 * - `"guests"`: each other. They get addresses and names.
 * - `"routed"`: the outside, through `uplink`, with their own addresses.
 */
export type VirbrMode = "nat" | "isolated" | "guests" | "routed";

/** The way out of mode "routed": IPv4 only. Whoever is at its other end needs a route to the guests' network. */
export interface Uplink {
  /** Such as a tap, whose other end is the host. */
  readonly backend: NetBackend;
  /** The network's address there, with its prefix, such as `10.9.0.2/30`. */
  readonly address: string;
  /** Who knows the way to everything else; nobody unless given. */
  readonly router?: string;
  /** The largest packet there, 576 to 65,535; as the guests' unless given. */
  readonly mtu?: number;
}

/** What happened, for those who look on. */
export type VirbrEvent =
  /** A station was heard for the first time. */
  | { readonly type: "guest"; readonly mac: string; readonly port: string }
  /** A station was forgotten. */
  | { readonly type: "gone"; readonly mac: string; readonly port: string }
  /** A lease was given or renewed. */
  | {
    readonly type: "lease";
    readonly mac: string;
    readonly address: string;
    readonly name: string;
  }
  /** A lease was given back. */
  | { readonly type: "released"; readonly mac: string; readonly address: string };

/** Options of a `Virbr`; all have defaults. */
export interface VirbrOptions extends LimitOptions {
  /**
   * The network of the guests; 192.168.122.0/24 unless given, or the next one of 192.168.123.0/24 and so on that is none of
   * the host's own networks. A prefix of 16 to 29 bits.
   */
  readonly subnet?: string;
  /** Bytes a second that the guests of each port may send together, unless the port says otherwise; no limit unless given. */
  readonly sendRate?: number;
  /** The same of what they receive. */
  readonly receiveRate?: number;
  /** Whether the subnet may be one that the host is in itself; no unless given. */
  readonly allowClash?: boolean;
  /** The gateway's address in it: router, resolver and DHCP server; the first one unless given. */
  readonly gateway?: string;
  /** The first and the last address that DHCP gives; from the one behind the gateway to the last unless given. */
  readonly pool?: readonly [from: string, to: string];
  /** The gateway's MAC address; 52:54:00 and three bytes of its address unless given. */
  readonly mac?: string | Uint8Array;
  /** How guests reach more than each other; "nat" unless given. */
  readonly mode?: VirbrMode;
  /** The way out of mode "routed", which needs it. */
  readonly uplink?: Uplink;
  /**
   * Whether guests get addresses by DHCP; yes unless given. With IPv6 they make addresses of the prefix themselves; a client
   * that insists on DHCPv6 gets one that is made of its MAC address.
   */
  readonly dhcp?: boolean;
  /** Seconds of a lease, 120 to 2^31; 3600 unless given. */
  readonly leaseTime?: number;
  /** Leases that belong to a MAC address. */
  readonly leases?: readonly StaticLease[];
  /** Whether guests may use free addresses of the subnet that they did not get by DHCP; yes unless given. */
  readonly claims?: boolean;
  /** What to boot from the network. */
  readonly boot?: DhcpBoot;
  /** The domain of the guests' names, and where they search; "internal" unless given. Empty: none. */
  readonly domain?: string;
  /** More domains that guests search. */
  readonly search?: readonly string[];
  /** More names, each with its addresses. */
  readonly names?: Readonly<Record<string, string | readonly string[]>>;
  /** The gateway's name; "gateway" unless given. */
  readonly gatewayName?: string;
  /** Whether the gateway resolves names; yes unless given. */
  readonly dns?: boolean;
  /** The way out, such as `denoOutside`; without it nothing but the network itself is reached. */
  readonly outside?: Outside;
  /** Resolvers to ask, addresses with or without a port (192.0.2.1:5353, [2001:db8::1]:53); the host's unless given. */
  readonly resolvers?: readonly string[];
  /** Which addresses of the host and its networks names of the outside may have; "refuse", none, unless given. */
  readonly rebinding?: RebindingRule;
  /** Domains of the outside whose names may have any address. */
  readonly trusted?: readonly string[];
  /** Largest packet, 576 to 65,535; 1500 unless given. IPv6 needs 1280. */
  readonly mtu?: number;
  /**
   * IPv6: true for a random network of our own (RFC 4193), a prefix with 64 bits, or false for none; false unless given, since
   * guests prefer it and many hosts have no way out for it.
   */
  readonly ipv6?: boolean | string;
  /** Ports of the host's that lead to guests. `Virbr.ready` resolves when all are open, or says why one is not. */
  readonly forwards?: readonly ForwardOptions[];
  /** Whether the gateway's address means the host's loopback, for ports at which no service listens; no unless given. */
  readonly hostLoopback?: boolean;
  /** Networks that guests reach though they are the host's own, such as `192.0.2.0/24`. */
  readonly allow?: readonly string[];
  /** Networks that guests do not reach. */
  readonly deny?: readonly string[];
  /** Whether guests reach all networks that the host is in; no unless given. */
  readonly hostNetworks?: boolean;
  /** Sees each new flow, and may refuse it. */
  readonly onFlow?: FlowHook;
  /** For TCP. */
  readonly tcp?: TcpOptions;
  /** Where leases are kept. */
  readonly store?: LeaseStore;
  /** Milliseconds, never backwards; the host's clock unless given. */
  readonly clock?: Clock;
  /**
   * Told what the store refused, and what a device or a handler threw. Unless given, what was thrown is thrown on to whoever
   * sent the frame.
   */
  readonly onError?: (error: unknown) => void;
  /** Told what happens. */
  readonly onEvent?: (event: VirbrEvent) => void;
}
