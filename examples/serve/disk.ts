/** The disk of serve:blk. */
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { Meter } from "./meter.ts";
import type { BlkOptions } from "./options.ts";
import { offerOf, type Open } from "./server.ts";

/** What a guest shows as the disk's serial. */
export const DISK_ID = "virtio-ts";

/** Opens the image and makes the device. @throws {ImageError} If the image cannot be a disk. */
export function openDisk(options: BlkOptions): Open {
  const { image, create, readonly, queues, engine, direct } = options;
  const backend = LinuxBackend.open(image, {
    readonly,
    engine,
    direct,
    ...(create === null ? {} : { create: true, size: create }),
  });
  const device = new BlkDevice({
    backend,
    id: DISK_ID,
    queues,
    readonly,
    blockSize: backend.blockSize,
  });
  const meter = new Meter(device);
  const { stats } = device;
  return {
    offers: [
      offerOf(options.sockets[0]!, device, () => ({
        requests: stats.requests,
        bytesRead: stats.bytesRead,
        bytesWritten: stats.bytesWritten,
        time: meter.time,
        more: { flushes: stats.flushes, discards: stats.discards, errors: stats.errors },
      })),
    ],
    what: `${image} (${backend.engineName}${direct ? ", direct" : ""}${
      readonly ? ", read-only" : ""
    })`,
    close: async () => {
      if (!readonly) await backend.flush();
      await backend.close();
    },
  };
}
