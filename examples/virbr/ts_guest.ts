/** The example's run without operating systems: this project's own driver on both cards. Runs wherever Deno runs. */
import type { Device } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { NetDriver } from "@virtio/net/driver";
import { DmaPool } from "@virtio/vring/driver";
import { readCard } from "../net/figures.ts";
import { fetchHttp, serveHttp } from "../net/host/http.ts";
import { md5, randomBytes } from "../shared/bytes.ts";
import { Checks, type Outcome, type Progress } from "../shared/run.ts";
import { join, type Joined } from "../shared/seat.ts";
import { type Client, makeClient } from "./client.ts";
import type { Figures } from "./figures.ts";
import { Live } from "./live.ts";
import type { Options } from "./options.ts";
import { checkEnd, fetchForward, makeWorld, networkFigures, visit } from "./world.ts";

const MEMORY = 32 * 2 ** 20;

/** Has clients on our own driver visit. */
export async function runTs(options: Options, progress: Progress): Promise<Outcome<Figures>> {
  const start = performance.now();
  await using world = await makeWorld(options);
  using live = new Live(world.net, progress);
  const checks = new Checks();
  const guests: { joined: Joined<Device>; driver: NetDriver; client: Client }[] = [];
  live.step("two drivers of ours ask for addresses");
  for (const { name, card } of world.members) {
    const memory = GuestMemory.allocate(MEMORY);
    const joined = join(options, memory, card);
    const driver = await NetDriver.open(joined.driver, {
      dma: new DmaPool(memory, 0x1000, MEMORY - 0x1000),
    });
    guests.push({ joined, driver, client: await makeClient(name, driver, options.mtu) });
  }
  const bootMs = performance.now() - start;
  const [one, two] = guests.map(({ client }) => client) as [Client, Client];
  await visit(world, [one, two], (line) => live.step(line), checks);
  const { address, port } = world.forward;
  live.step(`guest1 serves a page of its own: http://${address}:${port}/page`);
  const page = randomBytes(world.size);
  serveHttp(one.station, new Map([["/page", page]]));
  checks.add(
    "this machine fetches it through the forwarded port",
    await fetchForward(world, "/page") === md5(page),
  );
  const fetched = await fetchHttp(two.station, one.address, "/page");
  checks.add("guest2 fetches it directly", md5(fetched) === md5(page));
  checks.add(
    "no checksum was wrong on the way",
    one.station.damaged + two.station.damaged === 0,
  );
  await checkEnd(world, checks);
  const cards = guests.map(({ joined }, i) => {
    const { name, counted } = world.members[i]!;
    return readCard(name, counted(), joined.counters.reads + joined.counters.writes);
  });
  for (const { joined, driver, client } of guests) {
    client.station.close();
    await driver.close();
    checks.addErrors(joined.errors);
  }
  const figures = { cards, ...networkFigures(world) };
  const workMs = performance.now() - start - bootMs;
  return { guest: "ts", checks: checks.list, figures, bootMs, workMs };
}
