/**
 * What libvirt's default network is, as one object in user space: a switch, DHCP, DNS, and the way out.
 *
 * This module is browser compatible.
 *
 * @module
 */
export type { Lease, StaticLease } from "./dhcp/leases.ts";
export type { DhcpBoot, DhcpStats } from "./dhcp/server.ts";
export type { RebindingRule } from "./dns/rebinding.ts";
export type { DnsStats } from "./dns/server.ts";
export type { FlowCounters, FlowHook, FlowInfo } from "./flow/flow.ts";
export type { Forward, ForwardOptions } from "./flow/forward.ts";
export type { LimitOptions } from "./flow/limits.ts";
export type { GatewayStats } from "./ip/gateway.ts";
export type { InputDrops } from "./ip/input.ts";
export * from "./ip/packet.ts";
export type { RouterStats } from "./ip/router.ts";
export type { LeaseStore, Uplink, VirbrEvent, VirbrMode, VirbrOptions } from "./options.ts";
export * from "./outside/outside.ts";
export type { TcpCounters, TcpOptions } from "./tcp/engine.ts";
export type { GuestInfo, VirbrStats } from "./snapshot.ts";
export { Virbr } from "./virbr.ts";
export type { PortDrops, PortStats, VirbrPort, VirbrPortOptions } from "./wire/port.ts";
