/** A block device over an image, in a worker: `serveDevice` is all that it takes. */
import { BlkDevice, type BlkStats } from "@virtio/blk";
import { FileBackend } from "@virtio/blk/file";
import { serveDevice } from "@virtio/worker/serve";

/** Which disk it is. */
export interface BlkWorkerData {
  readonly path: string;
  readonly id: string;
  readonly queues: number;
  readonly readonly: boolean;
}

/** What it counts. */
export type BlkWorkerReport = { readonly [name in keyof BlkStats]: number };

let stats: BlkStats | null = null;

serveDevice(({ path, id, queues, readonly }: BlkWorkerData) => {
  // Whoever made this worker holds the lock of the image, and there may be several workers.
  const backend = FileBackend.open(path, { readonly, lock: false });
  const device = new BlkDevice({ backend, id, queues, readonly });
  stats = device.stats;
  return device;
}, {
  // The back end answers at once, and nothing else happens in here.
  events: false,
  repeatable: true,
  report: (): BlkWorkerReport => ({ ...stats! }),
});
