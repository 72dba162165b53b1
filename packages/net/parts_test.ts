/** Long batches of a driver that runs beside the device: it gets the first frames while the others are on their way. */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import { LoopbackBackend } from "./backends/loopback.ts";
import { NetDevice } from "./device.ts";
import { plainFrame, RawNetDriver, turns } from "./testing.ts";

const MAC = "02:00:00:00:00:01";
const RINGS: readonly (readonly [name: string, core: bigint])[] = [
  ["split", 0n],
  ["split with event index", VIRTIO_F_EVENT_IDX],
  ["packed", VIRTIO_F_RING_PACKED],
  ["packed in order", VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER],
];

/** A device whose frames come back, and its driver; `during` is called with each frame that was received. */
async function open(
  core: bigint,
  during: (driver: RawNetDriver, count: number) => void,
  polled = true,
): Promise<{ device: NetDevice; driver: RawNetDriver }> {
  let count = 0;
  const device: NetDevice = new NetDevice({
    backend: new LoopbackBackend(),
    mac: MAC,
    tap: (_frame, direction) => {
      if (direction === "received") during(driver, ++count);
    },
  });
  const driver = await RawNetDriver.open(device, { core, queueSize: 256, wanted: 1n << 5n });
  if (polled) assertEquals(device.pollSources(), []);
  return { device, driver };
}

/** Has the driver look now, as one that runs beside the device may at any time. @returns How many frames it has. */
function look(driver: RawNetDriver): number {
  driver.session.handlers!.used(0);
  return driver.used[0]!.length;
}

/** Sends frames together; each has its number in it. */
function send(driver: RawNetDriver, count: number, length = 60): void {
  for (let i = 0; i < count; i++) {
    driver.send(plainFrame(length, i), {}, { publish: i === count - 1 });
  }
}

for (const [name, core] of RINGS) {
  Deno.test(`${name}: a driver beside the device gets frames of a long batch in parts, in order`, async () => {
    const seen: number[] = [];
    const { driver } = await open(core, (driver) => seen.push(look(driver)));
    driver.postMany(0, 200, 100);
    send(driver, 200);
    // Something came before all were sent, and never more than two parts were kept back.
    assert(seen.some((used) => used > 0));
    seen.forEach((used, sent) => assert(sent - used <= 64, `${used} of ${sent}`));
    await turns(1);
    assertEquals(
      driver.frames().map(({ bytes }) => bytes),
      Array.from({ length: 200 }, (_, i) => plainFrame(60, i)),
    );
    assertEquals(driver.used[1]!.length, 200);
  });

  Deno.test(`${name}: a driver that waits for its kick gets them at the end`, async () => {
    const seen = new Set<number>();
    const { driver } = await open(core, (driver) => seen.add(look(driver)), false);
    driver.postMany(0, 200, 100);
    send(driver, 200);
    await turns(1);
    assertEquals([...seen], [0]);
    assertEquals(driver.frames().length, 200);
  });

  Deno.test(`${name}: reset while a part is published, nothing of the rest is received`, async () => {
    let last = 0;
    const { device, driver } = await open(core, (driver, count) => {
      last = count;
      if (count < 100) look(driver);
      if (count === 100) driver.transport.writeStatus(0);
    });
    driver.postMany(0, 200, 100);
    send(driver, 200);
    await turns(2);
    assertEquals(last, 100);
    assertEquals(device.stats.received[0]!.frames, 100);
    assert(driver.used[0]!.length < 100 && driver.used[0]!.length > 0);
    assertEquals(device.waiting, 0);
  });

  Deno.test(`${name}: a chain without a header in the middle of a batch: what was before it is received`, async () => {
    const { device, driver } = await open(core, () => {});
    driver.postMany(0, 100, 100);
    for (let i = 0; i < 80; i++) driver.send(plainFrame(60, i), {}, { publish: false });
    driver.add(1, [1, 2, 3], [], [], false);
    send(driver, 10);
    await turns(2);
    assert(driver.transport.needsReset);
    assertEquals(device.stats.sent[0]!.frames, 80);
    assertEquals(device.stats.received[0]!.frames, 80);
    look(driver);
    assertEquals(
      driver.frames().map(({ bytes }) => bytes),
      Array.from({ length: 80 }, (_, i) => plainFrame(60, i)),
    );
  });

  Deno.test(`${name}: buffers run out in the middle of a batch: the rest waits, and comes in order`, async () => {
    const { device, driver } = await open(core, () => {});
    driver.postMany(0, 70, 100);
    send(driver, 200);
    await turns(1);
    assertEquals([driver.used[0]!.length, device.waiting], [70, 130]);
    assertEquals(driver.used[1]!.length, 200, "what is sent is used all the same");
    driver.postMany(0, 180, 100);
    await turns(1);
    assertEquals(
      driver.frames().map(({ bytes }) => bytes),
      Array.from({ length: 200 }, (_, i) => plainFrame(60, i)),
    );
  });

  Deno.test(`${name}: a buffer too small in the middle of a batch costs that frame only`, async () => {
    const { device, driver } = await open(core, () => {});
    for (let i = 0; i < 100; i++) driver.post(0, [i === 50 ? 71 : 72], i === 99);
    send(driver, 100);
    await turns(1);
    // Without merged buffers the small one is not used up by what does not fit, and meets every frame behind.
    assertEquals(driver.frames().length, 50);
    assertEquals(device.stats.received[0]!.tooLong, 50);
  });
}
