import { assert, assertEquals, assertThrows } from "@std/assert";
import { VIRTIO_F_RING_RESET, VIRTIO_F_SUSPEND } from "@virtio/device";
import type { VirtqueueError } from "@virtio/vring";
import * as net from "./constants.ts";
import { NetDevice } from "./device.ts";
import { Frame } from "./frame.ts";
import { buildFrame, pattern } from "./offload/testing.ts";
import type { NetDeviceOptions } from "./options.ts";
import {
  LocalTransport,
  plainFrame,
  RawNetDriver,
  type RawNetOptions,
  SpyBackend,
  turns,
} from "./testing.ts";

const MAC = "02:00:00:00:00:01";
const CTRL = net.VIRTIO_NET_F_CTRL_VQ;
const MQ = CTRL | net.VIRTIO_NET_F_MQ;
const RSS = CTRL | net.VIRTIO_NET_F_RSS;

async function open(
  wanted: bigint,
  options: Partial<NetDeviceOptions> = {},
  raw: RawNetOptions = {},
): Promise<{ backend: SpyBackend; device: NetDevice; driver: RawNetDriver }> {
  const backend = new SpyBackend();
  const device = new NetDevice({ backend, mac: MAC, ...options });
  return { backend, device, driver: await RawNetDriver.open(device, { wanted, ...raw }) };
}

/** A UDP packet to the device from a port, or from it to that port. */
function udp(port: number, sent = false): Uint8Array {
  const ours = { to: [2, 0, 0, 0, 0, 1], from: [2, 0, 0, 0, 0, 9] };
  return buildFrame({
    ip: 4,
    transport: "udp",
    payload: pattern(40),
    ...(sent
      ? { to: ours.from, from: ours.to, source: [10, 0, 0, 2], destination: [10, 0, 0, 1] }
      : ours),
    sourcePort: sent ? 53 : port,
    destinationPort: sent ? port : 53,
  });
}

Deno.test("a frame goes both ways, and what passed is counted", async () => {
  const { backend, device, driver } = await open(net.VIRTIO_NET_F_MAC);
  driver.send(plainFrame(1514));
  driver.post(0, [2000]);
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals(backend.bytes, [plainFrame(1514)]);
  assertEquals(driver.frames().map(({ bytes }) => bytes), [plainFrame(60)]);
  const { stats } = device;
  assertEquals([stats.framesSent, stats.bytesSent], [1, 1514]);
  assertEquals([stats.framesReceived, stats.bytesReceived, stats.dropped], [1, 60, 0]);
});

Deno.test("the tap sees what was sent and received, whole, with its queue", async () => {
  const seen: unknown[] = [];
  const { backend, driver } = await open(0n, {
    tap: (frame, direction, queue) => seen.push([direction, queue, [...frame.bytes]]),
  });
  driver.send(plainFrame(1000));
  driver.post(0, [2000]);
  backend.give(plainFrame(900));
  // Nobody gets this one yet.
  backend.give(plainFrame(901));
  await turns(1);
  assertEquals(seen, [
    ["sent", 1, [...plainFrame(1000)]],
    ["received", 0, [...plainFrame(900)]],
  ]);
  assertEquals(backend.bytes, [plainFrame(1000)]);
});

Deno.test("the link's state is in the configuration space, and the driver is told of changes", async () => {
  const { backend, device, driver } = await open(net.VIRTIO_NET_F_STATUS);
  const status = () => device.config.read(net.NetConfigOffset.status, 2);
  assertEquals([status(), device.linkUp], [1, true]);
  const generation = device.config.generation;
  device.setLink(false);
  assertEquals([status(), device.linkUp, driver.transport.configInterrupts], [0, false, 1]);
  assert(device.config.generation !== generation);
  device.setLink(true);
  backend.linkUp = false;
  backend.onLinkChange!();
  assertEquals([status(), driver.transport.configInterrupts], [0, 3]);
  backend.linkUp = true;
  backend.onLinkChange!();
  assertEquals([status(), device.linkUp], [1, true]);
});

Deno.test("a device can begin with its cable pulled", () => {
  const device = new NetDevice({ backend: new SpyBackend(), linkUp: false });
  assertEquals(device.config.read(6, 2), 0);
});

