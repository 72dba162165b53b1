import { assertEquals } from "@std/assert";
import { NetDevice } from "./device.ts";
import { VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF } from "./constants.ts";
import { plainFrame, RawNetDriver, SpyBackend, turns } from "./testing.ts";

const MAC = "02:00:00:00:00:01";

Deno.test("a frame that the driver sends reaches the back end, and one for it reaches the driver", async () => {
  const backend = new SpyBackend();
  const device = new NetDevice({ backend, mac: MAC });
  const driver = await RawNetDriver.open(device, { wanted: VIRTIO_NET_F_MAC });
  const frame = plainFrame(1514);
  driver.send(frame);
  await turns(1);
  assertEquals(backend.bytes, [frame]);
  assertEquals(driver.used[1]!.map(({ used }) => used), [0]);
  driver.post(0, [2000]);
  backend.give(frame);
  await turns(1);
  assertEquals(driver.used[0]!.map(({ used }) => used), [1526]);
  const [got] = driver.frames();
  assertEquals(got!.bytes, frame);
  assertEquals(got!.header.numBuffers, 1);
  assertEquals(driver.transport.errors, []);
});

Deno.test("a frame that is longer than a buffer goes over to the next with VIRTIO_NET_F_MRG_RXBUF", async () => {
  const backend = new SpyBackend();
  const device = new NetDevice({ backend, mac: MAC });
  const driver = await RawNetDriver.open(device, {
    wanted: VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_MAC,
  });
  const frame = plainFrame(1514);
  driver.postMany(0, 4, 512);
  backend.give(frame);
  await turns(1);
  assertEquals(driver.used[0]!.map(({ used }) => used), [512, 512, 502]);
  const [got] = driver.frames();
  assertEquals(got!.header.numBuffers, 3);
  assertEquals(got!.bytes, frame);
});
