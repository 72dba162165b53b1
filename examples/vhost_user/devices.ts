/** The devices of example:vhost-user, and the sockets at which a virtual machine finds them. */
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { ConsoleDevice } from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import { type Device, DeviceId, type QueueDevice } from "@virtio/device";
import { NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { VhostUserServer } from "@virtio/vhost-user";
import { EntropyDevice } from "../my_device.ts";
import { type Station, stationOn } from "../net/host/station.ts";
import { vhostFeatures } from "../serve/server.ts";
import type { Options } from "./options.ts";

/** Addresses on the example's network. */
export const HOST_IP = "10.0.0.254";
export const GUEST_IP = "10.0.0.1";

/** What the host sees of a device. */
export interface ServedDevice {
  readonly name: string;
  readonly device: QueueDevice;
  readonly server: VhostUserServer;
  readonly socket: string;
}

/** All that is served, and the host's ends of it. */
export interface Devices extends AsyncDisposable {
  readonly list: readonly ServedDevice[];
  readonly image: string;
  readonly station: Station;
  readonly console: MemoryConsole;
  readonly entropy: EntropyDevice;
  /** What went wrong. */
  readonly errors: readonly Error[];
  /** Ends the servers, so that the image is the host's. */
  end(): Promise<void>;
}

/** Serves the devices. @param folder An empty folder, which the caller removes. */
export function serveDevices(options: Options, folder: string): Devices {
  const errors: Error[] = [];
  const image = `${folder}/disk.raw`;
  const size = Math.max(32, 4 * options.megabytes) * 2 ** 20;
  const backend = LinuxBackend.open(image, { create: true, size });
  const network = new Switch();
  const station = stationOn(network.port({ name: "host" }), {
    mac: new Uint8Array([2, 0, 0, 0, 0, 0xfe]),
    ip: HOST_IP,
    offload: true,
  });
  const console = new MemoryConsole();
  const entropy = new EntropyDevice();
  const devices: [string, QueueDevice][] = [
    ["disk", new BlkDevice({ backend, id: "virtio-ts" })],
    ["network", new NetDevice({ backend: network.port({ name: "guest" }) })],
    options.vm === "uml"
      ? ["console", new ConsoleDevice({ ports: [{ backend: console }] })]
      : ["entropy", entropy],
  ];
  const list = devices.map(([name, device]): ServedDevice => {
    const socket = `${folder}/${name}.sock`;
    const server = new VhostUserServer({
      socket,
      device,
      features: vhostFeatures(options.ring === "packed"),
      onError: (error) => errors.push(error),
    });
    return { name, device, server, socket };
  });
  let ended: Promise<void> | null = null;
  const end = (): Promise<void> =>
    ended ??= (async () => {
      await Promise.all(list.map(({ server }) => server.close()));
      station.close();
      network.close();
      await backend.flush();
      await backend.close();
    })();
  return { list, image, station, console, entropy, errors, end, [Symbol.asyncDispose]: end };
}

/** The words of QEMU's command line that make a device of a socket. */
export function qemuWords(
  { name, device, socket }: Pick<ServedDevice, "name" | "socket"> & { readonly device: Device },
  packed: boolean,
): string[] {
  const suffix = `packed=${packed ? "on" : "off"}`;
  const chardev = ["-chardev", `socket,id=${name}c,path=${socket}`];
  switch (device.type) {
    case DeviceId.block:
      return [...chardev, "-device", `vhost-user-blk-pci,chardev=${name}c,${suffix}`];
    case DeviceId.net:
      return [
        ...chardev,
        ...["-netdev", `vhost-user,id=${name}n,chardev=${name}c`],
        // Without KVM, QEMU 7.2 dies of a vhost-user network card with MSI-X.
        ...["-device", `virtio-net-pci,netdev=${name}n,romfile=,vectors=0,${suffix}`],
      ];
    case DeviceId.entropy:
      return [...chardev, "-device", `vhost-user-rng-pci,chardev=${name}c,${suffix}`];
    default:
      throw new TypeError(`QEMU has no front end for a device of type ${device.type}`);
  }
}
