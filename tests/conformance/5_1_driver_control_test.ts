/** Virtio 1.4, 5.1.9.5: what a network driver asks of the device. */
import * as net from "@virtio/net";
import {
  NET_DRIVER_FEATURES,
  type NetControl,
  NetControlError,
  type RssConfig,
} from "@virtio/net/driver";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as ctrl from "../../packages/net/control/constants.ts";
import { openRig, PuppetDevice } from "../../packages/net/driver/testing.ts";
import { concat, plainFrame, turns } from "../../packages/net/testing.ts";

const ALL = NET_DRIVER_FEATURES;
const KEY = Uint8Array.from({ length: 40 }, (_, i) => i);
const ONE = Uint8Array.of(2, 0, 0, 0, 0, 5);
const GROUP = Uint8Array.of(3, 0, 0, 0, 0, 5);

async function open(features: bigint, queuePairs = 1, pairs = 2) {
  const device = new PuppetDevice(features, () => {}, { pairs, size: 16 });
  const rig = await openRig(device, { queuePairs });
  const first = device.commands.length;
  /** The commands since. */
  const sent = () => device.commands.slice(first).map(({ kind, command }) => [kind, command]);
  return { ...rig, control: rig.driver.control, sent };
}

/** A command is refused, and nothing is sent, without each of these features, and without a control queue. */
async function needs(
  features: readonly bigint[],
  run: (control: NetControl) => Promise<unknown>,
  expected: readonly (readonly number[])[],
): Promise<void> {
  for (const feature of [...features, net.VIRTIO_NET_F_CTRL_VQ]) {
    const { control, driver, sent } = await open(ALL & ~feature);
    await assertRejects(() => run(control), TypeError, "was not negotiated");
    assertEquals(sent(), []);
    await driver.close();
  }
  const { control, driver, sent } = await open(ALL);
  await run(control);
  assertEquals(sent(), expected);
  await driver.close();
}

Deno.test("5.1.9.5.1.2-G1: PROMISC and ALLMULTI only with VIRTIO_NET_F_CTRL_RX", async () => {
  const { VIRTIO_NET_F_CTRL_RX: feature } = net;
  await needs([feature], (control) => control.setReceiveMode("promiscuous", true), [[0, 0]]);
  await needs([feature], (control) => control.setReceiveMode("allMulticast", true), [[0, 1]]);
  // Not even by itself, for an address that the device does not know.
  const { driver, device } = await open(ALL & ~feature & ~net.VIRTIO_NET_F_MAC);
  assertEquals(device.commands, []);
  await driver.close();
});

Deno.test("5.1.9.5.1.2-G2: ALLUNI, NOMULTI, NOUNI and NOBCAST only with VIRTIO_NET_F_CTRL_RX_EXTRA", async () => {
  const modes = ["allUnicast", "noMulticast", "noUnicast", "noBroadcast"] as const;
  for (const [i, mode] of modes.entries()) {
    await needs(
      [net.VIRTIO_NET_F_CTRL_RX_EXTRA],
      (control) => control.setReceiveMode(mode, true),
      [[0, 2 + i]],
    );
  }
});

Deno.test("5.1.9.5.2.2-G1: commands about MAC addresses only with VIRTIO_NET_F_CTRL_RX", async () => {
  const { VIRTIO_NET_F_CTRL_RX: feature, VIRTIO_NET_F_CTRL_MAC_ADDR: address } = net;
  await needs([feature], (control) => control.setMacTable([ONE], []), [[1, 0]]);
  await needs([feature, address], (control) => control.setMac(ONE), [[1, 1]]);
});

Deno.test("5.1.9.5.2.2-G2: an address other than the device's is set when the driver starts", async () => {
  for (const [mac, expected] of [[ONE, [ONE]], [Uint8Array.of(2, 0, 0, 0, 0, 1), []]] as const) {
    const device = new PuppetDevice(ALL);
    const { driver } = await openRig(device, { mac });
    assertEquals(driver.mac, mac);
    const set = device.commands.filter(({ kind, command }) => kind === 1 && command === 1);
    assertEquals(set.map(({ data }) => data), expected);
    await driver.close();
  }
  // A device without an address learns the random one; one that cannot be told has to give everything.
  const blank = await openRig(new PuppetDevice(ALL & ~net.VIRTIO_NET_F_MAC));
  assertEquals(blank.device.commands[0]?.data, blank.driver.mac);
  await blank.driver.close();
  const deaf = await openRig(new PuppetDevice(ALL & ~net.VIRTIO_NET_F_CTRL_MAC_ADDR), { mac: ONE });
  assertEquals(deaf.device.commands.map(({ kind, command }) => [kind, command]), [[0, 0]]);
  await deaf.driver.close();
});

