import type { Guest } from "./ip/packet.ts";

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
