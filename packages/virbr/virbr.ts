import type { Frame } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { checkInteger } from "@virtio/device";
import { formatMac, parseStationMac } from "@virtio/net/wire";
import { type Lease, Leases } from "./dhcp/leases.ts";
import { DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpServer, type DhcpStats } from "./dhcp/server.ts";
import { DHCP6_CLIENT_PORT, DHCP6_SERVER_PORT, Dhcp6Server } from "./dhcp/server6.ts";
import { Forwarder } from "./dns/forwarder.ts";
import { encodeName } from "./dns/names.ts";
import { DNS_PORT, DnsServer, type DnsStats } from "./dns/server.ts";
import { serveStream } from "./dns/stream.ts";
import { OutsideUpstream } from "./dns/upstream.ts";
import { Zone } from "./dns/zone.ts";
import {
  formatAddress,
  formatIpv4,
  ipv4,
  isIpv4,
  isLinkLocal,
  parseAddress,
} from "./ip/address.ts";
import { Gateway, type GatewayStats } from "./ip/gateway.ts";
import { Neighbours } from "./ip/ndp.ts";
import { stationOf } from "./ip/output.ts";
import { type GuestInfo, guestInfo } from "./guest_info.ts";
import type { AddressWords, IpLayer } from "./ip/packet.ts";
import { Router, type RouterStats } from "./ip/router.ts";
import { UdpSender } from "./ip/udp.ts";
import { gatewayOf, settle, type VirbrOptions, type VirbrSettings } from "./options.ts";
import type { FlowCounters } from "./flow/flow.ts";
import type { Forward, ForwardOptions } from "./flow/forward.ts";
import { Nat } from "./flow/nat.ts";
import type { TcpCounters } from "./tcp/engine.ts";
import { guard, Verdict } from "./wire/guard.ts";
import { GuestPort, type PortLimits, type VirbrPort, type VirbrPortOptions } from "./wire/port.ts";
import type { Station } from "./wire/station.ts";
import { Stations } from "./wire/stations.ts";

/** What a network had counted at a moment: plain data. */
export interface VirbrStats {
  /** The gateway's IP layer. */
  readonly gateway: GatewayStats;
  /** DHCP. */
  readonly dhcp: DhcpStats;
  /** Names. */
  readonly dns: Readonly<DnsStats>;
  /** Flows to the outside and back. */
  readonly flows: FlowCounters;
  /** TCP of the flows, and of the gateway's own services. */
  readonly tcp: TcpCounters;
  /** Packets to the uplink and back; null unless the mode is "routed". */
  readonly router: Readonly<RouterStats> | null;
}

/** Queries to the outside that wait for answers: of one guest, and of all. */
const QUERIES_PER_GUEST = 64;
const QUERIES = 512;

/** Milliseconds after which a guest that is not silent is told again what the router advertises. */
const ADVERTISE = 600_000;

/** Fewer bytes a second are no network: an address could not be had. */
const LEAST_RATE = 1000;

function rateOf(name: string, rate: number = Infinity): number {
  if (!(rate >= LEAST_RATE)) {
    throw new RangeError(`${name} must be at least ${LEAST_RATE} bytes a second: it is ${rate}`);
  }
  return rate;
}

