import type { Leases } from "../dhcp/leases.ts";
import { formatAddress, ipv4, isIpv4, parseAddress } from "../ip/address.ts";
import type { AddressWords } from "../ip/packet.ts";
import type { VirbrSettings } from "../settings.ts";
import type { Stations } from "../wire/stations.ts";

/** The names of guests: those of their leases, and of leases that are somebody's own. */
export class GuestNames {
  readonly #settings: VirbrSettings;
  readonly #leases: Leases;
  readonly #stations: Stations;

  /** Looks into leases and stations when it is asked. */
  constructor(settings: VirbrSettings, leases: Leases, stations: Stations) {
    this.#settings = settings;
    this.#leases = leases;
    this.#stations = stations;
  }

  /** Addresses of the guest with a name: its lease, and those of IPv6 that all reach; null if nobody has that name. */
  addresses(name: string): AddressWords[] | null {
    const lease = this.#leases.named(name);
    const { prefix, statics } = this.#settings;
    // A lease that is somebody's own has its name before the guest is there.
    const own = statics.find((one) => one.name === name && one.address !== undefined);
    if (lease === null) return own === undefined ? null : [parseAddress(own.address!)!];
    const six = this.#stations.findMac(lease.mac)?.ipv6 ?? [];
    return [ipv4(lease.address), ...six.filter((one) => prefix?.contains(one) ?? false)];
  }

  /** The name of the guest with an address; null if it has none. */
  at(address: AddressWords): string | null {
    const lease = isIpv4(address)
      ? this.#leases.at(address[3]!)
      : this.#leases.of(this.#stations.find6(address)?.mac ?? "");
    if (lease !== null && lease.name !== "") return lease.name;
    const text = formatAddress(address);
    return this.#settings.statics.find((one) => one.address === text)?.name ?? null;
  }
}
