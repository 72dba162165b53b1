/** The driver of bench:workers: rings of our own, before a device in another worker; both threads are not the main one. */
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { WorkerDevice } from "@virtio/worker";

/** What is to be measured. */
export interface Work {
  readonly requests: number;
  /** Requests in flight in each queue. */
  readonly depth: number;
  /** Whether both sides look again and again rather than sleep. */
  readonly spin: boolean;
  readonly queues: number;
  readonly workers: number;
}

/** What came of it. */
export interface Measured {
  readonly nanoseconds: number;
  readonly notifications: number;
}

const FEATURES = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
/** Milliseconds to look before going to sleep, as the worker's. */
const SPIN = 0.05;
const SPACE = 0x40_0000;

async function measure({ requests, depth, spin, queues, workers }: Work): Promise<Measured> {
  const module = new URL(`./device_worker.ts${spin ? "?spin" : ""}`, import.meta.url);
  const device = new WorkerDevice(module, { data: { queues }, workers });
  try {
    await device.ready;
    const memory = GuestMemory.allocate(queues * SPACE);
    let failure: unknown = null;
    device.accepts(FEATURES);
    device.start({
      memory,
      features: FEATURES,
      interrupt: { queue: () => {}, config: () => {} },
      fail: (error) => failure = error,
    });
    const lanes = Array.from({ length: queues }, (_, index) => {
      const base = index * SPACE;
      const config = {
        size: 256,
        descriptorArea: base + 0x1_0000,
        driverArea: base + 0x2_0000,
        deviceArea: base + 0x3_0000,
      };
      const driver = openDriverQueue(memory, config, FEATURES);
      device.startQueue(index, openQueue(memory, config, FEATURES));
      const lists = Array.from({ length: depth }, (_, i) => {
        memory.writeU32(base + 0x4_0000 + 64 * i + 8, 8 * (i % 64));
        return new BufferList()
          .readable(base + 0x4_0000 + 64 * i, 16)
          .writable(base + 0x10_0000 + 4096 * i, 4096)
          .writable(base + 0x8_0000 + 64 * i, 1);
      });
      return { driver, lists, issued: 0, done: 0 };
    });
    const each = requests / queues;
    const fill = (lane: typeof lanes[number], index: number): void => {
      const { driver, lists } = lane;
      while (driver.inFlight < depth && lane.issued < each) {
        const token = lane.issued % depth;
        if (!driver.add(lists[token]!, token)) break;
        lane.issued++;
      }
      if (driver.publish()) device.notify(index);
    };
    const take = (driver: DriverQueue): number => {
      let count = 0;
      while (driver.take() >= 0) count++;
      return count;
    };
    const before = device.notifications;
    const start = performance.now();
    let left = queues;
    while (left > 0 && failure === null) {
      let any = false;
      left = 0;
      for (let index = 0; index < queues; index++) {
        const lane = lanes[index]!;
        if (lane.done === each) continue;
        fill(lane, index);
        const count = take(lane.driver);
        lane.done += count;
        if (lane.done < each) left++;
        if (count > 0) any = true;
        else if (lane.driver.enableInterrupts()) any = true;
      }
      if (any || left === 0) continue;
      if (spin || workers > 1) {
        device.poll();
      } else {
        const until = performance.now() + SPIN;
        let told = false;
        while (!told && performance.now() < until) told = device.poll();
        if (!told) device.wait(50);
      }
    }
    const nanoseconds = (performance.now() - start) * 1e6;
    if (failure !== null) throw failure;
    return { nanoseconds, notifications: device.notifications - before };
  } finally {
    device.close();
  }
}

self.addEventListener("message", (event) => {
  const port = self as unknown as { postMessage(message: unknown): void };
  measure((event as MessageEvent<Work>).data).then(
    (measured) => port.postMessage(measured),
    (error) => port.postMessage({ error: String(error) }),
  );
});
