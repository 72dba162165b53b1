/**
 * Our network driver against our network device: two of each on one switch, over every transport, with both ring formats, merged
 * buffers and whole ones, and sets of features that meet each other. One table, one life.
 */
import { CORE_FEATURES, type FeatureSet, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import * as net from "@virtio/net";
import { Frame, NetDevice } from "@virtio/net";
import { NET_DRIVER_FEATURES, NetDriver } from "@virtio/net/driver";
import { Switch } from "@virtio/net/switch";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { verifyChecksum } from "../packages/net/offload/checksum.ts";
import { FrameLayout } from "../packages/net/offload/parse.ts";
import { buildFrame, pattern } from "../packages/net/offload/testing.ts";
import { plainFrame } from "../packages/net/testing.ts";
import { FORMATS, type Join, TRANSPORTS } from "./lifecycle/transports.ts";

const POOL_SIZE = 0xc0_0000;
const COMMANDS = net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_CTRL_RX |
  net.VIRTIO_NET_F_CTRL_RX_EXTRA | net.VIRTIO_NET_F_CTRL_VLAN | net.VIRTIO_NET_F_CTRL_MAC_ADDR |
  net.VIRTIO_NET_F_STATUS | net.VIRTIO_NET_F_MAC | net.VIRTIO_NET_F_MQ |
  net.VIRTIO_NET_F_DEVICE_STATS;
const CHECKSUMS = net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_GUEST_CSUM;
const HOST_GSO = net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_HOST_TSO4 | net.VIRTIO_NET_F_HOST_TSO6 |
  net.VIRTIO_NET_F_HOST_ECN | net.VIRTIO_NET_F_HOST_UFO | net.VIRTIO_NET_F_HOST_USO;
const MAC = net.VIRTIO_NET_F_MAC;

/** What the two drivers accept. */
const SETS: readonly (readonly [name: string, one: FeatureSet, other: FeatureSet])[] = [
  ["everything", NET_DRIVER_FEATURES, NET_DRIVER_FEATURES],
  ["next to nothing", MAC, MAC],
  ["only one can segment", NET_DRIVER_FEATURES, MAC | COMMANDS],
  ["checksums", MAC | CHECKSUMS, MAC | CHECKSUMS],
  ["segments go out only", MAC | HOST_GSO, NET_DRIVER_FEATURES],
];

interface Side {
  readonly device: NetDevice;
  readonly driver: NetDriver;
  readonly dma: DmaPool;
  readonly errors: Error[];
  readonly counters: { readonly interrupts: number };
  /** Copies of what was received. */
  readonly got: Frame[];
}

async function open(
  join: Join,
  network: Switch,
  number: number,
  features: FeatureSet,
  core: FeatureSet,
  finished: boolean,
): Promise<Side> {
  const errors: Error[] = [];
  const onError = (error: Error) => void errors.push(error);
  const device = new NetDevice({
    backend: network.port(),
    mac: Uint8Array.of(2, 0, 0, 0, 0, number),
    queuePairs: 2,
    mtu: 9000,
    speed: 1000,
    duplex: "full",
    onError,
  });
  const memory = GuestMemory.allocate(POOL_SIZE + 0x1000);
  const { driver: transport, counters } = join(device, memory, onError);
  const dma = new DmaPool(memory, 0x1000, POOL_SIZE);
  const driver = await NetDriver.open(transport, {
    dma,
    core,
    features,
    finished,
    queuePairs: 2,
    queueSize: 64,
  });
  const got: Frame[] = [];
  driver.onFrame = (frame) => got.push(new Frame(frame.length).fromFrame(frame));
  return { device, driver, dma, errors, counters, got };
}

async function until(what: string, done: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !done(); i++) await new Promise((again) => setTimeout(again, 0));
  assert(done(), what);
}

function address(side: Side): number[] {
  return [...side.driver.mac];
}

/** Frames of all sizes, many at once. */
async function sizes(from: Side, to: Side): Promise<void> {
  to.got.length = 0;
  const frames = [14, 15, 60, 128, 1499, 1514, 4084, 4085, 8192, 9014]
    .flatMap((length) => [0, 1, 2, 3, 4, 5].map((seed) => plainFrame(length, seed, address(to))))
    // Without the MTU, the other's buffers are for the usual frames.
    .filter(({ length }) => length <= 1514 || to.driver.info.mtu !== null || merges(to));
  for (const bytes of frames) {
    bytes.set(address(from), 6);
    while (!from.driver.sendBytes(bytes)) await from.driver.ready();
  }
  await until(`${frames.length} frames`, () => to.got.length === frames.length);
  to.got.forEach((frame, i) => assertEquals(frame.bytes, frames[i]));
}

