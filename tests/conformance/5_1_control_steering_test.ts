/** Virtio 1.4, 5.1.9.5.5 to 5.1.9.5.7: which receive queue a packet goes to, and what its hash is. */
import { VIRTIO_F_RING_RESET } from "@virtio/device";
import * as net from "@virtio/net";
import { assert, assertEquals } from "@std/assert";
import * as ctrl from "../../packages/net/control/constants.ts";
import {
  hashConfig,
  KEY,
  le16,
  rssConfig,
  type RssSpec,
} from "../../packages/net/control/testing.ts";
import * as hashes from "../../packages/net/offload/hash.ts";
import { FrameLayout } from "../../packages/net/offload/parse.ts";
import { buildFrame, type FrameSpec } from "../../packages/net/offload/testing.ts";
import { RawNetDriver } from "../../packages/net/testing.ts";
import { PlacedNet } from "./placed_net.ts";
import { everywhere, type Place } from "./places.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const FEATURES = net.VIRTIO_NET_F_MAC | net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_MQ |
  net.VIRTIO_NET_F_RSS | net.VIRTIO_NET_F_HASH_REPORT | net.VIRTIO_NET_F_CTRL_RX;
const PAIRS = 4;
const MAC = [2, 0, 0, 0, 0, 1];

async function open(place: Place, wanted: bigint = FEATURES) {
  const far = await PlacedNet.open(place, { mac: Uint8Array.from(MAC), queuePairs: PAIRS }, {
    wanted,
    core: VIRTIO_F_RING_RESET,
  });
  const { driver } = far;
  const pairs = (driver.used.length - 1) / 2;
  const post = () => {
    for (let pair = 0; pair < pairs; pair++) driver.postMany(2 * pair, 10, 200);
  };
  post();
  const command = async (number: number, data: readonly number[]) =>
    (await driver.control(ctrl.VIRTIO_NET_CTRL_MQ, number, data))[0];
  return {
    far,
    device: far.device,
    driver,
    setPairs: (count: number) => command(ctrl.VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, le16(count)),
    setRss: (spec: RssSpec) => command(ctrl.VIRTIO_NET_CTRL_MQ_RSS_CONFIG, rssConfig(spec)),
    setHash: (spec: Parameters<typeof hashConfig>[0]) =>
      command(ctrl.VIRTIO_NET_CTRL_MQ_HASH_CONFIG, hashConfig(spec)),
    /** The pair that a frame arrives on, -1 for none, and its header. */
    receive: async (spec: Partial<FrameSpec>) => {
      far.give(buildFrame({ ip: 4, to: MAC, ...spec }));
      await far.turn();
      for (let pair = 0; pair < pairs; pair++) {
        const [frame] = driver.frames(2 * pair);
        if (frame === undefined) continue;
        driver.post(2 * pair, [200]);
        return { pair, header: frame.header };
      }
      return { pair: -1, header: null };
    },
    send: async (spec: Partial<FrameSpec>, pair: number) => {
      driver.send(buildFrame({ ip: 4, ...spec }), {}, { queue: 2 * pair + 1 });
      await far.turn();
    },
  };
}

/** The hash of a frame, calculated apart. */
function hashOf(spec: Partial<FrameSpec>, types = hashes.HASH_TYPES): hashes.PacketHash {
  const hash = new hashes.PacketHash();
  hash.types = types;
  hash.setKey(Uint8Array.from(KEY));
  const frame = buildFrame({ ip: 4, to: MAC, ...spec });
  const view = new DataView(frame.buffer);
  hash.calculate(view, new FrameLayout().parse(view, frame.length));
  return hash;
}
function flow(n: number, ip: 4 | 6 = 4, transport: "tcp" | "udp" = "tcp"): Partial<FrameSpec> {
  return { ip, transport, sourcePort: 2000 + n, destinationPort: 80 };
}
function reply(spec: Partial<FrameSpec>): Partial<FrameSpec> {
  const [one, other] = spec.ip === 6
    ? [[0xfd, ...new Array(14).fill(0), 1], [0xfd, ...new Array(14).fill(0), 2]]
    : [[10, 0, 0, 1], [10, 0, 0, 2]];
  return {
    ...spec,
    source: other!,
    destination: one!,
    sourcePort: spec.destinationPort!,
    destinationPort: spec.sourcePort!,
  };
}
const FLOWS = [...Array(12).keys()].flatMap((n) => [flow(n), flow(n, 6), flow(n, 4, "udp")]);

