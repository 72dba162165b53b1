import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { VirtqueueError } from "@virtio/vring";
import { DmaPool } from "@virtio/vring/driver";
import * as net from "../constants.ts";
import { NetDevice } from "../device.ts";
import { Frame } from "../frame.ts";
import { verifyChecksum } from "../offload/checksum.ts";
import { FrameLayout } from "../offload/parse.ts";
import { buildFrame, pattern, viewOf } from "../offload/testing.ts";
import { BUILT } from "../settings.ts";
import { LocalTransport, plainFrame, SpyBackend, turns } from "../testing.ts";
import { NetControlError } from "./control_queue.ts";
import { NetDriver } from "./net_driver.ts";
import type { NetDriverOptions } from "./options.ts";
import { type DriverRig, openRig, PuppetDevice, RIG_MEMORY } from "./testing.ts";

const COMMANDS = net.VIRTIO_NET_F_MAC | net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_CTRL_RX |
  net.VIRTIO_NET_F_CTRL_MAC_ADDR;

Deno.test("frames of all sizes arrive as they were sent, and the memory is given back", async () => {
  const device = new PuppetDevice(0n, () => {}, { size: 32 });
  const { driver, dma } = await openRig(device, { timeout: 1000 });
  const sizes = [14, 60, 1514, 2036, 2037, 4084, 4085, 9000, 65_557];
  const frames = [0, 1, 2].flatMap((seed) => sizes.map((length) => plainFrame(length, seed)));
  for (const frame of frames) {
    while (!driver.sendBytes(frame)) await driver.ready();
    await turns();
  }
  assertEquals(device.sent.map(({ bytes }) => bytes.length), frames.map(({ length }) => length));
  device.sent.forEach(({ bytes }, i) => assertEquals(bytes, frames[i]));
  await driver.close();
  assertEquals(dma.available, RIG_MEMORY);
});

Deno.test("what is sent in one turn makes one kick", async () => {
  const { device, driver, transport } = await openRig(new PuppetDevice(0n), {
    core: VIRTIO_F_VERSION_1,
  });
  const before = transport.kicks;
  for (let i = 0; i < 5; i++) assert(driver.sendBytes(plainFrame(60, i)));
  assertEquals(device.sent.length, 0);
  await turns();
  assertEquals([device.sent.length, transport.kicks - before], [5, 1]);
  driver.sendBytes(plainFrame(60));
  driver.flush();
  assertEquals(device.sent.length, 6);
  await driver.close();
});

Deno.test("a device that leaves a command unanswered is given up, but not while it is suspended", async () => {
  const device = new PuppetDevice(COMMANDS);
  const { driver, dma } = await openRig(device, { timeout: 30 });
  device.answer = () => "hold";
  const command = driver.control.setReceiveMode("promiscuous", true);
  const suspending = driver.suspend();
  await new Promise((resolve) => setTimeout(resolve, 80));
  assertEquals(driver.broken, null);
  device.release();
  await suspending;
  await driver.resume();
  await command;
  await assertRejects(
    () => driver.control.setReceiveMode("promiscuous", false),
    DriverError,
    "said nothing",
  );
  assert(driver.broken !== null);
  await driver.close();
  assertEquals(dma.available, RIG_MEMORY);
});

Deno.test("commands are executed one after the other; one that fails does not hurt the next", async () => {
  const device = new PuppetDevice(COMMANDS);
  const { driver } = await openRig(device);
  device.answer = ({ data }) => [data[0] === 9 ? 1 : data[5] === 7 ? 3 : 0];
  device.holding = false;
  const macs = [4, 5, 7, 6].map((last) => Uint8Array.of(2, 0, 0, 0, 0, last));
  const results = await Promise.allSettled(macs.map((mac) => driver.control.setMac(mac)));
  assertEquals(results.map(({ status }) => status), [
    "fulfilled",
    "fulfilled",
    "rejected",
    "fulfilled",
  ]);
  const { reason } = results[2] as PromiseRejectedResult;
  assert(reason instanceof NetControlError);
  assertEquals(reason.ack, 3);
  assertEquals(device.commands.map(({ data }) => data[5]), [4, 5, 7, 6]);
  await driver.close();
});

