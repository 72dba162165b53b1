import type { Clock } from "@virtio/net/wire";
import { formatIpv4, parseIpv4 } from "../ip/address.ts";
import { type LeasePort, LeaseShares } from "./lease_shares.ts";

/** A lease as it is shown, and kept over a restart. */
export interface Lease {
  /** With colons. */
  readonly mac: string;
  /** As text. */
  readonly address: string;
  /** A label; empty if the guest said none. */
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly expires: number;
}

/** A lease that is given to a MAC address always. */
export interface StaticLease {
  /** With colons. */
  readonly mac: string;
  /** An address of the subnet, in the pool or not; one of the pool unless given. */
  readonly address?: string;
  /** Its name; what the guest says unless given. */
  readonly name?: string;
}

/** Milliseconds that an offer counts. */
const OFFER_TIME = 60_000;
/** Milliseconds that a declined address is not given. */
const DECLINE_TIME = 600_000;
/** Addresses that those behind one port may decline: each is lost for a while. */
const MAX_DECLINED = 3;

/** An address that was given, or offered. */
export interface Entry {
  readonly mac: string;
  readonly address: number;
  name: string;
  /** By the clock. */
  expires: number;
  /** Whether the client took it. */
  bound: boolean;
  /** The port whose share it is of; empty if it counts for none: its own, or kept over a restart and not asked for since. */
  port: string;
}

/** What leases are given of. */
export interface LeaseOptions {
  /** The first address of the pool. */
  readonly from: number;
  /** The last. */
  readonly to: number;
  /** Of those with their own. */
  readonly statics: readonly StaticLease[];
  readonly clock: Clock;
  /** Seconds of a lease. */
  readonly longest: number;
  /** Names that nobody gets. */
  readonly reserved: readonly string[];
  /** Whether somebody else uses an address without a lease. */
  taken(address: number, mac: string): boolean;
  /** Whether the station with a MAC address is there. */
  present(mac: string): boolean;
  /** Told of every change of what `list` says. */
  onChange(): void;
}

/** Who has which address: at most as many as the pool has, and the static ones. */
export class Leases {
  readonly #options: LeaseOptions;
  readonly #byAddress: Map<number, Entry> = new Map();
  readonly #byMac: Map<string, Entry> = new Map();
  readonly #byName: Map<string, Entry> = new Map();
  readonly #shares: LeaseShares = new LeaseShares();
  /** Until when an address is not given, and on which port's word. */
  readonly #declined: Map<number, { until: number; port: string }> = new Map();
  readonly #statics: Map<string, StaticLease> = new Map();
  /** Addresses that are somebody's own. */
  readonly #owned: Map<number, string> = new Map();
  readonly #ownedNames: Map<string, string> = new Map();

  constructor(options: LeaseOptions) {
    this.#options = options;
    for (const lease of options.statics) {
      const mac = lease.mac.toLowerCase();
      this.#statics.set(mac, lease);
      if (lease.address !== undefined) this.#owned.set(parseIpv4(lease.address)!, mac);
      if (lease.name !== undefined) this.#ownedNames.set(lease.name.toLowerCase(), mac);
    }
  }