const LINK_LOCAL: AddressWords = new Uint32Array([0xfe80_0000, 0, 0, 1]);

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
  readonly #udp: UdpSender;
  readonly #leases: Leases;
  readonly #dhcp: DhcpServer;
  readonly #forwarder: Forwarder | null;
  readonly #dns: DnsServer;
  readonly #nat: Nat;
  readonly #ports: Set<GuestPort> = new Set();
  #count = 0;
  /** Whether what the store kept is known. */
  #ready = true;
  #loading: Promise<void> = Promise.resolve();
  #saving: Promise<void> | null = null;
  #unsaved = false;
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
    rateOf("sendRate", options.sendRate);
    rateOf("receiveRate", options.receiveRate);
    const { onError } = options;
    this.#switch = new Switch({ clock, ...(onError === undefined ? {} : { onError }) });
    this.#leases = this.#makeLeases();
    const six = prefix === null ? null : gatewayOf(prefix);
    const own = [ipv4(gateway), ...(six === null ? [] : [six, LINK_LOCAL])];
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
      addresses6: six === null ? [] : [six, LINK_LOCAL],
      prefix,
      mtu,
      clock,
      forwarding: mode === "nat",
      ports: () => this.#ports,
      ...(onError === undefined ? {} : { onError }),
    }, this.#stations);
    this.#udp = new UdpSender(this.#gateway);
    if (prefix !== null && six !== null) {
      this.#gateway.neighbours = new Neighbours({
        mac,
        address: six,
        linkLocal: LINK_LOCAL,
        prefix,
        mtu,
        router: mode === "nat",
        resolver: settings.dns,
        search: this.#search,
        dhcp: settings.dhcp,
      });
      this.#serveDhcp6(six);
    }
    this.#dhcp = this.#serveDhcp();
    this.#route();
    this.#forwarder = this.#makeForwarder();
    this.#nat = this.#makeNat();
    this.#dns = this.#serveDns();
    this.#load();
    this.#open();
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
    const maxStations = checkInteger("maxStations", options.maxStations, 1, 1024, 8);
    const rate = options.floodRate ?? 10_000;
    if (options.mac !== undefined && formatMac(parseStationMac(options.mac)) === this.mac) {
      throw new RangeError(`The MAC address ${this.mac} belongs to the gateway already`);
    }
    const limits: PortLimits = {
      maxStations,
      maxLeases: checkInteger("maxLeases", options.maxLeases, 1, 65_536, maxStations),
      maxMtu: this.#settings.mtu,
      sendRate: rateOf("sendRate", options.sendRate ?? this.#options.sendRate),
      receiveRate: rateOf("receiveRate", options.receiveRate ?? this.#options.receiveRate),
      clock: this.#settings.clock,
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
        enter: (frame, from) => this.#enter(frame, from),
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
    while (this.#saving !== null) await this.#saving;
  }

  #enter(frame: Frame, port: GuestPort): void {
    const { view } = frame;
    const high = view.getUint32(6) >>> 8;
    const low = view.getUint32(8) & 0xff_ffff;
    let station = port.last;
    const now = this.#settings.clock();
    if (station === null || station.low !== low || station.high !== high) {
      station = this.#stations.heard(high, low, port, now);
      if (station === null) {
        port.counts[4]!++;
        return;
      }
      port.last = station;
    }
    station.heard = now;
    const verdict = guard(frame, station, this.#stations);
    if (verdict !== Verdict.fine) {
      port.counts[3 + verdict]!++;
      return;
    }
    if (now - station.advertised > ADVERTISE) {
      station.advertised = now;
      this.#gateway.advertise(station);
    }
    const toHigh = view.getUint32(0) >>> 8;
    if ((toHigh & 0x01_0000) !== 0) {
      frame.hold();
      port.inner.deliver(frame);
      if (!station.gone) this.#gateway.enter(frame, station);
      return;
    }
    const { mac } = this.#settings;
    const toGateway = toHigh === mac.high && (view.getUint32(2) & 0xff_ffff) === mac.low;
    if (toGateway) this.#gateway.enter(frame, station);
    else port.inner.deliver(frame);
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
      onChange: () => this.#save(),
    });
  }

  #serveDhcp(): DhcpServer {
    const settings = this.#settings;
    const { gateway, subnet, mode } = settings;
    const server = new DhcpServer(
      {
        address: gateway,
        mask: subnet.mask,
        broadcast: subnet.broadcast,
        router: mode === "nat" || mode === "routed" ? gateway : 0,
        resolvers: settings.dns ? [gateway] : [],
        domain: settings.domain,
        search: this.#search,
        mtu: settings.mtu,
        leaseTime: settings.leaseTime,
        boot: settings.boot,
      },
      this.#leases,
      {
        send: (to, address, message) => {
          const target = ipv4(address ?? 0xffff_ffff);
          const source = this.#gateway.addresses[0]!;
          this.#udp.send(to, source, DHCP_SERVER_PORT, target, DHCP_CLIENT_PORT, message);
        },
        bound: (station, { address, name }) => {
          station.leased = address;
          station.leaseName = name;
          this.#stations.give4(station, address);
          const text = formatIpv4(address);
          this.onEvent?.({ type: "lease", mac: station.mac, address: text, name });
        },
        released: (station, address) => {
          station.leased = 0;
          station.leaseName = "";
          this.#stations.take4(address);
          const text = formatIpv4(address);
          this.onEvent?.({ type: "released", mac: station.mac, address: text });
        },
      },
    );
    if (settings.dhcp) {
      this.#gateway.service(DHCP_SERVER_PORT, (packet, offset, length) => {
        if (!this.#ready || !isIpv4(packet.destination)) return;
        const station = stationOf(packet.guest);
        if (station.asking.take(settings.clock())) server.receive(packet, offset, length, station);
      });
    }
    return server;
  }

  #route(): void {
    const { uplink, mac, subnet, clock } = this.#settings;
    if (uplink === null) return;
    this.#gateway.router = new Router({
      ...uplink,
      mac,
      guests: subnet,
      clock,
      find: (address) => {
        const guest = this.#stations.find4(address);
        if (guest === null) this.#gateway.find(ipv4(address));
        return guest;
      },
      give: (frame, to) => this.#gateway.give(frame, to),
    });
  }

  #serveDhcp6(address: AddressWords): void {
    const { mac, dns, dhcp } = this.#settings;
    if (!dhcp) return;
    const server = new Dhcp6Server({
      mac,
      resolver: dns ? address : null,
      search: this.#search,
    });
    this.#gateway.service(DHCP6_SERVER_PORT, (packet, offset, length) => {
      if (isIpv4(packet.destination) || !isLinkLocal(packet.source)) return;
      const answer = server.answer(packet, offset, length);
      if (answer === null) return;
      const to = packet.source.slice();
      const { guest } = packet;
      this.#udp.send(guest, LINK_LOCAL, DHCP6_SERVER_PORT, to, DHCP6_CLIENT_PORT, answer);
    });
  }

  /** The search list in the format of DNS. */
  get #search(): Uint8Array {
    return new Uint8Array(this.#settings.search.flatMap((one) => [...encodeName(one)]));
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

  #open(): void {
    const { forwards = [] } = this.#options;
    if (forwards.length > 0) {
      const all = Promise.all(forwards.map((each) => this.forward(each)));
      this.#loading = this.#loading.then(async () => void await all);
    }
    // Whoever asks for `ready` is told; nobody has to.
    this.#loading.catch(() => {});
  }

  #makeForwarder(): Forwarder | null {
    const { outside } = this.#options;
    const { mode, resolvers, rebinding, trusted } = this.#settings;
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

  #serveDns(): DnsServer {
    const { domain, gatewayName, names, subnet, prefix, dns } = this.#settings;
    const zone = new Zone({
      domain,
      gatewayName,
      gateway: this.#gateway.addresses.slice(0, 2),
      names,
      subnet,
      prefix,
      guest: (name) => this.#addressesOf(name),
      guestAt: (address) => this.#nameAt(address),
    });
    const server = new DnsServer(zone, this.#forwarder);
    if (dns) {
      this.#nat.service(DNS_PORT, (stream, guest) => void serveStream(server, stream, guest));
      this.#gateway.service(DNS_PORT, (packet, offset, length, port) => {
        if (!packet.local || port === 0) return;
        const message = packet.buffer.subarray(offset, offset + length);
        const { guest } = packet;
        const answer = server.answer(message, guest, "udp");
        if (answer === null) return;
        const from = packet.destination.slice();
        const to = packet.source.slice();
        const send = (bytes: Uint8Array | null): void => {
          if (bytes !== null) this.#udp.send(guest, from, DNS_PORT, to, port, bytes);
        };
        if (answer instanceof Promise) answer.then(send).catch((error) => this.#report(error));
        else send(answer);
      });
    }
    return server;
  }

  /** Addresses of the guest with a name: its lease, and those of IPv6 that all reach. */
  #addressesOf(name: string): AddressWords[] | null {
    const lease = this.#leases.named(name);
    const { prefix, statics } = this.#settings;
    // A lease that is somebody's own has its name before the guest is there.
    const own = statics.find((one) => one.name === name && one.address !== undefined);
    if (lease === null) return own === undefined ? null : [parseAddress(own.address!)!];
    const six = this.#stations.findMac(lease.mac)?.ipv6 ?? [];
    return [ipv4(lease.address), ...six.filter((one) => prefix?.contains(one) ?? false)];
  }

  #nameAt(address: AddressWords): string | null {
    const lease = isIpv4(address)
      ? this.#leases.at(address[3]!)
      : this.#leases.of(this.#stations.find6(address)?.mac ?? "");
    if (lease !== null && lease.name !== "") return lease.name;
    const text = formatAddress(address);
    return this.#settings.statics.find((one) => one.address === text)?.name ?? null;
  }

  #load(): void {
    const { store } = this.#options;
    if (store === undefined) return;
    const fail = (error: unknown): never => {
      this.#report(error);
      throw error;
    };
    const take = (leases: readonly Lease[]): void => this.#leases.restore(leases);
    const loaded = store.load();
    if (!(loaded instanceof Promise)) {
      take(loaded);
      return;
    }
    this.#ready = false;
    this.#loading = loaded.then(take, fail).finally(() => this.#ready = true);
  }

  /** Keeps the leases: one save at a time, and the last state always. */
  #save(): void {
    const { store } = this.#options;
    if (store === undefined) return;
    this.#unsaved = true;
    this.#saving ??= this.#keep(store).finally(() => this.#saving = null);
  }

  async #keep(store: NonNullable<VirbrOptions["store"]>): Promise<void> {
    // What changes in one turn of the event loop is kept at once.
    await Promise.resolve();
    while (this.#unsaved) {
      this.#unsaved = false;
      try {
        await store.save(this.#leases.list());
      } catch (error) {
        this.#report(error);
      }
    }
  }

  #report(error: unknown): void {
    this.#options.onError?.(error);
  }
}
