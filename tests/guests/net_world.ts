/** A Linux with our network card on a switch, and stations of the host beside it. */
import { assertEquals } from "@std/assert";
import { type Frame, NetDevice, type NetDeviceOptions } from "@virtio/net";
import { Switch, type SwitchPortOptions } from "@virtio/net/switch";
import type { Guest } from "../../examples/guest/guest.ts";
import { ethtoolFiles, restoreGuest } from "../../examples/guest/testing.ts";
import { serveHttp } from "../../examples/net/host/http.ts";
import { type Station, stationOn } from "../../examples/net/host/station.ts";
import { attach, type Attached, type Seat } from "../../examples/shared/seat.ts";
import { drive } from "./seats.ts";

/** The guest's addresses. */
export const GUEST_IP = "10.0.0.1";
export const GUEST_MAC = "02:00:00:00:00:01";

/** What there is. */
export interface NetWorld extends AsyncDisposable {
  readonly guest: Guest;
  readonly device: NetDevice;
  readonly attached: Attached<NetDevice>;
  readonly network: Switch;
}

/** How the guest's card is made. */
export interface WorldOptions extends Omit<NetDeviceOptions, "backend"> {
  /** Of the guest's port. */
  readonly port?: SwitchPortOptions;
}

/** A Linux whose eth0 is up and has an address. */
export async function netWorld(seat: Seat, options: WorldOptions = {}): Promise<NetWorld> {
  const network = new Switch();
  const guest = await restoreGuest();
  try {
    const { port, ...card } = options;
    const device = new NetDevice({
      backend: network.port({ name: "guest", ...port }),
      mac: GUEST_MAC,
      ...card,
    });
    const attached = attach(guest.machine, seat, device);
    await drive(guest, seat, "virtio_net 8021q macvlan", "/sys/class/net/eth0");
    await guest.check(
      `ip addr add ${GUEST_IP}/24 dev eth0; ip link set lo up; ip link set eth0 up`,
    );
    return {
      guest,
      device,
      attached,
      network,
      async [Symbol.asyncDispose]() {
        await guest.destroy();
        network.close();
        assertEquals(attached.errors, []);
      },
    };
  } catch (error) {
    await guest.destroy();
    throw error;
  }
}

let next = 100;

/** Puts a station of the host on the network. */
export function addStation(
  { network }: NetWorld,
  ip: string,
  options: {
    port?: SwitchPortOptions;
    mtu?: number;
    offload?: boolean;
    /** Sees what arrives, finished as the station wants it. */
    tap?: (frame: Frame) => void;
  } = {},
): Station {
  const { port, tap, ...rest } = options;
  const cable = network.port({ name: ip, ...port });
  const mac = new Uint8Array([2, 0, 0, 0, 1, next++ & 0xff]);
  const station: Station = stationOn(cable, { mac, ip, ...rest });
  if (tap !== undefined) {
    cable.listen((frame) => {
      tap(frame);
      station.receive(frame);
    }, station.offloads);
  }
  return station;
}

/** Whether a ping of the guest's gets all its answers. */
export async function pings(guest: Guest, ip: string, size = 56, count = 3): Promise<boolean> {
  const { output } = await guest.run(`ping -c ${count} -i 0.2 -W 3 -s ${size} ${ip}`);
  return / 0% packet loss/.test(output);
}

/** Gives the guest ethtool, over its network. */
export async function installEthtool(
  { guest }: NetWorld,
  station: Station,
  ip: string,
): Promise<void> {
  const files = (await ethtoolFiles())!;
  serveHttp(station, files);
  const paths = [...files.keys()].join(" ");
  await guest.check(
    `for f in ${paths}; do wget -q -O $f http://${ip}$f && chmod 755 $f || exit 1; done; ethtool --version`,
  );
}
