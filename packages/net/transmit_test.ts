import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { VirtqueueError } from "@virtio/vring";
import {
  MAX_FRAME_SIZE,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "./constants.ts";
import { NetDevice } from "./device.ts";
import type { NetDeviceOptions } from "./options.ts";
import { verifyChecksum } from "./offload/checksum.ts";
import { FrameLayout } from "./offload/parse.ts";
import { buildFrame, pattern } from "./offload/testing.ts";
import { concat, headerBytes, plainFrame, RawNetDriver, SpyBackend, turns } from "./testing.ts";

async function open(
  wanted: bigint,
  options: Partial<NetDeviceOptions> = {},
): Promise<{ backend: SpyBackend; device: NetDevice; driver: RawNetDriver; dropped: Error[] }> {
  const backend = new SpyBackend();
  const dropped: Error[] = [];
  const device = new NetDevice({ backend, onError: (error) => dropped.push(error), ...options });
  return { backend, device, driver: await RawNetDriver.open(device, { wanted }), dropped };
}

const TSO = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4;

function tcp(size: number): Uint8Array {
  return buildFrame({ ip: 4, payload: pattern(size), checksum: "partial" });
}

Deno.test("a frame is the same however the driver cuts it, with either size of header", async () => {
  const hashed = VIRTIO_NET_F_HASH_REPORT | VIRTIO_NET_F_CTRL_VQ;
  const plain = await open(0n);
  const withHash = await open(hashed);
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 14, max: 700 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 20 }),
      fc.boolean(),
      async (length, cuts, hash) => {
        const { driver, backend } = hash ? withHash : plain;
        assertEquals(driver.headerSize, hash ? 20 : 12);
        backend.sent.length = 0;
        const frame = plainFrame(length, cuts.length);
        driver.send(frame, { numBuffers: 7 }, { cuts });
        await turns(1);
        assertEquals(backend.bytes, [frame]);
        assertEquals(backend.sent[0]!.needs, 0);
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("a buffer without room for a header makes the device ask for a reset", async () => {
  for (const length of [1, 11]) {
    const { driver, backend } = await open(0n);
    driver.add(1, new Uint8Array(length), [], []);
    await turns(1);
    const [error] = driver.transport.errors as VirtqueueError[];
    assertEquals(error!.clause, "5.1.9.2");
    assertEquals(backend.sent.length, 0);
  }
});

Deno.test("without a header of 20 bytes nothing is sent where hashes were negotiated", async () => {
  const { driver } = await open(VIRTIO_NET_F_HASH_REPORT | VIRTIO_NET_F_CTRL_VQ);
  driver.add(1, new Uint8Array(19), [], []);
  await turns(1);
  assertEquals((driver.transport.errors[0] as VirtqueueError).clause, "5.1.9.2");
});

Deno.test("what is no frame is dropped, counted and used, and the next one is sent", async () => {
  const { driver, backend, device, dropped } = await open(0n);
  driver.send(new Uint8Array(0));
  driver.send(new Uint8Array(13));
  driver.send(new Uint8Array(MAX_FRAME_SIZE + 1));
  const longest = plainFrame(MAX_FRAME_SIZE);
  driver.send(longest);
  driver.send(plainFrame(14));
  await turns(1);
  assertEquals(device.stats.sent[0]!.malformed, 3);
  assertEquals(device.stats.dropped, 3);
  assertEquals(backend.sent.map(({ length }) => length), [MAX_FRAME_SIZE, 14]);
  assertEquals(backend.bytes[0], longest);
  assertEquals(driver.used[1]!.map(({ used }) => used), [0, 0, 0, 0, 0]);
  assertEquals(dropped.length, 3);
  assertStringIncludes(dropped[1]!.message, "13 bytes");
  assertEquals(driver.transport.errors, []);
});

Deno.test("flags that mean nothing, and fields that do not count, are ignored", async () => {
  const { driver, backend } = await open(TSO);
  const frame = plainFrame(60);
  driver.send(frame, { flags: 0x74, hdrLen: 9999, gsoSize: 1, csumStart: 9999, csumOffset: 9999 });
  // VIRTIO_NET_HDR_F_DATA_VALID is not the driver's to set; ECN asks for nothing without a type.
  driver.send(frame, { flags: 2, gsoType: VIRTIO_NET_HDR_GSO_ECN });
  await turns(1);
  assertEquals(backend.bytes, [frame, frame]);
  for (const { flags, gsoType, headerLength, gsoSize, csumStart, csumOffset } of backend.sent) {
    assertEquals([flags, gsoType, headerLength, gsoSize, csumStart, csumOffset], [
      0,
      0,
      0,
      0,
      0,
      0,
    ]);
  }
});

Deno.test("a header that does not fit its frame, or was not negotiated, costs the frame", async () => {
  const { driver, backend, device, dropped } = await open(VIRTIO_NET_F_CSUM);
  const frame = tcp(100);
  driver.send(frame, { flags: 1, csumStart: 34, csumOffset: 200 });
  driver.send(frame, { flags: 1, csumStart: 0xffff, csumOffset: 0xffff });
  driver.send(frame, { flags: 1, csumStart: 0, csumOffset: 0 });
  driver.send(frame, { flags: 1, gsoType: 1, gsoSize: 50, csumStart: 34, csumOffset: 16 });
  driver.send(frame, { flags: 8 });
  driver.send(frame, { gsoType: 0x20 });
  await turns(1);
  assertEquals(backend.sent.length, 0);
  assertEquals(device.stats.sent[0]!.malformed, 6);
  assertEquals(dropped.map((error) => (error as VirtqueueError).clause), Array(6).fill("5.1.9.2"));
  driver.send(frame, { flags: 1, csumStart: 34, csumOffset: 16 });
  await turns(1);
  assertEquals(backend.bytes, [frame]);
  assertEquals(backend.sent[0]!.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
  assertEquals(driver.transport.errors, []);
});

Deno.test("a frame goes to the back end as it is if that can take it, finished if not", async () => {
  const { driver, backend, device } = await open(TSO);
  const frame = tcp(3000);
  const header = {
    flags: 1,
    gsoType: VIRTIO_NET_HDR_GSO_TCPV4,
    gsoSize: 1000,
    csumStart: 34,
    csumOffset: 16,
  };
  driver.send(frame, header);
  await turns(1);
  assertEquals(backend.bytes, [frame]);
  assertEquals(backend.sent[0]!.gsoSize, 1000);
  const stats = device.stats.sent[0]!;
  assertEquals([stats.frames, stats.gsoFrames, stats.gsoBytes, stats.finished], [1, 1, 3054, 0]);
  assertEquals([stats.counters.gsoSegments, stats.counters.gsoPacketsNoseg], [0, 1]);
  backend.sent.length = 0;
  backend.offloads = 0;
  driver.send(frame, header);
  await turns(1);
  assertEquals(backend.sent.map(({ length }) => length), [1054, 1054, 1054]);
  for (const { view, length, needs } of backend.sent) {
    assertEquals(needs, 0);
    assert(verifyChecksum(view, new FrameLayout().parse(view, length)));
  }
  assertEquals([stats.frames, stats.finished, stats.segments.frames], [2, 1, 3]);
  const { counters } = stats;
  assertEquals([counters.packets, counters.bytes], [4, 3054 + 3 * 1054]);
  assertEquals([counters.gsoSegments, counters.gsoSegmentsBytes], [3, 3 * 1054]);
  assertEquals([counters.gsoPacketsNoseg, counters.gsoBytesNoseg], [1, 3054]);
});

Deno.test("a frame longer than the MTU allows is dropped, one that is to be segmented is not", async () => {
  const { driver, backend, device, dropped } = await open(TSO | VIRTIO_NET_F_MTU, { mtu: 1500 });
  driver.send(plainFrame(1514));
  driver.send(plainFrame(1515));
  const tagged = plainFrame(1522);
  tagged.set([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2], 12);
  driver.send(tagged);
  driver.send(concat(tagged, new Uint8Array(1)));
  const header = { flags: 1, gsoType: 1, gsoSize: 1000, csumStart: 34, csumOffset: 16 };
  driver.send(tcp(3000), header);
  await turns(1);
  assertEquals(backend.sent.map(({ length }) => length), [1514, 1522, 3054]);
  assertEquals(device.stats.sent[0]!.tooLong, 2);
  assertEquals(dropped.map((error) => (error as VirtqueueError).clause), ["5.1.4.2", "5.1.4.2"]);
});

Deno.test("without VIRTIO_NET_F_MTU negotiated the driver does not know, and may send what it likes", async () => {
  const { driver, backend } = await open(VIRTIO_NET_F_MAC, { mtu: 1500 });
  driver.send(plainFrame(9014));
  await turns(1);
  assertEquals(backend.sent.map(({ length }) => length), [9014]);
});

Deno.test("while the link is down nothing is sent", async () => {
  const { driver, backend, device } = await open(0n);
  device.setLink(false);
  driver.send(plainFrame(60));
  await turns(1);
  assertEquals(device.stats.sent[0]!.linkDown, 1);
  device.setLink(true);
  backend.linkUp = false;
  driver.send(plainFrame(60));
  await turns(1);
  assertEquals(device.stats.sent[0]!.linkDown, 2);
  assertEquals(backend.sent.length, 0);
  backend.linkUp = true;
  driver.send(plainFrame(60));
  await turns(1);
  assertEquals(backend.sent.length, 1);
});

Deno.test("a transmit queue that was not negotiated is not used", async () => {
  const device = new NetDevice({ backend: new SpyBackend(), queuePairs: 2 });
  const driver = await RawNetDriver.open(device, { wanted: 0n });
  driver.transport.state.device.notify(3);
  assertEquals(driver.transport.errors, []);
  const withoutMq = await RawNetDriver.open(
    new NetDevice({ backend: new SpyBackend(), queuePairs: 2 }),
    { wanted: VIRTIO_NET_F_MAC, pairs: 2 },
  );
  withoutMq.send(plainFrame(60), {}, { queue: 3 });
  await turns(1);
  assertEquals((withoutMq.transport.errors[0] as VirtqueueError).clause, "5.1.2");
});

Deno.test("buffers that the device could write to are left alone, and count for nothing", async () => {
  const { driver, backend } = await open(0n);
  const frame = plainFrame(100);
  driver.add(1, concat(headerBytes(), frame), [5, 20], [64, 64]);
  await turns(1);
  assertEquals(backend.bytes, [frame]);
  const [buffer] = driver.used[1]!;
  assertEquals(buffer!.used, 0);
  assert(buffer!.bytes.every((byte) => byte === 0xee));
});
