/** Where a device of an example runs: in this thread, or in workers over the same guest memory. */
import { WorkerDevice, type WorkerDeviceOptions } from "@virtio/worker";

/** What `--in` may be. */
export const PLACES = ["process", "worker", "worker-per-queue"] as const;

/** Where a device runs. */
export type Place = typeof PLACES[number];

/** A device in workers, ready for a transport. @throws {Error} As the function that makes it there. */
export async function inWorker(module: URL, options: WorkerDeviceOptions): Promise<WorkerDevice> {
  const device = new WorkerDevice(module, options);
  try {
    await device.ready;
    return device;
  } catch (error) {
    device.close();
    throw error;
  }
}