Deno.test("buffers go back to the device in batches", async () => {
  const device = new PuppetDevice(net.VIRTIO_NET_F_MRG_RXBUF, () => {}, { size: 64 });
  // Without event index the device wants every kick.
  const { driver, transport, got } = await openRig(device, { core: VIRTIO_F_VERSION_1 });
  const before = transport.kicks;
  for (let i = 0; i < 60; i++) device.receive(plainFrame(60, i));
  await turns();
  assertEquals(got.length, 60);
  assert(transport.kicks - before <= 5, `${transport.kicks - before} kicks`);
  assertEquals(driver.receiveQueues[0]!.inFlight, 64);
  await driver.close();
});

/** Uses a receive buffer by hand, as a device on another processor does: from one moment to the next. */
function useNow(rig: DriverRig<PuppetDevice>, head: number, frame: Uint8Array): void {
  const { memory } = rig;
  const { descriptorArea, deviceArea } = rig.transport.configs.get(0)!;
  const buffer = memory.readU32(descriptorArea + 16 * head);
  memory.fill(buffer, 12);
  memory.write(buffer + 12, frame);
  const used = memory.readU16(deviceArea + 2);
  memory.writeU32(deviceArea + 4 + 8 * used, head);
  memory.writeU32(deviceArea + 8 + 8 * used, 12 + frame.length);
  memory.writeU16(deviceArea + 2, used + 1);
}

Deno.test("a frame that comes while another is being handled waits its turn", async () => {
  const rig = await openRig(new PuppetDevice(0n), { core: VIRTIO_F_VERSION_1 });
  const { driver, transport } = rig;
  const seen: string[] = [];
  driver.onFrame = (frame) => {
    const first = frame.view.getUint8(20);
    seen.push(`in ${first}`);
    if (seen.length === 1) {
      useNow(rig, 1, plainFrame(60, 1));
      transport.interrupts!.queue(0);
    }
    assertEquals(frame.view.getUint8(20), first);
    seen.push(`out ${first}`);
  };
  useNow(rig, 0, plainFrame(60, 0));
  transport.interrupts!.queue(0);
  const [one, two] = [0, 1].map((seed) => plainFrame(60, seed)[20]);
  assertEquals(seen, [`in ${one}`, `out ${one}`, `in ${two}`, `out ${two}`]);
  await driver.close();
});

Deno.test("a rule that is broken where frames are sent costs the device", async () => {
  const device = new PuppetDevice(0n, () => {}, { size: 32 });
  const { driver, transport, memory } = await openRig(device, { core: VIRTIO_F_VERSION_1 });
  device.busy = true;
  while (driver.sendBytes(plainFrame(60)));
  await turns();
  memory.writeU16(transport.configs.get(1)!.deviceArea + 2, 40);
  assertThrows(() => driver.sendBytes(plainFrame(60)), VirtqueueError);
  assert(driver.broken instanceof VirtqueueError);
  await driver.close();
});

Deno.test("a device that never stops sending leaves the event loop its turns", async () => {
  const device = new PuppetDevice(0n);
  const { driver } = await openRig(device);
  let frames = 0;
  let stop = false;
  driver.onFrame = () => {
    frames++;
    // As fast as it can, from another processor, as it were.
    if (!stop) {
      device.receive(plainFrame(60));
      device.receive(plainFrame(60));
    }
  };
  for (let i = 0; i < 10; i++) device.receive(plainFrame(60));
  let turnsOfLoop = 0;
  while (frames < 5000) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    assert(++turnsOfLoop < 1000);
  }
  stop = true;
  assert(turnsOfLoop > 1);
  assert(driver.broken === null);
  await driver.close();
});

