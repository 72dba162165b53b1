import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { plainFrame, turns } from "../testing.ts";
import { openRig, PuppetDevice } from "./testing.ts";

Deno.test("a full queue says so, and tells who waits when there is room again", async () => {
  for (const core of [VIRTIO_F_VERSION_1, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX]) {
    const device = new PuppetDevice(0n, () => {}, { size: 32 });
    const { driver, transport } = await openRig(device, { core, transmitMemory: 32 * 4096 });
    device.holding = true;
    let sent = 0;
    while (driver.sendBytes(plainFrame(60, sent))) sent++;
    assertEquals(sent, 32);
    let ready = 0;
    const waiting = [driver.ready().then(() => ready++), driver.ready().then(() => ready++)];
    await turns();
    assertEquals([ready, transport.queueInterrupts], [0, 0]);
    device.release();
    await Promise.all(waiting);
    assertEquals(ready, 2);
    assert(driver.sendBytes(plainFrame(60)));
    await turns();
    const interrupts = transport.queueInterrupts;
    // Nobody waits: no interrupts.
    for (let i = 0; i < 20; i++) {
      driver.sendBytes(plainFrame(60));
      await turns();
    }
    assertEquals(transport.queueInterrupts, interrupts);
    await driver.close();
  }
});

Deno.test("who waits for room learns that the driver was closed", async () => {
  const device = new PuppetDevice(0n, () => {}, { size: 32 });
  const { driver } = await openRig(device);
  device.holding = true;
  while (driver.sendBytes(plainFrame(60)));
  const waiting = assertRejects(() => driver.ready(), DriverError, "closed");
  await driver.close();
  await waiting;
  assertThrows(() => driver.sendBytes(plainFrame(60)), DriverError, "closed");
  await assertRejects(() => driver.ready(), DriverError, "closed");
});

Deno.test("a device that takes no frames is given up when somebody waits for it", async () => {
  const device = new PuppetDevice(0n, () => {}, { size: 32 });
  const { driver } = await openRig(device, { timeout: 20 });
  let told: Error | null = null;
  driver.onBroken = (reason) => told = reason;
  device.holding = true;
  while (driver.sendBytes(plainFrame(60)));
  await assertRejects(() => driver.ready(), DriverError, "took no frame");
  assertEquals(told, driver.broken);
  await driver.close();
});

Deno.test("room that comes while the driver asks for interrupts is seen", async () => {
  const device = new PuppetDevice(0n, () => {}, { size: 32 });
  const { driver, transport, memory } = await openRig(device, { core: VIRTIO_F_VERSION_1 });
  device.busy = true;
  let sent = 0;
  while (driver.sendBytes(plainFrame(60, sent))) sent++;
  await turns();
  const queue = driver.transmitQueues[0]!;
  const ask = queue.enableInterrupts.bind(queue);
  const { deviceArea } = transport.configs.get(1)!;
  queue.enableInterrupts = () => {
    // A device on another processor uses all of them right now, when it does not have to interrupt.
    for (let i = 0; i < sent; i++) {
      memory.writeU32(deviceArea + 4 + 8 * i, i);
      memory.writeU32(deviceArea + 8 + 8 * i, 0);
    }
    memory.writeU16(deviceArea + 2, sent);
    return ask();
  };
  let ready = false;
  void driver.ready().then(() => ready = true);
  await turns();
  assert(ready);
  await driver.close();
});
