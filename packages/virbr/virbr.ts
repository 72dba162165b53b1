import { checkInteger } from "@virtio/device";
import { Switch } from "@virtio/net/switch";
import { formatMac, parseStationMac } from "@virtio/net/wire";
import { LeaseKeeper } from "./dhcp/lease_keeper.ts";
import { type Lease, Leases } from "./dhcp/leases.ts";
import type { DhcpServer } from "./dhcp/server.ts";
import { type DhcpPlace, serveDhcp, serveDhcp6 } from "./dhcp/service.ts";
import type { Forwarder } from "./dns/forwarder.ts";
import { GuestNames } from "./dns/guest_names.ts";
import { encodeNames } from "./dns/names.ts";
import type { DnsServer } from "./dns/server.ts";
import { makeForwarder, serveDns } from "./dns/service.ts";
import type { Forward, ForwardOptions } from "./flow/forward.ts";
import { Nat } from "./flow/nat.ts";
import { formatAddress, formatIpv4, ipv4, parseAddress } from "./ip/address.ts";
import { Gateway } from "./ip/gateway.ts";
import { Neighbours } from "./ip/ndp.ts";
import type { IpLayer } from "./ip/packet.ts";
import { Router } from "./ip/router.ts";
import { UdpSender } from "./ip/udp.ts";
import type { VirbrOptions } from "./options.ts";
import {
  checkRate,
  GATEWAY_LINK_LOCAL,
  gatewayOf,
  settle,
  type VirbrSettings,
} from "./settings.ts";
import { type GuestInfo, guestInfo, type VirbrStats } from "./snapshot.ts";
import { Entrance } from "./wire/entrance.ts";
import { GuestPort, type PortLimits, type VirbrPort, type VirbrPortOptions } from "./wire/port.ts";
import type { Station } from "./wire/station.ts";
import { Stations } from "./wire/stations.ts";

/**
 * A network for guests: a switch, and a gateway that gives them addresses, names, and the way out.
 *
 * Each `port` is a back end for a network device. The gateway (192.168.122.1 unless told otherwise) is router, DHCP server
 * and resolver. Guests reach each other through the switch; a guest speaks for itself only: frames with a MAC address or an
 * IP address that is another's, the gateway's, or none of the network go nowhere.
 *
 * @example A guest's port, and an address that is its own
 * ```ts
 * import { Virbr } from "@virtio/virbr";
 * import { assertEquals } from "@std/assert";
 *
 * const net = new Virbr({ leases: [{ mac: "52:54:00:00:00:01", address: "192.168.122.50" }] });
 * const port = net.port({ name: "guest" }); // new NetDevice({ backend: port })
 * assertEquals(net.gateway, "192.168.122.1");
 * assertEquals(net.leases, []);
 * port.close();
 * await net.close();
 * ```
 */
export class Virbr {
  /** Told what happens. */
  onEvent: VirbrOptions["onEvent"];
  readonly #settings: VirbrSettings;
  readonly #options: VirbrOptions;
  readonly #switch: Switch;
  readonly #stations: Stations;
  readonly #gateway: Gateway;
  readonly #entrance: Entrance;
  readonly #leases: Leases;
  readonly #dhcp: DhcpServer;
  readonly #forwarder: Forwarder | null;
  readonly #dns: DnsServer;
  readonly #nat: Nat;
  readonly #ports: Set<GuestPort> = new Set();
  readonly #keeper: LeaseKeeper;
  #count = 0;
  #loading: Promise<void>;
  #closed = false;

