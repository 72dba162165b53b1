/** Which pair of queues a frame goes to: automatic, by the indirection table, and while queues are being reset. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import * as net from "../constants.ts";
import {
  HASH_TYPES,
  PacketHash,
  VIRTIO_NET_HASH_REPORT_IPv4,
  VIRTIO_NET_HASH_REPORT_NONE,
  VIRTIO_NET_HASH_REPORT_TCPv4,
  VIRTIO_NET_HASH_TYPE_IPv4,
  VIRTIO_NET_HASH_TYPE_TCPv4,
} from "../offload/hash.ts";
import { FrameLayout } from "../offload/parse.ts";
import { buildFrame, type FrameSpec } from "../offload/testing.ts";
import * as ctrl from "./constants.ts";
import {
  ALL_FEATURES,
  ControlRig,
  hashConfig,
  KEY,
  le16,
  rssConfig,
  type RssSpec,
} from "./testing.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const MQ = ctrl.VIRTIO_NET_CTRL_MQ;

function setPairs(rig: ControlRig, pairs: number): number {
  return rig.ack(MQ, ctrl.VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, le16(pairs));
}
function setRss(rig: ControlRig, spec: RssSpec = {}): number {
  return rig.ack(MQ, ctrl.VIRTIO_NET_CTRL_MQ_RSS_CONFIG, rssConfig(spec));
}
function setHash(rig: ControlRig, spec: Parameters<typeof hashConfig>[0] = {}): number {
  return rig.ack(MQ, ctrl.VIRTIO_NET_CTRL_MQ_HASH_CONFIG, hashConfig(spec));
}
function pairOf(rig: ControlRig, spec: Partial<FrameSpec>): number {
  return rig.control.steering.pairOf(rig.frame(spec));
}
/** The hash of a frame with `KEY`, calculated apart. */
function hashOf(spec: Partial<FrameSpec>, types: number, key: readonly number[] = KEY): PacketHash {
  const hash = new PacketHash();
  hash.types = types;
  hash.setKey(Uint8Array.from(key));
  const frame = buildFrame({ ip: 4, ...spec });
  const view = new DataView(frame.buffer);
  hash.calculate(view, new FrameLayout().parse(view, frame.length));
  return hash;
}
/** What the other end sends back. */
function reply(spec: Partial<FrameSpec>): Partial<FrameSpec> {
  return {
    ...spec,
    source: spec.destination!,
    destination: spec.source!,
    sourcePort: spec.destinationPort!,
    destinationPort: spec.sourcePort!,
  };
}
/** The nth of many flows. */
function flow(n: number, ip: 4 | 6 = 4, transport: "tcp" | "udp" = "tcp"): Partial<FrameSpec> {
  const address = (last: number) =>
    ip === 4 ? [10, 0, n >> 8 & 255, last] : [0xfd, ...new Array(13).fill(0), n >> 8 & 255, last];
  return {
    ip,
    transport,
    source: address(1),
    destination: address(2),
    sourcePort: 1000 + n,
    destinationPort: 80,
  };
}

Deno.test("at first all goes to the first pair, and no hash is reported", () => {
  const rig = new ControlRig();
  for (let n = 0; n < 50; n++) {
    assertEquals(pairOf(rig, flow(n)), 0);
    assertEquals([rig.control.steering.hashValue, rig.control.steering.hashReport], [0, 0]);
  }
  assertEquals([rig.control.pairs, rig.control.enabled(0), rig.control.enabled(1)], [
    1,
    true,
    true,
  ]);
  assertEquals([2, 3].map((queue) => rig.control.enabled(queue)), [false, false]);
});

Deno.test("automatic: what comes back goes to the pair it was sent on, for each kind of flow", () => {
  const rig = new ControlRig();
  assertEquals(setPairs(rig, 4), OK);
  const flows = [...Array(40).keys()].flatMap((n) => [flow(n), flow(n, 6), flow(n, 4, "udp")]);
  flows.push({ ip: 4, transport: "icmp", source: [1, 2, 3, 4], destination: [4, 3, 2, 1] });
  flows.forEach((spec, i) => rig.control.steering.sentOn(rig.frame(spec), i % 4));
  flows.forEach((spec, i) => assertEquals(pairOf(rig, reply(spec)), i % 4, `flow ${i}`));
  // The last pair counts.
  rig.control.steering.sentOn(rig.frame(flows[5]!), 3);
  assertEquals(pairOf(rig, reply(flows[5]!)), 3);
});

