/** A disk in a worker of serve:blk: it waits for kicks itself, and interrupts the driver itself. */
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { serveVhostUser } from "@virtio/vhost-user/worker";
import { type BlkWorkerData, COUNTED } from "./counted.ts";
import { Meter } from "./meter.ts";

let backend: LinuxBackend | null = null;

serveVhostUser(({ path, id, queues, options, counted }: BlkWorkerData) => {
  // The thread that made this worker holds the lock of the image, and there may be several workers.
  backend = LinuxBackend.open(path, { ...options, lock: false });
  const { blockSize } = backend;
  const device = new BlkDevice({
    backend,
    id,
    queues,
    blockSize,
    readonly: options.readonly ?? false,
  });
  const index = Atomics.add(new Int32Array(counted), 0, 1);
  const numbers = new Float64Array(counted, 8 + 8 * COUNTED * index, COUNTED);
  const { stats } = device;
  new Meter(device, (time) => {
    numbers[0] = stats.requests;
    numbers[1] = stats.bytesRead;
    numbers[2] = stats.bytesWritten;
    numbers[3] = time;
    numbers[4] = stats.flushes;
    numbers[5] = stats.discards;
    numbers[6] = stats.errors;
  });
  return device;
}, { events: false, close: () => backend?.close() });
