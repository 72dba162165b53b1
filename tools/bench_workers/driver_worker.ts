/** The driver of bench:workers: rings of our own, before a device in another worker; both threads are not the main one. */
import { VIRTIO_BLK_F_MQ } from "@virtio/blk";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { WorkerDevice } from "@virtio/worker";

/** Who works. */
export interface Setup {
  /** Requests in flight in each queue. */
  readonly depth: number;
  /** Microseconds that both sides look before they sleep. */
  readonly spin: number;
  readonly queues: number;
  readonly workers: number;
}

/** What the main thread asks for. */
export type Order =
  /** A setup, by which it is called from now on. */
  | { readonly open: string; readonly setup: Setup }
  /** Work. */
  | { readonly run: string; readonly requests: number }
  /** The end of all. */
  | { readonly close: true };

/** What came of it. */
export interface Measured {
  readonly nanoseconds: number;
  readonly notifications: number;
}

const SPACE = 0x40_0000;
/** Milliseconds of a sleep, and how many may be in vain one after the other before a request counts as lost. */
const SLEEP = 50;
const MOST_VAIN = 200;

/** One queue with its requests. */
class Lane {
  readonly #driver: DriverQueue;
  readonly #lists: readonly BufferList[];
  #left = 0;
  #issued = 0;
  #inFlight = 0;

  constructor(driver: DriverQueue, lists: readonly BufferList[]) {
    this.#driver = driver;
    this.#lists = lists;
  }

  begin(requests: number): void {
    this.#left = requests;
  }

  get over(): boolean {
    return this.#left === 0 && this.#inFlight === 0;
  }

  /** Makes requests available. @returns Whether the device wants to be told. */
  fill(): boolean {
    const lists = this.#lists;
    while (this.#left > 0 && this.#inFlight < lists.length) {
      const token = this.#issued++ % lists.length;
      if (!this.#driver.add(lists[token]!, token)) break;
      this.#left--;
      this.#inFlight++;
    }
    return this.#driver.publish();
  }

  /** Takes what is used. @returns Whether there was anything. */
  take(): boolean {
    const before = this.#inFlight;
    while (this.#driver.take() >= 0) this.#inFlight--;
    return this.#inFlight < before || this.#driver.enableInterrupts();
  }
}

/** A device in workers with its driver. */
class Rig {
  readonly #device: WorkerDevice;
  readonly #lanes: readonly Lane[];
  #failure: unknown = null;

  private constructor(device: WorkerDevice, { queues, depth }: Setup) {
    this.#device = device;
    const memory = GuestMemory.allocate(queues * SPACE);
    const features = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | (queues > 1 ? VIRTIO_BLK_F_MQ : 0n);
    device.accepts(features);
    device.start({
      memory,
      features,
      interrupt: { queue: () => {}, config: () => {} },
      fail: (error) => this.#failure = error,
    });
    this.#lanes = Array.from({ length: queues }, (_, index) => {
      const base = index * SPACE;
      const config = {
        size: 256,
        descriptorArea: base + 0x1_0000,
        driverArea: base + 0x2_0000,
        deviceArea: base + 0x3_0000,
      };
      const driver = openDriverQueue(memory, config, features);
      device.startQueue(index, openQueue(memory, config, features));
      const lists = Array.from({ length: depth }, (_, i) => {
        memory.writeU32(base + 0x4_0000 + 64 * i + 8, 8 * (i % 64));
        return new BufferList()
          .readable(base + 0x4_0000 + 64 * i, 16)
          .writable(base + 0x10_0000 + 4096 * i, 4096)
          .writable(base + 0x8_0000 + 64 * i, 1);
      });
      return new Lane(driver, lists);
    });
  }

  static async open(setup: Setup): Promise<Rig> {
    const { workers, queues, spin } = setup;
    const module = new URL(`./device_worker.ts?spin=${spin}`, import.meta.url);
    const device = new WorkerDevice(module, { data: { queues }, workers, spin });
    await device.ready;
    return new Rig(device, setup);
  }

  run(requests: number): Measured {
    const device = this.#device;
    const before = device.notifications;
    const start = performance.now();
    for (const lane of this.#lanes) lane.begin(requests / this.#lanes.length);
    this.#work();
    const nanoseconds = (performance.now() - start) * 1e6;
    return { nanoseconds, notifications: device.notifications - before };
  }

  #work(): void {
    const device = this.#device;
    const lanes = this.#lanes;
    const kicks = lanes.map(() => false);
    let vain = 0;
    for (;;) {
      let any = false;
      let over = true;
      // All queues are filled before the device is told of the first: where it shares a processor with us, it would only be
      // woken for a part.
      for (let index = 0; index < lanes.length; index++) kicks[index] = lanes[index]!.fill();
      for (let index = 0; index < lanes.length; index++) if (kicks[index]) device.notify(index);
      for (const lane of lanes) {
        if (lane.take()) any = true;
        if (!lane.over) over = false;
      }
      if (this.#failure !== null) throw this.#failure;
      if (over) return;
      if (any || device.wait(SLEEP)) vain = 0;
      else if (++vain > MOST_VAIN) throw new Error("A request was lost");
    }
  }

  close(): void {
    this.#device.close();
  }
}

const rigs = new Map<string, Rig>();

async function obey(order: Order): Promise<Measured | null> {
  if ("open" in order) {
    rigs.set(order.open, await Rig.open(order.setup));
    return null;
  }
  if ("run" in order) return rigs.get(order.run)!.run(order.requests);
  for (const rig of rigs.values()) rig.close();
  rigs.clear();
  return null;
}

self.addEventListener("message", (event) => {
  const port = self as unknown as { postMessage(message: unknown): void };
  obey((event as MessageEvent<Order>).data).then(
    (measured) => port.postMessage({ measured }),
    (error) => port.postMessage({ error: String(error) }),
  );
});