Deno.test("a driver is asked to announce itself until it acknowledges (5.1.9.5.4)", async () => {
  const { device, driver } = await open(
    CTRL | net.VIRTIO_NET_F_STATUS | net.VIRTIO_NET_F_GUEST_ANNOUNCE,
  );
  const status = () => device.config.read(net.NetConfigOffset.status, 2);
  assertEquals(device.announce(), true);
  assertEquals([status(), driver.transport.configInterrupts], [3, 1]);
  device.setLink(false);
  assertEquals(status(), 2);
  assertEquals([...await driver.control(3, 0, [])], [0]);
  assertEquals(status(), 0);
  const without = await open(net.VIRTIO_NET_F_STATUS);
  assertEquals([without.device.announce(), without.device.config.read(6, 2)], [false, 1]);
});

Deno.test("a MAC address that the driver sets is in the configuration space until the next reset", async () => {
  const features = CTRL | net.VIRTIO_NET_F_CTRL_MAC_ADDR | net.VIRTIO_NET_F_CTRL_RX;
  for (const shown of [net.VIRTIO_NET_F_MAC, 0n]) {
    const { backend, device, driver } = await open(features | shown);
    const mac = [2, 0, 0, 0, 0, 7];
    assertEquals([...await driver.control(1, 1, mac)], [0]);
    assertEquals([...device.mac], mac);
    assertEquals([...device.config.bytes.subarray(0, 6)], shown === 0n ? [2, 0, 0, 0, 0, 1] : mac);
    driver.postMany(0, 4, 100);
    backend.give(plainFrame(60, 0, mac));
    backend.give(plainFrame(60, 0, [2, 0, 0, 0, 0, 1]));
    await turns(1);
    assertEquals([driver.frames().length, device.stats.filtered], [1, 1]);
    await driver.session.reset();
    assertEquals([...device.mac], [2, 0, 0, 0, 0, 1]);
    assertEquals([...device.config.bytes.subarray(0, 6)], [2, 0, 0, 0, 0, 1]);
  }
});

Deno.test("the control queue is behind the queues of all pairs with MQ or RSS, else behind the first (5.1.2)", async () => {
  for (const [wanted, queue] of [[CTRL, 2], [MQ, 6], [RSS, 6], [MQ | RSS, 6]] as const) {
    const { device, driver } = await open(wanted | net.VIRTIO_NET_F_CTRL_RX, { queuePairs: 3 });
    assertEquals(driver.controlQueue, queue);
    for (let i = 0; i < 3; i++) assertEquals([...await driver.control(0, 0, [1])], [0]);
    assertEquals([...await driver.control(0, 0, [2])], [1]);
    assertEquals(device.queueCounters[queue]!.chains, 4);
    assertEquals(driver.transport.errors, []);
  }
});

Deno.test("many commands at once are all answered, wherever the control queue is", async () => {
  for (const wanted of [CTRL, MQ]) {
    const { driver } = await open(wanted | net.VIRTIO_NET_F_CTRL_RX, { queuePairs: 2 });
    for (let i = 0; i < 15; i++) {
      driver.add(driver.controlQueue, [0, 0, i & 1], [1, 1], [1], i % 7 === 0);
    }
    driver.session.publish(driver.controlQueue);
    await turns(2);
    const used = driver.used[driver.controlQueue]!;
    assertEquals(used.length, 15);
    assert(used.every(({ bytes, used }) => bytes[0] === 0 && used === 1));
  }
});

Deno.test("a command without room for ack makes the device ask for a reset", async () => {
  for (const wanted of [CTRL, MQ]) {
    const { driver } = await open(wanted, { queuePairs: 2 });
    driver.add(driver.controlQueue, [0, 0, 1], [], []);
    await turns(1);
    assertEquals((driver.transport.errors[0] as VirtqueueError).clause, "5.1.9.5");
  }
});

Deno.test("without VIRTIO_NET_F_CTRL_VQ there is no control queue", async () => {
  const { driver } = await open(net.VIRTIO_NET_F_MAC, {}, { controlQueue: true });
  driver.add(2, [0, 0, 1], [], [1]);
  await turns(1);
  assertEquals((driver.transport.errors[0] as VirtqueueError).clause, "5.1.2");
});

