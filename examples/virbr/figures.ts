/** What the example counts, and how it shows it. */
import type { VirbrStats } from "@virtio/virbr";
import { type CardFigures, figureTable as cardTable } from "../net/figures.ts";
import { table } from "../shared/figures.ts";

/** The figures of a run. */
export interface Figures {
  readonly cards: readonly CardFigures[];
  /** What the network counted. */
  readonly network: VirbrStats;
  /** What the guests were called, and the addresses that they had. */
  readonly leases: readonly { readonly name: string; readonly address: string }[];
}

/** The table that the user sees at the end. */
export function figureTable({ cards, network, leases }: Figures): string {
  const { dhcp, dns, flows, tcp } = network;
  const row = (name: string, value: number): string[] => [name, String(value)];
  return [
    cardTable({ cards }),
    "",
    table([
      ["addresses", ...leases.map(({ name, address }) => `${name} ${address}`)],
      row("leases acknowledged", dhcp.messages.ack),
      row("names asked", dns.local + dns.forwarded),
      row("flows", flows.total),
      row("flows refused", flows.prohibited + flows.unwanted + flows.limited),
      row("TCP segments in", tcp.segmentsIn),
      row("TCP segments out", tcp.segmentsOut),
      row("sent again", tcp.repeated),
    ]),
  ].join("\n");
}
