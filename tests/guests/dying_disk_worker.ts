/** A disk in a worker that dies a moment after it began, whatever it has in its hands. */
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { serveVhostUser } from "@virtio/vhost-user/worker";

/** What the worker is to be. */
export interface DyingDisk {
  readonly path: string;
  readonly queues: number;
  /** Milliseconds that it lives with a driver, about. */
  readonly life: number;
}

serveVhostUser(({ path, queues, life }: DyingDisk) => {
  // What a dead worker began with io_uring is waited for with its thread.
  const backend = LinuxBackend.open(path, { engine: "io_uring", lock: false });
  const device = new BlkDevice({ backend, queues });
  const notify = device.notify.bind(device);
  let alive = false;
  device.notify = (index) => {
    if (!alive) {
      alive = true;
      setTimeout(() => {
        throw new Error("Its life was over");
      }, life * (0.5 + Math.random()));
    }
    return notify(index);
  };
  return device;
});