Deno.test("an answer comes on the pair that the question was sent on (5.1.9.5.6)", async () => {
  const { backend, device, driver } = await open(MQ, { queuePairs: 3 });
  for (let pair = 0; pair < 3; pair++) driver.postMany(2 * pair, 16, 200);
  driver.send(udp(5000, true), {}, { queue: 5 });
  backend.give(udp(5000));
  await turns(1);
  // Multiqueue is off at first.
  assertEquals([driver.frames(0).length, driver.frames(4).length, device.pairs], [1, 0, 1]);
  assertEquals([...await driver.control(4, 0, [3, 0])], [0]);
  assertEquals(device.pairs, 3);
  for (let port = 6000; port < 6012; port++) {
    driver.send(udp(port, true), {}, { queue: 1 + 2 * (port % 3) });
  }
  await turns(1);
  for (let port = 6000; port < 6012; port++) backend.give(udp(port));
  await turns(1);
  for (let pair = 0; pair < 3; pair++) {
    const ports = driver.frames(2 * pair).map(({ bytes }) => bytes[34]! * 256 + bytes[35]!);
    assertEquals(ports, [0, 3, 6, 9].map((i) => 6000 + pair + i));
    assertEquals(device.stats.received[pair]!.frames, pair === 0 ? 5 : 4);
  }
});

Deno.test("frames that wait for pairs that the driver gives up are dropped, and no others come there", async () => {
  const { backend, device, driver } = await open(MQ, { queuePairs: 2 });
  await driver.control(4, 0, [2, 0]);
  for (let port = 1; port < 40; port++) backend.give(udp(port));
  const [first, second] = device.stats.received;
  assert(first!.waited > 5 && second!.waited > 5);
  assertEquals([...await driver.control(4, 0, [1, 0])], [0]);
  assertEquals([device.waiting, second!.abandoned], [first!.waited, second!.waited]);
  driver.postMany(2, 50, 200);
  driver.postMany(0, 60, 200);
  for (let port = 40; port < 50; port++) backend.give(udp(port));
  await turns(1);
  assertEquals([driver.frames(0).length, driver.frames(2).length], [first!.waited + 10, 0]);
});

Deno.test("hashes are reported in headers of 20 bytes, also for frames that waited", async () => {
  const { backend, driver } = await open(CTRL | net.VIRTIO_NET_F_HASH_REPORT);
  const key = pattern(40, 3);
  const types = [4, 0, 0, 0];
  assertEquals([...await driver.control(4, 2, [...types, 0, 0, 0, 0, 0, 0, 0, 0, 40, ...key])], [
    0,
  ]);
  driver.postMany(0, 1, 200);
  backend.give(udp(7));
  backend.give(udp(7));
  backend.give(plainFrame(60));
  await turns(1);
  driver.postMany(0, 2, 200);
  await turns(1);
  const [first, waited, none] = driver.frames();
  assertEquals([first!.header.hashReport, waited!.header.hashReport], [3, 3]);
  assert(first!.header.hashValue !== 0);
  assertEquals(waited!.header.hashValue, first!.header.hashValue);
  assertEquals([none!.header.hashReport, none!.header.hashValue], [0, 0]);
  assertEquals(first!.bytes, udp(7));
});

Deno.test("a receive queue that is being reset gets nothing; others do, or frames are dropped (5.1.9.5.6.2)", async () => {
  const { backend, device, driver } = await open(MQ, { queuePairs: 2 }, {
    core: VIRTIO_F_RING_RESET,
  });
  await driver.control(4, 0, [2, 0]);
  driver.postMany(0, 40, 200);
  driver.transport.state.resetQueue(2);
  for (let port = 0; port < 20; port++) backend.give(udp(port));
  await turns(1);
  assertEquals(driver.frames(0).length, 20);
  driver.transport.state.resetQueue(0);
  backend.give(udp(7));
  assertEquals([device.stats.unheard, device.waiting], [1, 0]);
});

Deno.test("frames wait while the device is suspended, and are there afterwards", async () => {
  const { backend, device, driver } = await open(0n, {}, { core: VIRTIO_F_SUSPEND });
  backend.give(plainFrame(60));
  await driver.session.suspend();
  backend.give(plainFrame(61));
  device.setLink(false);
  device.setLink(true);
  assertEquals(device.waiting, 2);
  await driver.session.resume();
  driver.postMany(0, 4, 100);
  await turns(1);
  assertEquals(driver.frames().map(({ bytes }) => bytes.length), [60, 61]);
});