Deno.test("a handler that throws does not stop the frames behind it", async () => {
  const device = new PuppetDevice(0n);
  const { driver, transport } = await openRig(device);
  let frames = 0;
  driver.onFrame = () => {
    if (frames++ === 0) throw new Error("mine");
  };
  const { interrupts } = transport;
  device.receive(plainFrame(60, 1));
  device.receive(plainFrame(60, 2));
  transport.interrupts = null;
  await turns();
  assertThrows(() => interrupts!.queue(0), Error, "mine");
  transport.interrupts = interrupts;
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(frames, 2);
  device.receive(plainFrame(60, 3));
  await turns();
  assertEquals(frames, 3);
  await driver.close();
});

Deno.test("a driver as the end of a cable: both ways, and what cannot be sent is counted", async () => {
  const device = new PuppetDevice(net.VIRTIO_NET_F_MTU | net.VIRTIO_NET_F_STATUS);
  const { driver } = await openRig(device);
  const port = driver.port();
  assertEquals([port.offloads, port.linkUp, port.maxMtu], [0, true, 1500]);
  const frames: Uint8Array[] = [];
  port.connect({ offloads: 0, deliver: (frame) => frames.push(frame.bytes.slice()) });
  device.receive(plainFrame(100));
  port.deliver(new Frame().fromBytes(plainFrame(90)));
  port.deliver(new Frame().fromBytes(plainFrame(1600)));
  await turns();
  assertEquals(frames, [plainFrame(100)]);
  assertEquals(device.sent.map(({ bytes }) => bytes), [plainFrame(90)]);
  assertEquals(port.dropped, 1);
  let changes = 0;
  port.onLinkChange = () => changes++;
  device.change((view) => view.setUint16(6, 0, true));
  await turns();
  assertEquals([changes, port.linkUp], [1, false]);
  await driver.close();
});

Deno.test("what does not fit says so: too little memory, queues that are too short", async () => {
  const merging = new PuppetDevice(net.VIRTIO_NET_F_MRG_RXBUF);
  await assertRejects(
    () => openRig(merging, { receiveBufferSize: 2 ** 20 }),
    RangeError,
    "guest memory left",
  );
  await assertRejects(
    () => openRig(new PuppetDevice(BUILT, () => {}, { size: 1 })),
    DriverError,
    "control queue has 1 entry",
  );
  // A queue of one entry carries the longest frames, in longer buffers.
  const device = new PuppetDevice(0n, () => {}, { size: 1 });
  const { driver, got } = await openRig(device);
  const frame = pattern(60_000);
  assert(driver.sendBytes(frame));
  device.receive(plainFrame(1514));
  await turns();
  assertEquals(device.sent[0]!.bytes, frame);
  assertEquals(got, [plainFrame(1514)]);
  await driver.close();
});

Deno.test("queues are reset: buffers go to the successor, frames may be lost, commands are not", async () => {
  const device = new PuppetDevice(COMMANDS, () => {}, { size: 32 });
  const { driver, dma, got } = await openRig(device);
  for (let time = 0; time < 3; time++) {
    device.busy = true;
    for (let i = 0; i < 5; i++) driver.sendBytes(plainFrame(1000, i));
    const commands = [true, false].map((on) => driver.control.setReceiveMode("promiscuous", on));
    await turns();
    device.receive(plainFrame(70, time));
    const resets = [0, 1, 2].map((index) => driver.resetQueue(index));
    assertEquals(driver.sendBytes(plainFrame(60)), false, "not now");
    device.busy = false;
    await Promise.all(resets);
    await Promise.all(commands);
    assertEquals(device.sent, [], "they are lost");
    assertEquals(driver.receiveQueues[0]!.inFlight, 32);
    assertEquals(got.at(-1), plainFrame(70, time));
    // All the memory for frames is there again.
    let room = 0;
    device.holding = true;
    while (driver.sendBytes(plainFrame(60, room))) room++;
    assertEquals(room, 32);
    await turns();
    device.release();
    device.sent.length = 0;
    device.receive(plainFrame(80, time));
    await turns();
    assertEquals(got.at(-1), plainFrame(80, time));
  }
  assertEquals(device.commands.map(({ data }) => data[0]), [1, 0, 1, 0, 1, 0]);
  await assertRejects(() => driver.resetQueue(3), RangeError);
  await driver.close();
  assertEquals(dma.available, RIG_MEMORY);
});

