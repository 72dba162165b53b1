import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import type { VirtqueueError } from "@virtio/vring";
import { BufferList } from "@virtio/vring/driver";
import {
  MAX_FRAME_SIZE,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "./constants.ts";
import { NetDevice } from "./device.ts";
import { Frame } from "./frame.ts";
import type { NetDeviceOptions } from "./options.ts";
import { verifyChecksum } from "./offload/checksum.ts";
import { FrameLayout } from "./offload/parse.ts";
import { buildFrame, pattern } from "./offload/testing.ts";
import {
  plainFrame,
  RawNetDriver,
  type RawNetOptions,
  SpyBackend,
  turns,
  UNTOUCHED,
} from "./testing.ts";

const MRG = VIRTIO_NET_F_MRG_RXBUF;

async function open(
  wanted: bigint,
  options: Partial<NetDeviceOptions> = {},
  raw: RawNetOptions = {},
): Promise<{ backend: SpyBackend; device: NetDevice; driver: RawNetDriver }> {
  const backend = new SpyBackend();
  const device = new NetDevice({ backend, ...options });
  return { backend, device, driver: await RawNetDriver.open(device, { wanted, ...raw }) };
}

const RINGS: readonly (readonly [name: string, core: bigint])[] = [
  ["split", 0n],
  ["split with event index", VIRTIO_F_EVENT_IDX],
  ["packed", VIRTIO_F_RING_PACKED],
  ["packed in order", VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER],
];

for (const [name, core] of RINGS) {
  Deno.test(`${name}: a frame is the same whatever buffers it goes into`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 14, max: 3000 }),
        fc.array(fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 4 }), {
          minLength: 1,
          maxLength: 20,
        }),
        async (length, shapes) => {
          // Every buffer has room for a header (5.1.9.3.1).
          const buffers = shapes.map((sizes) => [...sizes, 12]);
          const { backend, driver } = await open(MRG, {}, { core });
          const frame = plainFrame(length);
          backend.give(frame);
          for (const sizes of buffers) driver.post(0, sizes, false);
          driver.session.publish(0);
          await turns(1);
          const room = buffers.flat().reduce((sum, size) => sum + size, 0);
          const used = driver.used[0]!;
          if (room < length + 12) {
            assertEquals(used.length, 0);
            return;
          }
          const filled = used.slice(0, -1);
          // All but the last are filled, the last as far as the frame goes (5.1.9.4.1).
          assert(filled.every(({ used, bytes }) => used === bytes.length));
          assertEquals(used.reduce((sum, { used }) => sum + used, 0), length + 12);
          const count = used.length;
          const [got] = driver.frames();
          assertEquals(got!.header.numBuffers, count);
          assertEquals(got!.bytes, frame);
          assertEquals(driver.transport.errors, []);
        },
      ),
      { numRuns: 40 },
    );
  });
}

Deno.test("without VIRTIO_NET_F_MRG_RXBUF a frame goes into one buffer, or nowhere", async () => {
  const { backend, device, driver } = await open(0n);
  driver.post(0, [5, 3, 92]);
  driver.post(0, [12, 88]);
  backend.give(plainFrame(89));
  await turns(1);
  assertEquals(driver.used[0], []);
  assertEquals(device.stats.received[0]!.tooLong, 1);
  backend.give(plainFrame(88));
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals(driver.used[0]!.map(({ used }) => used), [100, 72]);
  const [first, second] = driver.frames();
  assertEquals([first!.header.numBuffers, second!.header.numBuffers], [1, 1]);
  assertEquals([first!.bytes, second!.bytes], [plainFrame(88), plainFrame(60)]);
});

Deno.test("what a frame does not need of its last buffer is not touched", async () => {
  const { backend, driver } = await open(MRG);
  driver.post(0, [40]);
  driver.post(0, [100]);
  backend.give(plainFrame(60));
  await turns(1);
  const last = driver.used[0]![1]!;
  assertEquals(last.used, 32);
  assert(last.bytes.subarray(32).every((byte) => byte === UNTOUCHED));
});

