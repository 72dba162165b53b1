/** A small guest on a driver of ours: asks for an address (RFC 2131) and for names, pings, and fetches pages. */
import type { NetDriver } from "@virtio/net/driver";
import { fetchHttp } from "../net/host/http.ts";
import { type Datagram, type Station, stationOn } from "../net/host/station.ts";
import { type Address, BROADCAST_IP, BROADCAST_MAC, formatIp } from "../net/host/wire.ts";
import { md5 } from "../shared/bytes.ts";
import { RunError } from "../shared/run.ts";
import { addressQuestion, readAddresses } from "./dns.ts";
import type { Visitor } from "./world.ts";

const SERVER_PORT = 67;
const CLIENT_PORT = 68;
const DNS_PORT = 53;
const QUESTION_PORT = 40_000;
const OPTIONS = 240;
const MAGIC = [0x63, 0x82, 0x53, 0x63];
const Message = { discover: 1, offer: 2, request: 3, ack: 5 } as const;
const Option = { router: 3, hostName: 12, requested: 50, type: 53, server: 54 } as const;
const TRIES = 20;
const PATIENCE = 500;
const encoder = new TextEncoder();

/** A guest that has its address. */
export interface Client extends Visitor {
  readonly station: Station;
}

/** What a server said. */
interface Offer {
  readonly address: Address;
  readonly server: Uint8Array;
  readonly router: Uint8Array;
  /** Where it came from. */
  readonly mac: Address;
}

function findOption(data: Uint8Array, wanted: number): Uint8Array | null {
  for (let at = OPTIONS; at + 1 < data.length && data[at] !== 255;) {
    const length = data[at] === 0 ? -1 : data[at + 1]!;
    if (data[at] === wanted) return data.subarray(at + 2, at + 2 + length);
    at += 2 + length;
  }
  return null;
}

/** Sends, and again, until there is an answer that `read` takes. */
async function ask<T>(
  station: Station,
  port: number,
  send: () => void,
  read: (datagram: Datagram) => T | null,
): Promise<T | null> {
  const answered = Promise.withResolvers<T | null>();
  station.onUdp(port, (datagram) => {
    const found = read(datagram);
    if (found !== null) answered.resolve(found);
  });
  let left = TRIES;
  const timer = setInterval(() => --left < 0 ? answered.resolve(null) : send(), PATIENCE);
  send();
  try {
    return await answered.promise;
  } finally {
    clearInterval(timer);
    station.onUdp(port, () => {});
  }
}

/** One exchange with the server. */
async function exchange(
  station: Station,
  mac: Uint8Array,
  type: number,
  expected: number,
  more: readonly number[],
): Promise<Offer | null> {
  const [id] = crypto.getRandomValues(new Uint32Array(1));
  const message = new Uint8Array(OPTIONS + 4 + more.length);
  const view = new DataView(message.buffer);
  message.set([1, 1, 6, 0]);
  view.setUint32(4, id!);
  // The answer has to be a broadcast: this station has no address yet.
  view.setUint16(10, 0x8000);
  message.set(mac, 28);
  message.set([...MAGIC, Option.type, 1, type, ...more, 255], OPTIONS - MAGIC.length);
  const ports = { from: CLIENT_PORT, to: SERVER_PORT };
  return await ask(
    station,
    CLIENT_PORT,
    () => station.sendUdp(BROADCAST_MAC, BROADCAST_IP, ports, message),
    ({ data, fromMac }): Offer | null => {
      if (data.length < OPTIONS || data[0] !== 2) return null;
      if (new DataView(data.buffer, data.byteOffset).getUint32(4) !== id) return null;
      const server = findOption(data, Option.server);
      const router = findOption(data, Option.router);
      if (findOption(data, Option.type)?.[0] !== expected || server === null || router === null) {
        return null;
      }
      return {
        address: data.slice(16, 20),
        server: server.slice(),
        router: router.slice(),
        mac: fromMac,
      };
    },
  );
}

/** Gets an address and becomes a station. @throws {RunError} If there is none to be had. */
export async function makeClient(name: string, driver: NetDriver, mtu: number): Promise<Client> {
  const { mac } = driver;
  const nobody = stationOn(driver.port(), { mac, ip: "0.0.0.0", mtu });
  const label = [Option.hostName, name.length, ...encoder.encode(name)];
  const offer = await exchange(nobody, mac, Message.discover, Message.offer, label);
  const taken = offer && await exchange(nobody, mac, Message.request, Message.ack, [
    ...label,
    ...[Option.requested, 4, ...offer.address],
    ...[Option.server, 4, ...offer.server],
  ]);
  nobody.close();
  if (taken === null) throw new RunError(`${name} got no address`);
  const address = formatIp(taken.address);
  const gateway = formatIp(taken.router);
  const station = stationOn(driver.port(), { mac, ip: address, mtu, offload: true });
  let id = 0;
  const resolve = async (wanted: string): Promise<readonly string[]> => {
    const question = ++id;
    const found = await ask(
      station,
      QUESTION_PORT,
      () =>
        station.sendUdp(
          taken.mac,
          taken.router,
          { from: QUESTION_PORT, to: DNS_PORT },
          addressQuestion(question, wanted),
        ),
      ({ data }) => readAddresses(data, question),
    );
    return found ?? [];
  };
  return {
    name,
    address,
    gateway,
    station,
    resolve,
    async reaches(other) {
      const [ip] = await resolve(`${other}.internal`);
      return ip !== undefined && await station.ping(ip) !== null;
    },
    async fetch(port) {
      try {
        return md5(await fetchHttp(station, gateway, "/", port));
      } catch {
        return null;
      }
    },
  };
}