Deno.test("5.1.9.5.2.2-G3 5.1.9.5.2.2-G4: the table is a number and so many stations, a number and so many groups; either may be 0", async () => {
  const { control, device, driver, sent } = await open(ALL);
  const two = Uint8Array.of(2, 0, 0, 0, 0, 6);
  const table = (count: number, ...macs: Uint8Array[]) =>
    macs.reduce(concat, Uint8Array.of(count, 0, 0, 0));
  const cases: [Uint8Array[], Uint8Array[]][] = [
    [[], []],
    [[ONE, two], []],
    [[], [GROUP]],
    [[two], [GROUP, Uint8Array.of(255, 255, 255, 255, 255, 255)]],
    [Array.from({ length: 300 }, (_, i) => Uint8Array.of(2, 0, 0, 0, i >> 8, i & 255)), []],
  ];
  for (const [unicast, multicast] of cases) {
    await control.setMacTable(unicast, multicast);
    const { data } = device.commands.at(-1)!;
    const number = (macs: Uint8Array[]) => {
      const bytes = table(0, ...macs);
      new DataView(bytes.buffer).setUint32(0, macs.length, true);
      return bytes;
    };
    assertEquals(data, concat(number(unicast), number(multicast)));
  }
  const before = sent().length;
  await assertRejects(() => control.setMacTable([GROUP], []), RangeError);
  await assertRejects(() => control.setMacTable([], [ONE]), RangeError);
  await assertRejects(() => control.setMacTable([ONE.subarray(1)], []), RangeError);
  await assertRejects(() => control.setMac(GROUP), RangeError);
  assertEquals(sent().length, before);
  await control.setMac(two);
  assertEquals(driver.mac, two);
  await driver.close();
});

Deno.test("5.1.9.5.4.1-G1 5.1.9.5.4.1-G2: asked to announce itself, the driver sends a frame to everybody, then acknowledges", async () => {
  const { device, driver, sent } = await open(ALL);
  let asked = 0;
  driver.onAnnounce = () => {
    asked++;
    driver.sendBytes(plainFrame(64));
  };
  device.answer = ({ kind }) => {
    if (kind === ctrl.VIRTIO_NET_CTRL_ANNOUNCE) {
      assertEquals(device.sent.length % 2, 0, "first the network, then the device");
      device.change((view) => view.setUint16(6, 1, true));
    }
    return [0];
  };
  for (let time = 1; time <= 2; time++) {
    device.change((view) => view.setUint16(6, 3, true));
    await turns(20);
    assertEquals([asked, device.sent.length], [time, 2 * time]);
    assertEquals(sent().at(-1), [3, 0]);
    assertEquals(sent().length, time);
  }
  const { bytes } = device.sent[0]!;
  assertEquals(bytes.subarray(0, 12), concat(new Uint8Array(6).fill(255), driver.mac));
  await driver.close();
  // Without the feature it is not the driver's business.
  const other = await open(ALL & ~net.VIRTIO_NET_F_GUEST_ANNOUNCE);
  other.device.change((view) => view.setUint16(6, 3, true));
  await turns(20);
  assertEquals([other.device.sent, other.sent()], [[], []]);
  await other.driver.close();
});

Deno.test("5.1.9.5.6.1-G2: no more pairs than there are, and no fewer than one", async () => {
  const { control, device, driver, sent } = await open(ALL, 4, 3);
  assertEquals(driver.receiveQueues.length, 3);
  assertEquals(device.commands.at(-1)?.data, Uint8Array.of(3, 0));
  for (const pairs of [0, -1, 4, 1.5, 0x8001]) {
    await assertRejects(() => control.setQueuePairs(pairs), RangeError);
  }
  assertEquals(sent(), []);
  await control.setQueuePairs(2);
  assertEquals(device.commands.at(-1)?.data, Uint8Array.of(2, 0));
  await driver.close();
});

Deno.test("5.1.9.5.6.1-G3: before the command, frames go through the first queue only", async () => {
  const { control, device, driver } = await open(ALL & ~net.VIRTIO_NET_F_MQ, 2);
  assertEquals(driver.transmitQueues.length, 2);
  assertThrows(() => driver.sendBytes(plainFrame(60), 1), RangeError, "not in use");
  assert(driver.sendBytes(plainFrame(60)));
  await control.setRss({ table: [0], types: 0, key: KEY });
  assert(driver.sendBytes(plainFrame(60), 1));
  await turns();
  assertEquals(device.sent.map(({ queue }) => queue), [1, 3]);
  await driver.close();
});