everywhere(
  "5.1.9.5.6.2-D1: after initialization and after a reset packets go to receiveq1 only",
  async (place) => {
    const { device, setPairs, receive, driver, far } = await open(place);
    for (const spec of FLOWS) assertEquals((await receive(spec)).pair, 0);
    assertEquals(await setPairs(PAIRS), OK);
    const pairs = new Set<number>();
    for (const spec of FLOWS) pairs.add((await receive(spec)).pair);
    assert(pairs.size > 1);
    await driver.session.reset();
    const again = await RawNetDriver.open(device, { wanted: FEATURES });
    for (let pair = 0; pair < PAIRS; pair++) again.postMany(2 * pair, 40, 200);
    for (const spec of FLOWS) far.give(buildFrame({ ip: 4, to: MAC, ...spec }));
    await far.turn();
    assertEquals([0, 1, 2, 3].map((pair) => again.frames(2 * pair).length), [
      FLOWS.length,
      ...[0, 0, 0],
    ]);
  },
);

everywhere(
  "5.1.9.5.6.2-D2: packets go to no queue beyond virtqueue_pairs once the command is used, not even those that wait",
  async (place) => {
    const { setPairs, receive, send, driver, far } = await open(place);
    await setPairs(PAIRS);
    for (const [i, spec] of FLOWS.entries()) await send(spec, i % PAIRS);
    for (const [i, spec] of FLOWS.entries()) {
      assertEquals((await receive(reply(spec))).pair, i % PAIRS);
    }
    // Some wait for buffers of the last pair.
    const last = FLOWS[PAIRS - 1]!;
    for (let i = 0; i < 15; i++) far.give(buildFrame({ ip: 4, to: MAC, ...reply(last) }));
    await far.turn();
    assertEquals(driver.frames(2 * (PAIRS - 1)).length, 10);
    assertEquals(far.run(({ device }) => device.waiting), 5);
    assertEquals(await setPairs(2), OK);
    driver.postMany(2 * (PAIRS - 1), 10, 200);
    await far.turn();
    assertEquals(driver.frames(2 * (PAIRS - 1)).length, 0);
    for (const spec of FLOWS) assert((await receive(reply(spec))).pair < 2);
    assertEquals(await setPairs(0), ERR);
    assertEquals(await setPairs(PAIRS + 1), ERR);
    assertEquals(await setPairs(1), OK);
    for (const spec of FLOWS) assertEquals((await receive(reply(spec))).pair, 0);
  },
);

everywhere(
  "5.1.9.5.6.2-D3 5.1.9.5.6.2-D4: what is for a queue that is being reset goes to another, and is dropped while all are",
  async (place) => {
    const { setPairs, receive, send, driver, far } = await open(place);
    await setPairs(3);
    await send(FLOWS[0]!, 1);
    assertEquals((await receive(reply(FLOWS[0]!))).pair, 1);
    driver.transport.resetQueue(2);
    await far.turn();
    const { pair } = await receive(reply(FLOWS[0]!));
    assert(pair === 0 || pair === 2);
    driver.transport.resetQueue(0);
    driver.transport.resetQueue(4);
    await far.turn();
    assertEquals((await receive(reply(FLOWS[0]!))).pair, -1);
    assertEquals(driver.transport.needsReset, false);
  },
);

everywhere(
  "5.1.9.5.6 automatic steering: a flow comes back to the pair that it was last sent on",
  async (place) => {
    const { setPairs, receive, send } = await open(place);
    await setPairs(PAIRS);
    for (const pair of [3, 1, 2, 0]) {
      for (const spec of FLOWS.slice(0, 6)) {
        await send(spec, pair);
        assertEquals((await receive(reply(spec))).pair, pair);
      }
    }
  },
);