Deno.test("automatic: flows nobody sent on are spread, each always to the same pair; what is not IP goes to the first", () => {
  const rig = new ControlRig();
  setPairs(rig, 4);
  const pairs = [...Array(200).keys()].map((n) => pairOf(rig, flow(n)));
  for (const pair of [0, 1, 2, 3]) assert(pairs.filter((one) => one === pair).length > 20);
  assertEquals([...Array(200).keys()].map((n) => pairOf(rig, flow(n))), pairs);
  assertEquals(pairOf(rig, { ip: "arp" }), 0);
  rig.control.steering.sentOn(rig.frame({ ip: "arp" }), 2);
  assertEquals(pairOf(rig, { ip: "arp" }), 0);
});

Deno.test("automatic: fragments of a datagram stay together", () => {
  const rig = new ControlRig();
  setPairs(rig, 4);
  for (let n = 0; n < 20; n++) {
    // The same addresses for the datagram in both directions, and ports only in its first fragment.
    const addresses = { source: [10, 1, n, 1], destination: [10, 1, n, 1] };
    const first = { ...flow(n, 4, "udp"), ...addresses, fragment: 0x2000 };
    const later = { transport: 17, payload: new Uint8Array(64), ...addresses, fragment: 0x2010 };
    rig.control.steering.sentOn(rig.frame(first), n % 4);
    assertEquals(pairOf(rig, later), n % 4);
    assertEquals(pairOf(rig, { ...later, fragment: 0x0020 }), n % 4);
  }
});

Deno.test("automatic: the table of flows is bounded, and forgotten when the number of pairs changes", () => {
  const rig = new ControlRig(ALL_FEATURES, 4, { flows: 16 });
  setPairs(rig, 4);
  for (let n = 0; n < 1000; n++) rig.control.steering.sentOn(rig.frame(flow(n)), 3);
  let known = 0;
  const free = [...Array(1000).keys()].filter((n) => pairOf(rig, reply(flow(n))) !== 3);
  for (let n = 0; n < 1000; n++) known += pairOf(rig, reply(flow(n))) === 3 ? 1 : 0;
  assert(free.length > 600 && known < 400);
  const seen = free[0]!;
  rig.control.steering.sentOn(rig.frame(flow(seen)), 3);
  assertEquals(pairOf(rig, reply(flow(seen))), 3);
  setPairs(rig, 3);
  for (let n = 0; n < 1000; n++) assert(pairOf(rig, reply(flow(n))) < 3);
  setPairs(rig, 1);
  for (let n = 0; n < 1000; n++) assertEquals(pairOf(rig, reply(flow(n))), 0);
  setPairs(rig, 4);
  assert(pairOf(rig, reply(flow(seen))) !== 3);
  // A pair that is not enabled teaches nothing.
  setPairs(rig, 2);
  for (let n = 0; n < 100; n++) rig.control.steering.sentOn(rig.frame(flow(n)), 3);
  for (let n = 0; n < 100; n++) assert(pairOf(rig, reply(flow(n))) < 2);
});

Deno.test("automatic: while a queue is being reset another is chosen, and nothing is received while all are", () => {
  const rig = new ControlRig();
  setPairs(rig, 3);
  rig.control.steering.sentOn(rig.frame(flow(1)), 2);
  rig.host.resetting.add(2);
  assertEquals(pairOf(rig, reply(flow(1))), 0);
  rig.host.resetting.add(0);
  assertEquals(pairOf(rig, reply(flow(1))), 1);
  rig.host.resetting.add(1);
  // The fourth is not enabled.
  assertEquals(pairOf(rig, reply(flow(1))), -1);
  rig.host.resetting.clear();
  assertEquals(pairOf(rig, reply(flow(1))), 2);
  setPairs(rig, 1);
  rig.host.resetting.add(0);
  assertEquals(pairOf(rig, flow(1)), -1);
});

Deno.test("the number of pairs: 1 to all there are, two bytes, with VIRTIO_NET_F_MQ", () => {
  const rig = new ControlRig(ALL_FEATURES, 3);
  for (const [pairs, ack] of [[3, OK], [0, ERR], [4, ERR], [0x8000, ERR], [2, OK]] as const) {
    assertEquals(setPairs(rig, pairs), ack);
    assertEquals(rig.control.pairs, ack === OK ? pairs : 3);
  }
  assertEquals(rig.ack(MQ, 0, 1), ERR);
  assertEquals(rig.ack(MQ, 0, [1, 0, 0]), ERR);
  assertEquals(rig.ack(MQ, 3, [1, 0]), ERR);
  assertEquals(rig.control.pairs, 2);
  rig.control.reset(ALL_FEATURES);
  assertEquals(rig.control.pairs, 1);
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_MQ);
  assertEquals(setPairs(without, 1), ERR);
});

