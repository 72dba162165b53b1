import { Offload } from "@virtio/net";
import { formatMac, TokenBucket } from "@virtio/net/wire";
import { formatAddress, ipv4, sameAddress } from "../ip/address.ts";
import type { AddressWords, Guest } from "../ip/packet.ts";
import type { GuestPort } from "./port.ts";

/** Addresses of IPv6 that a station may have: it makes a new temporary one every day (RFC 8981). */
const MAX_IPV6 = 16;
/** Addresses of IPv4. */
const MAX_IPV4 = 4;
/** ICMP errors a second to a station, and at once. */
const ERROR_RATE = 50;
const ERROR_BURST = 20;
/** Messages to DHCP a second, and at once. */
const ASK_RATE = 20;
const ASK_BURST = 50;

/** A station behind a port: who has a MAC address, and what it may call itself. */
export class Station implements Guest {
  /** The first three bytes of the MAC address. */
  readonly high: number;
  /** The last three. */
  readonly low: number;
  readonly mac: string;
  /** Where it is. */
  readonly at: GuestPort;
  /** When it was heard last, in milliseconds. */
  heard = 0;
  /** When it was last told what the router advertises without having asked. */
  advertised = 0;
  /** The address that DHCP gave it, 0 if none. */
  leased = 0;
  /** The name of its lease; empty if it has none. */
  leaseName = "";
  /** Addresses of IPv4 that it uses, the newest last. */
  readonly ipv4: number[] = [];
  /** The one that it used last, as a signed number, which is never boxed; 0 if that is to be looked up. */
  latest4 = 0;
  /** Addresses of IPv6 that it uses, the newest last. */
  readonly ipv6: AddressWords[] = [];
  /** How often it is told of errors. */
  readonly errors: TokenBucket = new TokenBucket(ERROR_RATE, ERROR_BURST);
  /** How often it may ask DHCP, which may have to search its pool. */
  readonly asking: TokenBucket = new TokenBucket(ASK_RATE, ASK_BURST);
  #gone = false;

  constructor(high: number, low: number, at: GuestPort) {
    this.high = high;
    this.low = low;
    this.mac = formatMac({ high, low });
    this.at = at;
  }

  get name(): string {
    return this.leaseName === "" ? this.at.name : this.leaseName;
  }

  get port(): string {
    return this.at.name;
  }

  get addresses(): readonly string[] {
    return [...this.ipv4.map(ipv4), ...this.ipv6].map(formatAddress);
  }

  get gone(): boolean {
    return this.#gone;
  }

  get tso4(): boolean {
    return this.at.takes(tso4);
  }

  get tso6(): boolean {
    return this.at.takes(tso6);
  }

  /** Whether it has an address of IPv6. */
  has6(address: AddressWords): boolean {
    const own = this.ipv6;
    for (let i = own.length - 1; i >= 0; i--) if (sameAddress(own[i]!, address)) return true;
    return false;
  }

  /** Adds an address. @returns The one that it made room for, or 0. */
  add4(address: number): number {
    this.ipv4.push(address);
    if (this.ipv4.length <= MAX_IPV4) return 0;
    const lost = this.ipv4.find((each) => each !== this.leased)!;
    this.drop4(lost);
    return lost;
  }

  /** Takes an address away. */
  drop4(address: number): void {
    const at = this.ipv4.indexOf(address);
    if (at >= 0) this.ipv4.splice(at, 1);
    this.latest4 = 0;
  }

  /** Adds an address. @returns The one that it made room for, or null. */
  add6(address: AddressWords): AddressWords | null {
    this.ipv6.push(address);
    return this.ipv6.length > MAX_IPV6 ? this.ipv6.shift()! : null;
  }

  /** Forgets it. */
  leave(): void {
    this.#gone = true;
  }
}

const tso4 = Offload.csum | Offload.tso4;
const tso6 = Offload.csum | Offload.tso6;