Deno.test("5.1.9.5.6.1-G4: from the moment of the command on, no frame goes through a queue beyond it", async () => {
  const { control, device, driver } = await open(ALL, 2);
  assert(driver.sendBytes(plainFrame(60), 1));
  device.answer = () => "hold";
  const fewer = control.setQueuePairs(1);
  assertThrows(() => driver.sendBytes(plainFrame(60), 1), RangeError, "not in use");
  await turns();
  device.release();
  await fewer;
  assertThrows(() => driver.sendBytes(plainFrame(60), 1), RangeError);
  // The other way round: not before the device has done it.
  const more = control.setQueuePairs(2);
  assertThrows(() => driver.sendBytes(plainFrame(60), 1), RangeError);
  await turns();
  assertThrows(() => driver.sendBytes(plainFrame(60), 1), RangeError);
  device.release();
  await more;
  assert(driver.sendBytes(plainFrame(60), 1));
  // A command that fails changes nothing for the better.
  device.answer = () => [1];
  await assertRejects(() => control.setQueuePairs(1), NetControlError);
  assertEquals(control.transmitPairs, 1);
  await driver.close();
});

const RSS: RssConfig = { table: [0, 1], types: 3, key: KEY };

Deno.test("5.1.9.5.7.2-G1: receive-side scaling only with VIRTIO_NET_F_RSS", async () => {
  const run = (control: NetControl) => control.setRss({ ...RSS, table: [0] });
  await needs([net.VIRTIO_NET_F_RSS], run, [[4, 1]]);
});

Deno.test("5.1.9.5.7.2-G2 5.1.9.5.7.2-G3 5.1.9.5.7.2-G4 5.1.9.5.7.2-G5: tables, masks and hash types are what the device allows", async () => {
  const { control, device, driver, sent } = await open(ALL, 2, 3);
  const wrong: Partial<RssConfig>[] = [
    { table: [0, 2] },
    { table: [-1] },
    { table: [0.5] },
    { unclassified: 2 },
    { transmitQueues: 3 },
    { transmitQueues: 0 },
    { table: [] },
    { table: [0, 1, 0] },
    { table: new Array(256).fill(0) },
    { types: 0x200 },
    { types: -1 },
    { types: 1.5 },
    { key: new Uint8Array(41) },
  ];
  for (const part of wrong) {
    await assertRejects(() => control.setRss({ ...RSS, ...part }), RangeError);
  }
  assertEquals(sent(), []);
  const table = Array.from({ length: 128 }, (_, i) => i & 1);
  await control.setRss({ ...RSS, table, unclassified: 1, transmitQueues: 1 });
  const { data } = device.commands.at(-1)!;
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  assertEquals(data.length, 8 + 256 + 3 + 40);
  assertEquals([view.getUint32(0, true), view.getUint16(4, true), view.getUint16(6, true)], [
    3,
    127,
    1,
  ]);
  assertEquals(table.map((_, i) => view.getUint16(8 + 2 * i, true)), table);
  assertEquals([view.getUint16(264, true), view.getUint8(266)], [1, 40]);
  assertEquals(data.subarray(267), KEY);
  assertEquals(control.transmitPairs, 1);
  // The same for hashes without scaling.
  await assertRejects(() => control.setHash({ types: 0x200, key: KEY }), RangeError);
  await control.setHash({ types: 0x1ff, key: KEY });
  const hash = device.commands.at(-1)!;
  assertEquals([hash.kind, hash.command], [4, 2]);
  assertEquals(hash.data, concat(Uint8Array.of(0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40), KEY));
  await driver.close();
});

Deno.test("5.1.9.5.9.2-G1: only offloads that were negotiated are switched on", async () => {
  const { VIRTIO_NET_F_GUEST_TSO4: tso4, VIRTIO_NET_F_GUEST_TSO6: tso6 } = net;
  const csum = net.VIRTIO_NET_F_GUEST_CSUM;
  const { control, device, driver, sent } = await open(ALL & ~tso6);
  for (const wrong of [tso6, csum | tso6, net.VIRTIO_NET_F_CSUM, 1n << 46n, 1n << 63n]) {
    await assertRejects(() => control.setGuestOffloads(wrong), RangeError);
  }
  assertEquals(sent(), []);
  for (const right of [0n, csum, csum | tso4, csum | net.VIRTIO_NET_F_GUEST_USO6]) {
    await control.setGuestOffloads(right);
    const { kind, command, data } = device.commands.at(-1)!;
    assertEquals([kind, command, data.length], [5, 0, 8]);
    assertEquals(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true), right);
  }
  await driver.close();
  await needs([net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS], (each) => each.setGuestOffloads(0n), [[
    5,
    0,
  ]]);
});

const COALESCING = { maxPackets: 0x01020304, maxMicroseconds: 0xfffefdfc } as const;
const COALESCING_BYTES = [4, 3, 2, 1, 0xfc, 0xfd, 0xfe, 0xff];