everywhere(
  "5.1.9.5.7.3-D1 5.1.9.5.7.3-D3: the masked hash is the index of the receive queue in the indirection table",
  async (place) => {
    const { setRss, receive } = await open(place);
    const table = [3, 0, 2, 1, 1, 2, 0, 3];
    assertEquals(await setRss({ table, unclassified: 0, maxTxVq: 1 }), OK);
    for (const spec of FLOWS) {
      const { pair, header } = await receive(spec);
      const { value, report } = hashOf(spec);
      assertEquals(pair, table[value & 7]);
      assertEquals([header!.hashValue, header!.hashReport], [value, report]);
    }
    const types = hashes.VIRTIO_NET_HASH_TYPE_IPv4;
    assertEquals(await setRss({ hashTypes: types, table, unclassified: 0, maxTxVq: 1 }), OK);
    const alone = FLOWS.filter(({ ip }) => ip === 4);
    const pairs = new Set<number>();
    for (const spec of alone) pairs.add((await receive(spec)).pair);
    assertEquals([...pairs], [table[hashOf(alone[0]!, types).value & 7]]);
  },
);

everywhere(
  "5.1.9.5.7.3-D2: a packet without a hash goes to the unclassified queue",
  async (place) => {
    const { setRss, receive } = await open(place);
    await setRss({ table: [0, 1], unclassified: 3 });
    const { pair, header } = await receive({ ip: "arp" });
    assertEquals([pair, header!.hashReport, header!.hashValue], [3, 0, 0]);
    await setRss({ hashTypes: hashes.VIRTIO_NET_HASH_TYPE_TCPv6, table: [0, 1], unclassified: 2 });
    assertEquals((await receive(flow(1))).pair, 2);
    assert((await receive(flow(1, 6))).pair < 2);
  },
);

everywhere("5.1.9.5.7.3-D4: a packet for a queue that is being reset is dropped", async (place) => {
  const { setRss, receive, driver, far } = await open(place);
  await setRss({ table: [1], unclassified: 0 });
  assertEquals((await receive(flow(1))).pair, 1);
  driver.transport.resetQueue(2);
  await far.turn();
  assertEquals((await receive(flow(1))).pair, -1);
  assertEquals((await receive({ ip: "arp" })).pair, 0);
});

everywhere(
  "5.1.9.6.4-D22 5.1.9.6.4-D24 5.1.9.6.4-D25: receive filters come first, and what they drop is not steered; the rest is, as was asked for last",
  async (place) => {
    const { setRss, setPairs, receive, driver } = await open(place);
    await setRss({ table: [2], unclassified: 3 });
    const other = [2, 0, 0, 0, 0, 9];
    assertEquals((await receive({ ...flow(1), to: other })).pair, -1);
    assertEquals((await receive(flow(1))).pair, 2);
    await driver.control(ctrl.VIRTIO_NET_CTRL_RX, ctrl.VIRTIO_NET_CTRL_RX_PROMISC, [1]);
    assertEquals((await receive({ ...flow(1), to: other })).pair, 2);
    await setPairs(1);
    assertEquals((await receive({ ...flow(1), to: other })).pair, 0);
  },
);

everywhere("5.1.9.5.6.4 hash configuration: hashes are reported without RSS too", async (place) => {
  const { setHash, receive } = await open(place, FEATURES & ~net.VIRTIO_NET_F_RSS);
  const before = (await receive(flow(1))).header!;
  assertEquals([before.hashReport, before.hashValue], [0, 0]);
  assertEquals(await setHash({}), OK);
  for (const spec of FLOWS.slice(0, 6)) {
    const { pair, header } = await receive(spec);
    assertEquals([pair, header!.hashValue, header!.hashReport], [
      0,
      hashOf(spec).value,
      hashOf(spec).report,
    ]);
  }
  assertEquals(await setHash({ reserved: [0, 1, 0, 0, 0, 0, 0, 0] }), ERR);
});

everywhere(
  "5.1.9.5.7.1 what a driver must not ask for is answered with VIRTIO_NET_ERR, and changes nothing",
  async (place) => {
    const { setRss, receive } = await open(place);
    await setRss({ table: [1], unclassified: 1 });
    const bad: RssSpec[] = [
      { table: [0, 0, 0] },
      { table: new Array(256).fill(0) },
      { table: [PAIRS] },
      { table: [0], unclassified: PAIRS },
      { table: [0], hashTypes: 0x200 },
      { table: [0], maxTxVq: PAIRS + 1 },
      { table: [0], key: new Array(41).fill(1) },
    ];
    for (const spec of bad) {
      assertEquals(await setRss(spec), ERR);
      assertEquals((await receive(flow(1))).pair, 1);
    }
  },
);