Deno.test("a reset drops what waits, and what the driver set", async () => {
  const filtered = CTRL | net.VIRTIO_NET_F_CTRL_RX | net.VIRTIO_NET_F_MAC;
  const { backend, device, driver } = await open(filtered);
  await driver.control(0, 0, [1]);
  backend.give(plainFrame(60, 0, [2, 2, 2, 2, 2, 2]));
  assertEquals(device.waiting, 1);
  await driver.session.reset();
  assertEquals([device.waiting, device.stats.received[0]!.abandoned], [0, 1]);
  backend.give(plainFrame(60));
  assertEquals([device.waiting, device.stats.unheard], [0, 1]);
  const next = await RawNetDriver.open(device, { wanted: filtered });
  next.postMany(0, 4, 100);
  backend.give(plainFrame(60, 0, [2, 2, 2, 2, 2, 2]));
  backend.give(plainFrame(61));
  await turns(1);
  assertEquals(next.frames().map(({ bytes }) => bytes.length), [61]);
});

Deno.test("a saved device goes on elsewhere as the driver left it", async () => {
  const wanted = MQ | net.VIRTIO_NET_F_CTRL_RX | net.VIRTIO_NET_F_CTRL_MAC_ADDR |
    net.VIRTIO_NET_F_STATUS | net.VIRTIO_NET_F_GUEST_ANNOUNCE | net.VIRTIO_NET_F_MAC |
    net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
  const { device, driver } = await open(wanted, { queuePairs: 2 });
  const mac = [2, 0, 0, 0, 0, 8];
  await driver.control(1, 1, mac);
  await driver.control(4, 0, [2, 0]);
  await driver.control(5, 0, [0, 0, 0, 0, 0, 0, 0, 0]);
  device.announce();
  driver.postMany(0, 4, 100);
  await driver.transport.state.pause();
  const saved = structuredClone(driver.transport.state.save());
  const backend = new SpyBackend();
  const other = new NetDevice({ backend, mac: MAC, queuePairs: 2 });
  const transport = new LocalTransport(other, driver.memory);
  transport.state.restore(saved);
  assertEquals([...other.mac], mac);
  assertEquals([...other.config.bytes.subarray(0, 8)], [...mac, 3, 0]);
  assertEquals([other.pairs, other.offloads], [2, 0]);
  transport.state.unpause();
  backend.give(plainFrame(60, 0, mac));
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals([other.stats.framesReceived, other.stats.filtered], [1, 1]);
});

Deno.test("a malformed saved state is refused", async () => {
  const { device } = await open(0n);
  const good = device.save();
  for (
    const wrong of [
      null,
      7,
      {},
      { ...good, version: 2 },
      { ...good, mac: [1, 2, 3] },
      { ...good, mac: [256, 0, 0, 0, 0, 0] },
      { ...good, mac: [0.5, 0, 0, 0, 0, 0] },
      { ...good, mac: "020000" },
      { ...good, announce: 1 },
      { ...good, control: null },
      { ...good, control: { ...good.control, version: 0 } },
    ]
  ) assertThrows(() => device.restore(wrong), TypeError);
  device.restore(good);
});

Deno.test("a frame may come back while it is being sent", async () => {
  const { backend, driver } = await open(net.VIRTIO_NET_F_MRG_RXBUF);
  backend.onFrame = (frame) => backend.peer!.deliver(frame);
  driver.postMany(0, 60, 400);
  for (let i = 0; i < 10; i++) driver.send(plainFrame(1500, i), {}, { publish: i === 9 });
  await turns(1);
  assertEquals(
    driver.frames().map(({ bytes }) => bytes),
    Array.from({ length: 10 }, (_, i) => plainFrame(1500, i)),
  );
});

Deno.test("a driver that breaks its receive queue while a frame comes back loses its device only", async () => {
  const { backend, device, driver } = await open(net.VIRTIO_NET_F_MRG_RXBUF);
  backend.onFrame = (frame) => backend.peer!.deliver(frame);
  driver.post(0, [100]);
  driver.post(0, [3]);
  driver.send(plainFrame(1500), {}, { publish: false });
  driver.send(plainFrame(1500));
  await turns(1);
  assertEquals((driver.transport.errors[0] as VirtqueueError).clause, "5.1.9.3.1");
  assertEquals([device.waiting, driver.used[0], device.offloads], [0, [], 127]);
  backend.peer!.deliver(new Frame().fromBytes(plainFrame(60)));
});
