/** 0 bytes of heap for a frame: from our driver through a device and back, in both ring formats. */
import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { type Frame, NetDevice } from "@virtio/net";
import { NetDriver } from "@virtio/net/driver";
import { LoopbackBackend } from "@virtio/net/loopback";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { plainFrame } from "../packages/net/testing.ts";

const POOL_SIZE = 0x80_0000;
const BATCH = 64;
/** Batches after which the driver leaves the event loop its turn; all but the last are measured. */
const BATCHES = 16;
/** Less than any object for each frame; the measurement itself takes some hundred bytes for all. */
const CLEAN = 2;

let planted: unknown = null;

/** A driver whose frames come back, all in one turn of the event loop. */
async function open(core: FeatureSet, length: number, plants = false) {
  const memory = GuestMemory.allocate(POOL_SIZE);
  const device = new NetDevice({ backend: new LoopbackBackend(), mac: "02:00:00:00:00:01" });
  const { driver: transport } = connectMmio(
    (host) => new MmioTransport(device, { memory, host, features: CORE_FEATURES }),
    { delivery: "sync" },
  );
  const driver = await NetDriver.open(transport, { dma: new DmaPool(memory, 0, POOL_SIZE), core });
  const bytes = plainFrame(length);
  let sent = 0;
  let received = 0;
  driver.onFrame = (frame: Frame) => {
    received += frame.length;
    if (plants) planted = { length: frame.length };
  };
  return {
    driver,
    get received() {
      return received;
    },
    batch() {
      for (let i = 0; i < BATCH; i++) {
        if (!driver.sendBytes(bytes)) throw new Error("no room");
      }
      sent += BATCH * length;
      driver.flush();
    },
    /** A device that has had much to do goes on in a later turn. */
    async rest() {
      const end = performance.now() + 10_000;
      do await new Promise((done) => setTimeout(done, 0)); while (
        received < sent && performance.now() < end
      );
      assertEquals(received, sent, "all of them came back");
    },
  };
}

const FORMATS: [string, FeatureSet][] = [
  ["split", VIRTIO_F_VERSION_1],
  ["packed", VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED],
  [
    "split, with what makes it fast",
    VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_IN_ORDER,
  ],
];

/** Bytes a frame: those of the cleanest of some rounds, until one is clean. */
async function bytesPerFrame(
  rig: Awaited<ReturnType<typeof open>>,
  length: number,
  patience: number,
): Promise<number> {
  let least = Infinity;
  const end = performance.now() + patience;
  // Code that is not compiled yet allocates.
  while (least > CLEAN && performance.now() < end) {
    const { received } = rig;
    const before = Deno.memoryUsage().heapUsed;
    for (let i = 1; i < BATCHES; i++) rig.batch();
    const grown = Deno.memoryUsage().heapUsed - before;
    const frames = (BATCHES - 1) * BATCH;
    assertEquals(rig.received - received, frames * length, "all of them came back");
    // Less than before: something was collected, so something was allocated.
    if (grown >= 0) least = Math.min(least, grown / frames);
    rig.batch();
    await rig.rest();
  }
  return least;
}

for (const [name, core] of FORMATS) {
  for (const length of [60, 1514]) {
    Deno.test(`a frame of ${length} bytes is sent and received without allocation: ${name}`, async () => {
      const rig = await open(core, length);
      const bytes = await bytesPerFrame(rig, length, 20_000);
      assert(bytes <= CLEAN, `${bytes} bytes a frame`);
      await rig.driver.close();
    });
  }
}

Deno.test("an object for each frame would be seen", async () => {
  const rig = await open(VIRTIO_F_VERSION_1, 60, true);
  assert(await bytesPerFrame(rig, 60, 500) > CLEAN);
  assert(planted !== null);
  await rig.driver.close();
});