  /**
   * Makes a network without guests.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option is none of its kind.
   */
  constructor(options: VirbrOptions = {}) {
    const settings = settle(options);
    this.#settings = settings;
    this.#options = options;
    this.onEvent = options.onEvent;
    const { clock, mac, prefix, subnet, gateway, mtu, mode } = settings;
    const { onError } = options;
    this.#switch = new Switch({ clock, ...(onError === undefined ? {} : { onError }) });
    this.#leases = this.#makeLeases();
    const { store = null } = options;
    const report = (error: unknown): void => onError?.(error);
    this.#keeper = new LeaseKeeper(store, this.#leases, report);
    const six = prefix === null ? null : gatewayOf(prefix);
    const own = [ipv4(gateway), ...(six === null ? [] : [six, GATEWAY_LINK_LOCAL])];
    this.#stations = new Stations({
      subnet,
      prefix,
      claims: settings.claims,
      isGateway: (address) => own.some((one) => formatAddress(one) === formatAddress(address)),
      isGatewayMac: (high, low) => high === mac.high && low === mac.low,
      lessee: (address) => this.#leases.lessee(address),
    });
    this.#stations.onNew = (station) => this.#heard(station);
    this.#stations.onGone = (station) => this.#gone(station);
    this.#gateway = new Gateway({
      mac,
      address: gateway,
      subnet,
      addresses6: six === null ? [] : [six, GATEWAY_LINK_LOCAL],
      prefix,
      mtu,
      clock,
      forwarding: mode === "nat",
      ports: () => this.#ports,
      ...(onError === undefined ? {} : { onError }),
    }, this.#stations);
    this.#entrance = new Entrance(this.#stations, this.#gateway, mac, clock);
    const udp = new UdpSender(this.#gateway);
    const search = encodeNames(settings.search);
    if (prefix !== null && six !== null) {
      this.#gateway.neighbours = new Neighbours({
        mac,
        address: six,
        linkLocal: GATEWAY_LINK_LOCAL,
        prefix,
        mtu,
        router: mode === "nat",
        resolver: settings.dns,
        search,
        dhcp: settings.dhcp,
      });
    }
    const place: DhcpPlace = {
      settings,
      gateway: this.#gateway,
      udp,
      leases: this.#leases,
      stations: this.#stations,
      search,
      ready: () => this.#keeper.ready,
      tell: (event) => this.onEvent?.(event),
    };
    this.#dhcp = serveDhcp(place);
    if (six !== null) serveDhcp6(place, six, GATEWAY_LINK_LOCAL);
    this.#route();
    this.#forwarder = makeForwarder(settings, options.outside);
    this.#nat = this.#makeNat();
    this.#dns = serveDns({
      settings,
      gateway: this.#gateway,
      udp,
      nat: this.#nat,
      names: new GuestNames(settings, this.#leases, this.#stations),
      report,
    }, this.#forwarder);
    this.#loading = this.#open();
    // Whoever asks for `ready` is told; nobody has to.
    this.#loading.catch(() => {});
  }

  /** The gateway's address of IPv4. */
  get gateway(): string {
    return formatIpv4(this.#settings.gateway);
  }

  /** The gateway's address of IPv6; null without IPv6. */
  get gateway6(): string | null {
    const { prefix } = this.#settings;
    return prefix === null ? null : formatAddress(gatewayOf(prefix));
  }

  /** The network of IPv4. */
  get subnet(): string {
    return `${this.#settings.subnet}`;
  }

  /** The network of the host's that the usual subnet clashes with, so that another one was chosen; null if none. */
  get clash(): string | null {
    return this.#settings.clash;
  }

  /** The network of IPv6; null if there is none. */
  get prefix(): string | null {
    return this.#settings.prefix?.toString() ?? null;
  }

  /** The gateway's MAC address. */
  get mac(): string {
    return formatMac(this.#settings.mac);
  }

  /** The ports that there are. */
  get ports(): readonly VirbrPort[] {
    return [...this.#ports];
  }

  /** The stations that were heard, as they are now. */
  get guests(): readonly GuestInfo[] {
    return Array.from(this.#stations, (one) => guestInfo(one, this.#nat.flows(one)));
  }

  /** The leases that count now. */
  get leases(): readonly Lease[] {
    return this.#leases.list();
  }

  /** What was counted until now. */
  get stats(): VirbrStats {
    const { router } = this.#gateway;
    return {
      gateway: this.#gateway.stats,
      dhcp: structuredClone(this.#dhcp.stats),
      dns: { ...this.#dns.stats },
      flows: this.#nat.counters,
      tcp: this.#nat.tcpCounters,
      router: router === null ? null : { ...router.stats },
    };
  }

  /** The ports of the host's that lead to guests. */
  get forwards(): readonly Forward[] {
    return this.#nat.forwards;
  }

  /** The IP layer, for transports of one's own. */
  get ip(): IpLayer {
    return this.#gateway;
  }

  /**
   * Resolves when leases that were kept are known, so that DHCP answers, and the forwards of the options are open.
   *
   * @throws What the store said, or {OutsideError} If a port cannot be had.
   */
  get ready(): Promise<void> {
    return this.#loading;
  }

  /**
   * Makes a port of the host's lead to a guest: its address, its MAC address, or its name, which it may get later.
   *
   * @throws {OutsideError} If the port cannot be had.
   * @throws {TypeError} If an option is none of its kind, or there is no way out.
   */
  forward(options: ForwardOptions): Promise<Forward> {
    const { guest } = options;
    if (typeof guest !== "string" || parseAddress(guest) !== null) {
      return this.#nat.forward(options);
    }
    const wanted = guest.toLowerCase();
    const find = (): string | null => {
      const lease = this.#leases.of(wanted) ?? this.#leases.named(wanted);
      return lease === null || !lease.bound ? null : formatIpv4(lease.address);
    };
    return this.#nat.forward({ ...options, guest: find });
  }

  /**
   * Adds a port: the back end of a network device.
   *
   * @throws {RangeError} If an option is out of range, or another port has its MAC address.
   * @throws {TypeError} If the network is closed.
   */
  port(options: VirbrPortOptions = {}): VirbrPort {
    if (this.#closed) throw new TypeError("This network is closed: make another one");
    const { clock, mtu, sendRate, receiveRate } = this.#settings;
    const maxStations = checkInteger("maxStations", options.maxStations, 1, 1024, 8);
    const rate = options.floodRate ?? 10_000;
    if (options.mac !== undefined && formatMac(parseStationMac(options.mac)) === this.mac) {
      throw new RangeError(`The MAC address ${this.mac} belongs to the gateway already`);
    }
    const limits: PortLimits = {
      maxStations,
      maxLeases: checkInteger("maxLeases", options.maxLeases, 1, 65_536, maxStations),
      maxMtu: mtu,
      sendRate: checkRate("sendRate", options.sendRate ?? sendRate),
      receiveRate: checkRate("receiveRate", options.receiveRate ?? receiveRate),
      clock,
    };
    const inner = this.#switch.port({
      name: options.name ?? `port${this.#count}`,
      isolated: options.isolated ?? false,
      maxStations,
      maxMtu: limits.maxMtu,
      flood: { rate, burst: Math.max(1, rate / 2) },
      ...(options.mac === undefined ? {} : { mac: options.mac }),
    });
    this.#count++;
    const port = new GuestPort(
      {
        enter: (frame, from) => this.#entrance.enter(frame, from),
        down: (from) => this.#stations.forgetPort(from),
        remove: (from) => {
          this.#stations.forgetPort(from);
          this.#ports.delete(from);
        },
      },
      inner,
      options,
      limits,
    );
    this.#ports.add(port);
    return port;
  }

  /** Closes all ports, keeps the leases, and gives everything back. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const port of [...this.#ports]) port.close();
    this.#forwarder?.close();
    this.#nat.close();
    this.#gateway.router?.close();
    this.#gateway.close();
    this.#switch.close();
    await this.#loading.catch(() => {});
    await this.#keeper.close();
  }

  #heard(station: Station): void {
    const { mac, port } = station;
    const entry = this.#leases.of(mac);
    // A lease from before a restart, of the network or of the port.
    if (entry !== null && entry.bound) {
      station.leased = entry.address;
      station.leaseName = entry.name;
    }
    this.onEvent?.({ type: "guest", mac, port });
  }

  #gone(station: Station): void {
    this.#gateway.forget(station);
    this.onEvent?.({ type: "gone", mac: station.mac, port: station.port });
  }

  #makeLeases(): Leases {
    const { from, to, statics, clock, leaseTime, gatewayName, gateway } = this.#settings;
    return new Leases({
      from,
      to,
      statics,
      clock,
      longest: leaseTime,
      reserved: [gatewayName, "localhost"],
      taken: (address, mac) => {
        if (address === gateway) return true;
        const owner = this.#stations.find4(address);
        return owner !== null && owner.mac !== mac && owner.leased !== address;
      },
      present: (mac) => this.#stations.findMac(mac) !== null,
      onChange: () => this.#keeper.changed(),
    });
  }

  #route(): void {
    const { uplink, mac, subnet, clock, mtu } = this.#settings;
    if (uplink === null) return;
    this.#gateway.router = new Router({
      ...uplink,
      mac,
      guests: subnet,
      guestMtu: mtu,
      clock,
      find: (address) => {
        const guest = this.#stations.find4(address);
        if (guest === null) this.#gateway.find(ipv4(address));
        return guest;
      },
      give: (frame, to) => this.#gateway.give(frame, to),
    });
  }

  #makeNat(): Nat {
    const { mode, subnet, prefix } = this.#settings;
    const { outside, ...options } = this.#options;
    return new Nat(this.#gateway, {
      ...options,
      inside: prefix === null ? [subnet] : [subnet, prefix],
      mode: mode === "nat" ? "nat" : "isolated",
      // What guests have among themselves does not lead to the host.
      ...(outside === undefined || mode === "guests" ? {} : { outside }),
    });
  }

  async #open(): Promise<void> {
    const { forwards = [] } = this.#options;
    await Promise.all([this.#keeper.load(), ...forwards.map((each) => this.forward(each))]);
  }
}
