/**
 * Rings, split and packed. Run by `deno bench bench/vring_bench.ts`.
 *
 * - device side: pop, header, status, push and flush, over ready descriptors: single, blk3 and ind3 (see bench/work.ts).
 *   Guards the short way of `pop`, the cursors and `push`. bench:peers compares the same with C.
 * - long way: a chain with an empty buffer, which takes the walker. Guards that the unusual stays within a few times.
 * - full round: a driver adds and publishes, the device works, the driver takes back. Guards the driver side.
 *
 * Each iteration is 100 batches of 64 requests: 6400 requests.
 */
import { GuestMemory } from "@virtio/memory";
import { openQueue, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import { OurWorld, Place, type RequestShape, serveQueue } from "./work.ts";

const BATCHES = 100;
const BATCH = 64;
const SHAPES: readonly RequestShape[] = ["single", "blk3", "ind3"];

for (const format of ["split", "packed"] as const) {
  for (const shape of SHAPES) {
    const world = new OurWorld(format, shape, 256, BATCH);
    Deno.bench(`${format}, device side, ${shape}`, {
      group: `${format}, device side`,
      baseline: shape === "single",
    }, () => {
      world.device(BATCHES);
    });
    Deno.bench(`${format}, full round, ${shape}`, {
      group: `${format}, full round`,
      baseline: shape === "single",
    }, () => {
      world.round(BATCHES);
    });
  }

  const memory = GuestMemory.allocate(Place.end);
  const config = {
    size: 256,
    descriptorArea: Place.descriptors,
    driverArea: Place.driverArea,
    deviceArea: Place.deviceArea,
  };
  const features = format === "packed" ? VIRTIO_F_RING_PACKED : 0n;
  const driver = openDriverQueue(memory, config, features);
  const device = openQueue(memory, config, features);
  const list = new BufferList();
  Deno.bench(`${format}, full round, the long way`, { group: `${format}, full round` }, () => {
    for (let n = 0; n < BATCHES; n++) {
      for (let i = 0; i < BATCH; i++) {
        list.clear().readable(Place.headers + 64 * i, 16).writable(Place.data, 0)
          .writable(Place.status + 64 * i, 1);
        driver.add(list, i);
      }
      driver.publish();
      serveQueue(device);
      device.flush();
      while (driver.take() >= 0);
    }
  });
}
