/** The example's network: a switch, a network card for each guest, and this program as a station. */
import { NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { openPcapng, type PcapngFile } from "@virtio/net/pcapng";
import { type Checks, RunError } from "../shared/run.ts";
import { type Station, stationOn } from "./host/station.ts";
import type { Options } from "./options.ts";

/** A guest's place on the network. */
export interface Place {
  readonly name: string;
  readonly ip: string;
  readonly mac: string;
  readonly card: NetDevice;
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

/** Puts the network together. @throws {RunError} If the capture file cannot be written. */
export function makeNetwork(options: Options): Network {
  const { mtu } = options;
  let captureError: Error | null = null;
  const capture = openCapture(options.pcap, (error) => captureError = error);
  const network = new Switch();
  const place = (number: number): Place => {
    const name = `guest ${number}`;
    const mac = `02:00:00:00:00:0${number}`;
    const card = new NetDevice({
      backend: network.port({ name }),
      mac,
      mtu,
      ...(capture === null ? {} : { tap: capture.writer.add(name) }),
    });
    return { name, ip: `10.0.0.${number}`, mac, card };
  };
  const host = stationOn(network.port({ name: "host" }), {
    mac: new Uint8Array([2, 0, 0, 0, 0, 0xfe]),
    ip: HOST_IP,
    mtu,
  });
  return {
    places: [place(1), place(2)],
    host,
    get captureError() {
      return captureError;
    },
    [Symbol.dispose]: () => {
      host.close();
      network.close();
      capture?.close();
    },
  };
}

function openCapture(path: string | null, failed: (error: Error) => void): PcapngFile | null {
  if (path === null) return null;
  try {
    return openPcapng(path, {}, (error) => failed(error as Error));
  } catch (error) {
    throw new RunError(`${path} cannot be written: ${(error as Error).message}`);
  }
}

/** Notes it where frames are missing in the capture. */
export function checkCapture({ captureError }: Network, checks: Checks): void {
  if (captureError !== null) {
    checks.add(`all frames were captured (${captureError.message})`, false);
  }
}
