/** The network of serve:net: a switch with a port for each socket, and perhaps a tap. */
import { Frame, NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { TapBackend } from "@virtio/net/tap";
import { rarpFrame } from "@virtio/vhost-user";
import { Virbr } from "@virtio/virbr";
import { Meter } from "./meter.ts";
import type { NetOptions } from "./options.ts";
import { type Offer, offerOf, type Open } from "./server.ts";

/** Makes the switch and its cards. @throws {TapError} If the tap cannot be had. */
export async function openNetwork(options: NetOptions): Promise<Open> {
  const { sockets, mtu, queues, virbr } = options;
  const network = virbr === null ? new Switch() : new Virbr(virbr);
  if (network instanceof Virbr) await network.ready;
  const tap = options.tap === null ? null : TapBackend.open({ name: options.tap });
  if (tap !== null) network.port({ name: "tap" }).plug(tap);
  const offers = sockets.map((socket, index): Offer => {
    const port = network.port({ name: `card ${index}` });
    const device = new NetDevice({ backend: port, mtu, queuePairs: queues });
    const meter = new Meter(device);
    return offerOf(socket, device, () => {
      const { sent, received, dropped } = device.stats;
      let requests = 0;
      let bytesRead = 0;
      let bytesWritten = 0;
      for (const { frames, bytes } of received) {
        requests += frames;
        bytesRead += bytes;
      }
      for (const { frames, bytes } of sent) {
        requests += frames;
        bytesWritten += bytes;
      }
      return { requests, bytesRead, bytesWritten, time: meter.time, more: { dropped } };
    }, {
      // After a migration: the card's station is here now.
      announce: (mac) => port.deliver(new Frame().fromBytes(rarpFrame(mac))),
    });
  });
  const cards = sockets.length === 1 ? "a network card" : `${sockets.length} network cards`;
  return {
    offers,
    what: `${cards}${tap === null ? "" : ` and the tap ${tap.name}`} on ${
      network instanceof Virbr ? `the network ${network.subnet}` : "a switch"
    }`,
    close: async () => {
      await tap?.close();
      await network.close();
    },
  };
}
