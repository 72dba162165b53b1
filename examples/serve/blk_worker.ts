/** A disk in a worker of serve:blk: it waits for kicks itself, and interrupts the driver itself. */
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { serveVhostUser } from "@virtio/vhost-user/worker";
import { type BlkWorkerData, COUNTED } from "./counted.ts";
import { Meter } from "./meter.ts";

type Numbers = [number, number, number, number, number, number, number];

let backend: LinuxBackend | null = null;

serveVhostUser(({ path, id, queues, options, counted }: BlkWorkerData, index) => {
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
  const numbers = new Float64Array(counted, 8 * COUNTED * index, COUNTED);
  // Of a worker that died in this one's place.
  const [requests, read, written, spent, flushes, discards, errors] = [...numbers] as Numbers;
  const { stats } = device;
  new Meter(device, (time) => {
    numbers[0] = requests + stats.requests;
    numbers[1] = read + stats.bytesRead;
    numbers[2] = written + stats.bytesWritten;
    numbers[3] = spent + time;
    numbers[4] = flushes + stats.flushes;
    numbers[5] = discards + stats.discards;
    numbers[6] = errors + stats.errors;
  });
  return device;
}, { events: false, close: () => backend?.close() });
