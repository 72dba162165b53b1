/** The example's run without operating systems: this project's own driver on both cards. Runs wherever Deno runs. */
import { type Device, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { NetDriver } from "@virtio/net/driver";
import { DmaPool } from "@virtio/vring/driver";
import { randomBytes, sha256 } from "../shared/bytes.ts";
import { Checks, type Outcome, type Progress } from "../shared/run.ts";
import { join, type Joined } from "../shared/seat.ts";
import { type Figures, readCard } from "./figures.ts";
import { fetchHttp, serveHttp } from "./host/http.ts";
import { type Station, stationOn } from "./host/station.ts";
import { checkCapture, HOST_IP, makeNetwork, type Place } from "./network.ts";
import type { Options } from "./options.ts";

const MIB = 2 ** 20;

/** A guest on the network. */
interface Member {
  readonly place: Place;
  readonly joined: Joined<Device>;
  readonly driver: NetDriver;
  readonly station: Station;
}

/** Has stations on our own driver talk. */
export async function runTs(options: Options, progress: Progress): Promise<Outcome<Figures>> {
  const start = performance.now();
  using network = await makeNetwork(options);
  const members: Member[] = [];
  for (const place of network.places) {
    const memory = GuestMemory.allocate(32 * MIB);
    const joined = join(options, memory, place.card);
    const driver = await NetDriver.open(joined.driver, {
      dma: new DmaPool(memory, 0x1000, 32 * MIB - 0x1000),
    });
    const station = stationOn(driver.port(), {
      mac: driver.mac,
      ip: place.ip,
      mtu: options.mtu,
      offload: true,
    });
    members.push({ place, joined, driver, station });
  }
  const bootMs = performance.now() - start;
  const checks = new Checks();
  const [one, two] = members as [Member, Member];
  for (const { place, driver } of members) {
    checks.add(
      `${place.name}: our driver took ${options.ring} rings`,
      ((driver.features & VIRTIO_F_RING_PACKED) !== 0n) === (options.ring === "packed"),
    );
    const mac = [...driver.mac].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
    checks.add(
      `it sees the address ${mac} and an MTU of ${driver.info.mtu}`,
      mac === place.mac && driver.info.mtu === options.mtu,
    );
  }
  const { host } = network;
  const size = options.mtu - 100;
  checks.add("guest 1 reaches guest 2", await one.station.ping(two.place.ip, size) !== null);
  checks.add("guest 2 reaches the host", await two.station.ping(HOST_IP) !== null);
  checks.add("the host reaches guest 1", await host.ping(one.place.ip) !== null);

  progress.step(`guest 1 and the host serve files of ${options.megabytes} MiB`);
  const files = [randomBytes(options.megabytes * MIB), randomBytes(options.megabytes * MIB)];
  const sums = await Promise.all(files.map(sha256));
  serveHttp(one.station, new Map([["/file", files[0]!]]));
  serveHttp(host, new Map([["/file", files[1]!]]));
  const fetched = await Promise.all([
    fetchHttp(two.station, one.place.ip, "/file"),
    fetchHttp(host, one.place.ip, "/file"),
    fetchHttp(one.station, HOST_IP, "/file"),
    fetchHttp(two.station, HOST_IP, "/file"),
  ].map(async (bytes) => await sha256(await bytes)));
  checks.add("guest 2 fetches what guest 1 serves", fetched[0] === sums[0]);
  checks.add("the host fetches the same", fetched[1] === sums[0]);
  checks.add(
    "both guests fetch at once what the host serves",
    fetched[2] === sums[1] && fetched[3] === sums[1],
  );
  checks.add(
    "no checksum was wrong on the way",
    host.damaged + one.station.damaged + two.station.damaged === 0,
  );
  const cards = members.map(({ place, joined }) =>
    readCard(place.name, place.counted(), joined.counters.reads + joined.counters.writes)
  );
  for (const { joined, station, driver } of members) {
    station.close();
    await driver.close();
    checks.addErrors(joined.errors);
  }
  checkCapture(network, checks);
  const workMs = performance.now() - start - bootMs;
  return { guest: "ts", checks: checks.list, figures: { cards }, bootMs, workMs };
}
