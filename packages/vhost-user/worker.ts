/**
 * The worker's side of a device that is served by vhost-user: it waits for kicks itself, and interrupts the driver itself.
 *
 * @module
 */
import type { Device } from "@virtio/device";
import { EventFd, pinThread } from "@virtio/linux";
import { WorkerLoop } from "./backend/worker_loop.ts";
import type { ToVhostWorker } from "./backend/worker_messages.ts";

/** How a device is served. */
export interface ServeVhostUserOptions {
  /**
   * Whether the device waits for anything but its driver and what its `pollSources` tell: timers, sockets, promises. Yes unless
   * given. With `false` the thread sleeps in the system's poll, and its event loop turns only for messages of the server.
   */
  readonly events?: boolean;
  /** Called before the worker ends, to close what is behind the device. */
  readonly close?: () => void | Promise<void>;
}

/**
 * Serves a device to the `VhostUserWorkers` that made this worker. Call it once, at the top of the worker's module.
 *
 * ```ts ignore
 * // disk_worker.ts
 * import { BlkDevice } from "@virtio/blk";
 * import { FileBackend } from "@virtio/blk/file";
 * import { serveVhostUser } from "@virtio/vhost-user/worker";
 *
 * serveVhostUser(async ({ path }: { path: string }) =>
 *   new BlkDevice({ backend: await FileBackend.open(path) })
 * );
 * ```
 *
 * @param create Makes the device from the `data` that `VhostUserWorkers` was given, and the number of the worker, from 0 on. One
 * that takes the place of one that died has its number, and must not trust what that one did for its own good order.
 */
export function serveVhostUser<T>(
  create: (data: T, index: number) => Device | Promise<Device>,
  options: ServeVhostUserOptions = {},
): void {
  const scope = globalThis as unknown as Pick<
    Worker,
    "postMessage" | "addEventListener" | "removeEventListener"
  >;
  const opened = ({ data }: MessageEvent): void => {
    const message = data as ToVhostWorker | null;
    if (message?.vhost !== "open") return;
    scope.removeEventListener("message", opened);
    const loop = new WorkerLoop(scope, message, options);
    Promise.resolve(message.data as T).then((data) => {
      if (message.pin !== null) pinThread(message.pin);
      return create(data, message.index);
    }).then(
      (device) => loop.run(device, new EventFd(message.wake)),
      (error) => scope.postMessage({ vhost: "refused", error: String(error?.message ?? error) }),
    );
  };
  scope.addEventListener("message", opened);
}
