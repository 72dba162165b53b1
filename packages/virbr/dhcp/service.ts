/** DHCP and DHCPv6 as services of the gateway's. */
import { formatIpv4, ipv4, isIpv4, isLinkLocal, sameAddress } from "../ip/address.ts";
import type { Gateway } from "../ip/gateway.ts";
import { stationOf } from "../ip/output.ts";
import type { AddressWords } from "../ip/packet.ts";
import type { UdpSender } from "../ip/udp.ts";
import type { VirbrEvent } from "../options.ts";
import type { VirbrSettings } from "../settings.ts";
import type { Stations } from "../wire/stations.ts";
import type { Leases } from "./leases.ts";
import { DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpServer } from "./server.ts";
import { DHCP6_CLIENT_PORT, DHCP6_SERVER_PORT, Dhcp6Server } from "./server6.ts";

/** What the services need of the network. */
export interface DhcpPlace {
  readonly settings: VirbrSettings;
  readonly gateway: Gateway;
  readonly udp: UdpSender;
  readonly leases: Leases;
  readonly stations: Stations;
  /** Domains that guests search, in the format of DNS. */
  readonly search: Uint8Array;
  /** Whether leases of before a restart are known: guests are told nothing before. */
  ready(): boolean;
  /** Told what happens. */
  tell(event: VirbrEvent): void;
}

/** Serves DHCP, if the settings want it. */
export function serveDhcp(place: DhcpPlace): DhcpServer {
  const { settings, gateway, udp, leases, stations, search } = place;
  const { gateway: address, subnet, mode, clock } = settings;
  const routed = mode === "nat" || mode === "routed";
  const server = new DhcpServer(
    {
      address,
      mask: subnet.mask,
      broadcast: subnet.broadcast,
      router: routed ? address : 0,
      resolvers: settings.dns ? [address] : [],
      domain: settings.domain,
      search,
      mtu: settings.mtu,
      leaseTime: settings.leaseTime,
      boot: settings.boot,
    },
    leases,
    {
      send: (to, client, message) => {
        const target = ipv4(client ?? 0xffff_ffff);
        const source = gateway.addresses[0]!;
        udp.send(to, source, DHCP_SERVER_PORT, target, DHCP_CLIENT_PORT, message);
      },
      bound: (station, { address, name }) => {
        station.leased = address;
        station.leaseName = name;
        stations.give4(station, address);
        place.tell({ type: "lease", mac: station.mac, address: formatIpv4(address), name });
      },
      released: (station, address) => {
        station.leased = 0;
        station.leaseName = "";
        stations.take4(address);
        place.tell({ type: "released", mac: station.mac, address: formatIpv4(address) });
      },
    },
  );
  if (settings.dhcp) {
    gateway.service(DHCP_SERVER_PORT, (packet, offset, length) => {
      if (!place.ready() || !isIpv4(packet.destination)) return;
      const station = stationOf(packet.guest);
      if (station.asking.take(clock())) server.receive(packet, offset, length, station);
    });
  }
  return server;
}

/** Serves DHCPv6, if the settings want it. @param address The gateway's, and its address on the link. */
export function serveDhcp6(
  place: DhcpPlace,
  address: AddressWords,
  linkLocal: AddressWords,
): void {
  const { settings: { mac, dns, dhcp, prefix, leaseTime, clock }, gateway, udp, search } = place;
  if (!dhcp || prefix === null) return;
  const server = new Dhcp6Server({
    mac,
    prefix: prefix.first,
    resolver: dns ? address : null,
    search,
    leaseTime,
    taken: (wanted, { high, low }) => {
      const owner = place.stations.find6(wanted);
      return sameAddress(wanted, address) ||
        owner !== null && (owner.high !== high || owner.low !== low);
    },
  });
  gateway.service(DHCP6_SERVER_PORT, (packet, offset, length) => {
    if (isIpv4(packet.destination) || !isLinkLocal(packet.source)) return;
    const station = stationOf(packet.guest);
    if (!station.asking.take(clock())) return;
    const answer = server.answer(packet, offset, length, station);
    if (answer === null) return;
    const to = packet.source.slice();
    udp.send(station, linkLocal, DHCP6_SERVER_PORT, to, DHCP6_CLIENT_PORT, answer);
  });
}