Deno.test("finished frames: checksums are whole, and nothing is longer than its segments", async () => {
  const { device, driver, got } = await openRig(new PuppetDevice(BUILT), { finished: true });
  const payload = pattern(2500);
  const bytes = buildFrame({ ip: 4, payload, checksum: "partial" });
  const header = { flags: 1, csumStart: 34, csumOffset: 16 };
  device.receive(bytes, { ...header, gsoType: 1, gsoSize: 1000 });
  const small = { ip: 6, transport: "udp", payload: pattern(99) } as const;
  device.receive(buildFrame({ ...small, checksum: "partial" }), {
    flags: 1,
    csumStart: 54,
    csumOffset: 6,
  });
  await turns();
  assertEquals(got.map(({ length }) => length), [1054, 1054, 554, 62 + 99]);
  assertEquals(got[3], buildFrame(small));
  for (const frame of got) {
    const view = viewOf(frame);
    assert(verifyChecksum(view, new FrameLayout().parse(view, frame.length)));
  }
  await driver.close();
});

Deno.test("frames that come while the driver asks for interrupts are not left lying", async () => {
  const rig = await openRig(new PuppetDevice(0n), { core: VIRTIO_F_VERSION_1 });
  const { driver, transport, got } = rig;
  const queue = driver.receiveQueues[0]!;
  const ask = queue.enableInterrupts.bind(queue);
  let more = 3;
  queue.enableInterrupts = () => {
    if (more-- > 0) useNow(rig, 10 + more, plainFrame(60, more));
    return ask();
  };
  transport.interrupts!.queue(0);
  assertEquals(got, [2, 1, 0].map((seed) => plainFrame(60, seed)));
  await driver.close();
});

Deno.test("frames that wait in the device come as buffers do", async () => {
  const backend = new SpyBackend();
  const device = new NetDevice({ backend, mac: "02:00:00:00:00:01" });
  for (const core of [VIRTIO_F_VERSION_1, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX]) {
    const { driver, got } = await openRig(device, { core, receiveBuffers: 8 });
    for (let i = 0; i < 50; i++) backend.give(plainFrame(60, i));
    await turns(20);
    assertEquals(got.length, 50);
    await driver.close();
  }
});

Deno.test("a driver that cannot be opened gives all memory back", async () => {
  const failures: [PuppetDevice, Partial<NetDriverOptions>][] = [
    [new PuppetDevice(net.VIRTIO_NET_F_MRG_RXBUF), { receiveBufferSize: 2 ** 20 }],
    [new PuppetDevice(BUILT, () => {}, { size: 1 }), {}],
    [new PuppetDevice(BUILT, (view) => view.setUint16(8, 0, true)), {}],
    [new PuppetDevice(BUILT, () => {}, { pairs: 2 }), { queuePairs: 2 }],
    [new PuppetDevice(BUILT & ~net.VIRTIO_NET_F_MAC), {}],
  ];
  for (const [device, options] of failures) {
    device.answer = () => [1];
    const memory = GuestMemory.allocate(RIG_MEMORY);
    const dma = new DmaPool(memory, 0, RIG_MEMORY);
    const transport = new LocalTransport(device, memory);
    await assertRejects(() => NetDriver.open(transport, { dma, ...options }));
    assertEquals(dma.available, RIG_MEMORY);
  }
});