Deno.test("if buffers are missing nothing is written, and all are there for the next try", async () => {
  const { backend, device, driver } = await open(MRG);
  driver.postMany(0, 2, 100);
  const frame = plainFrame(300);
  backend.give(frame);
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals(driver.used[0], []);
  assertEquals(device.waiting, 2);
  assertEquals(device.queueCounters[0]!.chains, 0);
  driver.postMany(0, 4, 100);
  await turns(1);
  const got = driver.frames();
  assertEquals(got.map(({ bytes }) => bytes), [frame, plainFrame(60)]);
  assertEquals(got.map(({ header }) => header.numBuffers), [4, 1]);
  assertEquals([device.waiting, device.stats.received[0]!.waited], [0, 2]);
  assertEquals(device.queueCounters[0]!.chains, 5);
});

Deno.test("a buffer without room for a header makes the device ask for a reset", async () => {
  for (const wanted of [0n, MRG]) {
    for (const shape of [[11], [4, 7], []]) {
      const { backend, device, driver } = await open(wanted);
      driver.add(0, shape.length === 0 ? [1] : [], [], shape);
      backend.give(plainFrame(60));
      await turns(1);
      assertEquals((driver.transport.errors[0] as VirtqueueError).clause, "5.1.9.3.1");
      assertEquals([driver.used[0], device.waiting], [[], 0]);
    }
  }
});

Deno.test("a later buffer without room for a header, too", async () => {
  const { backend, driver } = await open(MRG);
  driver.post(0, [50]);
  driver.post(0, [11]);
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals((driver.transport.errors[0] as VirtqueueError).clause, "5.1.9.3.1");
  assertEquals(driver.used[0], []);
});

Deno.test("bytes of a receive buffer that the device could read are left alone", async () => {
  const { backend, driver } = await open(0n);
  driver.add(0, pattern(100), [], [100]);
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals(driver.frames()[0]!.bytes, plainFrame(60));
});

Deno.test("frames wait for buffers in their order, and go when the driver kicks", async () => {
  const { backend, device, driver } = await open(0n);
  for (let i = 0; i < 10; i++) backend.give(plainFrame(60 + i, i));
  await turns(1);
  assertEquals([device.waiting, driver.used[0]], [10, []]);
  driver.postMany(0, 4, 200);
  await turns(1);
  assertEquals(driver.frames().map(({ bytes }) => bytes.length), [60, 61, 62, 63]);
  // One that comes now is the last.
  backend.give(plainFrame(100));
  driver.postMany(0, 20, 200);
  await turns(1);
  assertEquals(driver.frames().map(({ bytes }) => bytes.length), [64, 65, 66, 67, 68, 69, 100]);
});

Deno.test("what is beyond the bound is dropped and counted: frames, then bytes", async () => {
  for (const waiting of [{ frames: 3 }, { bytes: 3 * (60 + 16) + 75 }]) {
    const { backend, device, driver } = await open(0n, { waiting });
    for (let i = 0; i < 5; i++) backend.give(plainFrame(60, i));
    const stats = device.stats.received[0]!;
    assertEquals([stats.waited, stats.overruns, device.waiting], [3, 2, 3]);
    driver.postMany(0, 8, 100);
    await turns(1);
    assertEquals(
      driver.frames().map(({ bytes }) => bytes[20]),
      [0, 1, 2].map((i) => plainFrame(60, i)[20]),
    );
  }
});

Deno.test("nothing waits where nothing may", async () => {
  const { backend, device, driver } = await open(0n, { waiting: { frames: 0 } });
  backend.give(plainFrame(60));
  driver.postMany(0, 1, 100);
  backend.give(plainFrame(61));
  await turns(1);
  assertEquals(driver.frames().map(({ bytes }) => bytes.length), [61]);
  assertEquals(device.stats.received[0]!.overruns, 1);
});

Deno.test("a frame that all buffers of a full queue cannot hold is dropped; the next one gets through", async () => {
  const { backend, device, driver } = await open(MRG, {}, { queueSize: 8 });
  driver.postMany(0, 8, 100);
  backend.give(plainFrame(800));
  backend.give(plainFrame(788));
  await turns(1);
  assertEquals(device.stats.received[0]!.tooLong, 1);
  assertEquals(driver.frames().map(({ bytes }) => bytes.length), [788]);
});

