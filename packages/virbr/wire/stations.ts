import { formatAddress, isGroup, isLinkLocal, isUnspecified, type Subnet } from "../ip/address.ts";
import type { AddressWords } from "../ip/packet.ts";
import type { GuestPort } from "./port.ts";
import { Station } from "./station.ts";

/** Milliseconds of silence after which another station may take over a MAC address or an address. */
const SILENCE = 300_000;

/** What the table must know of the network. */
export interface StationRules {
  /** Of IPv4. */
  readonly subnet: Subnet;
  /** Of IPv6; null if there is none. */
  readonly prefix: Subnet | null;
  /** Whether an address belongs to the gateway. */
  isGateway(address: AddressWords): boolean;
  /** Whether a MAC address belongs to the gateway. */
  isGatewayMac(high: number, low: number): boolean;
  /** Whether stations may use addresses of the subnet that they did not get by DHCP. */
  readonly claims: boolean;
  /** Who has the lease of an address of IPv4, as a MAC address with colons; null if nobody. */
  lessee(address: number): string | null;
}

/**
 * All stations, and who has which address. The first to use a free address has it, until it is silent for five minutes; a
 * lease goes before that. Bounded: each port may have so many stations, each station so many addresses.
 */
export class Stations {
  /** Told of each station that is forgotten. */
  onGone: (station: Station) => void = () => {};
  /** Told of each station that was heard for the first time. */
  onNew: (station: Station) => void = () => {};
  readonly #rules: StationRules;
  readonly #byMac: Map<number, Station> = new Map();
  readonly #by4: Map<number, Station> = new Map();
  readonly #by6: Map<string, Station> = new Map();

  constructor(rules: StationRules) {
    this.#rules = rules;
  }

  /** How many there are. */
  get size(): number {
    return this.#byMac.size;
  }

  /** All of them. */
  [Symbol.iterator](): IterableIterator<Station> {
    return this.#byMac.values();
  }

  /** The station with a MAC address behind a port, made if it is new; null if it may not be there. */
  heard(high: number, low: number, port: GuestPort, now: number): Station | null {
    const key = high * 0x100_0000 + low;
    if (this.#rules.isGatewayMac(high, low) || (high & 0x01_0000) !== 0 || key === 0) return null;
    const { lock } = port;
    if (lock !== null && (lock.high !== high || lock.low !== low)) return null;
    const known = this.#byMac.get(key);
    if (known !== undefined) {
      if (known.at === port) {
        known.heard = now;
        return known;
      }
      // A port that the address belongs to has it at once.
      if (lock === null && (known.at.lock !== null || now - known.heard < SILENCE)) return null;
      this.forget(known);
    }
    if (port.stations >= port.maxStations && !this.#makeRoom(port, now)) return null;
    const station = new Station(high, low, port);
    station.heard = now;
    station.advertised = now;
    this.#byMac.set(key, station);
    port.stations++;
    this.onNew(station);
    return station;
  }

  /** The station with an address of IPv4. */
  find4(address: number): Station | null {
    return this.#by4.get(address) ?? null;
  }

  /** The station with an address of IPv6. */
  find6(address: AddressWords): Station | null {
    return this.#by6.get(formatAddress(address)) ?? null;
  }

  /** The station with a MAC address, as text. */
  findMac(mac: string): Station | null {
    return this.#byMac.get(parseInt(mac.replaceAll(":", ""), 16)) ?? null;
  }

  /** Whether a station may use an address of IPv4; it has it then. */
  claim4(station: Station, address: number): boolean {
    if (station.ipv4.includes(address)) return true;
    const { subnet, claims } = this.#rules;
    words[3] = address;
    if (
      !subnet.contains(words) || address === subnet.broadcast || address === subnet.first[3] ||
      this.#rules.isGateway(words)
    ) return false;
    const lessee = this.#rules.lessee(address);
    if (lessee === null ? !claims : lessee !== station.mac) return false;
    const owner = this.#by4.get(address);
    // Whoever has the lease has the address, whatever others made of it.
    if (owner !== undefined && lessee === null && station.heard - owner.heard < SILENCE) {
      return false;
    }
    this.give4(station, address);
    return true;
  }

  /** Gives a station an address of IPv4, whoever had it. */
  give4(station: Station, address: number): void {
    if (station.gone) return;
    const owner = this.#by4.get(address);
    if (owner === station) return;
    if (owner !== undefined) owner.drop4(address);
    this.#by4.set(address, station);
    const lost = station.add4(address);
    if (lost !== 0) this.#by4.delete(lost);
  }

  /** Takes an address of IPv4 from whoever has it. */
  take4(address: number): void {
    const owner = this.#by4.get(address);
    if (owner === undefined) return;
    owner.drop4(address);
    this.#by4.delete(address);
  }

  /** Whether a station may use an address of IPv6; it has it then. */
  claim6(station: Station, address: AddressWords): boolean {
    if (station.has6(address)) return true;
    const { prefix } = this.#rules;
    if (!isLinkLocal(address) && !(prefix !== null && prefix.contains(address))) return false;
    if (isGroup(address) || isUnspecified(address) || this.#rules.isGateway(address)) return false;
    const key = formatAddress(address);
    const owner = this.#by6.get(key);
    if (owner !== undefined) {
      if (station.heard - owner.heard < SILENCE) return false;
      this.#lose6(owner, key);
    }
    this.#by6.set(key, station);
    const lost = station.add6(address.slice());
    if (lost !== null) this.#by6.delete(formatAddress(lost));
    return true;
  }

  /** Forgets a station. */
  forget(station: Station): void {
    if (station.gone) return;
    this.#byMac.delete(station.high * 0x100_0000 + station.low);
    for (const address of station.ipv4) this.#by4.delete(address);
    for (const address of station.ipv6) this.#by6.delete(formatAddress(address));
    station.at.stations--;
    station.leave();
    station.at.forget(station);
    this.onGone(station);
  }

  /** Forgets all stations behind a port. */
  forgetPort(port: GuestPort): void {
    for (const station of [...this.#byMac.values()]) if (station.at === port) this.forget(station);
  }

  #lose6(owner: Station, key: string): void {
    const at = owner.ipv6.findIndex((each) => formatAddress(each) === key);
    if (at >= 0) owner.ipv6.splice(at, 1);
    this.#by6.delete(key);
  }

  /** Forgets the station of a port that was silent for longest, if that was long. */
  #makeRoom(port: GuestPort, now: number): boolean {
    // Often only a station that tells lies asks for more: looking at all of them is limited.
    if (!port.search.take(now)) return false;
    let oldest: Station | null = null;
    for (const station of this.#byMac.values()) {
      if (station.at === port && (oldest === null || station.heard < oldest.heard)) {
        oldest = station;
      }
    }
    if (oldest === null || now - oldest.heard < SILENCE) return false;
    this.forget(oldest);
    return true;
  }
}

/** An address of IPv4 for those who ask by words. */
const words: Uint32Array = new Uint32Array([0, 0, 0xffff, 0]);