Deno.test("RSS: the hash, masked, is the index into the table; without a hash the unclassified queue is used", () => {
  const table = [3, 1, 0, 2, 2, 1, 3, 0];
  const key = fc.uint8Array({ minLength: 40, maxLength: 40 });
  fc.assert(
    fc.property(key, fc.nat({ max: 0xffff }), fc.boolean(), fc.boolean(), (key, n, v6, tcp) => {
      const rig = new ControlRig();
      assertEquals(setRss(rig, { table, unclassified: 3, key: [...key] }), OK);
      const spec = flow(n & 255, v6 ? 6 : 4, tcp ? "tcp" : "udp");
      const hash = hashOf(spec, HASH_TYPES, [...key]);
      assertEquals(pairOf(rig, spec), table[hash.value & 7]);
      const { steering } = rig.control;
      assertEquals([steering.hashValue, steering.hashReport], [hash.value, hash.report]);
      assertEquals(pairOf(rig, { ip: "arp" }), 3);
      assertEquals([steering.hashValue, steering.hashReport], [0, VIRTIO_NET_HASH_REPORT_NONE]);
    }),
    { numRuns: 30 },
  );
});

Deno.test("RSS: only enabled hash types count", () => {
  const rig = new ControlRig();
  setRss(rig, { hashTypes: VIRTIO_NET_HASH_TYPE_TCPv4, unclassified: 2, table: [0, 1] });
  assertEquals(pairOf(rig, flow(1, 4, "udp")), 2);
  assertEquals(pairOf(rig, flow(1, 6)), 2);
  assertEquals(pairOf(rig, flow(1)), hashOf(flow(1), VIRTIO_NET_HASH_TYPE_TCPv4).value & 1);
  assertEquals(rig.control.steering.hashReport, VIRTIO_NET_HASH_REPORT_TCPv4);
  setRss(rig, { hashTypes: 0, unclassified: 1, table: [0, 3], key: [] });
  assertEquals(pairOf(rig, flow(1)), 1);
  assertEquals([rig.control.steering.hashValue, rig.control.steering.hashReport], [0, 0]);
});

Deno.test("RSS: what goes to a queue that is being reset is dropped", () => {
  const rig = new ControlRig();
  setRss(rig, { hashTypes: HASH_TYPES, unclassified: 3, table: [2] });
  rig.host.resetting.add(2);
  assertEquals(pairOf(rig, flow(1)), -1);
  assertEquals(pairOf(rig, { ip: "arp" }), 3);
  rig.host.resetting.add(3);
  assertEquals(pairOf(rig, { ip: "arp" }), -1);
  rig.host.resetting.delete(2);
  assertEquals(pairOf(rig, flow(1)), 2);
});

Deno.test("RSS: parameters that break a rule change nothing", () => {
  const limits = { tableLength: 128, keySize: 44, hashTypes: 0x3f };
  const rig = new ControlRig(ALL_FEATURES, 4, limits);
  const good: RssSpec = { hashTypes: 0x3f, table: [1, 1], unclassified: 1, maxTxVq: 3 };
  assertEquals(setRss(rig, good), OK);
  const long = (length: number) => Array.from({ length }, () => 2);
  const bad: RssSpec[] = [
    { ...good, hashTypes: 0x40 },
    { ...good, hashTypes: 0x8000_0000 },
    { ...good, table: [2, 2, 2] },
    { ...good, table: long(256) },
    { ...good, table: long(64), mask: 127 },
    { ...good, table: long(2), mask: 0xffff },
    { ...good, table: long(2), mask: 0 },
    { ...good, table: [2, 4] },
    { ...good, table: [0x8002, 2] },
    { ...good, unclassified: 4 },
    { ...good, unclassified: 0x8000 },
    { ...good, maxTxVq: 0 },
    { ...good, maxTxVq: 5 },
    { ...good, key: [...KEY, 1, 2, 3, 4, 5] },
    { ...good, keyLength: 41 },
    { ...good, keyLength: 39 },
    { ...good, key: [] },
  ];
  for (const spec of bad) {
    assertEquals(setRss(rig, spec), ERR, JSON.stringify(spec));
    assertEquals(pairOf(rig, flow(1)), 1);
    assertEquals([rig.control.steering.transmitPairs, rig.control.steering.receivePairs], [3, 2]);
    assertEquals(rig.control.steering.hashValue, hashOf(flow(1), 0x3f).value);
  }
  const whole = rssConfig(good);
  for (let length = 0; length < whole.length; length++) {
    assertEquals(rig.ack(MQ, 1, whole.slice(0, length)), ERR);
  }
  assertEquals(rig.ack(MQ, 1, [...whole, 0]), ERR);
  for (
    const right of [
      { ...good, table: long(128) },
      { ...good, key: [...KEY, 1, 2, 3, 4] },
      { ...good, key: [1] },
      { ...good, table: [3], maxTxVq: 1 },
    ]
  ) assertEquals(setRss(rig, right), OK);
  assertEquals(setRss(new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_RSS), good), ERR);
});