Deno.test("a frame that is too long for all that the driver ever gives does not hold up the others for ever", async () => {
  const { backend, device, driver } = await open(MRG, { waiting: { frames: 4 } });
  driver.postMany(0, 3, 100);
  backend.give(plainFrame(1000));
  for (let i = 0; i < 3; i++) backend.give(plainFrame(60, i));
  await turns(1);
  assertEquals([driver.used[0]!.length, device.waiting], [0, 4]);
  backend.give(plainFrame(60, 3));
  await turns(1);
  assertEquals(
    driver.frames().map(({ bytes }) => bytes[30]),
    [0, 1, 2].map((i) => plainFrame(60, i)[30]),
  );
  assertEquals([device.waiting, device.stats.received[0]!.overruns], [1, 1]);
});

Deno.test("a burst in one turn is published once, with one interrupt", async () => {
  for (const [, core] of RINGS) {
    const { backend, driver, device } = await open(MRG, {}, { core });
    driver.postMany(0, 32, 100);
    const before = driver.transport.queueInterrupts;
    for (let i = 0; i < 8; i++) backend.give(plainFrame(150, i));
    await turns(1);
    assertEquals(driver.frames().length, 8);
    assertEquals(driver.transport.queueInterrupts - before, 1);
    assertEquals(device.queueCounters[0]!.interrupts, 1);
  }
});

Deno.test("the longest frame goes through buffers of a page", async () => {
  const { backend, driver } = await open(MRG | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4);
  driver.postMany(0, 20, 4096);
  const frame = plainFrame(MAX_FRAME_SIZE);
  backend.give(frame);
  await turns(1);
  const [got] = driver.frames();
  assertEquals(got!.bytes, frame);
  assertEquals(got!.header.numBuffers, 17);
});

Deno.test("a frame that needs what the driver did not negotiate is finished for it", async () => {
  const frame = buildFrame({ ip: 4, payload: pattern(3000), checksum: "partial" });
  frame.set([2, 0, 0, 0, 0, 1]);
  const header = { flags: 1, gsoType: 1, gsoSize: 1000, hdrLen: 54, csumStart: 34, csumOffset: 16 };
  const TSO = VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4;
  for (const wanted of [0n, VIRTIO_NET_F_GUEST_CSUM, TSO]) {
    const { backend, driver, device } = await open(wanted);
    driver.postMany(0, 8, 4000);
    backend.give(frame, header);
    await turns(1);
    const got = driver.frames();
    const stats = device.stats.received[0]!;
    if (wanted === TSO) {
      assertEquals(got.length, 1);
      const { flags, gsoType, gsoSize, hdrLen, csumStart, csumOffset } = got[0]!.header;
      assertEquals([flags, gsoType, gsoSize], [1, VIRTIO_NET_HDR_GSO_TCPV4, 1000]);
      assertEquals([hdrLen, csumStart, csumOffset], [54, 34, 16]);
      assertEquals(got[0]!.bytes, frame);
      assertEquals([stats.gsoFrames, stats.needsChecksum], [1, 1]);
      assertEquals(device.stats.finished, 0);
      continue;
    }
    assertEquals(got.map(({ bytes }) => bytes.length), [1054, 1054, 1054]);
    assertEquals(device.stats.finished, 1);
    for (const { bytes, header } of got) {
      assertEquals(header.gsoType, 0);
      const layout = new FrameLayout().parse(new DataView(bytes.buffer), bytes.length);
      assertEquals(header.flags, wanted === 0n ? 0 : VIRTIO_NET_HDR_F_NEEDS_CSUM);
      assertEquals(verifyChecksum(new DataView(bytes.buffer), layout), wanted === 0n);
    }
  }
});

Deno.test("that a checksum was found right is said only to a driver that negotiated checksums", async () => {
  for (const wanted of [0n, VIRTIO_NET_F_GUEST_CSUM]) {
    const { backend, driver, device } = await open(wanted);
    driver.postMany(0, 1, 100);
    backend.give(plainFrame(60), { flags: VIRTIO_NET_HDR_F_DATA_VALID });
    await turns(1);
    assertEquals(driver.frames()[0]!.header.flags, wanted === 0n ? 0 : 2);
    assertEquals(device.stats.received[0]!.valid, wanted === 0n ? 0 : 1);
  }
});

