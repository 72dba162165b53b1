/** The example's network: a switch, a network card for each guest, and this program as a station. */
import type { Device } from "@virtio/device";
import { type FrameTap, type NetBackend, NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { openPcapng, type PcapngFile } from "@virtio/net/pcapng";
import { type Checks, RunError } from "../shared/run.ts";
import { Cable } from "../shared/workers/cable.ts";
import { spawnWith } from "../shared/workers/channel.ts";
import type { NetWorkerData } from "../shared/workers/net_worker.ts";
import { inWorker } from "../shared/workers/place.ts";
import { type CardCounts, countCard, type Counted } from "./figures.ts";
import { type Station, stationOn } from "./host/station.ts";
import type { Options } from "./options.ts";

/** A guest's place on the network. */
export interface Place {
  readonly name: string;
  readonly ip: string;
  readonly mac: string;
  /** For a transport. */
  readonly card: Device;
  /** What the card counted; once it has nothing to do. */
  counted(): Counted;
}

/** Addresses: 10.0.0.1 and 10.0.0.2 are the guests, this is the host. */
export const HOST_IP = "10.0.0.254";
/** The network's prefix length. */
export const PREFIX = 24;

/** Everything but the machines. */
export interface Network extends Disposable {
  readonly places: readonly [Place, Place];
  readonly host: Station;
  /** Why the capture ended before its time; null if it did not. */
  readonly captureError: Error | null;
}

/** A network card of a guest's. */
export type Card = Pick<Place, "card" | "counted"> & Disposable;

/** Where its cable ends. */
export type CardPort = NetBackend & { plug(backend: NetBackend): void };

/** A card in this thread. */
function cardHere(backend: NetBackend, mac: string, mtu: number, tap: FrameTap | null): Card {
  const card = new NetDevice({ backend, mac, mtu, ...(tap === null ? {} : { tap }) });
  return {
    card,
    counted: () => ({ counts: countCard(card), queueCounters: card.queueCounters }),
    [Symbol.dispose]: () => {},
  };
}

/** A card in a worker, and a cable from there to a port of the switch, which is in this thread. */
async function cardInWorker(port: CardPort, mac: string, mtu: number): Promise<Card> {
  const { port1, port2 } = new MessageChannel();
  const cable = new Cable(port1);
  port.plug(cable);
  const data: NetWorkerData = { mac, mtu };
  const module = new URL("../shared/workers/net_worker.ts", import.meta.url);
  try {
    const card = await inWorker(module, { data, spawn: spawnWith(port2) });
    return {
      card,
      counted: () => {
        const counts = card.reports()[0] as CardCounts;
        return {
          counts: { ...counts, dropped: counts.dropped + cable.dropped },
          queueCounters: card.queueCounters,
        };
      },
      [Symbol.dispose]: () => {
        card.close();
        cable.close();
      },
    };
  } catch (error) {
    cable.close();
    throw error;
  }
}

/** Makes a card at a port, where the user wants it. */
export async function makeCard(
  options: Pick<Options, "in" | "mtu">,
  port: CardPort,
  mac: string,
  tap: FrameTap | null,
): Promise<Card> {
  return options.in === "process"
    ? cardHere(port, mac, options.mtu, tap)
    : await cardInWorker(port, mac, options.mtu);
}

/** Puts the network together. @throws {RunError} If the capture file cannot be written. */
export async function makeNetwork(options: Options): Promise<Network> {
  const { mtu } = options;
  let captureError: Error | null = null;
  const capture = openCapture(options.pcap, (error) => captureError = error);
  const network = new Switch();
  const place = async (number: number): Promise<Place & Disposable> => {
    const name = `guest ${number}`;
    const mac = `02:00:00:00:00:0${number}`;
    const port = network.port({ name });
    const card = await makeCard(options, port, mac, capture?.writer.add(name) ?? null);
    return { name, ip: `10.0.0.${number}`, mac, ...card };
  };
  const places = [await place(1), await place(2)] as const;
  const host = stationOn(network.port({ name: "host" }), {
    mac: new Uint8Array([2, 0, 0, 0, 0, 0xfe]),
    ip: HOST_IP,
    mtu,
  });
  return {
    places,
    host,
    get captureError() {
      return captureError;
    },
    [Symbol.dispose]: () => {
      host.close();
      for (const place of places) place[Symbol.dispose]();
      network.close();
      capture?.close();
    },
  };
}

/** Opens the user's capture, if there is to be one. @throws {RunError} If it cannot be written. */
export function openCapture(
  path: string | null,
  failed: (error: Error) => void,
): PcapngFile | null {
  if (path === null) return null;
  try {
    return openPcapng(path, {}, (error) => failed(error as Error));
  } catch (error) {
    throw new RunError(`${path} cannot be written: ${(error as Error).message}`);
  }
}

/** Notes it where frames are missing in the capture. */
export function checkCapture(
  { captureError }: Pick<Network, "captureError">,
  checks: Checks,
): void {
  if (captureError !== null) {
    checks.add(`all frames were captured (${captureError.message})`, false);
  }
}
