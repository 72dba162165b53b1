/** A driver that never gives its event loop a turn, as one that runs in a worker itself: all it hears, it hears by `wait`. */
import { VIRTIO_BLK_F_MQ } from "@virtio/blk";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { WorkerDevice } from "./mod.ts";
import type { DiskData } from "./testing/disk_worker.ts";

const SPACE = 0x10_0000;
const DEPTH = 16;

interface Lane {
  readonly issue: (sector: number) => void;
  readonly take: () => boolean;
  readonly arm: () => boolean;
  issued: number;
  done: number;
}

/** Starts a device in workers, with rings of our own. */
function start(device: WorkerDevice, features: bigint): { lanes: Lane[]; failures: Error[] } {
  const memory = GuestMemory.allocate(device.queueSizes.length * SPACE);
  const failures: Error[] = [];
  assert(device.accepts(features));
  device.start({
    memory,
    features,
    interrupt: { queue: () => {}, config: () => {} },
    fail: (error) => void failures.push(error as Error),
  });
  const lanes = device.queueSizes.map((_, index): Lane => {
    const base = index * SPACE;
    const config = {
      size: 64,
      descriptorArea: base + 0x1000,
      driverArea: base + 0x2000,
      deviceArea: base + 0x3000,
    };
    const driver = openDriverQueue(memory, config, features);
    device.startQueue(index, openQueue(memory, config, features));
    const lane: Lane = {
      issued: 0,
      done: 0,
      issue: (sector) => {
        const token = lane.issued++ % DEPTH;
        const at = base + 0x1_0000 + 0x1000 * token;
        memory.writeU32(at, 0);
        memory.writeU32(at + 8, sector);
        driver.add(
          new BufferList().readable(at, 16).writable(at + 0x100, 512).writable(at + 0x80, 1),
          token,
        );
        if (driver.publish()) device.notify(index);
      },
      take: () => {
        if (driver.take() < 0) return false;
        lane.done++;
        return true;
      },
      arm: () => driver.enableInterrupts(),
    };
    return lane;
  });
  return { lanes, failures };
}

const disk = (data: Partial<DiskData>, workers: number): WorkerDevice =>
  new WorkerDevice(new URL("./testing/disk_worker.ts?sleep", import.meta.url), {
    data: { bytes: new SharedArrayBuffer(1 << 16), ...data },
    workers,
  });

const FEATURES = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;

for (const workers of [1, 2, 4]) {
  Deno.test(`worker: a driver that sleeps has four queues served by ${workers} workers`, async () => {
    const device = disk({ queues: 4 }, workers);
    try {
      await device.ready;
      const { lanes, failures } = start(device, FEATURES | VIRTIO_BLK_F_MQ);
      const until = performance.now() + 30_000;
      while (lanes.some(({ done }) => done < 1000)) {
        assert(performance.now() < until, `in vain: ${lanes.map(({ done }) => done)}`);
        assertEquals(failures, []);
        let any = false;
        for (const lane of lanes) {
          while (lane.issued < 1000 && lane.issued - lane.done < DEPTH) {
            lane.issue(lane.issued % 64);
          }
          while (lane.take()) any = true;
          if (lane.arm()) any = true;
        }
        if (!any) device.wait(1000);
      }
      assertEquals(device.queueCounters.map(({ chains }) => chains), [1000, 1000, 1000, 1000]);
    } finally {
      device.close();
    }
  });
}

Deno.test("worker: a driver that sleeps hears that the device asks for a reset, from any of its workers", async () => {
  for (const queue of [1, 2]) {
    const device = disk({ queues: 4 }, 2);
    try {
      await device.ready;
      const { lanes, failures } = start(device, FEATURES);
      lanes[queue]!.issue(0);
      const until = performance.now() + 10_000;
      while (failures.length === 0 && performance.now() < until) device.wait(1000);
      assertEquals(failures.length, 1);
      assert(failures[0]!.message.includes("VIRTIO_BLK_F_MQ"), failures[0]!.message);
      device.stop();
      const again = start(device, FEATURES | VIRTIO_BLK_F_MQ);
      again.lanes[queue]!.issue(0);
      while (!again.lanes[queue]!.take() && performance.now() < until) device.wait(1000);
      assertEquals(again.lanes[queue]!.done, 1);
      assertEquals(again.failures, []);
      assertEquals(failures.length, 1);
    } finally {
      device.close();
    }
  }
});

Deno.test("worker: a driver that sleeps sees what the device changed in its configuration", async () => {
  const device = new WorkerDevice(new URL("./testing/echo_worker.ts", import.meta.url));
  try {
    await device.ready;
    start(device, VIRTIO_F_VERSION_1);
    let told = 0;
    device.config.listener = () => told++;
    const { generation } = device.config;
    for (let kick = 1; kick <= 3; kick++) {
      device.notify(1);
      const until = performance.now() + 10_000;
      while (told < kick && performance.now() < until) device.wait(1000);
      assertEquals(told, kick);
      assertEquals(device.config.read(12, 4), kick);
      assertEquals(device.config.generation, generation + kick);
    }
  } finally {
    device.close();
  }
});