Deno.test("a frame that waits is cut if the driver switches the offload off meanwhile", async () => {
  const { backend, driver, device } = await open(
    VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_CTRL_VQ |
      VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  );
  const frame = buildFrame({ ip: 4, payload: pattern(3000), checksum: "partial" });
  const header = { flags: 1, gsoType: 1, gsoSize: 1000, hdrLen: 54, csumStart: 34, csumOffset: 16 };
  backend.give(frame, header);
  assertEquals(device.waiting, 1);
  assertEquals([...await driver.control(5, 0, [0, 0, 0, 0, 0, 0, 0, 0])], [0]);
  assertEquals(device.offloads, 0);
  driver.postMany(0, 2, 4000);
  await turns(1);
  const got = driver.frames();
  assertEquals(got.map(({ bytes, header }) => [bytes.length, header.flags]), [[1054, 0], [
    1054,
    0,
  ]]);
  // The third segment found no buffer.
  assertEquals([device.waiting, device.stats.received[0]!.overruns], [0, 1]);
});

Deno.test("a frame longer than the MTU is not passed on once that was negotiated", async () => {
  const tagged = plainFrame(1518);
  tagged.set([0x81, 0], 12);
  for (const wanted of [VIRTIO_NET_F_MTU, 0n]) {
    const { backend, device, driver } = await open(wanted, { mtu: 1500 });
    driver.postMany(0, 4, 4000);
    backend.give(plainFrame(1514));
    backend.give(plainFrame(1515));
    backend.give(tagged);
    await turns(1);
    const lengths = driver.frames().map(({ bytes }) => bytes.length);
    assertEquals(lengths, wanted === 0n ? [1514, 1515, 1518] : [1514, 1518]);
    assertEquals(device.stats.received[0]!.tooLong, wanted === 0n ? 0 : 1);
  }
});

Deno.test("a frame that its back end describes wrongly is dropped", async () => {
  const { backend, device, driver } = await open(0n);
  driver.postMany(0, 2, 4000);
  backend.give(plainFrame(100), { flags: 1, csumStart: 5000, csumOffset: 5000 });
  backend.give(plainFrame(100), { flags: 1, gsoType: 1, gsoSize: 0 });
  await turns(1);
  assertEquals([driver.used[0], device.stats.malformed], [[], 2]);
});

Deno.test("without a driver, and while the link is down, nothing is taken", async () => {
  const backend = new SpyBackend();
  const device = new NetDevice({ backend });
  backend.give(plainFrame(60));
  assertEquals(device.stats.unheard, 1);
  const driver = await RawNetDriver.open(device, { wanted: 0n });
  driver.postMany(0, 2, 100);
  device.setLink(false);
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals([driver.used[0], device.stats.unheard, device.waiting], [[], 2, 0]);
});

Deno.test("a frame that is kept goes to as many devices as it is given to", async () => {
  const got = [];
  const frame = new Frame().fromBytes(plainFrame(700));
  for (let i = 0; i < 3; i++) {
    const { backend, driver } = await open(MRG);
    driver.postMany(0, 4, 300);
    backend.peer!.deliver(frame);
    await turns(1);
    got.push(driver.frames()[0]!.bytes);
  }
  assertEquals(got, [plainFrame(700), plainFrame(700), plainFrame(700)]);
});

Deno.test("a frame does not wait for a driver whose ring it found to be broken", async () => {
  const { backend, device, driver } = await open(MRG);
  driver.queue(0).add(new BufferList().writable(2 ** 40, 100), 999);
  driver.session.publish(0);
  backend.give(plainFrame(60));
  await turns(1);
  assertEquals([driver.transport.errors.length, device.waiting], [1, 0]);
});

Deno.test("frames that come while too few buffers are there cost no look at all of them", async () => {
  const { backend, device, driver } = await open(MRG);
  driver.postMany(0, 30, 100);
  backend.give(plainFrame(4000));
  const before = device.stats.received[0]!.waited;
  const takes: number[] = [];
  const queue = device as unknown as { take(queue: number): unknown };
  const take = queue.take;
  queue.take = function (index: number) {
    takes.push(index);
    return take.call(this, index);
  };
  for (let i = 0; i < 50; i++) backend.give(plainFrame(60, i));
  assertEquals([device.stats.received[0]!.waited - before, takes.length], [50, 0]);
  driver.postMany(0, 30, 200);
  await turns(1);
  assertEquals(driver.frames().map(({ bytes }) => bytes.length).slice(0, 3), [4000, 60, 60]);
});
