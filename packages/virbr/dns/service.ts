/** DNS as a service of the gateway's. */
import type { Nat } from "../flow/nat.ts";
import type { Gateway } from "../ip/gateway.ts";
import type { UdpSender } from "../ip/udp.ts";
import type { Outside } from "../outside/outside.ts";
import type { VirbrSettings } from "../settings.ts";
import { Forwarder } from "./forwarder.ts";
import type { GuestNames } from "./guest_names.ts";
import { DNS_PORT, DnsServer } from "./server.ts";
import { serveStream } from "./stream.ts";
import { OutsideUpstream } from "./upstream.ts";
import { Zone } from "./zone.ts";

/** Queries to the outside that wait for answers: of one guest, and of all. */
const QUERIES_PER_GUEST = 64;
const QUERIES = 512;

/** What the service needs of the network. */
export interface DnsPlace {
  readonly settings: VirbrSettings;
  readonly gateway: Gateway;
  readonly udp: UdpSender;
  readonly nat: Nat;
  readonly names: GuestNames;
  /** Told what went wrong. */
  report(error: unknown): void;
}

/** Who asks the outside; null if guests do not reach it. */
export function makeForwarder(
  { mode, resolvers, rebinding, trusted }: VirbrSettings,
  outside: Outside | undefined,
): Forwarder | null {
  if (outside === undefined || mode === "isolated" || mode === "guests") return null;
  return new Forwarder({
    upstream: new OutsideUpstream(outside),
    resolvers,
    rebinding,
    trusted,
    perGuest: QUERIES_PER_GUEST,
    total: QUERIES,
  });
}

/** Serves DNS, by UDP and TCP, if the settings want it. */
export function serveDns(place: DnsPlace, forwarder: Forwarder | null): DnsServer {
  const { settings, gateway, udp, nat, names } = place;
  const { domain, gatewayName, subnet, prefix } = settings;
  const zone = new Zone({
    domain,
    gatewayName,
    gateway: gateway.addresses.slice(0, 2),
    names: settings.names,
    subnet,
    prefix,
    guest: (name) => names.addresses(name),
    guestAt: (address) => names.at(address),
  });
  const server = new DnsServer(zone, forwarder);
  if (!settings.dns) return server;
  nat.service(DNS_PORT, (stream, guest) => void serveStream(server, stream, guest));
  gateway.service(DNS_PORT, (packet, offset, length, port) => {
    if (!packet.local || port === 0) return;
    const message = packet.buffer.subarray(offset, offset + length);
    const { guest } = packet;
    const answer = server.answer(message, guest, "udp");
    if (answer === null) return;
    const from = packet.destination.slice();
    const to = packet.source.slice();
    const send = (bytes: Uint8Array | null): void => {
      if (bytes !== null) udp.send(guest, from, DNS_PORT, to, port, bytes);
    };
    if (answer instanceof Promise) answer.then(send).catch((error) => place.report(error));
    else send(answer);
  });
  return server;
}
