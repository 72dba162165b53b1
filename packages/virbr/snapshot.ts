/** What is told of a network as plain data. */
import type { DhcpStats } from "./dhcp/server.ts";
import type { DnsStats } from "./dns/server.ts";
import type { FlowCounters } from "./flow/flow.ts";
import type { GatewayStats } from "./ip/gateway.ts";
import type { Guest } from "./ip/packet.ts";
import type { RouterStats } from "./ip/router.ts";
import type { TcpCounters } from "./tcp/engine.ts";

/** A station on the network as it was at a moment: plain data, for JSON and other threads. */
export interface GuestInfo {
  /** Its MAC address, with colons. */
  readonly mac: string;
  /** The name of its lease, or of its port. */
  readonly name: string;
  /** The name of the port that it is behind. */
  readonly port: string;
  /** Its addresses as text, leased or claimed; IPv4 first. */
  readonly addresses: readonly string[];
  /** Flows that it has, to the outside or from there. */
  readonly flows: number;
}

/** Says what is known of a station. */
export function guestInfo({ mac, name, port, addresses }: Guest, flows: number): GuestInfo {
  return { mac, name, port, addresses: [...addresses], flows };
}

/** What a network had counted at a moment: plain data. */
export interface VirbrStats {
  /** The gateway's IP layer. */
  readonly gateway: GatewayStats;
  /** DHCP. */
  readonly dhcp: DhcpStats;
  /** Names. */
  readonly dns: Readonly<DnsStats>;
  /** Flows to the outside and back. */
  readonly flows: FlowCounters;
  /** TCP of the flows, and of the gateway's own services. */
  readonly tcp: TcpCounters;
  /** Packets to the uplink and back; null unless the mode is "routed". */
  readonly router: Readonly<RouterStats> | null;
}