Deno.test("5.1.9.5.10.5-G1: notifications are coalesced for queues that are in use", async () => {
  const { control, device, driver, sent } = await open(ALL, 2, 3);
  for (const queue of [4, 5, 6, 7, -1, 0.5, 0x1_0000]) {
    await assertRejects(() => control.setQueueCoalescing(queue, COALESCING), RangeError);
    await assertRejects(() => control.getQueueCoalescing(queue), RangeError);
  }
  assertEquals(sent(), []);
  for (const queue of [0, 1, 2, 3]) {
    await control.setQueueCoalescing(queue, COALESCING);
    assertEquals([...device.commands.at(-1)!.data], [queue, 0, 0, 0, ...COALESCING_BYTES]);
  }
  await control.setQueuePairs(1);
  await assertRejects(() => control.setQueueCoalescing(2, COALESCING), RangeError);
  await assertRejects(() => control.setQueueCoalescing(3, COALESCING), RangeError);
  await driver.close();
});

Deno.test("5.1.9.5.10.5-G2: TX_SET and RX_SET only with VIRTIO_NET_F_NOTF_COAL", async () => {
  const { VIRTIO_NET_F_NOTF_COAL: feature } = net;
  await needs([feature], (control) => control.setCoalescing("transmit", COALESCING), [[6, 0]]);
  await needs([feature], (control) => control.setCoalescing("receive", COALESCING), [[6, 1]]);
});

Deno.test("5.1.9.5.10.5-G3: VQ_SET and VQ_GET only with VIRTIO_NET_F_VQ_NOTF_COAL", async () => {
  const { VIRTIO_NET_F_VQ_NOTF_COAL: feature } = net;
  await needs([feature], (control) => control.setQueueCoalescing(0, COALESCING), [[6, 2]]);
  const { control, driver, device, sent } = await open(ALL & ~feature);
  await assertRejects(() => control.getQueueCoalescing(0), TypeError);
  assertEquals(sent(), []);
  assertEquals(device.commands, []);
  await driver.close();
});

Deno.test("5.1.9.5.10.5-G4: what VQ_GET answers counts only with VIRTIO_NET_OK", async () => {
  const { control, device, driver } = await open(ALL);
  device.answer = () => [0, ...COALESCING_BYTES];
  assertEquals(await control.getQueueCoalescing(0), COALESCING);
  for (const ack of [1, 2, 0xfe]) {
    device.answer = () => [ack, ...COALESCING_BYTES];
    const error = await assertRejects(() => control.getQueueCoalescing(0), NetControlError);
    assertEquals(error.ack, ack);
  }
  await driver.close();
});

const RX_BASIC = 1n;
const TX_BASIC = 1n << 16n;

function le64(...values: bigint[]): number[] {
  return values.flatMap((value) => [...new Uint8Array(BigUint64Array.of(value).buffer)]);
}

Deno.test("5.1.9.5.11.13-G1 5.1.9.5.11.13-G2 5.1.9.5.11.13-G3: the driver asks which statistics there are, then for those that each queue can have, with room for all", async () => {
  const supported = RX_BASIC | 2n | 4n | 8n | TX_BASIC | TX_BASIC << 1n | 1n << 32n | 1n << 40n;
  const features = ALL & ~net.VIRTIO_NET_F_GUEST_TSO4 & ~net.VIRTIO_NET_F_GUEST_TSO6;
  const { control, device, driver, sent } = await open(features, 2, 3);
  device.answer = ({ command }) => command === 0 ? [0, ...le64(supported)] : [0];
  await control.statistics();
  await control.statistics([3]);
  assertEquals(sent(), [[8, 0], [8, 1], [8, 1]]);
  const { data, room } = device.commands.at(-2)!;
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const asked = Array.from({ length: data.length / 16 }, (_, i) => [
    view.getUint16(16 * i, true),
    view.getBigUint64(16 * i + 8, true),
  ]);
  // Without TSO there are none about segments; nothing that is not supported, or not known.
  const receive = RX_BASIC | 2n | 8n;
  const transmit = TX_BASIC | TX_BASIC << 1n;
  assertEquals(asked, [[0, receive], [1, transmit], [2, receive], [3, transmit], [6, 1n << 32n]]);
  const size = (...counters: number[]) => counters.reduce((sum, each) => sum + 8 + 8 * each, 0);
  assert(room >= 2 * size(6, 4, 2) + 2 * size(6, 2) + size(2));
  await assertRejects(() => control.statistics([4]), RangeError);
  await driver.close();
  await needs([net.VIRTIO_NET_F_DEVICE_STATS], async (each) => {
    await each.statistics().catch((error) => {
      // The puppet's answer to the query is too short; what counts is that it was asked.
      if (error instanceof TypeError) throw error;
    });
  }, [[8, 0]]);
});