Deno.test("RSS: which queues are enabled follows from the table and max_tx_vq", () => {
  const rig = new ControlRig();
  setRss(rig, { table: [0, 2], unclassified: 1, maxTxVq: 1 });
  assertEquals([...Array(8).keys()].filter((queue) => rig.control.enabled(queue)), [0, 1, 2, 4]);
  assertEquals(rig.control.pairs, 3);
  setRss(rig, { table: [0], unclassified: 3, maxTxVq: 2 });
  assertEquals([...Array(8).keys()].filter((queue) => rig.control.enabled(queue)), [
    ...[0, 1, 2, 3],
    ...[4, 6],
  ]);
  assertEquals(rig.control.pairs, 4);
});

Deno.test("the last command decides between automatic steering and RSS", () => {
  const rig = new ControlRig();
  setRss(rig, { table: [3] });
  assertEquals(rig.control.steering.rss, true);
  assertEquals(setPairs(rig, 2), OK);
  assertEquals(rig.control.steering.rss, false);
  assertEquals(rig.control.pairs, 2);
  rig.control.steering.sentOn(rig.frame(flow(1)), 1);
  assertEquals(pairOf(rig, reply(flow(1))), 1);
  // Hashes are reported as before.
  assertEquals(rig.control.steering.hashValue, hashOf(reply(flow(1)), HASH_TYPES).value);
  setRss(rig, { table: [3] });
  assertEquals(pairOf(rig, reply(flow(1))), 3);
  assertEquals(setHash(rig), OK);
  assertEquals(rig.control.steering.rss, false);
  assertEquals(pairOf(rig, reply(flow(1))), 1);
});

Deno.test("hash configuration: reported with one pair too; bad ones change nothing", () => {
  const features = ALL_FEATURES & ~net.VIRTIO_NET_F_RSS & ~net.VIRTIO_NET_F_MQ;
  const rig = new ControlRig(features);
  const { steering } = rig.control;
  const types = VIRTIO_NET_HASH_TYPE_IPv4;
  assertEquals(setHash(rig, { hashTypes: types }), OK);
  const check = () => {
    assertEquals(pairOf(rig, flow(1)), 0);
    assertEquals(steering.hashReport, VIRTIO_NET_HASH_REPORT_IPv4);
    assertEquals(steering.hashValue, hashOf(flow(1), types).value);
  };
  check();
  for (
    const bad of [
      { hashTypes: 0x200 },
      { reserved: [0, 0, 0, 0, 0, 0, 0, 1] },
      { reserved: [1, 0, 0, 0, 0, 0, 0, 0] },
      { key: [...KEY, 1] },
      { key: [] },
    ]
  ) {
    assertEquals(setHash(rig, bad), ERR);
    check();
  }
  const whole = hashConfig();
  for (let length = 0; length < whole.length; length++) {
    assertEquals(rig.ack(MQ, 2, whole.slice(0, length)), ERR);
  }
  assertEquals(rig.ack(MQ, 2, [...whole, 0]), ERR);
  check();
  rig.control.reset(features);
  assertEquals(pairOf(rig, flow(1)), 0);
  assertEquals([steering.hashValue, steering.hashReport], [0, 0]);
  assertEquals(setHash(rig, { hashTypes: 0, key: [] }), OK);
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_HASH_REPORT);
  assertEquals(setHash(without), ERR);
});
