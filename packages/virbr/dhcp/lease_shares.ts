import type { Entry } from "./leases.ts";

/** Where a client is, and how much that place may have. */
export interface LeasePort {
  /** Its name: ports of one name have one share. */
  readonly name: string;
  /** Addresses that those behind it may have at a time. */
  readonly maxLeases: number;
}

/**
 * What the clients behind each port have of the pool: a guest that calls itself by ever other MAC addresses uses its own
 * share again and again. Offers count, and so do addresses that are only remembered.
 */
export class LeaseShares {
  readonly #held: Map<string, Set<Entry>> = new Map();

  /** Whether a port has all that it may. */
  full({ name, maxLeases }: LeasePort): boolean {
    return (this.#held.get(name)?.size ?? 0) >= maxLeases;
  }

  /** Counts an entry for a port, and no longer for the one that it was counted for. */
  move(entry: Entry, port: string): void {
    if (entry.port === port) return;
    this.remove(entry);
    entry.port = port;
    const held = this.#held.get(port);
    if (held === undefined) this.#held.set(port, new Set([entry]));
    else held.add(entry);
  }

  /** Counts an entry no longer. */
  remove(entry: Entry): void {
    const held = this.#held.get(entry.port);
    if (held?.delete(entry) === true && held.size === 0) this.#held.delete(entry.port);
    entry.port = "";
  }

  /**
   * Chooses what a port can do without: what is over or was never taken, else the lease of somebody who is gone; the oldest.
   *
   * @param present Whether the station with a MAC address is there.
   * @returns Null if all is in use.
   */
  spare(port: string, now: number, present: (mac: string) => boolean): Entry | null {
    let chosen: Entry | null = null;
    let free = false;
    for (const entry of this.#held.get(port) ?? []) {
      const unused = !entry.bound || entry.expires <= now;
      if (unused ? free && entry.expires >= chosen!.expires : free || present(entry.mac)) continue;
      if (!unused && chosen !== null && entry.expires >= chosen.expires) continue;
      chosen = entry;
      free = unused;
    }
    return chosen;
  }
}