function merges(side: Side): boolean {
  return side.driver.session.has(net.VIRTIO_NET_F_MRG_RXBUF);
}

/** A big TCP packet over either IP, which somebody has to cut at some place or other, or nobody. */
async function segments(from: Side, to: Side, finished: boolean): Promise<void> {
  for (const ip of [4, 6] as const) {
    to.got.length = 0;
    const payload = pattern(30_000, ip);
    const bytes = buildFrame({
      ip,
      payload,
      checksum: "partial",
      to: address(to),
      from: address(from),
    });
    const start = ip === 4 ? 34 : 54;
    const frame = new Frame().fromBytes(bytes);
    frame.flags = net.VIRTIO_NET_HDR_F_NEEDS_CSUM;
    frame.gsoType = ip === 4 ? net.VIRTIO_NET_HDR_GSO_TCPV4 : net.VIRTIO_NET_HDR_GSO_TCPV6;
    frame.gsoSize = 1400;
    frame.csumStart = start;
    frame.csumOffset = 16;
    // Where the device cannot, `pass` does it before.
    net.pass(frame, {
      offloads: from.driver.offloads,
      deliver: (each) => assert(from.driver.send(each)),
    });
    const bytesSoFar = () => to.got.reduce((sum, { length }) => sum + length - start - 20, 0);
    await until("the payload", () => bytesSoFar() === payload.length);
    const whole = !finished && to.got.length === 1;
    const takes = to.driver.session.has(
      ip === 4 ? net.VIRTIO_NET_F_GUEST_TSO4 : net.VIRTIO_NET_F_GUEST_TSO6,
    );
    if (from.driver.offloads !== 0 && from.driver.session.has(net.VIRTIO_NET_F_HOST_TSO4)) {
      assertEquals(whole, takes && !finished, "it passes unsegmented where both can");
    }
    const back = new Uint8Array(payload.length);
    for (const each of to.got) {
      const sequence = each.view.getUint32(start + 4) - 1000;
      back.set(each.bytes.subarray(start + 20), sequence);
      if ((each.flags & net.VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
        assert(!finished && to.driver.session.has(net.VIRTIO_NET_F_GUEST_CSUM));
        continue;
      }
      const layout = new FrameLayout().parse(each.view, each.length);
      assert(verifyChecksum(each.view, layout), "a right checksum");
    }
    assertEquals(back, payload);
  }
}

/** What commands do is seen in what arrives. */
async function commands(from: Side, to: Side): Promise<void> {
  const { control } = to.driver;
  const arrives = async (bytes: Uint8Array): Promise<boolean> => {
    to.got.length = 0;
    bytes.set(address(from), 6);
    assert(from.driver.sendBytes(bytes));
    // This one always arrives.
    const last = plainFrame(77, 0, address(to));
    last.set(address(from), 6);
    assert(from.driver.sendBytes(last));
    await until("the last frame", () => to.got.some(({ length }) => length === 77));
    return to.got.length === 2;
  };
  const stranger = [2, 0, 0, 0, 0, 99];
  const group = [3, 0, 0, 0, 0, 99];
  assertEquals(await arrives(plainFrame(60, 1, stranger)), false);
  await control.setReceiveMode("promiscuous", true);
  assertEquals(await arrives(plainFrame(60, 1, stranger)), true);
  await control.setReceiveMode("promiscuous", false);
  assertEquals(await arrives(plainFrame(60, 1, stranger)), false);
  await control.setMacTable([Uint8Array.from(stranger)], [Uint8Array.from(group)]);
  assertEquals(await arrives(plainFrame(60, 1, stranger)), true);
  assertEquals(await arrives(plainFrame(60, 1, group)), true);
  await control.setMacTable([], []);
  assertEquals(await arrives(plainFrame(60, 1, group)), false);
  const own = to.driver.mac;
  await control.setMac(Uint8Array.from(stranger));
  assertEquals(address(to), stranger);
  assertEquals(to.driver.info.mac!, Uint8Array.from(stranger));
  await control.setMac(own);
  const tagged = buildFrame({ ip: 4, tags: [7], to: address(to) });
  assertEquals(await arrives(tagged.slice()), false);
  await control.addVlan(7);
  assertEquals(await arrives(tagged.slice()), true);
  await control.removeVlan(7);
  assertEquals(await arrives(tagged.slice()), false);
  await queues(from, to);
}

/** The other pair of queues. */
async function queues(from: Side, to: Side): Promise<void> {
  to.got.length = 0;
  const bytes = plainFrame(200, 1, address(to));
  bytes.set(address(from), 6);
  const pair = from.driver.control.transmitPairs - 1;
  assertEquals(pair, from.driver.session.has(net.VIRTIO_NET_F_MQ) ? 1 : 0);
  assert(from.driver.sendBytes(bytes, pair));
  await until("a frame through the last queue", () => to.got.length === 1);
  const [transmit] = await to.driver.control.statistics([2 * pair + 1]);
  assertEquals(transmit!.queue, 2 * pair + 1);
  const before = to.driver.receiveQueues.reduce((sum, { counters }) => sum + counters.frames, 0);
  const received = await to.driver.control.statistics();
  const told = received.reduce((sum, each) => sum + (each.counters["rx_packets"] ?? 0n), 0n);
  assertEquals(told, BigInt(before));
  await to.driver.control.setQueuePairs(1);
  assert(from.driver.sendBytes(bytes));
  await until("a frame in the first queue", () => to.got.length === 2);
  await to.driver.control.setQueuePairs(2);
  if (to.driver.session.has(net.VIRTIO_NET_F_RSS)) await scaling(from, to);
}

/** Frames of many flows are spread over the pairs, each with its hash. */
async function scaling(from: Side, to: Side): Promise<void> {
  const { driver } = to;
  const key = Uint8Array.from({ length: 40 }, (_, i) => i * 7 + 1);
  await driver.control.setRss({ table: [0, 1], types: driver.info.hashTypes, key });
  const hashes = new Map<number, number>();
  let frames = 0;
  const { onFrame } = driver;
  driver.onFrame = (frame, queue) => {
    frames++;
    if (!driver.session.has(net.VIRTIO_NET_F_HASH_REPORT)) return;
    assertEquals(queue.hashReport, 3, "UDP over IPv4");
    // The last bit of the hash chose the queue.
    assertEquals(queue.hashValue & 1, queue.index >> 1);
    const port = frame.view.getUint16(34);
    assertEquals(hashes.get(port) ?? queue.hashValue, queue.hashValue);
    hashes.set(port, queue.hashValue);
  };
  const before = driver.receiveQueues.map(({ counters }) => counters.frames);
  const flows = { ip: 4, transport: "udp", to: address(to), from: address(from) } as const;
  for (let sent = 0; sent < 40; sent++) {
    const bytes = buildFrame({ ...flows, sourcePort: 1000 + sent % 20 });
    while (!from.driver.sendBytes(bytes)) await from.driver.ready();
  }
  await until("40 frames", () => frames === 40);
  driver.receiveQueues.forEach(({ counters }, pair) => assert(counters.frames > before[pair]!));
  driver.onFrame = onFrame;
  await driver.control.setQueuePairs(2);
}

/** The cable is pulled and plugged in again. */
async function link(side: Side): Promise<void> {
  const seen: boolean[] = [];
  side.driver.onLinkChange = (up) => seen.push(up);
  side.device.setLink(false);
  await until("the link is down", () => !side.driver.linkUp);
  side.device.setLink(true);
  await until("the link is up", () => side.driver.linkUp);
  assertEquals(seen, [false, true]);
}

for (const [transport, join] of TRANSPORTS) {
  for (const [format, packed] of FORMATS) {
    for (const merge of [net.VIRTIO_NET_F_MRG_RXBUF, 0n]) {
      SETS.forEach(([name, ...accepted], index) => {
        // Every other one without ring features, and with finished frames.
        const core = (index & 1) === 0 ? (CORE_FEATURES & ~VIRTIO_F_RING_PACKED) | packed : packed;
        const finished = (index & 2) !== 0;
        const merged = merge === 0n ? "whole buffers" : "merged buffers";
        Deno.test(`net: ${transport}; ${format}; ${merged}; ${name}`, async () => {
          const network = new Switch();
          const sides: Side[] = [];
          for (let i = 0; i < 2; i++) {
            const features = (accepted[i]! & ~net.VIRTIO_NET_F_MRG_RXBUF) | merge;
            sides.push(await open(join, network, i + 1, features, core, finished));
          }
          const [one, other] = sides as [Side, Side];
          for (const [from, to] of [[one, other], [other, one]] as const) {
            await sizes(from, to);
            await segments(from, to, finished);
            if (to.driver.session.has(COMMANDS)) await commands(from, to);
            if (to.driver.session.has(net.VIRTIO_NET_F_STATUS)) await link(to);
          }
          for (const { driver, dma, errors, counters } of sides) {
            assertEquals(driver.broken, null);
            assertEquals(
              driver.receiveQueues.map(({ counters }) => counters.dropped),
              driver.receiveQueues.map(() => 0),
            );
            assert(counters.interrupts > 0);
            await driver.close();
            assertEquals(dma.available, POOL_SIZE);
            assertEquals(errors, []);
          }
        });
      });
    }
  }
}
