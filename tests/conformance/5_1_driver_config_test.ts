/** Virtio 1.4, 5.1.4.2 and 5.1.9.3.1: what a network driver makes of the configuration, and the buffers that it gives. */
import * as net from "@virtio/net";
import { NET_DRIVER_FEATURES } from "@virtio/net/driver";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { openRig, PuppetDevice } from "../../packages/net/driver/testing.ts";
import { plainFrame, turns } from "../../packages/net/testing.ts";

const { NetConfigOffset: at } = net;
const ALL = NET_DRIVER_FEATURES;
const TSO = net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_GUEST_TSO4;
const HASH = net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_HASH_REPORT;

Deno.test("5.1.4.2-G1: the driver never writes to the configuration", async () => {
  const device = new PuppetDevice(ALL, () => {}, { pairs: 2 });
  const { driver, transport } = await openRig(device, { queuePairs: 2 });
  const writes: string[] = [];
  const written = () => transport.log.filter((line) => /^config \d+ \d/.test(line));
  await driver.control.setMac(Uint8Array.of(2, 0, 0, 0, 0, 7));
  await driver.control.setQueuePairs(1);
  device.change((view) => view.setUint16(at.status, 0, true));
  await turns();
  await driver.close();
  assertEquals(written(), writes);
  assert(transport.log.some((line) => /^config \d+\?/.test(line)), "it read it");
});

Deno.test("5.1.4.2-G2 5.1.4.2-G3: the driver accepts VIRTIO_NET_F_MAC and takes the address", async () => {
  const device = new PuppetDevice(ALL, (view) => view.setUint8(5, 0x77));
  const { driver } = await openRig(device);
  assert(driver.session.has(net.VIRTIO_NET_F_MAC));
  assertEquals([...driver.mac], [2, 0, 0, 0, 0, 0x77]);
  await driver.close();
});

Deno.test("5.1.4.2-G4: without it the address is locally administered, of one station, and another each time", async () => {
  const macs = new Set<string>();
  for (let i = 0; i < 8; i++) {
    const { driver } = await openRig(new PuppetDevice(ALL & ~net.VIRTIO_NET_F_MAC));
    assertEquals(driver.mac[0]! & 3, 2);
    macs.add(String(driver.mac));
    await driver.close();
  }
  assertEquals(macs.size, 8);
});

Deno.test("5.1.4.2-G5: without VIRTIO_NET_F_STATUS the link is up; with it, the lowest bit of status says so", async () => {
  for (const status of [0, 1, 2, 3, 0xfffe]) {
    const setUp = (view: DataView) => view.setUint16(at.status, status, true);
    const blind = await openRig(new PuppetDevice(0n, setUp));
    assertEquals(blind.driver.linkUp, true);
    await blind.driver.close();
    const seeing = await openRig(new PuppetDevice(net.VIRTIO_NET_F_STATUS, setUp));
    assertEquals(seeing.driver.linkUp, (status & 1) === 1);
    await seeing.driver.close();
  }
  const { device, driver } = await openRig(new PuppetDevice(net.VIRTIO_NET_F_STATUS));
  device.change((view) => view.setUint16(at.status, 0, true));
  await turns();
  assertEquals(driver.linkUp, false);
  await driver.close();
});

Deno.test("5.1.4.2-G6 5.1.4.2-G8: the driver accepts VIRTIO_NET_F_MTU, and sends no longer packets", async () => {
  const device = new PuppetDevice(ALL, (view) => view.setUint16(at.mtu, 1280, true));
  const { driver } = await openRig(device);
  assert(driver.session.has(net.VIRTIO_NET_F_MTU));
  assertEquals(driver.info.mtu, 1280);
  assert(driver.sendBytes(plainFrame(1294)));
  assertThrows(() => driver.sendBytes(plainFrame(1295)), RangeError, "5.1.4.2");
  const frame = new net.Frame().fromBytes(plainFrame(1295));
  assertThrows(() => driver.send(frame), RangeError, "5.1.4.2");
  frame.gsoType = net.VIRTIO_NET_HDR_GSO_ECN;
  assertThrows(() => driver.send(frame), RangeError, "5.1.4.2");
  // The Ethernet header is longer by its tags, two at most.
  const tagged = plainFrame(1302);
  tagged.set([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2], 12);
  assert(driver.sendBytes(tagged));
  const longer = plainFrame(1303);
  longer.set(tagged.subarray(0, 20));
  assertThrows(() => driver.sendBytes(longer), RangeError);
  await turns();
  assertEquals(device.sent.map(({ bytes }) => bytes.length), [1294, 1302]);
  await driver.close();
});

Deno.test("5.1.4.2-G7: there are buffers for a packet of the MTU's size, in queues of any size", async () => {
  for (const merge of [net.VIRTIO_NET_F_MRG_RXBUF, 0n]) {
    for (const [mtu, size] of [[9000, 1], [9000, 2], [9000, 64], [65535, 4], [68, 64]] as const) {
      const features = merge | net.VIRTIO_NET_F_MTU;
      const device = new PuppetDevice(features, (view) => view.setUint16(at.mtu, mtu, true), {
        size,
      });
      const { driver, got } = await openRig(device);
      const frame = plainFrame(mtu + 14);
      assert(device.receive(frame, { numBuffers: buffersOf(driver, frame.length) }) > 0);
      await turns();
      assertEquals(got, [frame], `${merge} ${mtu} ${size}`);
      await driver.close();
    }
  }
});

function buffersOf(driver: { receiveQueues: readonly { bufferSize: number }[] }, length: number) {
  return Math.ceil((12 + length) / driver.receiveQueues[0]!.bufferSize);
}

