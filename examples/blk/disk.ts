/** The example's disk: its device in this thread, or in workers. */
import { BlkDevice, BlkStats } from "@virtio/blk";
import type { Device } from "@virtio/device";
import type { BlkWorkerData, BlkWorkerReport } from "../shared/workers/blk_worker.ts";
import { inWorker } from "../shared/workers/place.ts";
import type { Counted } from "./figures.ts";
import type { Image } from "./image.ts";
import type { Options } from "./options.ts";

const ID = "virtio-ts";

/** A disk, wherever its device runs. */
export interface Disk extends Disposable {
  /** For a transport. */
  readonly device: Device;
  /** What the device counted; once it has nothing to do. */
  counted(): Counted;
  /** The device, where it is in this thread. */
  readonly local: BlkDevice | null;
}

/** Makes the device. */
export async function openDisk(options: Options, image: Image): Promise<Disk> {
  const { queues, readonly } = options;
  if (options.in === "process") {
    const device = new BlkDevice({ backend: image.backend, id: ID, queues, readonly });
    return { device, local: device, counted: () => device, [Symbol.dispose]: () => {} };
  }
  const data: BlkWorkerData = { path: await Deno.realPath(image.path), id: ID, queues, readonly };
  const device = await inWorker(new URL("../shared/workers/blk_worker.ts", import.meta.url), {
    data,
    workers: options.in === "worker-per-queue" ? queues : 1,
    onDeath: "replace",
  });
  return {
    device,
    local: null,
    counted: () => ({
      stats: sum(device.reports() as BlkWorkerReport[]),
      queueCounters: device.queueCounters,
    }),
    [Symbol.dispose]: () => device.close(),
  };
}

function sum(reports: readonly BlkWorkerReport[]): BlkStats {
  const stats = new BlkStats();
  for (const report of reports) {
    for (const name of Object.keys(stats) as (keyof BlkStats)[]) stats[name] += report[name];
  }
  return stats;
}
