import type { Frame } from "@virtio/net";
import type { Clock, MacAddress } from "@virtio/net/wire";
import type { Gateway } from "../ip/gateway.ts";
import { guard, Verdict } from "./guard.ts";
import type { GuestPort } from "./port.ts";
import type { Stations } from "./stations.ts";

/** Milliseconds after which a guest that is not silent is told again what the router advertises. */
const ADVERTISE = 600_000;

/** Where frames of guests come in: who sent one, whether it may, and whom it is for. */
export class Entrance {
  readonly #stations: Stations;
  readonly #gateway: Gateway;
  readonly #mac: MacAddress;
  readonly #clock: Clock;

  /** @param mac The gateway's. */
  constructor(stations: Stations, gateway: Gateway, mac: MacAddress, clock: Clock) {
    this.#stations = stations;
    this.#gateway = gateway;
    this.#mac = mac;
    this.#clock = clock;
  }

  /** Takes a frame of whoever is behind a port: it goes to the gateway, to others through the switch, or nowhere. */
  enter(frame: Frame, port: GuestPort): void {
    const { view } = frame;
    const high = view.getUint32(6) >>> 8;
    const low = view.getUint32(8) & 0xff_ffff;
    let station = port.last;
    const now = this.#clock();
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
    const mac = this.#mac;
    const toGateway = toHigh === mac.high && (view.getUint32(2) & 0xff_ffff) === mac.low;
    if (toGateway) this.#gateway.enter(frame, station);
    else port.inner.deliver(frame);
  }
}