Deno.test("5.1.4.2-G10: speeds and duplex modes that the standard does not know are unknown", async () => {
  const cases: [number, number, number | null, string | null][] = [
    [0, 0, 0, "half"],
    [1000, 1, 1000, "full"],
    [0x7fff_ffff, 1, 0x7fff_ffff, "full"],
    [0x8000_0000, 2, null, null],
    [0xffff_ffff, 0xff, null, null],
  ];
  for (const [speed, duplex, seenSpeed, seenDuplex] of cases) {
    const device = new PuppetDevice(net.VIRTIO_NET_F_SPEED_DUPLEX, (view) => {
      view.setUint32(at.speed, speed, true);
      view.setUint8(at.duplex, duplex);
    });
    const { driver } = await openRig(device);
    assertEquals([driver.info.speed, driver.info.duplex], [seenSpeed, seenDuplex]);
    await driver.close();
  }
});

Deno.test("5.1.4.2-G11: speed and duplex are read again when the configuration changes", async () => {
  const { device, driver } = await openRig(new PuppetDevice(net.VIRTIO_NET_F_SPEED_DUPLEX));
  let told = 0;
  driver.onChange = ({ speed }) => told = speed ?? -1;
  device.change((view) => {
    view.setUint32(at.speed, 2500, true);
    view.setUint8(at.duplex, 1);
  });
  await turns();
  assertEquals([driver.info.speed, driver.info.duplex, told], [2500, "full", 2500]);
  await driver.close();
});

Deno.test("5.1.4.2-G12 5.1.4.2-G13: neither HASH_REPORT nor CTRL_RX_EXTRA without CTRL_VQ", async () => {
  const { driver } = await openRig(new PuppetDevice(ALL & ~net.VIRTIO_NET_F_CTRL_VQ));
  assertEquals(driver.features & net.VIRTIO_NET_F_HASH_REPORT, 0n);
  assertEquals(driver.features & net.VIRTIO_NET_F_CTRL_RX_EXTRA, 0n);
  await driver.close();
  const { driver: other } = await openRig(new PuppetDevice(ALL));
  assert(other.session.has(net.VIRTIO_NET_F_HASH_REPORT | net.VIRTIO_NET_F_CTRL_RX_EXTRA));
  await other.close();
});

/** Bytes of the receive buffers. */
async function bufferSizes(features: bigint, options = {}): Promise<number[]> {
  const device = new PuppetDevice(features, () => {}, { size: 16 });
  const { driver } = await openRig(device, options);
  const sizes: number[] = [];
  for (let chain = device.takeBuffer(); chain !== null; chain = device.takeBuffer()) {
    sizes.push(chain.writable);
  }
  await driver.close();
  return sizes;
}

Deno.test("5.1.9.3.1-G1: with segmentation offloads and no merging, buffers hold 65601 bytes, 65609 with hash reports", async () => {
  const offloads = [
    net.VIRTIO_NET_F_GUEST_TSO4,
    net.VIRTIO_NET_F_GUEST_TSO6,
    net.VIRTIO_NET_F_GUEST_UFO,
    net.VIRTIO_NET_F_GUEST_USO4,
    net.VIRTIO_NET_F_GUEST_USO6,
  ];
  for (const offload of offloads) {
    const features = net.VIRTIO_NET_F_GUEST_CSUM | offload;
    const sizes = await bufferSizes(features);
    assert(sizes.length > 0 && sizes.every((size) => size >= 65601));
    assert((await bufferSizes(features | HASH)).every((size) => size >= 65609));
  }
});

Deno.test("5.1.9.3.1-G2: without them, buffers hold 1526 bytes, 1534 with hash reports", async () => {
  const sizes = await bufferSizes(net.VIRTIO_NET_F_GUEST_CSUM);
  assertEquals(sizes.length, 16);
  assert(sizes.every((size) => size >= 1526 && size < 4096));
  assert((await bufferSizes(HASH)).every((size) => size >= 1534));
});

Deno.test("5.1.9.3.1-G3: merged buffers hold a header at least", async () => {
  for (const receiveBufferSize of [64, 100, 4096]) {
    const features = net.VIRTIO_NET_F_MRG_RXBUF | TSO | HASH;
    const sizes = await bufferSizes(features, { receiveBufferSize });
    assert(sizes.length > 0 && sizes.every((size) => size >= 20));
  }
});

Deno.test("5.1.9.3.1-G4: the header has 20 bytes with hash reports and 12 without", async () => {
  for (const [features, headerSize] of [[0n, 12], [HASH, 20]] as const) {
    const { device, driver, got } = await openRig(new PuppetDevice(features));
    assertEquals(device.headerSize, headerSize);
    device.receive(plainFrame(60, 9));
    await turns();
    assertEquals(got, [plainFrame(60, 9)]);
    await driver.close();
  }
});

Deno.test("5.1.9.3.1-G5 5.1.9.5.6.1-G1: every queue pair is set up, and has its buffers, before it is enabled", async () => {
  const device = new PuppetDevice(ALL, () => {}, { pairs: 3, size: 16 });
  let checked = 0;
  device.answer = ({ kind }) => {
    if (kind !== 4) return [0];
    checked++;
    assertEquals(rigs.map((index) => device.takeBuffer(index) !== null), [true, true, true]);
    return [0];
  };
  const rigs = [0, 2, 4];
  const { driver, transport } = await openRig(device, { queuePairs: 3 });
  assertEquals(checked, 1);
  assertEquals([...transport.configs.keys()].sort(), [0, 1, 2, 3, 4, 5, 6]);
  await driver.close();
});
