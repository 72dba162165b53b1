/** The network as text, while it runs: guests, leases, flows and rates. */
import type { Virbr } from "@virtio/virbr";

/** Bytes of a port, and when they were read. */
interface Seen {
  readonly at: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** Least milliseconds over which a rate is made. */
const SPAN = 200;

/** Draws a network again and again; rates are of the time between two drawings. */
export class Picture {
  readonly #net: Virbr;
  readonly #seen: Map<string, Seen> = new Map();
  readonly #rates: Map<string, readonly [sent: number, received: number]> = new Map();

  constructor(net: Virbr) {
    this.#net = net;
  }

  /** The picture as it is now, a line per guest and per forward. */
  lines(): string[] {
    const net = this.#net;
    const { flows, dns } = net.stats;
    const now = performance.now();
    for (const port of net.ports) this.#measure(port.name, port.stats, now);
    const leases = new Map(net.leases.map((lease) => [lease.mac, lease]));
    const rows = net.guests.map((guest) => {
      const lease = leases.get(guest.mac);
      const [sent, received] = this.#rates.get(guest.port) ?? [0, 0];
      const left = lease === undefined
        ? "no lease"
        : lease.expires === Infinity
        ? "lease for ever"
        : `lease ${Math.ceil((lease.expires - Date.now()) / 60_000)} min`;
      return [
        guest.name,
        guest.mac,
        guest.addresses[0] ?? "no address",
        left,
        `${guest.flows} flows`,
        `${bits(sent)} sent`,
        `${bits(received)} received`,
      ];
    });
    const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]!.length))) ?? [];
    const forwards = net.forwards.map((one) =>
      `  ${one.protocol} ${one.address}:${one.port} leads to ${
        one.guest ?? "nobody yet"
      }:${one.guestPort}`
    );
    const refused = flows.prohibited + flows.unwanted + flows.limited;
    return [
      `${net.subnet}, gateway ${net.gateway}: ${flows.tcp} TCP and ${flows.udp} UDP flows, ` +
      `${flows.total} until now, ${refused} refused; ${dns.local + dns.forwarded} names asked`,
      ...rows.map((row) =>
        `  ${row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ")}`.trimEnd()
      ),
      ...forwards,
    ];
  }

  /** What has happened until now, without rates: it changes when the picture is worth another look. */
  get state(): string {
    const { guests, leases, stats: { flows } } = this.#net;
    const stations = guests.map(({ mac, addresses }) => [mac, ...addresses]);
    const bound = leases.map(({ mac, address }) => [mac, address]);
    return JSON.stringify([stations, bound, flows.total, flows.tcp, flows.udp]);
  }

  #measure(
    name: string,
    { bytesIn, bytesOut }: { readonly bytesIn: number; readonly bytesOut: number },
    at: number,
  ): void {
    const before = this.#seen.get(name);
    if (before !== undefined && at - before.at < SPAN) return;
    this.#seen.set(name, { at, bytesIn, bytesOut });
    if (before === undefined) return;
    const perSecond = 1000 / (at - before.at);
    this.#rates.set(name, [
      (bytesIn - before.bytesIn) * perSecond,
      (bytesOut - before.bytesOut) * perSecond,
    ]);
  }
}

/** A rate for people. */
function bits(bytesPerSecond: number): string {
  const value = bytesPerSecond * 8;
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} Gbit/s`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} Mbit/s`;
  return `${(value / 1e3).toFixed(1)} kbit/s`;
}
