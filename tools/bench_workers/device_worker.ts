/** The device of bench:workers: a disk in memory. `?spin=N` looks for N microseconds before it sleeps. */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { allocateBytes } from "@virtio/memory";
import { serveDevice } from "@virtio/worker/serve";

const spin = Number(new URL(import.meta.url).searchParams.get("spin"));

serveDevice(
  ({ queues }: { queues: number }) =>
    new BlkDevice({ backend: new MemoryBackend(allocateBytes(1 << 20)), queues, queueSize: 256 }),
  { events: false, spin },
);
