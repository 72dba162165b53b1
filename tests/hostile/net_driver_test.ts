/** A network device that lies to our driver: it costs the driver its device at most, and never the host. */
import { VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import * as net from "@virtio/net";
import { NET_DRIVER_FEATURES, NetControlError } from "@virtio/net/driver";
import { VirtqueueError } from "@virtio/vring";
import { assert, assertEquals, AssertionError, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  type DriverRig,
  openRig,
  PuppetDevice,
  RIG_MEMORY,
} from "../../packages/net/driver/testing.ts";
import { plainFrame, turns } from "../../packages/net/testing.ts";

const ALL = NET_DRIVER_FEATURES;
const MERGE = net.VIRTIO_NET_F_MRG_RXBUF;
const STATS = net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_DEVICE_STATS;

type Rig = DriverRig<PuppetDevice>;

/** Writes used entries by hand, and interrupts. */
function forge(
  rig: Rig,
  queue: number,
  entries: readonly (readonly [id: number, length: number])[],
  ahead = entries.length,
): void {
  const { deviceArea, size } = rig.transport.configs.get(queue)!;
  const { memory } = rig;
  const index = memory.readU16(deviceArea + 2);
  entries.forEach(([id, length], i) => {
    const at = deviceArea + 4 + 8 * ((index + i) % size);
    memory.writeU32(at, id);
    memory.writeU32(at + 4, length);
  });
  memory.writeU16(deviceArea + 2, (index + ahead) & 0xffff);
  rig.transport.interrupts!.queue(queue);
}

/** The driver has given the device up, and everything can go on. */
async function isBroken(rig: Rig, clause: string): Promise<void> {
  const { driver, dma } = rig;
  if (!(driver.broken instanceof VirtqueueError)) throw new AssertionError(`${driver.broken}`);
  assertEquals(driver.broken.clause, clause);
  assertThrows(() => driver.sendBytes(plainFrame(60)), VirtqueueError);
  await assertRejects(() => driver.ready(), VirtqueueError);
  await driver.close();
  assertEquals(dma.available, RIG_MEMORY);
  const again = await openRig(new PuppetDevice(MERGE));
  again.device.receive(plainFrame(60));
  await turns();
  assertEquals(again.got.length, 1);
  await again.driver.close();
}

const FORGERIES: readonly (readonly [name: string, entries: [number, number][], ahead?: number])[] =
  [
    ["an id that is beyond the queue", [[64, 60]]],
    ["an id of 32 bits", [[0xffff_ffff, 60]]],
    ["a buffer twice", [[3, 60], [3, 60]]],
    ["a length of one byte too many", [[0, 4097]]],
    ["a length of 4 GiB", [[0, 0xffff_ffff]]],
    ["an index beyond what is in flight", [[0, 60]], 65],
    ["an index that goes back", [], 0xffff],
  ];

for (const [name, entries, ahead] of FORGERIES) {
  Deno.test(`a hostile network device: it uses ${name}`, async () => {
    const rig = await openRig(new PuppetDevice(MERGE));
    // Headers that say 1 buffer, so that only the entry is wrong.
    for (let i = 0; i < 4; i++) {
      const { descriptorArea } = rig.transport.configs.get(0)!;
      rig.memory.writeU16(rig.memory.readU32(descriptorArea + 16 * i) + 10, 1);
    }
    let told = 0;
    rig.driver.onBroken = () => told++;
    forge(rig, 0, entries, ahead);
    assertEquals(told, 1);
    // It stays broken, whatever comes.
    forge(rig, 0, [[1, 60]]);
    assertEquals(told, 1);
    await isBroken(rig, "2.7.8");
  });
}

Deno.test("a hostile network device: it uses frames that were not sent", async () => {
  for (const [id, length] of [[5, 0], [0, 1], [64, 0]] as const) {
    const rig = await openRig(new PuppetDevice(MERGE));
    rig.device.holding = true;
    rig.driver.sendBytes(plainFrame(60));
    await turns();
    forge(rig, 1, [[id, length]]);
    await isBroken(rig, "2.7.8");
  }
});

Deno.test("a hostile network device: it answers commands that nobody gave", async () => {
  const rig = await openRig(new PuppetDevice(STATS));
  forge(rig, 2, [[0, 1]]);
  await isBroken(rig, "2.7.8");
  const ordered = await openRig(new PuppetDevice(STATS), {
    core: VIRTIO_F_VERSION_1 | VIRTIO_F_IN_ORDER,
  });
  forge(ordered, 2, [[1, 1]]);
  await isBroken(ordered, "2.7.8");
});

Deno.test("a hostile network device: frames without a whole header", async () => {
  for (const length of [0, 1, 11]) {
    const rig = await openRig(new PuppetDevice(MERGE));
    const chain = rig.device.takeBuffer()!;
    chain.writer.write(new Uint8Array(length));
    rig.device.use(0, chain);
    await turns();
    await isBroken(rig, "5.1.9.4");
  }
});

Deno.test("a hostile network device: num_buffers is 0, more than were used, or more than were filled", async () => {
  const cases: [number, readonly number[] | undefined][] = [
    [0, undefined],
    [2, undefined],
    [65, undefined],
    [0xffff, undefined],
    // The first is not full.
    [2, [1000, 26]],
    [2, [12, 60]],
  ];
  for (const [numBuffers, cuts] of cases) {
    const rig = await openRig(new PuppetDevice(MERGE));
    rig.device.receive(plainFrame(cuts === undefined ? 60 : cuts[0]! + cuts[1]! - 12), {
      numBuffers,
      ...(cuts === undefined ? {} : { cuts }),
    });
    await turns();
    assertEquals(rig.got, []);
    await isBroken(rig, "5.1.9.4.1");
  }
});

Deno.test("a hostile network device: without merged buffers num_buffers means nothing", async () => {
  const rig = await openRig(new PuppetDevice(0n));
  for (const numBuffers of [0, 1, 2, 0xffff]) rig.device.receive(plainFrame(60), { numBuffers });
  await turns();
  assertEquals(rig.got.length, 4);
  await rig.driver.close();
});

Deno.test("a hostile network device: frames too short and too long are dropped, and the next one is there", async () => {
  const rig = await openRig(new PuppetDevice(ALL));
  const longest = net.MAX_FRAME_SIZE;
  for (const length of [0, 13, longest + 1, 4096 * 20, longest]) {
    const numBuffers = Math.ceil((20 + length) / 4096);
    assertEquals(
      rig.device.receive(plainFrame(Math.max(length, 14)).subarray(0, length), { numBuffers }),
      numBuffers,
    );
    await turns();
  }
  rig.device.receive(plainFrame(60));
  await turns();
  assertEquals(rig.got.map(({ length }) => length), [longest, 60]);
  assertEquals(rig.driver.receiveQueues[0]!.counters.dropped, 4);
  assertEquals(rig.driver.receiveQueues[0]!.inFlight, 64);
  assertEquals(rig.driver.broken, null);
  await rig.driver.close();
});

Deno.test("a hostile network device: it writes into buffers that it has used", async () => {
  const rig = await openRig(new PuppetDevice(MERGE));
  const { device, driver, memory } = rig;
  const { descriptorArea } = rig.transport.configs.get(0)!;
  const buffers = Array.from({ length: 64 }, (_, i) => memory.readU32(descriptorArea + 16 * i));
  let seen = 0;
  driver.onFrame = (frame) => {
    for (const buffer of buffers) memory.fill(buffer, 4096, 0xcc);
    assertEquals(frame.bytes, plainFrame(5000));
    seen++;
  };
  device.receive(plainFrame(5000), { numBuffers: 2 });
  await turns();
  assertEquals(seen, 1);
  await driver.close();
});

Deno.test("a hostile network device: hash reports that it cannot have are none", async () => {
  const device = new PuppetDevice(ALL, (view) => view.setUint32(20, 0b101, true));
  const rig = await openRig(device);
  const seen: number[][] = [];
  rig.driver.onFrame = (_, queue) => seen.push([queue.hashReport, queue.hashValue]);
  for (const hashReport of [0, 1, 2, 3, 9, 10, 33, 0xffff]) {
    device.receive(plainFrame(60), { hashReport, hashValue: 0xdead_beef });
  }
  await turns();
  const none = [0, 0];
  const value = 0xdead_beef;
  assertEquals(seen, [none, [1, value], none, [3, value], none, none, none, none]);
  await rig.driver.close();
});

Deno.test("a hostile network device: answers without ack, too short, or about something else", async () => {
  const rig = await openRig(new PuppetDevice(ALL));
  const { device, driver } = rig;
  device.answer = () => [];
  const silent = await assertRejects(() => driver.control.setGuestOffloads(0n), NetControlError);
  assertEquals(silent.ack, 255);
  device.answer = () => [0, 1, 2, 3];
  await assertRejects(() => driver.control.getQueueCoalescing(0), DriverError, "are missing");
  await assertRejects(() => driver.control.statistics(), DriverError, "are missing");
  const reply = (type: number, queue: number, size: number, bytes = size) => [
    type,
    0,
    queue,
    0,
    0,
    0,
    size & 255,
    size >> 8,
    ...new Array<number>(Math.max(0, bytes - 8)).fill(7),
  ];
  const wrong: number[][] = [
    reply(0, 0, 0),
    reply(0, 0, 7),
    reply(0, 0, 57, 56),
    reply(0, 0, 0xffff, 56),
    reply(0, 1, 56),
    reply(0, 2, 56),
    reply(16, 0, 56),
    reply(99, 0, 56),
    [0, 0, 0],
  ];
  for (const answer of wrong) {
    device.answer = ({ command }) =>
      command === 0 ? [0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0] : [0, ...answer];
    await assertRejects(() => driver.control.statistics([0]), DriverError, "about statistics");
  }
  // Shorter and longer replies than were known when this was written are none.
  device.answer = () => [0, ...reply(0, 0, 16), ...reply(1, 0, 48)];
  const [found] = await driver.control.statistics([0]);
  assertEquals(Object.keys(found!.counters).length, 1 + 4);
  assertEquals(driver.broken, null);
  await driver.close();
  assertEquals(rig.dma.available, RIG_MEMORY);
});

Deno.test("a hostile network device: a configuration that cannot be", async () => {
  const cases: [bigint, (view: DataView) => void, string][] = [
    [ALL, (view) => view.setUint16(8, 0, true), "max_virtqueue_pairs"],
    [ALL, (view) => view.setUint16(8, 0x8001, true), "max_virtqueue_pairs"],
    [ALL, (view) => view.setUint16(10, 67, true), "mtu"],
    [ALL, (view) => view.setUint16(8, 100, true), "no queue 200"],
  ];
  for (const [features, setUp, message] of cases) {
    await assertRejects(() => openRig(new PuppetDevice(features, setUp)), DriverError, message);
  }
  // Later, it costs the device.
  const rig = await openRig(new PuppetDevice(ALL));
  rig.device.change((view) => view.setUint16(10, 3, true));
  await turns();
  assert(rig.driver.broken instanceof DriverError);
  await rig.driver.close();
});

Deno.test("a hostile network device: it asks to be announced for ever", async () => {
  const device = new PuppetDevice(ALL, (view) => view.setUint16(6, 3, true));
  const rig = await openRig(device);
  await turns(50);
  const acks = () => device.commands.filter(({ kind }) => kind === 3).length;
  assertEquals([acks(), device.sent.length], [1, 1]);
  device.answer = () => [1];
  device.change((view) => view.setUint16(6, 2, true));
  await turns(50);
  assertEquals([acks(), device.sent.length], [2, 2]);
  await rig.driver.close();
});

Deno.test("a hostile network device: it asks for a reset", async () => {
  const rig = await openRig(new PuppetDevice(STATS));
  rig.device.answer = () => "hold";
  const command = rig.driver.control.statistics();
  await turns();
  rig.transport.state.fail("enough");
  await assertRejects(() => command, DriverError, "asks for a reset");
  assert(rig.driver.broken instanceof DriverError);
  await rig.driver.close();
  assertEquals(rig.dma.available, RIG_MEMORY);
});

Deno.test("a hostile network device: any header, any length, any number of buffers", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.boolean(),
      fc.boolean(),
      fc.array(
        fc.record({
          header: fc.uint8Array({ minLength: 20, maxLength: 20 }),
          length: fc.integer({ min: 0, max: 9000 }),
          type: fc.constantFrom(0x0800, 0x86dd, 0x8100, 0x88b5),
          tame: fc.boolean(),
        }),
        { maxLength: 12 },
      ),
      async (merge, finished, frames) => {
        const features = merge ? ALL : ALL & ~MERGE;
        const rig = await openRig(new PuppetDevice(features), { finished });
        for (const { header, length, type, tame } of frames) {
          const bytes = plainFrame(Math.max(length, 16), header[0]);
          bytes[12] = type >> 8;
          bytes[13] = type & 255;
          bytes[14] = type === 0x0800 ? 0x45 : 0x60;
          const view = new DataView(header.buffer);
          rig.device.receive(bytes.subarray(0, length), {
            flags: header[0]! & (tame ? 3 : 255),
            gsoType: tame ? [0, 1, 4, 5, 3, 0x81][header[1]! % 6]! : header[1]!,
            hdrLen: view.getUint16(2),
            gsoSize: view.getUint16(4),
            csumStart: tame ? header[6]! % 60 : view.getUint16(6),
            csumOffset: tame ? [6, 16, 2][header[8]! % 3]! : view.getUint16(8),
            numBuffers: tame ? Math.ceil((20 + length) / 4096) : header[10]! % 4,
            hashReport: header[16]!,
          });
          await turns(3);
          if (rig.driver.broken !== null) break;
        }
        for (const each of rig.got) assert(each.length >= 14 && each.length <= net.MAX_FRAME_SIZE);
        if (rig.driver.broken !== null) {
          assert(rig.driver.broken instanceof VirtqueueError);
          assert(merge, "without merged buffers there is nothing to lie about");
        }
        await rig.driver.close();
        assertEquals(rig.dma.available, RIG_MEMORY);
      },
    ),
    { numRuns: 60, seed: 4 },
  );
});
