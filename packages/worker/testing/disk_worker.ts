/** A block device in a worker, for tests: in memory of its own, or of the test's, at once or later. */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { LaterBackend } from "../../blk/backends/later_testing.ts";
import { serveDevice } from "@virtio/worker/serve";

/** What the test says. */
export interface DiskData {
  /** The disk. */
  readonly bytes: SharedArrayBuffer;
  /** Whether the back end answers later. */
  readonly later?: boolean;
  /** Number of queues. */
  readonly queues?: number;
  /** Throws instead of making a device. */
  readonly refuse?: string;
  /** Ends itself with an uncaught error after so many milliseconds. */
  readonly dies?: number;
  /** Sleeps in its event loop. */
  readonly events?: boolean;
}

const events = !new URL(import.meta.url).searchParams.has("sleep");

serveDevice((data: DiskData) => {
  if (data.refuse !== undefined) throw new RangeError(data.refuse);
  if (data.dies !== undefined) {
    setTimeout(() => {
      throw new Error("planted");
    }, data.dies);
  }
  const memory = new MemoryBackend(new Uint8Array(data.bytes));
  return new BlkDevice({
    backend: data.later ? new LaterBackend(memory) : memory,
    id: "worker",
    queues: data.queues ?? 1,
  });
}, { events });
