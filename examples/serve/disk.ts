/** The disk of serve:blk. */
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend, type LinuxBackendOptions } from "@virtio/blk/linux";
import { NbdBackend, type NbdTarget, parseNbdUri } from "@virtio/blk/nbd";
import { UsageError } from "../shared/arguments.ts";
import { VhostUserWorkers } from "@virtio/vhost-user";
import { DeviceId } from "@virtio/device";
import type { Figures } from "./figures.ts";
import { Meter } from "./meter.ts";
import { type BlkWorkerData, COUNTED } from "./counted.ts";
import type { BlkOptions } from "./options.ts";
import { type Offer, offerOf, type Open } from "./server.ts";

/** What a guest shows as the disk's serial. */
export const DISK_ID = "virtio-ts";

/** Opens the image and makes the device. @throws {ImageError} If the image cannot be a disk. */
export async function openDisk(options: BlkOptions): Promise<Open> {
  if (options.nbd) return await openNbd(options);
  const { image, create, readonly, engine, direct } = options;
  const opening: LinuxBackendOptions = { readonly, engine, direct };
  // Where workers do the requests, this holds the lock and makes what they wrote durable in the end.
  const backend = LinuxBackend.open(image, {
    ...opening,
    ...(create === null ? {} : { create: true, size: create }),
  });
  try {
    const offer = options.in === "process"
      ? inProcess(options, backend)
      : await inWorkers(options, opening);
    const where = options.in === "process" ? "" : `, in ${options.in}`;
    return {
      offers: [offer],
      what: `${image} (${backend.engineName}${direct ? ", direct" : ""}${
        readonly ? ", read-only" : ""
      }${where})`,
      close: async () => {
        if (!readonly) await backend.flush();
        await backend.close();
      },
    };
  } catch (error) {
    await backend.close();
    throw error;
  }
}

/** A disk on an NBD server. @throws {NbdError} If it cannot be had. */
async function openNbd(options: BlkOptions): Promise<Open> {
  const { image, readonly } = options;
  let target: NbdTarget;
  try {
    target = parseNbdUri(image);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const { address, export: name, tls } = target;
  const backend = await NbdBackend.connect(address, { export: name, tls, readonly });
  return {
    offers: [inProcess({ ...options, readonly: backend.readonly }, backend)],
    what: image,
    close: async () => {
      if (backend.canFlush && !backend.readonly) await backend.flush();
      await backend.close();
    },
  };
}

function inProcess(
  { sockets, queues, readonly }: BlkOptions,
  backend: LinuxBackend | NbdBackend,
): Offer {
  const { blockSize } = backend;
  const device = new BlkDevice({ backend, id: DISK_ID, queues, readonly, blockSize });
  const meter = new Meter(device);
  const { stats } = device;
  return offerOf(sockets[0]!, device, () => ({
    requests: stats.requests,
    bytesRead: stats.bytesRead,
    bytesWritten: stats.bytesWritten,
    time: meter.time,
    more: { flushes: stats.flushes, discards: stats.discards, errors: stats.errors },
  }));
}

async function inWorkers(options: BlkOptions, opening: LinuxBackendOptions): Promise<Offer> {
  const { queues, image, cpus } = options;
  const workers = options.in === "worker" ? 1 : queues;
  const counted = new SharedArrayBuffer(8 * COUNTED * workers);
  const data: BlkWorkerData = {
    path: await Deno.realPath(image),
    id: DISK_ID,
    queues,
    options: opening,
    counted,
  };
  const device = await VhostUserWorkers.open({
    worker: () => new Worker(import.meta.resolve("./blk_worker.ts"), { type: "module" }),
    data,
    workers,
    ...(cpus === null
      ? {}
      : { pin: Array.from({ length: workers }, (_, i) => [cpus[i % cpus.length]!]) }),
  });
  const numbers = new Float64Array(counted);
  const sum = (which: number): number => {
    let total = 0;
    for (let at = which; at < numbers.length; at += COUNTED) total += numbers[at]!;
    return total;
  };
  const figures = (): Figures => ({
    requests: sum(0),
    bytesRead: sum(1),
    bytesWritten: sum(2),
    time: sum(3),
    more: { flushes: sum(4), discards: sum(5), errors: sum(6) },
  });
  return { socket: options.sockets[0]!, type: DeviceId.block, device, figures };
}
