import type { Queue, QueueState } from "@virtio/vring";
import type { Crew } from "./crew.ts";
import type { DeviceWorker } from "./device_worker.ts";

/** What replacing needs of the device, beside its workers. */
export interface Replaceable {
  /** See `Device.stopQueue`. */
  stopQueue(index: number): Queue | Promise<Queue>;
  /** See `Device.save`. */
  save(): unknown;
  /** See `Device.restore`. */
  restore(saved: unknown): void;
  /** Starts all workers. */
  begin(): void;
}

/**
 * Puts new code in all workers' place while the guest runs.
 *
 * @throws {TypeError} If the new device is not like the old one; the old one goes on then.
 */
export async function replaceAll(
  crew: Crew,
  device: Replaceable,
  source?: URL | string,
  data?: unknown,
): Promise<void> {
  const old = crew.workers;
  const fresh = old.map(() => crew.spawn(source, data));
  try {
    const [description] = await Promise.all(fresh.map((worker) => worker.ready));
    crew.checkLike(description!);
  } catch (error) {
    for (const worker of fresh) worker.end();
    throw error;
  }
  const handOver = (): void => {
    crew.workers = fresh;
    for (const worker of old) worker.end();
  };
  const { activation } = crew;
  if (activation === null) return handOver();
  const states = await takeBack(crew, device, old);
  // Reset meanwhile: nothing to hand over.
  if (crew.activation !== activation) return handOver();
  const saved = device.save();
  for (const worker of old) if (!worker.dead) worker.call("stop");
  crew.activation = null;
  handOver();
  crew.callAll("accepts", activation.features);
  // After that: a block device's cache mode is what it saved, not what it has at first.
  if (saved !== null) device.restore(saved);
  crew.start(activation);
  device.begin();
  for (const [index, state] of states) {
    crew.startQueue(index, state);
    crew.of(index).link.kick(index);
  }
}

/** Stops all queues that the old workers have. */
async function takeBack(
  crew: Crew,
  device: Replaceable,
  old: readonly DeviceWorker[],
): Promise<Map<number, QueueState>> {
  const states = new Map<number, QueueState>();
  for (let index = 0; index < crew.description.queueSizes.length; index++) {
    if (old[index % old.length]!.call("has", index) !== true) continue;
    const stopped = await device.stopQueue(index);
    states.set(index, stopped.snapshot());
  }
  return states;
}