  /** Those that count now. */
  list(): Lease[] {
    const now = this.#options.clock();
    return [...this.#byAddress.values()]
      .filter((entry) => entry.bound && entry.expires > now)
      .sort((one, other) => one.address - other.address)
      .map((entry) => ({
        mac: entry.mac,
        address: formatIpv4(entry.address),
        name: entry.name,
        expires: Math.round(Date.now() + entry.expires - now),
      }));
  }

  /** Takes over what was kept. What does not fit the pool any more is left out. */
  restore(leases: Iterable<Lease>): void {
    const now = this.#options.clock();
    for (const { mac, address, name, expires } of leases) {
      const value = typeof address === "string" ? parseIpv4(address) : null;
      if (
        value === null || typeof mac !== "string" || !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac)
      ) {
        continue;
      }
      if (!this.#allowed(value, mac) || this.#byAddress.has(value) || this.#byMac.has(mac)) {
        continue;
      }
      // The host's clock may have been set meanwhile: no lease is longer than it was when it was given.
      const left = Math.min(this.#options.longest * 1000, Number(expires) - Date.now());
      if (!(left > 0)) continue;
      this.#put({ mac, address: value, name: "", expires: now + left, bound: true, port: "" });
      this.name(mac, typeof name === "string" ? name : "");
    }
  }

  /** The lease or offer of a MAC address that counts; null if it has none. */
  of(mac: string): Entry | null {
    const entry = this.#byMac.get(mac);
    return entry !== undefined && entry.expires > this.#options.clock() ? entry : null;
  }

  /** Who has an address: the MAC address of a lease, or of one that it is kept for; null if nobody. */
  lessee(address: number): string | null {
    const entry = this.#byAddress.get(address);
    if (entry !== undefined && entry.bound && entry.expires > this.#options.clock()) {
      return entry.mac;
    }
    return this.#owned.get(address) ?? null;
  }

  /** The lease with a name; null if there is none. */
  named(name: string): Entry | null {
    const entry = this.#byName.get(name);
    return entry !== undefined && entry.bound && entry.expires > this.#options.clock()
      ? entry
      : null;
  }

  /** The lease of an address; null if there is none. */
  at(address: number): Entry | null {
    const entry = this.#byAddress.get(address);
    return entry !== undefined && entry.bound && entry.expires > this.#options.clock()
      ? entry
      : null;
  }

  /** Whether a MAC address may have an address. */
  available(address: number, mac: string): boolean {
    if (!this.#allowed(address, mac)) return false;
    const now = this.#options.clock();
    const declined = this.#declined.get(address);
    if (declined !== undefined && declined.until > now) return false;
    const entry = this.#byAddress.get(address);
    if (entry !== undefined && entry.mac !== mac && entry.expires > now) return false;
    return !this.#options.taken(address, mac);
  }

  /** Chooses an address and keeps it for a moment. @returns Null if there is none, or none for that port. */
  offer(mac: string, wanted: number | null, port: LeasePort): Entry | null {
    if (!this.#admit(mac, port)) return null;
    const now = this.#options.clock();
    const known = this.#byMac.get(mac);
    const fixed = this.#fixed(mac);
    if (known !== undefined && (fixed === null || fixed === known.address)) {
      if (this.available(known.address, mac)) {
        known.expires = Math.max(known.expires, now + OFFER_TIME);
        this.#count(known, port);
        return known;
      }
    }
    const address = this.#choose(mac, wanted, fixed);
    if (address === null) return null;
    const entry = { mac, address, name: "", expires: now + OFFER_TIME, bound: false, port: "" };
    this.#put(entry);
    this.#count(entry, port);
    return entry;
  }

  /**
   * Gives an address for good.
   *
   * @param seconds How long.
   * @returns Null if there is none for that port.
   */
  bind(
    mac: string,
    address: number,
    name: string,
    seconds: number,
    port: LeasePort,
  ): Entry | null {
    if (!this.#admit(mac, port)) return null;
    let entry = this.#byMac.get(mac);
    if (entry === undefined || entry.address !== address) {
      entry = { mac, address, name: "", expires: 0, bound: true, port: "" };
      this.#put(entry);
    }
    this.#count(entry, port);
    entry.bound = true;
    entry.expires = this.#options.clock() + seconds * 1000;
    if (!this.name(mac, name)) this.#options.onChange();
    return entry;
  }

  /** Names a lease, unless the name is another's. @returns Whether there was a change. */
  name(mac: string, wanted: string): boolean {
    const entry = this.#byMac.get(mac);
    if (entry === undefined) return false;
    const name = this.#statics.get(mac)?.name?.toLowerCase() ?? cleanName(wanted);
    if (name === entry.name || name === "") return false;
    const owner = this.#ownedNames.get(name);
    if (owner !== undefined ? owner !== mac : this.#options.reserved.includes(name)) return false;
    const other = this.#byName.get(name);
    if (other !== undefined && other !== entry) {
      if (owner !== mac && other.expires > this.#options.clock()) return false;
      other.name = "";
    }
    if (entry.name !== "") this.#byName.delete(entry.name);
    entry.name = name;
    this.#byName.set(name, entry);
    this.#options.onChange();
    return true;
  }

  /** Ends a lease. @returns Whether there was one. */
  release(mac: string, address: number): boolean {
    const entry = this.#byMac.get(mac);
    if (entry === undefined || entry.address !== address) return false;
    // It stays as a memory of who had the address last: who comes back finds it if it is free.
    entry.expires = 0;
    entry.bound = false;
    this.#unname(entry);
    this.#options.onChange();
    return true;
  }

  /** A client behind a port found that somebody else uses its address. */
  decline(mac: string, address: number, port: string): boolean {
    if (!this.release(mac, address)) return false;
    const now = this.#options.clock();
    let own = 0;
    for (const [other, { until, port: from }] of this.#declined) {
      if (until <= now) this.#declined.delete(other);
      else if (from === port) own++;
    }
    if (own < MAX_DECLINED) this.#declined.set(address, { until: now + DECLINE_TIME, port });
    return true;
  }

  /** Whether a MAC address may have a lease at a port; what the port can do without makes room for it. */
  #admit(mac: string, port: LeasePort): boolean {
    const shares = this.#shares;
    const known = this.#byMac.get(mac);
    if (this.#statics.has(mac) || known?.port === port.name || !shares.full(port)) return true;
    const now = this.#options.clock();
    const spare = shares.spare(port.name, now, this.#options.present);
    if (spare === null) return false;
    this.#drop(spare);
    if (spare.bound && spare.expires > now) this.#options.onChange();
    return true;
  }

  #count(entry: Entry, port: LeasePort): void {
    if (!this.#statics.has(entry.mac)) this.#shares.move(entry, port.name);
  }

  #fixed(mac: string): number | null {
    const address = this.#statics.get(mac)?.address;
    return address === undefined ? null : parseIpv4(address);
  }

  /** Whether an address is one that a MAC address could ever have. */
  #allowed(address: number, mac: string): boolean {
    const fixed = this.#fixed(mac);
    if (fixed !== null) return address === fixed;
    const { from, to } = this.#options;
    return address >= from && address <= to && !this.#owned.has(address);
  }

  #choose(mac: string, wanted: number | null, fixed: number | null): number | null {
    if (fixed !== null) return this.available(fixed, mac) ? fixed : null;
    if (wanted !== null && this.available(wanted, mac)) return wanted;
    const { from, to } = this.#options;
    let oldest: Entry | null = null;
    for (let address = from; address <= to; address++) {
      if (!this.available(address, mac)) continue;
      const entry = this.#byAddress.get(address);
      // A client that was away for long likes to find its old address.
      if (entry === undefined) return address;
      if (oldest === null || entry.expires < oldest.expires) oldest = entry;
    }
    return oldest?.address ?? null;
  }

  #put(entry: Entry): void {
    const old = this.#byMac.get(entry.mac);
    if (old !== undefined) this.#drop(old);
    const other = this.#byAddress.get(entry.address);
    if (other !== undefined) this.#drop(other);
    this.#byAddress.set(entry.address, entry);
    this.#byMac.set(entry.mac, entry);
  }

  #drop(entry: Entry): void {
    this.#byAddress.delete(entry.address);
    this.#byMac.delete(entry.mac);
    this.#shares.remove(entry);
    this.#unname(entry);
  }

  #unname(entry: Entry): void {
    if (entry.name !== "" && this.#byName.get(entry.name) === entry) {
      this.#byName.delete(entry.name);
    }
    entry.name = "";
  }
}

/** A name as DNS has it, or empty if it is none: a label of letters, digits and hyphens (RFC 952). */
export function cleanName(name: string): string {
  const lower = name.toLowerCase();
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(lower) ? lower : "";
}
